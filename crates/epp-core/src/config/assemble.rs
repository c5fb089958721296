//! From document to plan: the plugins are built, defaults applied, references checked.

mod admission;
mod flow;
mod moved;
mod order;
mod profiles;
mod references;
mod types;

use std::sync::Arc;

pub use self::moved::moved_block_settings;

use self::order::Planned;
use self::types::Known;
use super::document::{self, Document, PluginEntry};
use super::plan::{cluster_of, Instance, Plan, Profiled};
use super::sections::Named;
use crate::config::value::nearest::no_such;
use crate::config::value::{Fields, Node, Path, Problems};
use crate::endpoints::engine::SGLANG;
use crate::endpoints::scan::Extraction;
use crate::flow::SaturationDetector;
use crate::plugins::producer::approx_prefix_cache;
use crate::plugins::producer::inflight_load::InflightLoad;
use crate::plugins::proxy::envoy_proxy::EnvoyProxy;
use crate::plugins::source::core_metrics_extractor::CoreMetricsExtractor;
use crate::plugins::source::metrics_data_source::MetricsDataSource;
use crate::plugins::{
    self, Build, Built, Capabilities, Capability, Dialect, Discovery, PluginType,
};
use crate::scheduling::{Needs, ProducerId, Scheduler};

const SINGLE_PROFILE_HANDLER: &PluginType = &plugins::profile_handler::single::TYPE;
const MAX_SCORE_PICKER: &PluginType = &plugins::picker::max_score::TYPE;

/// The type whose plugins refuse requests.
const GATE: &str = plugins::disaggregation::prefix_based_pd::TYPE.name;

/// The handlers that require prefix matches, even where no decider of theirs reads any: the Endpoint Picker adds a
/// producer for them, whose matches then count in the tokens of requests.
const REQUIRES_MATCHES: [&str; 2] = [
    plugins::profile_handler::disagg::TYPE.name,
    plugins::profile_handler::pd::TYPE.name,
];

/// Names that are listed, or compared with a misspelt one, where there is room for a hint only.
const MAX_NAMES: usize = 100;

/// Builds the plan; `None` if the document is too broken to be interpreted.
pub fn assemble(node: &Node, problems: &mut Problems) -> Option<Plan> {
    if !matches!(node, Node::Map(_)) {
        let message = format!("found {}, expected an EndpointPickerConfig", node.found());
        problems.error(&Path::default(), message);
        return None;
    }
    let mut document = document::read(node, problems)?;
    let mut assembly = Assembly {
        dialect: document.dialect,
        declared: document.declared,
        handler_refused: false,
        types_listed: false,
        instances: Vec::new(),
        built: Built::default(),
        detector: None,
        gating: None,
        problems,
    };
    assembly.move_block_settings(&mut document);
    assembly.instantiate(&document);
    assembly.find_detector(&document);
    let mut profiles = assembly.profiles(&document);
    assembly.gate_profiles(&mut profiles);
    let scheduler = assembly.scheduler(&document, &profiles);
    assembly.check_references(&document);
    assembly.finish(&document, profiles, scheduler)
}

struct Assembly<'p> {
    dialect: Dialect,
    declared: Dialect,
    /// Whether a plugin whose type is refused may be the profile handler.
    handler_refused: bool,
    /// Whether a problem has listed the types that are supported.
    types_listed: bool,
    /// In the document's order, then those that were added by default.
    instances: Vec<Arc<Instance>>,
    built: Built,
    /// What measures how full the pool is, if anything depends on it.
    detector: Option<Arc<dyn SaturationDetector>>,
    /// The plugin that it is, with flow control.
    gating: Option<Arc<Instance>>,
    problems: &'p mut Problems,
}

