//! The compiled document: all that a picker needs, nothing left to look up or to default.

use std::fmt::Write;
use std::sync::Arc;

use xxhash_rust::xxh64::xxh64;

use crate::config::settings::{EarlyRelease, FailureMode, PickerSettings, ReadBody};
use crate::config::value::Node;
use crate::endpoints::poller::Cadence;
use crate::flow::{Admission, FlowControl};
use crate::plugins::producer::inflight_load::InflightLoad;
use crate::plugins::proxy::envoy_proxy::EnvoySettings;
use crate::plugins::rewrite::model_rewrite::ModelRewrite;
use crate::plugins::source::core_metrics_extractor::CoreMetricsExtractor;
use crate::plugins::source::metrics_data_source::MetricsDataSource;
use crate::plugins::{Capabilities, Dialect, Discovery, PrefixProducer};
use crate::prefix::digest::BlockSpec;
use crate::prefix::key::Key;
use crate::protocol::{FAIRNESS_ID_HEADERS, OBJECTIVE_HEADERS, OWNED_HEADERS, REWRITE_HEADERS};
use crate::request::{Flattening, ReadPlan};
use crate::scheduling::{Gate, Hook, Needs, Pool, ProducerId, Scheduler, StateSpec};
use crate::time::whole_millis;

/// A plugin with its effective parameters.
#[derive(Debug, Clone)]
pub struct Instance {
    /// Its name in the document.
    pub name: String,
    /// Its type.
    pub kind: &'static str,
    /// Its parameters, given or defaulted.
    pub parameters: Vec<(String, Node)>,
    /// Its capabilities.
    pub capabilities: Capabilities,
}

impl PartialEq for Instance {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.kind == other.kind && self.parameters == other.parameters
    }
}

/// A profile as it is in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Profiled {
    /// Its name.
    pub name: String,
    /// Its filters and scorers in order, with weights.
    pub plugins: Vec<(Arc<Instance>, f64)>,
    /// Its picker.
    pub picker: Option<Arc<Instance>>,
}

/// A document in force.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The dialect by whose rules it was read.
    pub dialect: Dialect,
    /// The data that its plugins read.
    pub needs: Needs,
    /// The profiles, ready to run.
    pub scheduler: Scheduler,
    /// How requests are admitted.
    pub admission: Admission,
    /// Flow control, if its feature gate is on.
    pub flow: Option<FlowControl>,
    /// Refuses requests that are to be served from the cache.
    pub gate: Option<Gate>,
    /// Whether the endpoints that do parts of a request for its primary one are named to that.
    pub names_helpers: bool,
    /// How prompts are cut and remembered, each under its plugin's name, by [`ProducerId`].
    pub producers: Vec<(String, PrefixProducer)>,
    /// The request headers that its plugins read, in lower case, and cookies after
    /// [`crate::scheduling::headers::COOKIE`]: see [`crate::scheduling::HeaderId`].
    pub headers: Vec<String>,
    /// The state that its plugins keep from request to request: see [`crate::scheduling::StateId`].
    pub states: Vec<StateSpec>,
    /// What its plugins do when a request is sent.
    pub hooks: Vec<Arc<dyn Hook>>,
    /// The counting of requests in flight, if a scorer reads the counts or the document requests them.
    pub load: Option<InflightLoad>,
    /// The producer whose matches say which part of a prompt costs an endpoint nothing.
    pub discounts: Option<ProducerId>,
    /// The source of the endpoints.
    pub discovery: Discovery,
    /// How metrics pages are fetched.
    pub source: MetricsDataSource,
    /// How they are read.
    pub extractor: CoreMetricsExtractor,
    /// The names under which models are requested.
    pub rewrite: ModelRewrite,
    /// Settings of the picker itself.
    pub settings: PickerSettings,
    /// The settings that only a host in Envoy needs.
    pub envoy: EnvoySettings,
    /// All plugins, declared or added by default.
    pub instances: Vec<Arc<Instance>>,
    /// The profiles, for display and comparison.
    pub profiles: Vec<Profiled>,
    /// Where decisions may differ from the Endpoint Picker's, and why, for display.
    pub approximations: Vec<String>,
}

