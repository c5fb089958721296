//! `eppctl convert`: rewrites a document in the other dialect, or in the newest version of its own.

mod handlers;
mod newest;
mod v1_3;

pub use newest::inline_endpoints;

use std::io::{self, Write};
use std::path::Path;

use clap::Args;
use epp_core::config;
use epp_core::plugins::Dialect;
use serde::Serialize;
use serde_json::{json, Map, Value};

use crate::dialect::{gate_name, knows, TargetDialect, DETECTOR, FORMER_GATES};
use crate::input::{plan_of, read_document};
use crate::output::{Error, ExitStatus, Output, Report};
use crate::schema::value;

/// Convert a document to the other dialect or to the newest version, with a note wherever its meaning changes.
#[derive(Args)]
#[command(after_help = "Examples:
  eppctl convert --to llm-d examples/gie.yaml
  eppctl convert --to gie examples/llm-d.yaml > gie.yaml

To llm-d is to llm-d.ai/v1, with the present names of all plugins and parameters. The file that a \
file-discovery names is written into the document: it is read where its path leads, or beside the document.

The result always loads. Exit status: 0 converted, 2 the document does not load.")]
pub struct Convert {
    /// The document, or a file that contains one; - is standard input.
    file: String,
    /// The dialect to convert to.
    #[arg(long, value_enum)]
    to: TargetDialect,
}

#[derive(Serialize)]
struct Converted {
    document: Value,
    notes: Vec<String>,
}

const PREFIX: &str = "prefix-cache-scorer";
const PRODUCER: &str = "approx-prefix-cache-producer";

/// Bytes that both dialects count as one token.
const BYTES_PER_TOKEN: u64 = 4;
/// The smallest block of the llm-d dialect, in tokens.
const MIN_BLOCK_TOKENS: u64 = 64;

impl Convert {
    /// Converts and prints.
    pub fn run(&self, output: &mut Output) -> Result<ExitStatus, Error> {
        let text = read_document(&self.file)?;
        let node = config::parse(&text)
            .map_err(|_| Error::new(format!("{}: does not parse", self.file)))?;
        let mut converted = Converted {
            document: value(&node),
            notes: Vec::new(),
        };
        let folder = Path::new(&self.file).parent().unwrap_or(Path::new("."));
        let inlined = inline_endpoints(&mut converted.document, folder, &mut converted.notes);
        let inlined = inlined.map_err(Error::new)?;
        let plan = match inlined {
            true => plan_of(&self.file, &converted.document.to_string())?,
            // The problems of a document are located in its own text.
            false => plan_of(&self.file, &text)?,
        };
        match (self.to, plan.dialect) {
            (TargetDialect::LlmD, from) => {
                converted.update_gie_releases();
                match from {
                    Dialect::GieV1 => converted.split_scorers(),
                    Dialect::LlmD => newest::move_block_settings(&mut converted.document),
                }
                newest::arrange(&mut converted.document, &mut converted.notes);
                converted.set("apiVersion", json!("llm-d.ai/v1"));
            }
            (TargetDialect::GieV1, from) => {
                newest::arrange(&mut converted.document, &mut converted.notes);
                converted.convert_to_gie(from);
            }
        }
        output.print(&converted)?;
        Ok(ExitStatus::Ok)
    }
}

impl Converted {
    /// Gives each scorer a producer that splits prompts as it does in GIE.
    fn split_scorers(&mut self) {
        let scorers = self.plugins().filter(|plugin| kind(plugin) == PREFIX);
        let several = scorers.count() > 1;
        let mut notes = Vec::new();
        let mut producers: Vec<Value> = Vec::new();
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
        let plugins = self.document.get_mut("plugins");
        if let Some(plugins) = plugins.and_then(Value::as_array_mut) {
            plugins.extend(producers);
        }
    }

