//! `eppctl convert`: a document of one Endpoint Picker as the other one writes it.

mod v1_3;

use std::io::{self, Write};

use clap::Args;
use epp_core::config;
use epp_core::plugins::scorer::prefix_cache::CUTTING;
use epp_core::plugins::source::core_metrics_extractor::FORMER_NAME;
use epp_core::plugins::Dialect;
use serde::Serialize;
use serde_json::{json, Map, Value};

use crate::era::{gate_name, knows, Era, DETECTOR, FORMER_GATES};
use crate::input::{plan_of, read_document};
use crate::output::{Misuse, Output, Report, Verdict};
use crate::schema::value;

/// Rewrite a document for the other generation, with notes where its meaning does not carry.
#[derive(Args)]
#[command(after_help = "Examples:
  eppctl convert --to today examples/seed.yaml
  eppctl convert --to seed examples/today.yaml > seed.yaml

The result loads. Exit codes: 0 converted, 2 the document does not load.")]
pub struct Convert {
    /// The document.
    file: String,
    /// Whose dialect to write: Gateway API Inference Extension v1.0 (seed) or llm-d-router (today).
    #[arg(long, value_enum)]
    to: Era,
}

#[derive(Serialize)]
struct Converted {
    document: Value,
    notes: Vec<String>,
}

const PREFIX: &str = "prefix-cache-scorer";
const PRODUCER: &str = "approx-prefix-cache-producer";

/// Bytes that count as a token.
const TOKEN: u64 = 4;
/// Today's smallest block, in tokens.
const LEAST_BLOCK: u64 = 64;

impl Convert {
    /// Converts and prints.
    pub fn run(&self, output: &mut Output) -> Result<Verdict, Misuse> {
        let text = read_document(&self.file)?;
        let plan = plan_of(&self.file, &text)?;
        let node = config::parse(&text)
            .map_err(|_| Misuse::new(format!("{}: does not parse", self.file)))?;
        let mut converted = Converted {
            document: value(&node),
            notes: Vec::new(),
        };
        match (self.to, plan.dialect) {
            (Era::Today, Dialect::GieV1) => {
                converted.leave_releases();
                converted.make_todays();
            }
            (Era::Seed, dialect) => converted.make_seeds(dialect),
            (Era::Today, Dialect::LlmD) => {
                converted.leave_releases();
                converted.drop_ignored();
                converted.set("apiVersion", json!("llm-d.ai/v1alpha1"));
            }
        }
        output.print(&converted)?;
        Ok(Verdict::Fine)
    }
}

impl Converted {
    fn make_todays(&mut self) {
        self.set("apiVersion", json!("llm-d.ai/v1alpha1"));
        let mut producers: Vec<Value> = Vec::new();
        let several = self
            .plugins()
            .filter(|plugin| kind(plugin) == PREFIX)
            .count()
            > 1;
        let mut notes = Vec::new();
        for plugin in self.plugins_mut().filter(|plugin| kind(plugin) == PREFIX) {
            let name = name(plugin).to_owned();
            let own = several.then(|| format!("{name}-producer"));
            producers.push(producer(plugin, own.as_deref(), &mut notes));
            if let Some(plugin) = plugin.as_object_mut() {
                plugin.remove("parameters");
                if let Some(own) = own {
                    plugin.insert(
                        "parameters".to_owned(),
                        json!({"prefixMatchInfoProducerName": own}),
                    );
                }
            }
        }
        self.notes.extend(notes);
        if let Some(plugins) = self
            .document
            .get_mut("plugins")
            .and_then(Value::as_array_mut)
        {
            plugins.extend(producers);
        }
    }

