//! Puts the settings of an Endpoint Picker into a document.

use std::time::Duration;

use epp_core::config;
use epp_core::config::value::duration::parse_duration;
use epp_core::config::value::Node;
use serde::Serialize;
use serde_json::{json, Value};

use super::choose::Chosen;
use super::cluster::Cluster;
use super::document::Document;
use super::engine::Engines;
use super::release::Release;
use super::sources::{Chart, Setting, Sources};
use super::target::Target;
use crate::schema::value;

/// What became of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The user has to do something.
    ToDo,
    /// It is in the document.
    Moved,
    /// Nothing takes its place.
    NotNeeded,
}

/// A setting, and what became of it.
#[derive(Debug, Serialize)]
pub struct Line {
    /// Its name.
    pub setting: String,
    /// Its value, in short.
    pub value: String,
    /// Where it was found.
    pub place: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Where it went, or why not: one sentence without a final stop.
    pub what: String,
}

/// The clusters that the user names.
#[derive(Debug, Default)]
pub struct Clusters {
    /// Those whose members are the endpoints.
    pub pool: Vec<Cluster>,
    /// The one through which metrics are fetched.
    pub metrics: Option<String>,
}

/// The shortest interval that both Endpoint Picker and filter poll at.
const SHORTEST: Duration = Duration::from_millis(50);

const SOURCE: &str = "metrics-data-source";
const PROXY: &str = "envoy-proxy";

/// The values of the charts' own proxies.
const OWN_PROXIES: [&str; 2] = ["router.proxy.", "inferenceExtension.sidecar."];
const SERVES_NOTHING_ELSE: &str =
    ", since this proxy serves nothing else; remove it for a listener with other routes";
const DISCOVERY: &str = "envoy-cluster-discovery";

/// A document on its way.
pub struct Migration<'c> {
    /// The document.
    pub document: Document,
    /// What became of each setting.
    pub lines: Vec<Line>,
    clusters: &'c Clusters,
    is_of_chart: bool,
    chart: Option<Chart>,
    release: Option<Release>,
}

impl<'c> Migration<'c> {
    /// Puts all settings into the chosen document.
    pub fn of(chosen: &Chosen, sources: &Sources, clusters: &'c Clusters) -> Self {
        let mut migration = Self {
            document: Document(chosen.document.clone()),
            lines: Vec::new(),
            clusters,
            is_of_chart: chosen.is_of_chart,
            chart: sources.chart,
            release: sources.release(),
        };
        let own_discovery = migration.document.discovery().map(str::to_owned);
        let mut engines = Engines::default();
        for setting in sources.settings.iter().chain(&sources.objects) {
            match setting.target {
                Target::Engine(spec) => engines.add(spec, setting),
                Target::Pool | Target::Selector | Target::Ports => {
                    migration.pool(setting, own_discovery.as_deref());
                }
                Target::Document if !is_in_force(setting, chosen) => {
                    migration.not_in_force(setting)
                }
                _ => migration.put(setting),
            }
        }
        if let Some(metrics) = &clusters.metrics {
            if migration.document.get(SOURCE, "cluster").is_none() {
                migration.document.set(SOURCE, "cluster", json!(metrics));
            }
        }
        engines.put(&mut migration);
        super::objectives::put(&mut migration, sources);
        migration.proxy_by_default(sources);
        migration.put_discovery(own_discovery.is_some());
        migration.failure_mode(sources);
        migration.bodies();
        migration.unused(chosen);
        migration
    }

    /// Notes what became of a setting.
    pub fn note(&mut self, setting: &Setting, outcome: Outcome, what: impl Into<String>) {
        self.lines.push(Line {
            setting: setting.name.clone(),
            value: setting.shown(),
            place: setting.place.clone(),
            outcome,
            what: what.into(),
        });
    }