    /// Renames what GIE releases up to v1.5 name differently from llm-d, and drops what llm-d lacks.
    fn update_gie_releases(&mut self) {
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
                let gone = FORMER_GATES.contains(&gate_name(gate));
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
                "{DETECTOR}: in llm-d it refers to a plugin with the thresholds; neither has an effect here; left out"
            ));
            if let Some(document) = self.document.as_object_mut() {
                document.shift_remove(DETECTOR);
            }
        }
        self.plugins_mut().for_each(v1_3::rename);
    }

    fn convert_to_gie(&mut self, from: Dialect) {
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
        let discovery = self
            .document
            .pointer("/dataLayer/discovery/endpoints")
            .cloned();
        self.drop_field("dataLayer");
        if let Some(discovery) = discovery {
            let note = "dataLayer.discovery exists in epp-wasm only: GIE v1 refuses it";
            self.notes.push(note.to_owned());
            self.set("dataLayer", json!({"discovery": discovery}));
        }
        match from {
            Dialect::LlmD => self.move_blocks_to_scorers(),
            Dialect::GieV1 => self.rename_to_v1_0(),
        }
        let gone = self.drop_unknown();
        self.keep_one_profile();
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

    /// Gives the parameters of later GIE releases their names of v1.0.
    fn rename_to_v1_0(&mut self) {
        let mut notes = Vec::new();
        for plugin in self.plugins_mut().filter(|plugin| kind(plugin) == PREFIX) {
            let blocks = BlockSettings::of(plugin);
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
                parameters.insert("hashBlockSize".to_owned(), json!(blocks.bytes));
                parameters.insert(
                    "maxPrefixBlocksToMatch".to_owned(),
                    json!(blocks.count.max(1)),
                );
            }
            if blocks.auto_tune {
                notes.push(format!("{name}: {NO_AUTO_TUNE}"));
            }
        }
        self.notes.extend(notes);
    }

    /// Moves a producer's block settings into the scorers: in GIE v1 they split prompts themselves.
    fn move_blocks_to_scorers(&mut self) {
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
                    "{name}: GIE v1 has no matchLengthWeight; the score is match / total"
                ));
            }
            if let Some(plugin) = plugin.as_object_mut() {
                plugin.insert("parameters".to_owned(), parameters);
            }
        }
        self.notes.extend(notes);
    }

    /// Keeps the profile that picks the destination: GIE v1 has no handler for several.
    fn keep_one_profile(&mut self) {
        let profiles = self.document.get_mut("schedulingProfiles");
        let Some(profiles) = profiles.and_then(Value::as_array_mut) else {
            return;
        };
        if profiles.len() < 2 {
            return;
        }
        let decodes = |profile: &Value| profile.get("name") == Some(&json!("decode"));
        let kept = profiles.iter().position(decodes).unwrap_or(0);
        let kept = profiles.swap_remove(kept);
        let name = kept.get("name").and_then(Value::as_str).unwrap_or_default();
        self.notes.push(format!(
            "schedulingProfiles: GIE v1 has no handler for several; only {name} is left"
        ));
        *profiles = vec![kept];
    }

    /// Drops plugin types that GIE v1 lacks. Returns their names.
    fn drop_unknown(&mut self) -> Vec<String> {
        let mut gone = Vec::new();
        let plugins = self.document.get_mut("plugins");
        if let Some(plugins) = plugins.and_then(Value::as_array_mut) {
            plugins.retain(|plugin| {
                let keep = knows(TargetDialect::GieV1, kind(plugin));
                if !keep {
                    gone.push(name(plugin).to_owned());
                }
                keep
            });
        }
        let notes = gone.iter();
        let notes = notes.map(|name| format!("{name}: GIE v1 has no equivalent; left out"));
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
                .push(format!("{key}: GIE v1 has no such field; left out"));
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
        plugins_of(&mut self.document)
    }
}

fn plugins_of(document: &mut Value) -> impl Iterator<Item = &mut Value> {
    let plugins = document.get_mut("plugins").and_then(Value::as_array_mut);
    plugins.into_iter().flatten()
}

/// The note on a document whose block size follows the servers' metrics.
const NO_AUTO_TUNE: &str =
    "autoTune: GIE v1 takes no block size from the servers' metrics; the configured one is used";

/// The settings with which a scorer of the GIE dialect splits prompts into blocks.
struct BlockSettings {
    bytes: u64,
    count: u64,
    auto_tune: bool,
}