/// Two plans are equal if they decide alike: however their documents were written.
impl PartialEq for Plan {
    fn eq(&self, other: &Self) -> bool {
        self.dialect == other.dialect
            && self.profiles == other.profiles
            && self.handling().eq(other.handling())
            && self.producers == other.producers
            && self.load == other.load
            && self.flow == other.flow
            && self.discovery == other.discovery
            && self.source == other.source
            && self.extractor == other.extractor
            && self.rewrite == other.rewrite
            && self.settings == other.settings
            && self.envoy == other.envoy
    }
}

/// The extent to which tokens are counted if prompts are not cut into blocks: as far as a prefix producer reads
/// by default, 131,072 tokens.
const COUNTED: BlockSpec = BlockSpec {
    block_bytes: 1 << 10,
    max_blocks: Some(512),
    keep_partial: false,
};

/// Returns the cluster whose requests are the pool's.
pub fn cluster_of<'p>(envoy: &'p EnvoySettings, discovery: &'p Discovery) -> &'p str {
    match (&envoy.cluster, discovery) {
        (Some(cluster), _) => cluster,
        (_, Discovery::EnvoyCluster(discovery)) => {
            discovery.names().next().unwrap_or("inference-pool")
        }
        (_, Discovery::Static(_)) => "inference-pool",
    }
}

impl Plan {
    /// Returns the types and parameters of the plugins that decide which profiles run, and which requests wait or are
    /// dropped.
    fn handling(&self) -> impl Iterator<Item = (&'static str, &[(String, Node)])> {
        let decides = |instance: &&Arc<Instance>| {
            let does = &instance.capabilities;
            let drops = does.admitter.is_some() || does.saturation_detector.is_some();
            let handles = does.profile_handler.is_some() || does.decider.is_some();
            handles || does.helper_headers || drops || does.objectives.is_some()
        };
        let deciding = self.instances.iter().filter(decides);
        deciding.map(|instance| (instance.kind, instance.parameters.as_slice()))
    }

    /// The cluster whose requests are ours.
    pub fn cluster(&self) -> &str {
        cluster_of(&self.envoy, &self.discovery)
    }

    /// Returns the cluster through which metrics pages are fetched.
    pub fn metrics_cluster(&self) -> &str {
        match self.source.cluster.as_str() {
            "" => self.cluster(),
            cluster => cluster,
        }
    }

    /// Returns the header of this name, in lower case, if only a picker may set it: a host removes a client's
    /// own.
    pub fn owned_header(&self, name: &[u8]) -> Option<&str> {
        let destination = self.settings.destination_header.as_str();
        // All of ours start like this; nearly no header of a client does.
        if !name.starts_with(b"x-") && name != destination.as_bytes() {
            return None;
        }
        let mut owned = self.owned_headers();
        owned.find(|owned| owned.as_bytes() == name)
    }

    /// Returns the headers, in lower case, that only a picker may set.
    pub fn owned_headers(&self) -> impl Iterator<Item = &str> {
        let rewrites: &[&str] = match self.settings.rewrite_header {
            true => &[],
            false => &REWRITE_HEADERS,
        };
        let objectives = &self.admission.objectives;
        let untrusted = |names: &'static [&str], trusted: bool| if trusted { &[] } else { names };
        let owned = OWNED_HEADERS.iter().chain(rewrites);
        let owned = owned.chain(untrusted(&OBJECTIVE_HEADERS, objectives.header));
        let owned = owned.chain(untrusted(&FAIRNESS_ID_HEADERS, objectives.fairness_header));
        let owned = owned.copied();
        owned.chain([self.settings.destination_header.as_str()])
    }

    /// Returns whether this plan has bodies of requests read.
    pub fn reads_bodies(&self) -> bool {
        let rewrites = !self.rewrite.is_empty() || self.admission.propagates;
        let needs = self.needs.model || self.needs.prompt || rewrites;
        needs && self.settings.read_body != ReadBody::Never
    }

    /// Returns whether the other plan is the same, the names and parameters of all plugins included.
    pub fn is_identical(&self, other: &Self) -> bool {
        self == other && self.instances == other.instances
    }

    /// Returns the plugin of this name.
    pub fn instance(&self, name: &str) -> Option<&Arc<Instance>> {
        self.instances.iter().find(|instance| instance.name == name)
    }

    /// Returns whether prompts are cut and stored as under the other plan.
    pub fn hashing_equal(&self, other: &Self) -> bool {
        self.dialect == other.dialect && self.producers == other.producers
    }

