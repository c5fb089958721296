//! The scheduling profiles, and the handler that chooses among them.

use std::sync::Arc;

use super::{Assembly, MAX_SCORE_PICKER, SINGLE_PROFILE_HANDLER};
use crate::config::document::{Document, ProfileEntry, Reference};
use crate::config::known::elsewhere;
use crate::config::plan::{Instance, Profiled};
use crate::config::value::Path;
use crate::plugins::Capability;
use crate::scheduling::{NamedFilter, Profile, ProfileHandler, Scheduler, WeightedScorer};

impl Assembly<'_> {
    /// The profiles with their pickers. Without any, one named `default` refers to every plugin
    /// that filters, scores or picks.
    pub fn profiles(&mut self, document: &Document) -> Vec<Profiled> {
        let written: Vec<ProfileEntry>;
        let entries = match &document.profiles {
            Some(entries) => entries,
            None => {
                let plays = |instance: &&Arc<Instance>| instance.capabilities.in_profile();
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
        // The picker of profiles that name none: the first that is declared anywhere, or one with all defaults.
        let picks = |instance: &&Arc<Instance>| instance.capabilities.picker.is_some();
        let mut default = self.instances.iter().find(picks).cloned();
        let mut profiles = Vec::new();
        for entry in entries {
            let mut profiled = self.profile(entry);
            if profiled.picker.is_none() {
                let default = default.get_or_insert_with(|| self.add(MAX_SCORE_PICKER));
                profiled.picker = Some(default.clone());
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
            let does = &instance.capabilities;
            let scores = does.scorer.is_some();
            // A type that does not run here says so itself.
            if !does.in_profile() && elsewhere(instance.kind).is_none() {
                // The Endpoint Picker lets a profile refer to anything, and so does the Gateway API Inference
                // Extension's own documentation.
                let message = format!(
                    "{:?} is not a filter, scorer or picker: it has no effect in a profile",
                    reference.name
                );
                self.problems.warn(path, message);
            }
            if does.picker.is_some() {
                if let Some(first) = &profiled.picker {
                    let message = format!(
                        "found a second picker, {:?}, expected one per profile ({:?} came first)",
                        reference.name, first.name
                    );
                    self.problems.error(path, message);
                }
                profiled.picker = Some(instance.clone());
            }
            if does.filter.is_some() || scores {
                let weight = reference.weight.filter(|_| scores).unwrap_or(1.0);
                profiled.plugins.push((instance, weight));
            }
            if reference.weight.is_some() && !scores {
                let message = "has no effect: only scorers have weights";
                self.problems.warn(&reference.weight_path, message);
            }
        }
        profiled
    }

    /// The profiles and their handler, ready to run; `None` where none can choose among the profiles.
    pub fn scheduler(&mut self, document: &Document, profiles: &[Profiled]) -> Option<Scheduler> {
        let handler = self.handler(document, profiles.len())?;
        let built: Option<Vec<Profile>> = profiles.iter().map(compile).collect();
        let scheduler = Scheduler::new(built?, handler.clone());
        if let Err(message) = handler.check(scheduler.profiles()) {
            let path = Path::default().key("schedulingProfiles");
            self.problems.error(&path, message);
        }
        Some(scheduler)
    }

    fn handler(&mut self, document: &Document, profiles: usize) -> Option<Arc<dyn ProfileHandler>> {
        let declared = self.only(document, Capability::ProfileHandler, &[]);
        if declared.is_none() && profiles > 1 {
            if !self.handler_refused {
                let path = Path::default().key("schedulingProfiles");
                let message = format!(
                    "found {profiles} profiles and no profile handler that chooses among them"
                );
                self.problems.error(&path, message);
            }
            return None;
        }
        let instance = declared.unwrap_or_else(|| self.add(SINGLE_PROFILE_HANDLER));
        instance.capabilities.profile_handler.clone()
    }
}

fn compile(profiled: &Profiled) -> Option<Profile> {
    let plugins = profiled.plugins.iter();
    let filters = plugins.clone().filter_map(|(instance, _)| {
        let filter = instance.capabilities.filter.clone()?;
        let name = instance.name.clone();
        Some(NamedFilter { name, filter })
    });
    let scorers = plugins.filter_map(|(instance, weight)| {
        Some(WeightedScorer {
            name: instance.name.clone(),
            scorer: instance.capabilities.scorer.clone()?,
            weight: *weight,
        })
    });
    Some(Profile {
        name: profiled.name.clone(),
        filters: filters.collect(),
        scorers: scorers.collect(),
        picker: profiled.picker.as_ref()?.capabilities.picker.clone()?,
    })
}