    /// What the seed's releases up to v1.5 call otherwise than today's, or have and today's has not.
    fn leave_releases(&mut self) {
        let top = self.document.as_object_mut();
        if let Some(data) = top.and_then(|top| top.shift_remove("data")) {
            if self.document.get("dataLayer").is_none() {
                self.set("dataLayer", data);
            }
        }
        let gates = self.document.get_mut("featureGates");
        if let Some(gates) = gates.and_then(Value::as_array_mut) {
            gates.retain(|gate| {
                let gate = gate.as_str().unwrap_or_default();
                let gone = FORMER_GATES.contains(&gate_name(gate)) || gate == "flowControl";
                if gone {
                    self.notes
                        .push(format!("{gate}: the gate has no effect here; left out"));
                }
                !gone
            });
        }
        let detector = self.document.get(DETECTOR).and_then(Value::as_object);
        if detector.is_some_and(|fields| fields.keys().any(|field| field != "pluginRef")) {
            self.notes.push(format!(
                "{DETECTOR}: today's names a plugin that has the thresholds, and neither has an effect here; left out"
            ));
            if let Some(document) = self.document.as_object_mut() {
                document.shift_remove(DETECTOR);
            }
        }
        self.plugins_mut().for_each(v1_3::rename);
        rename(&mut self.document);
    }

    /// A scorer's own blocks, which are ignored beside a producer.
    fn drop_ignored(&mut self) {
        for plugin in self.plugins_mut().filter(|plugin| kind(plugin) == PREFIX) {
            let parameters = plugin.get_mut("parameters").and_then(Value::as_object_mut);
            if let Some(parameters) = parameters {
                parameters.retain(|name, _| !CUTTING.contains(&name.as_str()));
            }
        }
    }

    fn make_seeds(&mut self, dialect: Dialect) {
        self.set(
            "apiVersion",
            json!("inference.networking.x-k8s.io/v1alpha1"),
        );
        for key in [
            "featureGates",
            "flowControl",
            "requestHandler",
            "parser",
            "saturationDetector",
            "data",
        ] {
            self.drop_field(key);
        }
        let discovery = self.document.pointer("/dataLayer/discovery").cloned();
        self.drop_field("dataLayer");
        if let Some(discovery) = discovery {
            let note = "dataLayer.discovery is epp-wasm's: the seed itself refuses it";
            self.notes.push(note.to_owned());
            self.set("dataLayer", json!({"discovery": discovery}));
        }
        match dialect {
            Dialect::LlmD => self.cut_in_scorers(),
            Dialect::GieV1 => self.name_as_seed(),
        }
        let gone = self.drop_unknown();
        let profiles = self.document.get_mut("schedulingProfiles");
        let profiles = profiles.and_then(Value::as_array_mut);
        for profile in profiles.into_iter().flatten() {
            let references = profile.get_mut("plugins").and_then(Value::as_array_mut);
            let Some(references) = references else {
                continue;
            };
            references.retain(|reference| {
                let name = reference.get("pluginRef").and_then(Value::as_str);
                !gone.iter().any(|gone| Some(gone.as_str()) == name)
            });
            whole_weights(references, &mut self.notes);
        }
    }

    /// The parameters of later releases by their names of v1.0.
    fn name_as_seed(&mut self) {
        let mut notes = Vec::new();
        for plugin in self.plugins_mut().filter(|plugin| kind(plugin) == PREFIX) {
            let cut = Cut::of(plugin);
            let name = name(plugin).to_owned();
            let Some(parameters) = plugin.get_mut("parameters").and_then(Value::as_object_mut)
            else {
                continue;
            };
            let later = [
                "autoTune",
                "blockSize",
                "blockSizeTokens",
                "maxPrefixTokensToMatch",
            ];
            let gone = later.map(|name| parameters.shift_remove(name).is_some());
            if gone.contains(&true) {
                parameters.insert("hashBlockSize".to_owned(), json!(cut.bytes));
                parameters.insert(
                    "maxPrefixBlocksToMatch".to_owned(),
                    json!(cut.blocks.max(1)),
                );
            }
            if cut.tunes {
                notes.push(format!("{name}: autoTune: the seed takes nothing from what servers report; the settings hold"));
            }
        }
        self.notes.extend(notes);
    }

