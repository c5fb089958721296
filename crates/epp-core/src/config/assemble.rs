//! Document to plan: instantiate the plugins, apply the defaults, check the references.

mod references;
mod types;

use std::sync::Arc;

use self::types::Known;
use super::document::{self, Document, PluginEntry, ProfileEntry, Reference};
use super::plan::{Instance, Plan, Profiled};
use super::settings::Named;
use crate::document::nearest::no_such;
use crate::document::{Fields, Node, Path, Problems};
use crate::plugins::producer::inflight_load::InflightLoad;
use crate::plugins::{self, Build, Dialect, Discovery, PluginType, PrefixProducer, Role};
use crate::scheduling::{NamedFilter, Picker, Profile, ProfileHandler, Scheduler, WeightedScorer};

const SINGLE_PROFILE_HANDLER: &PluginType = &plugins::profile_handler::single::TYPE;
/// The producers that others refer to, in the order in which they are built.
const PRODUCERS: [&PluginType; 2] = [
    &plugins::producer::approx_prefix_cache::TYPE,
    &plugins::producer::inflight_load::TYPE,
];
const MAX_SCORE_PICKER: &PluginType = &plugins::picker::max_score::TYPE;

/// Names that are listed, or compared with a misspelt one, where there is room for a hint only.
const MOST_NAMES: usize = 100;

/// Builds the plan; `None` where the document is too broken to tell what was meant.
pub fn assemble(node: &Node, problems: &mut Problems) -> Option<Plan> {
    if !matches!(node, Node::Map(_)) {
        let message = format!("found {}, expected an EndpointPickerConfig", node.found());
        problems.error(&Path::default(), message);
        return None;
    }
    let document = document::read(node, problems)?;
    let mut assembly = Assembly {
        dialect: document.dialect,
        declared: document.declared,
        refused: Vec::new(),
        handler_refused: false,
        types_listed: false,
        instances: Vec::new(),
        producers: Vec::new(),
        load_producers: Vec::new(),
        problems,
    };
    assembly.instantiate(&document);
    let profiles = assembly.profiles(&document);
    let handler = assembly.handler(&document, profiles.len());
    assembly.check_references(&document);
    assembly.finish(&document, profiles, handler)
}

/// What the one plugin of a kind holds that a plan has only one of: see [`Assembly::only`].
macro_rules! only {
    ($assembly:ident, $document:ident, $name:literal, $references:expr, $kind:ident) => {{
        let of_kind = |role: &Role| matches!(role, Role::$kind(_));
        let found = $assembly.only($document, $name, $references, of_kind);
        found.and_then(|instance| match &instance.role {
            Role::$kind(part) => Some(part.clone()),
            _ => None,
        })
    }};
}

struct Assembly<'p> {
    dialect: Dialect,
    declared: Dialect,
    /// Names of the plugins whose types are refused: what refers to them is not another problem.
    refused: Vec<String>,
    /// Whether one of them may be the profile handler.
    handler_refused: bool,
    /// Whether a problem has listed the types that are supported.
    types_listed: bool,
    instances: Vec<Arc<Instance>>,
    producers: Vec<(String, PrefixProducer)>,
    load_producers: Vec<String>,
    problems: &'p mut Problems,
}

