//! The flags that name the metrics of model servers.

use std::collections::BTreeMap;

use epp_core::endpoints::engine::{built_in, EngineConfig};
use epp_core::endpoints::spec::MetricSpec;
use serde_json::{json, Map};

use super::apply::{Migration, Outcome};
use super::sources::Setting;
use crate::schema::value;

const EXTRACTOR: &str = "core-metrics-extractor";

/// The engine whose metrics flags name.
const CUSTOM: &str = "custom";

/// The metrics that the Endpoint Picker reads without flags, by parameter.
const DEFAULTS: [(&str, &str); 5] = [
    ("queuedRequestsSpec", "vllm:num_requests_waiting"),
    ("runningRequestsSpec", "vllm:num_requests_running"),
    ("kvUsageSpec", "vllm:kv_cache_usage_perc"),
    ("loraSpec", "vllm:lora_requests_info"),
    ("cacheInfoSpec", "vllm:cache_config_info"),
];

/// The metric flags of a run.
#[derive(Default)]
pub struct Engines<'s> {
    given: Vec<(&'static str, &'s Setting, Option<MetricSpec>)>,
    wrong: Vec<(&'s Setting, String)>,
}

impl<'s> Engines<'s> {
    /// Adds a flag.
    pub fn add(&mut self, spec: &'static str, setting: &'s Setting) {
        match MetricSpec::parse(&setting.value.to_string()) {
            Ok(parsed) => self.given.push((spec, setting, parsed)),
            Err(error) => self.wrong.push((setting, error.to_string())),
        }
    }

    /// Puts the metrics into the document: as the name of a built-in engine, or as an engine of its own.
    pub fn put(self, migration: &mut Migration<'_>) {
        for (setting, error) in &self.wrong {
            migration.note(setting, Outcome::ToDo, format!("not carried over: {error}"));
        }
        let matches = |engine: &EngineConfig| {
            let mut given = self.given.iter();
            given.all(|(name, _, spec)| reads(engine, name, spec.as_ref()))
        };
        if self.given.is_empty() {
            return;
        }
        let known = built_in().into_iter().find(matches);
        let what = match known {
            Some(known) => {
                let what = format!("{EXTRACTOR} knows the metrics of {} already", known.name);
                if known.name != "vllm" {
                    let name = json!(known.name);
                    migration.document.set(EXTRACTOR, "defaultEngine", name);
                }
                what
            }
            None if migration.document.get(EXTRACTOR, "engineConfigs").is_some() => {
                format!("{EXTRACTOR} of the document has engineConfigs already, which are in force")
            }
            None => {
                self.put_own(migration);
                format!("{EXTRACTOR}, engineConfigs: {CUSTOM}")
            }
        };
        for (_, setting, _) in &self.given {
            migration.note(setting, Outcome::Moved, what.clone());
        }
    }

    fn put_own(&self, migration: &mut Migration<'_>) {
        let mut specs: BTreeMap<&str, String> =
            DEFAULTS.map(|(name, spec)| (name, spec.to_owned())).into();
        for (name, setting, spec) in &self.given {
            match spec {
                Some(_) => specs.insert(name, setting.value.to_string()),
                // An empty name turns a metric off.
                None => specs.remove(name),
            };
        }
        let mut engine = Map::new();
        engine.insert("name".to_owned(), json!(CUSTOM));
        for (name, _) in DEFAULTS {
            if let Some(spec) = specs.get(name) {
                engine.insert(name.to_owned(), json!(spec));
            }
        }
        let document = &mut migration.document;
        document.set(EXTRACTOR, "defaultEngine", json!(CUSTOM));
        document.set(EXTRACTOR, "engineConfigs", json!([engine]));
    }
}

/// Returns whether a built-in engine reads a metric from this.
fn reads(engine: &EngineConfig, name: &str, spec: Option<&MetricSpec>) -> bool {
    let own = match name {
        "queuedRequestsSpec" => &engine.queued,
        "runningRequestsSpec" => &engine.running,
        "kvUsageSpec" if spec.is_some() && spec == engine.old_kv_usage.as_ref() => return true,
        "kvUsageSpec" => &engine.kv_usage,
        "loraSpec" => &engine.lora,
        _ => return spec == engine.cache_info.as_ref().map(|(spec, _, _)| spec),
    };
    own.as_ref() == spec
}

/// Sets the engine that a chart names.
pub fn put_default(migration: &mut Migration<'_>, setting: &Setting) {
    let name = setting.value.to_string().to_lowercase();
    if name == "vllm" {
        return migration.note(setting, Outcome::NotNeeded, "vllm is the default engine");
    }
    match built_in().iter().any(|engine| engine.name == name) {
        true => migration.parameter(EXTRACTOR, "defaultEngine", value(&setting.value), setting),
        false => migration.note(
            setting,
            Outcome::ToDo,
            format!("{EXTRACTOR} knows no engine of this name: give its metrics in engineConfigs"),
        ),
    }
}