    /// The seed's scorers cut prompts themselves.
    fn cut_in_scorers(&mut self) {
        let producers = self.plugins().filter(|plugin| kind(plugin) == PRODUCER);
        let producers: Vec<Value> = producers.cloned().collect();
        let mut notes = Vec::new();
        for plugin in self.plugins_mut().filter(|plugin| kind(plugin) == PREFIX) {
            let wanted = plugin.pointer("/parameters/prefixMatchInfoProducerName");
            let wanted = wanted.and_then(Value::as_str);
            let fits = |producer: &&Value| wanted.is_none_or(|wanted| name(producer) == wanted);
            let parameters = blocks(producers.iter().find(fits), &mut notes);
            if plugin.pointer("/parameters/matchLengthWeight").is_some() {
                let name = name(plugin);
                notes.push(format!(
                    "{name}: the seed knows no matchLengthWeight; the score is match / total"
                ));
            }
            if let Some(plugin) = plugin.as_object_mut() {
                plugin.insert("parameters".to_owned(), parameters);
            }
        }
        self.notes.extend(notes);
    }

    /// Leaves out what the seed has nothing like; the names.
    fn drop_unknown(&mut self) -> Vec<String> {
        let mut gone = Vec::new();
        let plugins = self.document.get_mut("plugins");
        if let Some(plugins) = plugins.and_then(Value::as_array_mut) {
            plugins.retain(|plugin| {
                let keep = knows(Era::Seed, kind(plugin));
                if !keep {
                    gone.push(name(plugin).to_owned());
                }
                keep
            });
        }
        let notes = gone.iter();
        let notes = notes.map(|name| format!("{name}: the seed knows nothing like it; left out"));
        self.notes.extend(notes);
        gone
    }

    fn set(&mut self, key: &str, value: Value) {
        if let Some(top) = self.document.as_object_mut() {
            top.insert(key.to_owned(), value);
        }
    }

    fn drop_field(&mut self, key: &str) {
        let removed = self
            .document
            .as_object_mut()
            .and_then(|top| top.shift_remove(key));
        if removed.is_some() && key != "dataLayer" {
            self.notes
                .push(format!("{key}: the seed knows no such field; left out"));
        }
    }

    fn plugins(&self) -> impl Iterator<Item = &Value> {
        self.document
            .get("plugins")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
    }

    fn plugins_mut(&mut self) -> impl Iterator<Item = &mut Value> {
        self.document
            .get_mut("plugins")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
    }
}

/// How a scorer under the seed's `apiVersion` cuts prompts.
struct Cut {
    bytes: u64,
    blocks: u64,
    tunes: bool,
}

impl Cut {
    fn of(scorer: &Value) -> Self {
        let given = |parameter| number(scorer, parameter).filter(|number| *number > 0);
        let tokens = given("blockSizeTokens").map(|tokens| tokens.saturating_mul(TOKEN));
        let newer = tokens.or(given("blockSize"));
        let bytes = newer.or(given("hashBlockSize")).unwrap_or(64);
        let window = given("maxPrefixTokensToMatch");
        let blocks = match window {
            Some(window) => window.saturating_mul(TOKEN) / bytes,
            None => given("maxPrefixBlocksToMatch").unwrap_or(256),
        };
        let has = |name: &str| scorer.pointer(&format!("/parameters/{name}")).is_some();
        let later = ["blockSize", "blockSizeTokens", "maxPrefixTokensToMatch"].map(has);
        let tunes = scorer.pointer("/parameters/autoTune");
        Self {
            bytes,
            blocks,
            tunes: tunes
                .and_then(Value::as_bool)
                .unwrap_or(later.contains(&true)),
        }
    }
}

/// Types and references by the names that today's has for them.
fn rename(value: &mut Value) {
    match value {
        Value::Object(entries) => {
            for (key, entry) in entries {
                match entry.as_str() {
                    Some(FORMER_NAME) if key == "type" || key == "pluginRef" => {
                        *entry = json!("core-metrics-extractor");
                    }
                    _ => rename(entry),
                }
            }
        }
        Value::Array(entries) => entries.iter_mut().for_each(rename),
        _ => {}
    }
}

