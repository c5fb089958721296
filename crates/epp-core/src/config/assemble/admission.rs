//! What decides whether requests are sent, wait, or are dropped: the saturation detector, objectives, and their headers.

use std::sync::Arc;

use super::Assembly;
use crate::config::document::Document;
use crate::config::plan::{Instance, Profiled};
use crate::config::sections::DetectorSection;
use crate::config::value::Path;
use crate::flow::{Admission, AdmissionHeaders, Ordering, SaturationDetector};
use crate::plugins::admission::probabilistic_admitter::ProbabilisticAdmitter;
use crate::plugins::admission::static_objectives::Objectives;
use crate::plugins::any_capacity::AnyCapacity;
use crate::plugins::producer::agent_identity;
use crate::plugins::saturation::utilization_detector::{self, UtilizationDetector};
use crate::plugins::{Capability, Dialect};
use crate::protocol::{FAIRNESS_ID_HEADERS, OBJECTIVE_HEADERS, SLO_TTFT_HEADERS, TTL_HEADER};
use crate::scheduling::Needs;

impl Assembly<'_> {
    /// Finds what measures how full the pool is, if anything depends on it.
    pub fn find_detector(&mut self, document: &Document) {
        let DetectorSection { named, thresholds } = &document.detector;
        let instance = named
            .as_ref()
            .and_then(|(name, path)| self.detector_named(name, path));
        let mut objectives = self
            .instances
            .iter()
            .filter_map(|one| one.capabilities.objectives.as_ref());
        let sheds = objectives.any(|objectives| objectives.any_sheddable());
        if !document.flow_control && !sheds || named.is_some() && instance.is_none() {
            return;
        }
        let former = self.dialect == Dialect::GieV1 && !document.flow_control;
        let own: Option<Arc<dyn SaturationDetector>> = match (instance.is_some(), *thresholds) {
            (true, _) => None,
            (_, Some((queue, kv_usage))) if former => {
                Some(Arc::new(AnyCapacity { queue, kv_usage }))
            }
            (_, Some((queue, kv_usage))) => {
                Some(Arc::new(UtilizationDetector::new(queue, kv_usage)))
            }
            (_, None) if former => Some(Arc::new(AnyCapacity::default())),
            (_, None) => None,
        };
        self.detector = own.or_else(|| {
            let instance = instance.unwrap_or_else(|| self.default_detector());
            self.gating = document.flow_control.then(|| instance.clone());
            instance.capabilities.saturation_detector.clone()
        });
    }

    /// Returns the plugin that a document names as its detector. The default one may be named and not declared.
    fn detector_named(&mut self, name: &str, path: &Path) -> Option<Arc<Instance>> {
        let expected = "a saturation detector";
        let declared = self.instances.iter().any(|instance| instance.name == name);
        if !declared && name == utilization_detector::TYPE.name {
            return Some(self.add(&utilization_detector::TYPE));
        }
        let found = self.get(name, path, expected)?;
        if found.capabilities.has(Capability::SaturationDetector) {
            return Some(found);
        }
        let message = format!("found {name:?}, a {}, expected {expected}", found.kind);
        self.problems.error(path, message);
        None
    }

    fn default_detector(&mut self) -> Arc<Instance> {
        let name = utilization_detector::TYPE.name;
        let mut instances = self.instances.iter();
        let declared = instances
            .find(|one| one.name == name && one.kind == name)
            .cloned();
        declared.unwrap_or_else(|| self.add(&utilization_detector::TYPE))
    }

    /// Adds the detector of flow control to the profiles that lack it, if it is a filter.
    pub fn gate_profiles(&self, profiles: &mut [Profiled]) {
        let filters = |one: &&Arc<Instance>| one.capabilities.filter.is_some();
        let Some(gating) = self.gating.as_ref().filter(filters) else {
            return;
        };
        for profile in profiles {
            let mut plugins = profile.plugins.iter();
            if !plugins.any(|(instance, _)| Arc::ptr_eq(instance, gating)) {
                profile.plugins.push((gating.clone(), 1.0));
            }
        }
    }

    /// Returns how requests to this cluster are admitted, and adds what that reads to the needs.
    pub fn admission(
        &mut self,
        document: &Document,
        cluster: &str,
        needs: &mut Needs,
    ) -> Admission {
        let objectives = self.part(document, Capability::Objectives, &[], |of| {
            of.objectives.clone()
        });
        let objectives = objectives.unwrap_or_default().of_pool(cluster);
        let sheddable = objectives.any_sheddable();
        let admitters = self.instances.iter().filter(|_| sheddable);
        let admitters = admitters
            .filter_map(|one| one.capabilities.admitter)
            .collect();
        let admission = Admission {
            headers: self.admission_headers(document, &objectives),
            shed: self
                .detector
                .clone()
                .filter(|_| sheddable && !document.flow_control),
            admitters,
            propagates: document.propagates_priority && !objectives.is_empty(),
            objectives,
        };
        if !admission.admitters.is_empty() {
            *needs = needs.union(ProbabilisticAdmitter::needs());
        }
        if let Some(detector) = self
            .detector
            .as_ref()
            .filter(|_| sheddable || document.flow_control)
        {
            *needs = needs.union(detector.needs());
        }
        admission
    }

    /// Returns the headers that are of use: the others are not read.
    fn admission_headers(
        &mut self,
        document: &Document,
        objectives: &Objectives,
    ) -> AdmissionHeaders {
        let mut headers = AdmissionHeaders::default();
        let used = document.flow_control || document.propagates_priority;
        if !objectives.is_empty() && (used || objectives.any_sheddable()) {
            headers.objective = self.built.read_headers(&OBJECTIVE_HEADERS);
        }
        if !document.flow_control {
            return headers;
        }
        headers.ttl = self.built.read_headers(&[TTL_HEADER]);
        if objectives.fairness_header {
            headers.fairness_id = self.built.read_headers(&FAIRNESS_ID_HEADERS);
        }
        let mut instances = self.instances.iter();
        let identity = instances
            .clone()
            .find(|one| one.kind == agent_identity::TYPE.name);
        if let Some((_, sources)) = identity.and_then(|one| one.capabilities.session_id.as_ref()) {
            headers.fairness_id.extend_from_slice(&sources.0);
        }
        if instances.any(|one| one.capabilities.ordering == Some(Ordering::SloDeadline)) {
            headers.slo_ttft = self.built.read_headers(&SLO_TTFT_HEADERS);
        }
        headers
    }
}