impl BlockSettings {
    fn of(scorer: &Value) -> Self {
        let given = |parameter| number(scorer, parameter).filter(|number| *number > 0);
        let tokens = given("blockSizeTokens").map(|tokens| tokens.saturating_mul(BYTES_PER_TOKEN));
        let newer = tokens.or(given("blockSize"));
        let bytes = newer.or(given("hashBlockSize")).unwrap_or(64);
        let window = given("maxPrefixTokensToMatch");
        let count = match window {
            Some(window) => window.saturating_mul(BYTES_PER_TOKEN) / bytes,
            None => given("maxPrefixBlocksToMatch").unwrap_or(256),
        };
        let has = |name: &str| scorer.pointer(&format!("/parameters/{name}")).is_some();
        let later = ["blockSize", "blockSizeTokens", "maxPrefixTokensToMatch"].map(has);
        let auto_tune = scorer.pointer("/parameters/autoTune");
        Self {
            bytes,
            count,
            auto_tune: auto_tune
                .and_then(Value::as_bool)
                .unwrap_or(later.contains(&true)),
        }
    }
}

/// Returns the producer that splits prompts as a GIE scorer does, as far as llm-d allows.
fn producer(scorer: &Value, own: Option<&str>, notes: &mut Vec<String>) -> Value {
    let BlockSettings {
        bytes,
        count,
        auto_tune,
    } = BlockSettings::of(scorer);
    let capacity = number(scorer, "lruCapacityPerServer")
        .filter(|capacity| *capacity > 0)
        .unwrap_or(31_250);
    let tokens = bytes.div_ceil(BYTES_PER_TOKEN).max(MIN_BLOCK_TOKENS);
    let block = tokens * BYTES_PER_TOKEN;
    let scorer = name(scorer);
    if block != bytes {
        notes.push(format!("{scorer}: blocks of {bytes} bytes become blocks of {tokens} tokens ({block} bytes): llm-d counts {BYTES_PER_TOKEN} bytes as one token and raises blocks below {MIN_BLOCK_TOKENS} tokens to {MIN_BLOCK_TOKENS}"));
    }
    notes.push(format!("{scorer}: llm-d puts tools and system text first in a prompt, so hashes differ; the prefix index starts empty"));
    let parameters = json!({
        "autoTune": auto_tune,
        "blockSizeTokens": tokens,
        // Keeps the length of prompt that is matched, and the length that is remembered.
        "maxPrefixTokensToMatch": (bytes * count).div_ceil(BYTES_PER_TOKEN).max(tokens),
        "lruCapacityPerServer": (capacity * bytes).div_ceil(block).max(1),
    });
    let mut entry = Map::new();
    if let Some(own) = own {
        entry.insert("name".to_owned(), json!(own));
    }
    entry.insert("type".to_owned(), json!(PRODUCER));
    entry.insert("parameters".to_owned(), parameters);
    Value::Object(entry)
}

/// Returns a GIE scorer's parameters for a producer's blocks; `None` is a producer with defaults.
fn blocks(producer: Option<&Value>, notes: &mut Vec<String>) -> Value {
    let setting = |name: &str| producer.and_then(|producer| number(producer, name));
    let tokens = setting("blockSizeTokens")
        .or(setting("blockSize"))
        .unwrap_or(16)
        .max(MIN_BLOCK_TOKENS);
    let window = match setting("maxPrefixTokensToMatch").unwrap_or(131_072) {
        0 => setting("maxPrefixBlocksToMatch").unwrap_or(2048),
        window => window / tokens,
    };
    let tuned = producer.and_then(|producer| producer.pointer("/parameters/autoTune"));
    if tuned != Some(&json!(false)) {
        notes.push(NO_AUTO_TUNE.to_owned());
    }
    json!({
        "hashBlockSize": tokens * BYTES_PER_TOKEN,
        "maxPrefixBlocksToMatch": window.max(1),
        "lruCapacityPerServer": setting("lruCapacityPerServer").unwrap_or(31_250),
    })
}

/// Multiplies weights by the power of ten that makes them whole. The picks stay the same.
fn whole_weights(references: &mut [Value], notes: &mut Vec<String>) {
    /// Beyond this factor the remainder is floating-point noise.
    const MAX_FACTOR: f64 = 1e6;
    let weights: Vec<f64> = references
        .iter()
        .filter_map(|reference| reference.get("weight")?.as_f64())
        .collect();
    let mut factor = 1.0;
    while factor < MAX_FACTOR
        && weights
            .iter()
            .any(|weight| (weight * factor).fract().abs() > 1e-9)
    {
        factor *= 10.0;
    }
    if factor == 1.0 {
        return;
    }
    notes.push(format!("weights are multiplied by {factor}: GIE v1 takes whole numbers, and only their ratio matters"));
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