impl Assembly<'_> {
    /// All plugins of the document, in its order; the producers first, because scorers refer to
    /// them, and those of prefix matches before those of in-flight load, which refer to them too.
    fn instantiate(&mut self, document: &Document) {
        let rank = |entry: &PluginEntry| {
            let mut producers = PRODUCERS.iter();
            let rank = producers.position(|kind| kind.name == entry.kind);
            rank.unwrap_or(PRODUCERS.len())
        };
        let mut built: Vec<(usize, Arc<Instance>)> = Vec::new();
        let mut entries = Vec::new();
        for (position, entry) in document.plugins.iter().enumerate() {
            let known = self.look_up(entry);
            entries.extend(known.map(|known| (position, entry, known)));
        }
        entries.sort_by_key(|(_, entry, _)| rank(entry));
        for (position, entry, known) in entries {
            let instance = match known {
                Known::Type(kind) => {
                    let path = entry.path.key("parameters");
                    self.build(kind, &entry.name, entry.parameters.as_ref(), path)
                }
                Known::Idle(idle) => self.idle(entry, idle),
            };
            if let Role::PrefixProducer(producer) = &instance.role {
                self.producers.push((entry.name.clone(), producer.clone()));
            }
            built.push((position, Arc::new(instance)));
        }
        built.sort_by_key(|(position, _)| *position);
        self.instances = built.into_iter().map(|(_, instance)| instance).collect();
    }

    fn build(
        &mut self,
        kind: &'static PluginType,
        name: &str,
        parameters: Option<&Node>,
        path: Path,
    ) -> Instance {
        let mut build = Build {
            name,
            fields: Fields::new(parameters, path, self.problems),
            dialect: self.dialect,
            declared: self.declared,
            refused: &self.refused,
            producers: &mut self.producers,
            load_producers: &mut self.load_producers,
        };
        let role = (kind.build)(&mut build);
        Instance {
            name: name.to_owned(),
            kind: kind.name,
            parameters: build.fields.finish(),
            role,
        }
    }

    fn add_default(&mut self, kind: &'static PluginType) -> Arc<Instance> {
        let instance = Arc::new(self.build(kind, kind.name, None, Path::default()));
        self.instances.push(instance.clone());
        instance
    }

    fn get(&mut self, name: &str, path: &Path, expected: &str) -> Option<Arc<Instance>> {
        let found = self.instances.iter().find(|instance| instance.name == name);
        if let Some(instance) = found {
            return Some(instance.clone());
        }
        if self.refused.iter().any(|refused| refused == name) {
            return None;
        }
        let names = self.instances.iter().map(|instance| instance.name.as_str());
        let names: Vec<&str> = names.take(MOST_NAMES).collect();
        self.problems.error(path, no_such(name, expected, &names));
        None
    }

    /// The one plugin of a kind that a plan has only one of, where the document has it: of those that
    /// are referred to, or else of all. Each further one is an error.
    fn only(
        &mut self,
        document: &Document,
        kind: &str,
        references: &[Named],
        of_kind: fn(&Role) -> bool,
    ) -> Option<Arc<Instance>> {
        let referred = |instance: &&Arc<Instance>| {
            let mut references = references.iter();
            references.any(|(name, _)| *name == instance.name)
        };
        let all = self.instances.iter();
        let all = all.filter(|instance| of_kind(&instance.role));
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
                    "found a second {kind}, {name:?}, expected one ({known:?} at {} came first)",
                    place(known)
                )
            });
        }
        Some((*first).clone())
    }

    /// The profiles with their pickers. Without any, one named `default` refers to every plugin
    /// that filters, scores or picks.
    fn profiles(&mut self, document: &Document) -> Vec<Profiled> {
        let written: Vec<ProfileEntry>;
        let entries = match &document.profiles {
            Some(entries) => entries,
            None => {
                let plays = |instance: &&Arc<Instance>| {
                    matches!(
                        instance.role,
                        Role::Filter(_) | Role::Scorer(_) | Role::Picker(_) | Role::Detector
                    )
                };
                let reference = |instance: &Arc<Instance>| Reference {
                    name: instance.name.clone(),
                    weight: None,
                    path: document.place_of(&instance.name),
                    weight_path: Path::default(),
                };
                written = vec![ProfileEntry {
                    name: "default".to_owned(),
                    plugins: self.instances.iter().filter(plays).map(reference).collect(),
                    path: Path::default().key("plugins"),
                }];
                &written
            }
        };
        // The picker of profiles that name none: the first that is declared anywhere.
        let picks = |instance: &&Arc<Instance>| matches!(instance.role, Role::Picker(_));
        let declared = self.instances.iter().find(picks).cloned();
        let mut profiles = Vec::new();
        for entry in entries {
            let mut profiled = self.profile(entry);
            if profiled.picker.is_none() {
                let picker = declared.clone();
                let known = |this: &Self| {
                    let mut instances = this.instances.iter();
                    instances
                        .find(|instance| instance.name == MAX_SCORE_PICKER.name)
                        .cloned()
                };
                let picker = picker.or_else(|| known(self).filter(|instance| picks(&instance)));
                profiled.picker =
                    Some(picker.unwrap_or_else(|| self.add_default(MAX_SCORE_PICKER)));
            }
            profiles.push(profiled);
        }
        profiles
    }

    fn profile(&mut self, entry: &ProfileEntry) -> Profiled {
        let mut profiled = Profiled {
            name: entry.name.clone(),
            plugins: Vec::new(),
            picker: None,
        };
        for reference in &entry.plugins {
            let path = &reference.path;
            let Some(instance) = self.get(&reference.name, path, "a plugin") else {
                continue;
            };
            match instance.role {
                Role::Picker(_) => {
                    if let Some(first) = &profiled.picker {
                        let message = format!(
                            "found a second picker, {:?}, expected one per profile ({:?} came first)",
                            reference.name, first.name
                        );
                        self.problems.error(path, message);
                    }
                    profiled.picker = Some(instance);
                }
                Role::Filter(_) => profiled.plugins.push((instance, 1.0)),
                Role::Scorer(_) => {
                    let weight = reference.weight.unwrap_or(1.0);
                    profiled.plugins.push((instance, weight));
                    continue;
                }
                // Where it would leave no endpoint it leaves all (v1.5), so that it refuses no request; a
                // concurrency-detector does.
                Role::Detector
                    if self.declared == Dialect::GieV1
                        && instance.kind == "utilization-detector" =>
                {
                    let message =
                        "has no effect: endpoints over its thresholds are not left out here";
                    self.problems.warn(path, message);
                }
                Role::Detector => {
                    let message = format!(
                        "{:?} filters here, as every {} of a profile does (without schedulingProfiles, of the document), which is not supported",
                        reference.name, instance.kind
                    );
                    self.problems.error(path, message);
                }
                // The Endpoint Picker lets a profile refer to anything, and so does the seed's own
                // documentation.
                _ => {
                    let message = format!(
                        "{:?} is no filter, scorer or picker: it has no effect in a profile",
                        reference.name
                    );
                    self.problems.warn(path, message);
                }
            }
            if reference.weight.is_some() {
                let message = "has no effect: only scorers have weights";
                self.problems.warn(&reference.weight_path, message);
            }
        }
        profiled
    }

    fn handler(&mut self, document: &Document, profiles: usize) -> Option<Arc<dyn ProfileHandler>> {
        let declared = only!(self, document, "profile handler", &[], ProfileHandler);
        let profiles_path = Path::default().key("schedulingProfiles");
        match declared {
            Some(handler) => {
                let single =
                    |instance: &Arc<Instance>| instance.kind == SINGLE_PROFILE_HANDLER.name;
                if profiles > 1 && self.instances.iter().any(single) {
                    let message = format!("found {profiles} profiles, expected one: single-profile-handler runs no more");
                    self.problems.error(&profiles_path, message);
                }
                Some(handler)
            }
            None if profiles > 1 && self.handler_refused => None,
            None if profiles > 1 => {
                let message = format!(
                    "found {profiles} profiles and no profile handler that chooses among them"
                );
                self.problems.error(&profiles_path, message);
                None
            }
            None => match &self.add_default(SINGLE_PROFILE_HANDLER).role {
                Role::ProfileHandler(handler) => Some(handler.clone()),
                _ => None,
            },
        }
    }

    fn finish(
        mut self,
        document: &Document,
        profiles: Vec<Profiled>,
        handler: Option<Arc<dyn ProfileHandler>>,
    ) -> Option<Plan> {
        let (found, sources) = (document.discovery.as_slice(), document.sources.as_slice());
        let load = only!(self, document, "inflight-load-producer", &[], InflightLoad);
        let discovery = only!(self, document, "discovery plugin", found, Discovery);
        let source = only!(self, document, "metrics source", sources, MetricsSource);
        let extractor = only!(
            self,
            document,
            "metrics extractor",
            sources,
            MetricsExtractor
        );
        let proxy = only!(self, document, "envoy-proxy", &[], Proxy);
        let rewrite = only!(self, document, "model-rewrite", &[], Rewrite);
        let handler = handler?;
        let built: Option<Vec<Profile>> = profiles.iter().map(compile).collect();
        let scheduler = Scheduler::new(built?, handler);
        let mut needs = scheduler.needs();
        let load = load.or_else(|| needs.in_flight.then(InflightLoad::default));
        // What is cached depends on the model, and what a prompt costs on what is cached.
        let discounts = load
            .as_ref()
            .and_then(|load| discount(load, &self.producers));
        needs.model |= needs.tokens && discounts.is_some();
        Some(Plan {
            load,
            discounts,
            dialect: self.dialect,
            needs,
            scheduler,
            producers: self.producers,
            instances: self.instances,
            discovery: discovery.unwrap_or(Discovery::EnvoyCluster(Default::default())),
            source: source.unwrap_or_default(),
            extractor: extractor.unwrap_or_default(),
            rewrite: rewrite.unwrap_or_default(),
            proxy: proxy.map(|proxy| *proxy).unwrap_or_default(),
            profiles,
        })
    }
}