/// The producer that cuts as the seed's scorer does, as far as today's can.
fn producer(scorer: &Value, own: Option<&str>, notes: &mut Vec<String>) -> Value {
    let Cut {
        bytes,
        blocks,
        tunes,
    } = Cut::of(scorer);
    let capacity = number(scorer, "lruCapacityPerServer")
        .filter(|capacity| *capacity > 0)
        .unwrap_or(31_250);
    let asked = bytes.div_ceil(TOKEN);
    let tokens = asked.max(LEAST_BLOCK);
    let scorer = name(scorer);
    if tokens * TOKEN != bytes {
        notes.push(format!("{scorer}: blocks of {bytes} bytes become blocks of {tokens} tokens ({} bytes): today counts {TOKEN} bytes as a token, and blocks below {LEAST_BLOCK} tokens as {LEAST_BLOCK}", tokens * TOKEN));
    }
    notes.push(format!("{scorer}: today's prompts have tools and system text first, and what is hashed differs; caches begin empty"));
    let parameters = json!({
        "autoTune": tunes,
        "blockSizeTokens": tokens,
        // The same length of prompt, and the same length remembered.
        "maxPrefixTokensToMatch": (bytes * blocks).div_ceil(TOKEN).max(tokens),
        "lruCapacityPerServer": (capacity * bytes).div_ceil(tokens * TOKEN).max(1),
    });
    let mut entry = Map::new();
    if let Some(own) = own {
        entry.insert("name".to_owned(), json!(own));
    }
    entry.insert("type".to_owned(), json!(PRODUCER));
    entry.insert("parameters".to_owned(), parameters);
    Value::Object(entry)
}

/// The seed's parameters for what a producer cuts; `None` is a producer of defaults.
fn blocks(producer: Option<&Value>, notes: &mut Vec<String>) -> Value {
    let setting = |name: &str| producer.and_then(|producer| number(producer, name));
    let tokens = setting("blockSizeTokens")
        .or(setting("blockSize"))
        .unwrap_or(16)
        .max(LEAST_BLOCK);
    let window = match setting("maxPrefixTokensToMatch").unwrap_or(131_072) {
        0 => setting("maxPrefixBlocksToMatch").unwrap_or(2048),
        most => most / tokens,
    };
    let tuned = producer.and_then(|producer| producer.pointer("/parameters/autoTune"));
    if tuned != Some(&json!(false)) {
        notes.push(
            "autoTune: the seed takes nothing from what servers report; the settings hold"
                .to_owned(),
        );
    }
    json!({
        "hashBlockSize": tokens * TOKEN,
        "maxPrefixBlocksToMatch": window.max(1),
        "lruCapacityPerServer": setting("lruCapacityPerServer").unwrap_or(31_250),
    })
}

/// Weights times the power of ten that makes them whole: what is picked stays the same.
fn whole_weights(references: &mut [Value], notes: &mut Vec<String>) {
    /// Beyond, the remainder is noise.
    const MOST: f64 = 1e6;
    let weights: Vec<f64> = references
        .iter()
        .filter_map(|reference| reference.get("weight")?.as_f64())
        .collect();
    let mut factor = 1.0;
    while factor < MOST
        && weights
            .iter()
            .any(|weight| (weight * factor).fract().abs() > 1e-9)
    {
        factor *= 10.0;
    }
    if factor == 1.0 {
        return;
    }
    notes.push(format!("weights are multiplied by {factor}: the seed's are whole numbers, and only their proportion counts"));
    for reference in references {
        let weight = reference.get("weight").and_then(Value::as_f64);
        // A scorer without one weighs 1.
        let weight = (weight.unwrap_or(1.0) * factor).round();
        if let Some(reference) = reference.as_object_mut() {
            reference.insert("weight".to_owned(), json!(weight as i64));
        }
    }
}

fn kind(plugin: &Value) -> &str {
    plugin
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn name(plugin: &Value) -> &str {
    plugin
        .get("name")
        .and_then(Value::as_str)
        .unwrap_or_else(|| kind(plugin))
}

fn number(plugin: &Value, parameter: &str) -> Option<u64> {
    let given = plugin.get("parameters")?.get(parameter)?.as_f64()?;
    Some(given.max(0.0) as u64)
}

impl Report for Converted {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        for note in &self.notes {
            writeln!(out, "# {note}")?;
        }
        let text = serde_yaml::to_string(&self.document).map_err(io::Error::other)?;
        write!(out, "{text}")
    }
}