    /// Sets the chart's own failure mode, where its values name none.
    fn failure_mode(&mut self, sources: &Sources) {
        const NAME: &str = "failureMode";
        let mut settings = sources.settings.iter();
        let given = settings.any(|one| one.target == Target::Proxy(NAME));
        if given || self.document.get(PROXY, NAME).is_some() {
            return;
        }
        let mut outcome = Outcome::Moved;
        let (mode, what) = match (self.chart, self.release) {
            (Some(Chart::Router), _) => (
                "FailOpen",
                "the chart's default: envoy-proxy, failureMode: FailOpen".to_owned(),
            ),
            (Some(Chart::Gie), _) if self.document.get(PROXY, "requests").is_some() => (
                "FailClose",
                "the default of the chart's own proxy: envoy-proxy, failureMode: FailClose"
                    .to_owned(),
            ),
            (Some(Chart::Gie), Some(release)) if release >= Release(1, 4) => (
                "FailOpen",
                "the chart's default from v1.4 on: envoy-proxy, failureMode: FailOpen".to_owned(),
            ),
            (Some(Chart::Gie), Some(_)) => (
                "FailClose",
                "the chart's default before v1.4: envoy-proxy, failureMode: FailClose".to_owned(),
            ),
            (Some(Chart::Gie), None) => {
                outcome = Outcome::ToDo;
                let unknown = unknown_version(sources);
                ("FailOpen", format!("{unknown}: FailOpen from chart v1.4 on, as set on envoy-proxy below, FailClose before"))
            }
            // An InferencePool's own default is that of envoy-proxy.
            _ => return,
        };
        self.document.set(PROXY, NAME, json!(mode));
        self.lines.push(Line {
            setting: NAME.to_owned(),
            value: String::new(),
            place: String::new(),
            outcome,
            what,
        });
    }

    /// Has bodies read wherever plugins need them, as the Endpoint Picker does, if the document says nothing of it.
    fn bodies(&mut self) {
        const NAME: &str = "readBody";
        let loaded = config::load(&self.document.0.to_string());
        let reads = loaded.map_or(true, |loaded| loaded.plan.reads_bodies());
        if !reads || self.document.get(PROXY, NAME).is_some() {
            return;
        }
        self.document.set(PROXY, NAME, json!("always"));
        self.lines.push(Line {
            setting: "request bodies".to_owned(),
            value: String::new(),
            place: String::new(),
            outcome: Outcome::Moved,
            what: "the Endpoint Picker always reads them: envoy-proxy, readBody: always, which requires allow_on_headers_stop_iteration: true beside vm_config".to_owned(),
        });
    }

    /// Notes which release the Endpoint Picker is of.
    fn release(&mut self, setting: &Setting) {
        let newest = self.chart.map(Release::newest);
        let (outcome, what) = match (self.release, self.chart) {
            (None, _) => (Outcome::NotNeeded, "names no release of the chart"),
            (Some(release), _) if Some(release) > newest => (
                Outcome::ToDo,
                "newer than every release that this command knows: compare the result with the defaults of its chart",
            ),
            (Some(release), Some(Chart::Gie)) if release < Release(1, 0) && self.is_of_chart => (
                Outcome::ToDo,
                "the chart's own document was a decision tree, which no later release has: the one of v1.0 is in its place",
            ),
            _ => (Outcome::NotNeeded, "the chart's defaults are those of this release"),
        };
        self.note(setting, outcome, what);
    }

    /// Notes the documents that were found beside the one in force.
    fn unused(&mut self, chosen: &Chosen) {
        // In a chart's values that is rather a mistake than another Endpoint Picker's.
        let (outcome, what) = match chosen.is_of_chart {
            true => (Outcome::ToDo, "no pluginsConfigFile names it, so that the chart's own is in force; --document NAME selects it"),
            false => (Outcome::NotNeeded, "it is not the one in force; --document NAME selects it"),
        };
        for place in &chosen.unused {
            self.lines.push(Line {
                setting: format!("the document {place}"),
                value: String::new(),
                place: place.clone(),
                outcome,
                what: what.to_owned(),
            });
        }
    }