/// The producer whose matches tell how much of a prompt costs nothing: the one that is named, else
/// the one under its type's name or the only one.
fn discount(load: &InflightLoad, producers: &[(String, PrefixProducer)]) -> Option<usize> {
    let named = |name: &str| producers.iter().position(|(known, _)| known == name);
    match load.prefix_producer.as_str() {
        "" => named(plugins::producer::approx_prefix_cache::TYPE.name)
            .or_else(|| (producers.len() == 1).then_some(0)),
        name => named(name),
    }
}

fn compile(profiled: &Profiled) -> Option<Profile> {
    let mut filters = Vec::new();
    let mut scorers = Vec::new();
    for (instance, weight) in &profiled.plugins {
        let name = instance.name.clone();
        match &instance.role {
            Role::Filter(filter) => filters.push(NamedFilter {
                name,
                filter: filter.clone(),
            }),
            Role::Scorer(scorer) => scorers.push(WeightedScorer {
                name,
                scorer: scorer.clone(),
                weight: *weight,
            }),
            _ => {}
        }
    }
    let picker: Arc<dyn Picker> = match &profiled.picker.as_ref()?.role {
        Role::Picker(picker) => picker.clone(),
        _ => return None,
    };
    Some(Profile {
        name: profiled.name.clone(),
        filters: filters.into(),
        scorers,
        picker,
    })
}