    /// Returns a fingerprint of what [`Self::hashing_equal`] compares.
    pub fn prompt_fingerprint(&self, seed: u64) -> u64 {
        let dialect = |dialect| u32::from(dialect == Dialect::LlmD);
        let mut encoded = dialect(self.dialect).to_le_bytes().to_vec();
        for (name, producer) in &self.producers {
            encoded.extend((name.len() as u32).to_le_bytes());
            encoded.extend(name.as_bytes());
            let fields = [
                dialect(producer.dialect),
                producer.block,
                u32::from(producer.auto_tune),
                producer.max_blocks.unwrap_or(0),
                producer.max_tokens.unwrap_or(0),
                producer.capacity,
            ];
            fields
                .iter()
                .for_each(|field| encoded.extend(field.to_le_bytes()));
        }
        xxh64(&encoded, seed)
    }

    /// Returns the parts of a body to read, given the caches that the servers report; blocks are digested with
    /// the key.
    pub fn read_plan(&self, pool: &Pool, key: &Key) -> ReadPlan {
        let specs = self.producers.iter();
        let specs = specs.map(|(_, producer)| producer.block_spec(pool));
        // Where no producer reads as far as tokens are counted, or media are looked for, a stream of its own does.
        let reads = |(_, producer): &(String, PrefixProducer)| producer.dialect == Dialect::LlmD;
        let counts = (self.needs.tokens || self.needs.media) && !self.producers.iter().any(reads);
        let specs = specs.chain(counts.then_some(COUNTED));
        ReadPlan {
            flattening: match self.dialect {
                Dialect::GieV1 => Flattening::GieV1,
                Dialect::LlmD => Flattening::LlmD,
            },
            blocks: specs.collect(),
            key: key.clone(),
            anchor_bytes: self.needs.anchor_bytes as usize,
            assume_absent: self.settings.early_release == EarlyRelease::AssumeAbsent,
        }
    }

    /// Returns the plan in one line, for the log and the status page.
    pub fn summary(&self) -> String {
        let mut text = match self.dialect {
            Dialect::GieV1 => "GIE v1 dialect".to_owned(),
            Dialect::LlmD => "llm-d dialect".to_owned(),
        };
        // Writing to a String cannot fail.
        for profile in &self.profiles {
            let _ = write!(text, "; profile {}:", profile.name);
            for (instance, weight) in &profile.plugins {
                let _ = write!(text, " {} × {weight},", instance.name);
            }
            let picker = profile.picker.as_ref().map_or("", |picker| &picker.name);
            let _ = write!(text, " {picker}");
        }
        let cluster = self.cluster();
        let _ = match &self.discovery {
            Discovery::Static(discovery) => {
                let listed = discovery.members.len();
                write!(text, "; {listed} endpoints listed in the configuration, behind Envoy's cluster {cluster}")
            }
            Discovery::EnvoyCluster(discovery) if discovery.names().eq([cluster]) => {
                write!(text, "; endpoints of Envoy's cluster {cluster}")
            }
            Discovery::EnvoyCluster(discovery) => {
                let members = discovery.listed();
                write!(
                    text,
                    "; endpoints of Envoy's clusters {members}, routed by {cluster}"
                )
            }
        };
        let failure = match self.settings.failure_mode {
            FailureMode::FailClose => "rejected",
            FailureMode::FailOpen => "left to Envoy's load balancing",
        };
        let Cadence { interval, longest } = self.source.cadence(self.needs.only_constants());
        let (interval, longest) = (whole_millis(interval), whole_millis(longest.max(interval)));
        let _ = match (self.needs.any_metric(), self.needs.only_constants()) {
            (false, _) => write!(text, "; no metrics are fetched"),
            (_, true) => write!(
                text,
                "; metrics every {} s (only the KV cache's size is needed)",
                longest / 1_000
            ),
            (_, false) => write!(
                text,
                "; metrics every {interval} ms, of endpoints at rest every {longest} ms"
            ),
        };
        if self.source.sglang_loads {
            text.push_str(", SGLang's from /v1/loads");
        }
        let _ = write!(text, "; requests without an endpoint are {failure}");
        if self.settings.dry_run {
            text.push_str(
                "; DRY RUN: requests are decided and counted, and left to Envoy as they are",
            );
        } else if self.flow.is_some() {
            text.push_str("; requests wait while the pool is full");
        }
        text
    }
}