    fn put(&mut self, setting: &Setting) {
        use Outcome::{Moved, NotNeeded, ToDo};
        const CHARTS: &str = "the chart uses it in a document of its own, which is not in force";
        match setting.target {
            Target::Document | Target::DocumentName => {
                self.note(setting, Moved, "the document below")
            }
            Target::ChartSource(_) | Target::ChartPredictor | Target::ChartParsers
                if !self.is_of_chart =>
            {
                self.note(setting, NotNeeded, CHARTS);
            }
            Target::ChartPredictor | Target::ChartParsers => {
                self.note(setting, Moved, "the document below");
            }
            Target::Source(name) | Target::ChartSource(name) => self.source(name, setting),
            Target::Proxy(name) => self.parameter(PROXY, name, value(&setting.value), setting),
            Target::DefaultEngine => super::engine::put_default(self, setting),
            Target::OwnProxy if setting.value == Node::Bool(true) => {
                self.parameter(PROXY, "requests", json!("all"), setting);
                self.explain(SERVES_NOTHING_ELSE);
            }
            Target::OwnProxy => {
                self.note(setting, NotNeeded, "there is no other proxy here, either")
            }
            Target::FailOpen if setting.value == Node::Bool(false) => {
                self.note(setting, ToDo, "set failureMode: FailClose on envoy-proxy");
            }
            Target::FailOpen => self.note(setting, NotNeeded, "failureMode of envoy-proxy decides"),
            Target::Release => self.release(setting),
            Target::LeftOut => self.note(
                setting,
                NotNeeded,
                "left out: no value of an Endpoint Picker in any release that this command knows",
            ),
            Target::Gone(why) => self.note(setting, NotNeeded, why),
            Target::ToDo(_) if is_off(&setting.value) => self.note(setting, NotNeeded, "as here"),
            Target::ToDo(what) => self.note(setting, ToDo, what),
            Target::Unknown => self.note(
                setting,
                ToDo,
                "unknown to every release that this command knows: nothing of it is carried over",
            ),
            Target::Engine(_)
            | Target::Objectives
            | Target::Pool
            | Target::Selector
            | Target::Ports => {}
        }
    }

    /// Names the documents of values none of which is in force.
    fn not_in_force(&mut self, setting: &Setting) {
        let Node::Map(entries) = &setting.value else {
            return;
        };
        for (key, _) in entries {
            self.lines.push(Line {
                setting: format!("{}.{key}", setting.name),
                value: String::new(),
                place: setting.place.clone(),
                outcome: Outcome::NotNeeded,
                what: "not used: no pluginsConfigFile names it".to_owned(),
            });
        }
    }

    /// Takes all requests where values of the chart's own proxy do not say whether it is on: in the charts that have
    /// one it is on by default.
    fn proxy_by_default(&mut self, sources: &Sources) {
        let mut settings = sources.settings.iter();
        if settings.any(|one| one.target == Target::OwnProxy) {
            return;
        }
        let mut settings = sources.settings.iter();
        let of_proxy = settings.find(|one| {
            let mut sections = OWN_PROXIES.iter();
            sections.any(|section| one.name.starts_with(section))
        });
        if let Some(setting) = of_proxy {
            self.parameter(PROXY, "requests", json!("all"), setting);
            self.explain(SERVES_NOTHING_ELSE);
            if let Some(line) = self.lines.last_mut() {
                line.setting = "the chart's own proxy, on by default".to_owned();
                line.value = String::new();
            }
        }
    }

    /// A parameter of `metrics-data-source`.
    fn source(&mut self, name: &'static str, setting: &Setting) {
        let text = setting.value.to_string();
        match name {
            "interval" | "stalenessThreshold" => match parse_duration(&text) {
                Some(given) if given < SHORTEST => {
                    self.parameter(SOURCE, name, json!("50ms"), setting);
                    self.explain(", the shortest that the filter accepts");
                }
                Some(_) => self.parameter(SOURCE, name, json!(text), setting),
                None => self.not_understood(setting, "a duration such as 200ms"),
            },
            "port" => match text.parse::<u16>() {
                Ok(0) => self.note(
                    setting,
                    Outcome::NotNeeded,
                    "the endpoint's own port is the default",
                ),
                Ok(port) => self.reached(setting, name, json!(port), "reaches the port"),
                Err(_) => self.not_understood(setting, "a port"),
            },
            "scheme" if text == "https" => {
                self.reached(setting, name, json!(text), "does TLS to the model servers");
            }
            _ => self.parameter(SOURCE, name, json!(text), setting),
        }
    }

    /// Adds words to the last note.
    fn explain(&mut self, more: &str) {
        if let Some(line) = self.lines.last_mut() {
            line.what.push_str(more);
        }
    }

    fn not_understood(&mut self, setting: &Setting, expected: &str) {
        let what = format!("not carried over: expected {expected}");
        self.note(setting, Outcome::ToDo, what);
    }

