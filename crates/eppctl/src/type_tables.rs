//! The tables of docs/migrating.md: every plugin type of an Endpoint Picker, by how it works here.

use epp_core::config;
use epp_core::plugins::{self, PluginType, Standing};

use crate::markdown::Inserted;

/// Returns the tables.
pub fn tables() -> Vec<Inserted> {
    let table = |name: &str, rows| Inserted {
        marker: format!("<!-- eppctl reference: {name} -->"),
        rows,
    };
    vec![
        table("supported", supported()),
        table("approximated", by_reason(of_standing("approximated"))),
        table("no effect", by_reason(of_standing("no effect"))),
        table("refused", by_reason(refused())),
        table("former names", former_names()),
        crate::migrate::flag_table(),
    ]
}

/// Returns the types that work as in the Endpoint Picker, or differ on purpose, by kind.
fn supported() -> String {
    let mut text = "| kind | plugins |\n|---|---|\n".to_owned();
    for kind in plugins::KINDS {
        let types = kind.plugins.iter().map(|(plugin, _)| *plugin);
        let types = types.filter(|plugin| {
            let standing = plugin.parity.plugin;
            matches!(standing, Standing::Same | Standing::Differs(_))
        });
        let names: Vec<String> = types.map(|plugin| format!("`{}`", plugin.name)).collect();
        if !names.is_empty() {
            let title = kind.name.replace('_', " ");
            text.push_str(&format!("| {title} | {} |\n", names.join(", ")));
        }
    }
    text
}

/// A type, and what the page says of it.
type Reason = (&'static str, String);

fn of_standing(wanted: &str) -> Vec<Reason> {
    let reason = |name, standing| match standing {
        Standing::Approximated(how) if wanted == "approximated" => {
            Some((name, format!("{wanted}: {how}")))
        }
        Standing::NoEffect(why) if wanted == "no effect" => {
            Some((name, format!("{wanted}: {why}")))
        }
        _ => None,
    };
    let own = |plugin: &&'static PluginType| reason(plugin.name, plugin.parity.plugin);
    let built = plugins::TYPES.iter().filter_map(own);
    let others = config::all_elsewhere();
    let others = others.filter_map(|known| reason(known.name, known.standing()?));
    built.chain(others).collect()
}

fn refused() -> Vec<Reason> {
    let all = config::all_elsewhere();
    let refused = all.filter(|known| known.standing().is_none());
    let row = |known: &'static config::Elsewhere| (known.name, format!("refused: {}", known.why));
    refused.map(row).collect()
}

/// Returns one row per reason, with all the types that have it.
fn by_reason(types: Vec<Reason>) -> String {
    let mut rows: Vec<(String, Vec<&str>)> = Vec::new();
    for (name, reason) in types {
        match rows.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, names)) => names.push(name),
            None => rows.push((reason, vec![name])),
        }
    }
    let mut text = "| plugin of the Endpoint Picker | here |\n|---|---|\n".to_owned();
    for (reason, names) in rows {
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        text.push_str(&format!("| {} | {reason} |\n", names.join(", ")));
    }
    text
}

fn former_names() -> String {
    let mut text = "| former name | read as |\n|---|---|\n".to_owned();
    for plugin in plugins::TYPES {
        for former in plugin.former_names {
            text.push_str(&format!("| `{}` | `{}` |\n", former.name, plugin.name));
        }
    }
    text
}