impl Assembly<'_> {
    /// Builds all plugins of the document, each after those that it refers to.
    fn instantiate(&mut self, document: &Document) {
        let mut planned = Vec::new();
        for (position, entry) in document.plugins.iter().enumerate() {
            let known = self.look_up(entry);
            planned.extend(known.map(|known| Planned {
                position,
                entry,
                known,
            }));
        }
        let planned = self.in_order(planned);
        let built = planned.into_iter().map(|plugin| {
            let instance = match plugin.known {
                Known::Type(kind) => self.build(kind, plugin.entry),
                Known::Idle(idle) => Arc::new(types::idle(plugin.entry, idle)),
            };
            (plugin.position, instance)
        });
        let mut built: Vec<(usize, Arc<Instance>)> = built.collect();
        built.sort_by_key(|(position, _)| *position);
        self.instances = built.into_iter().map(|(_, instance)| instance).collect();
    }

    fn build(&mut self, kind: &'static PluginType, entry: &PluginEntry) -> Arc<Instance> {
        let path = entry.path.key("parameters");
        let build = Build {
            name: &entry.name,
            kind: &entry.kind,
            fields: Fields::new(entry.parameters.as_ref(), path, self.problems),
            dialect: self.dialect,
            declared: self.declared,
            built: &mut self.built,
        };
        build.finish(kind)
    }

    /// Adds a plugin with all its defaults, which the plan needs and the document does not have.
    fn add(&mut self, kind: &'static PluginType) -> Arc<Instance> {
        self.built.add(kind, self.dialect, self.declared)
    }

    fn get(&mut self, name: &str, path: &Path, expected: &str) -> Option<Arc<Instance>> {
        let found = self.instances.iter().find(|instance| instance.name == name);
        if let Some(instance) = found {
            return Some(instance.clone());
        }
        if self.built.refused.iter().any(|refused| refused == name) {
            return None;
        }
        let names = self.instances.iter().map(|instance| instance.name.as_str());
        let names: Vec<&str> = names.take(MAX_NAMES).collect();
        self.problems.error(path, no_such(name, expected, &names));
        None
    }

    /// Returns the one plugin that can do what a plan has only one plugin for, where the document has
    /// it: of those that are referred to, or else of all. Each further one is an error.
    fn only(
        &mut self,
        document: &Document,
        capability: Capability,
        references: &[Named],
    ) -> Option<Arc<Instance>> {
        let referred = |instance: &&Arc<Instance>| {
            let mut references = references.iter();
            references.any(|(name, _)| *name == instance.name)
        };
        let all = self.instances.iter();
        let all = all.filter(|instance| instance.capabilities.has(capability));
        let mut found: Vec<&Arc<Instance>> = all.clone().filter(referred).collect();
        if found.is_empty() {
            found = all.collect();
        }
        let (first, further) = found.split_first()?;
        let place = |name: &str| document.place_of(name);
        for second in further {
            let (name, known) = (&second.name, &first.name);
            self.problems.error_with(&place(name), || {
                format!(
                    "found a second {}, {name:?}, expected one ({known:?} at {} came first)",
                    capability.name(),
                    place(known)
                )
            });
        }
        Some((*first).clone())
    }

    /// Returns what the plugin of [`Self::only`] gives the plan.
    fn part<T>(
        &mut self,
        document: &Document,
        capability: Capability,
        references: &[Named],
        of: fn(&Capabilities) -> Option<T>,
    ) -> Option<T> {
        of(&self.only(document, capability, references)?.capabilities)
    }

    fn finish(
        mut self,
        document: &Document,
        profiles: Vec<Profiled>,
        scheduler: Option<Scheduler>,
    ) -> Option<Plan> {
        use Capability::{InflightLoad as Load, MetricsExtractor, MetricsSource, Rewrite};
        // Only now: sections refer to plugins of the document, and to no others.
        self.instances.append(&mut self.built.added);
        let (found, sources) = (document.discovery.as_slice(), document.sources.as_slice());
        let load = self.part(document, Load, &[], |of| of.inflight_load.clone());
        let discovery = self.part(document, Capability::Discovery, found, |of| {
            of.discovery.clone()
        });
        let source = self.part(document, MetricsSource, sources, |of| {
            of.metrics_source.clone()
        });
        let extractor = self.part(document, MetricsExtractor, sources, |of| {
            of.metrics_extractor.clone()
        });
        let extractor = extractor.unwrap_or_default();
        let mut source = source.unwrap_or_default();
        let EnvoyProxy { picker, envoy } = self.proxy(document);
        let rewrite = self.part(document, Rewrite, &[], |of| of.rewrite.clone());
        let scheduler = scheduler?;
        let mut needs = scheduler.needs();
        let mut instances = self.instances.iter();
        // The first of these deciders, even if it is turned off.
        let gate = instances.clone().find(|one| one.kind == GATE);
        let gate = gate.and_then(|one| one.capabilities.gate.clone());
        if let Some(gate) = &gate {
            needs = needs.union(gate.decider.needs());
        }
        let names_helpers =
            scheduler.names_helpers() || instances.any(|one| one.capabilities.helper_headers);
        let discovery = discovery.unwrap_or_default();
        let admission = self.admission(document, cluster_of(&envoy, &discovery), &mut needs);
        self.check_labels(&needs, &discovery);
        self.check_extractor(document, &mut source, &extractor, &needs);
        let load = load.or_else(|| (needs.in_flight || needs.tokens).then(Default::default));
        let discounts = load.as_ref().and_then(|load| self.discounts(load, needs));
        // The cached part depends on the model, and a prompt's cost on the cached part.
        needs.model |= needs.tokens && discounts.is_some();
        let hooks = |instance: &Arc<Instance>| instance.capabilities.hook.clone();
        let hooks = self.instances.iter().filter_map(hooks).collect();
        Some(Plan {
            load,
            discounts,
            dialect: self.dialect,
            needs,
            scheduler,
            admission,
            flow: self.flow(document, &source),
            gate,
            names_helpers,
            producers: self.built.producers,
            headers: self.built.headers,
            states: self.built.states,
            hooks,
            instances: self.instances,
            discovery,
            source,
            extractor,
            rewrite: rewrite.unwrap_or_default(),
            settings: picker,
            envoy,
            profiles,
            approximations: Vec::new(),
        })
    }

    /// Returns the proxy's settings. All that is approximated is known before, which a strict document refuses.
    fn proxy(&mut self, document: &Document) -> EnvoyProxy {
        let proxy = self.part(document, Capability::Proxy, &[], |of| of.proxy.clone());
        let proxy = proxy.map(|proxy| *proxy).unwrap_or_default();
        if proxy.picker.strict {
            self.problems.refuse_approximations();
        }
        proxy
    }

    /// Warns of labels that are read where there are none.
    fn check_labels(&mut self, needs: &Needs, discovery: &Discovery) {
        let Discovery::EnvoyCluster(discovery) = discovery else {
            return;
        };
        let mut clusters = discovery.clusters.iter();
        if needs.labels && clusters.all(|cluster| cluster.labels.is_empty()) {
            let path = Path::default().key("schedulingProfiles");
            let message = "labels are read, and endpoints have only those of their locality; clusters of \
                           envoy-cluster-discovery and endpoints of static-discovery can have labels";
            self.problems.warn(&path, message);
        }
    }

    /// Warns of custom attributes that no endpoint has.
    fn check_attributes(&mut self, extractor: &CoreMetricsExtractor) {
        for (name, path) in &self.built.attributes {
            let mut custom = extractor.engines.iter().flat_map(|engine| &engine.custom);
            if !custom.any(|(known, _)| known == name) {
                let message = format!("{name:?} is missing at every endpoint: no customMetrics of core-metrics-extractor has this attributeKey");
                self.problems.warn(path, message);
            }
        }
    }

    /// Warns of custom attributes that no endpoint has. Turns `/v1/loads` off, and warns, where plugins need less or more than
    /// it says.
    fn check_extractor(
        &mut self,
        document: &Document,
        source: &mut MetricsDataSource,
        extractor: &CoreMetricsExtractor,
        needs: &Needs,
    ) {
        self.check_attributes(extractor);
        if !source.sglang_loads {
            return;
        }
        let mut engines = extractor.engines.iter();
        let sglang = engines.find(|engine| engine.name == SGLANG);
        let is_missing = |engine| !Extraction::new(engine, needs).loads_suffice();
        let message = if !needs.any_metric() || needs.only_constants() {
            "has no effect: no plugin needs the load of endpoints"
        } else if sglang.is_some_and(is_missing) {
            "has no effect: plugins need custom metrics or adapters, which only the page has"
        } else {
            return;
        };
        source.sglang_loads = false;
        let mut instances = self.instances.iter();
        let own = instances.find(|one| one.capabilities.metrics_source.is_some());
        if let Some(own) = own {
            let path = document.place_of(&own.name).key("parameters");
            self.problems.warn(&path.key("sglangLoads"), message);
        }
    }

    /// Returns the producer whose matches tell how much of a prompt costs nothing.
    fn discounts(&mut self, load: &InflightLoad, needs: Needs) -> Option<ProducerId> {
        let name = load.prefix_producer.as_deref();
        let meant = self.built.meant(&approx_prefix_cache::REFERENCE, name);
        if let Some(meant) = meant {
            return meant.capabilities.prefix_producer;
        }
        let mut instances = self.instances.iter();
        let requires = |one: &Arc<Instance>| REQUIRES_MATCHES.contains(&one.kind);
        if !needs.tokens || !instances.any(requires) {
            return None;
        }
        let added = self.add(&approx_prefix_cache::TYPE);
        self.instances.append(&mut self.built.added);
        added.capabilities.prefix_producer
    }
}