    /// A parameter that needs a cluster for metrics.
    fn reached(&mut self, setting: &Setting, name: &'static str, value: Value, must: &str) {
        // TLS is a matter of the cluster, and requests need it as well: the pool's own will do. Its members' ports are
        // those of requests.
        let pool = self.clusters.pool.first().filter(|_| name == "scheme");
        let pool = pool.map(|cluster| cluster.name.clone());
        match self.clusters.metrics.clone().or(pool) {
            Some(cluster) => {
                self.parameter(SOURCE, name, value, setting);
                if self.document.get(SOURCE, "cluster").is_none() {
                    self.document.set(SOURCE, "cluster", json!(cluster));
                }
                self.explain(&format!(", through the cluster {cluster}, one that {must}"));
            }
            None => {
                self.document.set(SOURCE, name, value);
                let what = format!(
                    "{SOURCE}, {name}: name the Envoy cluster that {must} with --metrics-cluster"
                );
                self.note(setting, Outcome::ToDo, what);
            }
        }
    }

    /// Sets a parameter that the document does not have.
    pub fn parameter(&mut self, kind: &str, name: &str, value: Value, setting: &Setting) {
        let shown = |value: &Value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let what = match self.document.get(kind, name) {
            Some(own) => format!(
                "{kind} of the document has {name}: {} already, which is in force",
                shown(own)
            ),
            None => {
                let what = format!("{kind}, {name}: {}", shown(&value));
                self.document.set(kind, name, value);
                what
            }
        };
        self.note(setting, Outcome::Moved, what);
    }

    /// A setting that says who the endpoints are.
    fn pool(&mut self, setting: &Setting, own: Option<&str>) {
        if let Some(own) = own {
            let what = format!("the document finds its endpoints by {own}");
            return self.note(setting, Outcome::NotNeeded, what);
        }
        let clusters: Vec<&str> = self
            .clusters
            .pool
            .iter()
            .map(|one| one.name.as_str())
            .collect();
        let must = match setting.target {
            Target::Selector => "whose members are just the pods with these labels",
            Target::Ports => "whose members have these ports",
            _ => "whose members are the pods of this pool",
        };
        match clusters.as_slice() {
            [] => {
                let what = format!("{DISCOVERY}, clusters: name one with --cluster, {must}");
                self.note(setting, Outcome::ToDo, what);
            }
            clusters => {
                let what = format!("{DISCOVERY}, clusters: {}: one {must}", clusters.join(", "));
                self.note(setting, Outcome::Moved, what);
            }
        }
    }

    /// Adds the discovery. Without clusters the list is empty, which does not load.
    fn put_discovery(&mut self, has_own: bool) {
        if has_own && self.clusters.pool.is_empty() {
            return;
        }
        let clusters: Vec<Value> = self.clusters.pool.iter().map(Cluster::value).collect();
        match has_own {
            // The endpoints are known; the cluster says which requests are the filter's.
            true => {
                if let Some(first) = self.clusters.pool.first() {
                    self.document.set(PROXY, "cluster", json!(first.name));
                }
            }
            false => {
                if clusters.is_empty() {
                    self.lines.push(Line {
                        setting: "endpoints".to_owned(),
                        value: String::new(),
                        place: String::new(),
                        outcome: Outcome::ToDo,
                        what: "name the Envoy cluster whose members are the model servers with --cluster".to_owned(),
                    });
                }
                self.document.set(DISCOVERY, "clusters", json!(clusters));
            }
        }
    }
}

/// Returns whether a document, or values with several, has the one in force.
fn is_in_force(setting: &Setting, chosen: &Chosen) -> bool {
    !matches!(setting.value, Node::Map(_)) || chosen.source.contains(&setting.name)
}

/// Returns why the version of the chart inferencepool is not known.
fn unknown_version(sources: &Sources) -> String {
    const ENDS: &str = "does not say which version of the chart it is installed with";
    match (sources.other_image(), sources.tag()) {
        (Some(image), Some(tag)) => format!("the image {image} {tag} {ENDS}"),
        (Some(image), None) => format!("the image {image} {ENDS}"),
        (None, Some(tag)) => format!("the image's tag {tag} {ENDS}"),
        (None, None) => "no image.tag says which version of the chart is installed".to_owned(),
    }
}

/// Returns whether a switch is off, or a choice is the one that holds here anyway.
fn is_off(value: &Node) -> bool {
    match value {
        Node::Bool(on) => !on,
        Node::String(text) => matches!(text.as_str(), "false" | "http"),
        _ => false,
    }
}
