//! Envoy refused an update.

use super::dump::sections;
use super::site::{below, text};
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "refused-update",
    finds: "a config dump whose Envoy refused the last update of a resource",
    why: "the configuration before the update is in force, or none if it was the first",
    fix: "correct the resource and send it again",
    check: |site| {
        let is_dump = site.tops().any(|(_, top)| !sections(top).is_empty());
        if !is_dump {
            return Vec::new();
        }
        let states = site
            .maps
            .iter()
            .filter_map(|(path, map)| Some((path, map, map.get("error_state")?)));
        let faults = states.map(|(path, map, state)| {
            let name = match text(map, "name") {
                "" => "a resource".to_owned(),
                name => name.to_owned(),
            };
            let reason = match below(state, &["details"]) {
                Some(_) => text(state, "details"),
                None => "no reason given",
            };
            Fault::at(
                &path.key("error_state"),
                format!("{name} was refused: {}", one_line(reason)),
            )
        });
        faults.collect()
    },
};

/// Returns the beginning of a text on one line. Envoy repeats the whole resource in some reasons.
fn one_line(text: &str) -> String {
    const MOST: usize = 300;
    let words: Vec<&str> = text.split_whitespace().collect();
    let line = words.join(" ");
    match line.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn finds_the_update_with_its_reason() {
        let dump = |state: &str| {
            let text = format!("{{configs: [{{'@type': x/v3.ListenersConfigDump, dynamic_listeners: [{{name: llm, active_state: {{}}{state}}}]}}]}}");
            crate::lint::found(&super::RULE, &text)
        };
        assert!(dump("").is_empty());
        let refused =
            dump(", error_state: {details: 'no such\n\n  plugin', failed_configuration: {}}");
        assert_eq!(
            refused,
            ["configs[0].dynamic_listeners[0].error_state: llm was refused: no such plugin"]
        );
        let long = dump(&format!(
            ", error_state: {{details: '{}'}}",
            "ü".repeat(1000)
        ));
        assert!(long[0].len() < 700 && long[0].ends_with('…'));
        // A key of the same name elsewhere.
        assert!(crate::lint::found(&super::RULE, "{error_state: {details: a}}").is_empty());
    }
}
