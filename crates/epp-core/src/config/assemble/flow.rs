//! Flow control of a plan: the section's settings, with the plugins that they refer to.

use std::sync::Arc;
use std::time::Duration;

use super::Assembly;
use crate::config::document::Document;
use crate::config::flow_control::{Band, FlowSection};
use crate::config::plan::Instance;
use crate::config::sections::Named;
use crate::flow::{BandSpec, FlowControl};
use crate::plugins::saturation::utilization_detector;
use crate::plugins::source::metrics_data_source::MetricsDataSource;
use crate::plugins::{self, Capability, PluginType};

/// The policies that are there whether they are declared or not.
const ORDERING: &PluginType = &plugins::flow::fcfs::TYPE;
const FAIRNESS: &PluginType = &plugins::flow::global_strict::TYPE;
const USAGE_LIMIT: &PluginType = &plugins::flow::static_usage_limit::TYPE;

/// How long it takes until an endpoint that has ended a request shows it, beyond when its page is read; and without
/// pages.
const AFTER_PAGE: Duration = Duration::from_millis(250);
const WITHOUT_PAGE: Duration = Duration::from_millis(10);

impl Assembly<'_> {
    /// Returns flow control, where its feature gate is on.
    pub fn flow(&mut self, document: &Document, source: &MetricsDataSource) -> Option<FlowControl> {
        if !document.flow_control {
            return None;
        }
        let section = &document.flow;
        let usage_limit = self.policy(&section.usage_limit, USAGE_LIMIT, Capability::UsageLimit);
        let usage_limit = usage_limit.and_then(|policy| policy.capabilities.usage_limit);
        let bands = self.bands(section);
        let default_band = self.band(&section.default_band);
        let negative = section.negative_band.as_ref();
        let negative_band = negative.map_or(default_band, |band| self.band(band));
        let detector = self.detector.clone()?;
        Some(FlowControl {
            max_requests: section.max_requests,
            max_bytes: section.max_bytes,
            ttl: section.ttl,
            empty_pool_ttl: section.empty_pool_ttl,
            bands,
            default_band,
            negative_band,
            usage_limit: usage_limit.unwrap_or_default(),
            eviction: section.eviction,
            eviction_grace: match detector.needs().any_metric() {
                true => source.interval + source.staleness + AFTER_PAGE,
                false => WITHOUT_PAGE,
            },
            detector,
            detector_name: match &self.gating {
                Some(detector) => detector.name.clone(),
                None => utilization_detector::TYPE.name.to_owned(),
            },
        })
    }

    /// Returns the bands that are always there, the highest first: those of the document, and the one of requests
    /// without a priority.
    fn bands(&mut self, section: &FlowSection) -> Vec<BandSpec> {
        let bands = section.bands.iter();
        let mut bands: Vec<BandSpec> = bands.map(|band| self.band(band)).collect();
        if bands.iter().all(|band| band.priority != 0) {
            bands.push(BandSpec {
                priority: 0,
                ..self.band(&section.default_band)
            });
        }
        bands.sort_by_key(|band| std::cmp::Reverse(band.priority));
        bands
    }

    fn band(&mut self, band: &Band) -> BandSpec {
        let ordering = self.policy(&band.ordering, ORDERING, Capability::Ordering);
        let fairness = self.policy(&band.fairness, FAIRNESS, Capability::Fairness);
        let ordering = ordering.and_then(|policy| policy.capabilities.ordering);
        let fairness = fairness.and_then(|policy| policy.capabilities.fairness);
        BandSpec {
            ordering: ordering.unwrap_or_default(),
            fairness: fairness.unwrap_or_default(),
            ..band.spec
        }
    }

    /// Returns the plugin that a reference means, or without one the plugin named like the default's type. `None` where
    /// the default is meant and not declared.
    fn policy(
        &mut self,
        reference: &Option<Named>,
        default: &'static PluginType,
        wanted: Capability,
    ) -> Option<Arc<Instance>> {
        let Some((name, path)) = reference else {
            let mut instances = self.instances.iter();
            let named = instances.find(|instance| instance.name == default.name)?;
            return Some(named.clone()).filter(|named| named.capabilities.has(wanted));
        };
        let declared = self.instances.iter().any(|instance| instance.name == *name);
        if !declared && name == default.name {
            return None;
        }
        let expected = wanted.a_name();
        let found = self.get(name, path, &expected)?;
        if found.capabilities.has(wanted) {
            return Some(found);
        }
        let message = format!("found {name:?}, a {}, expected {expected}", found.kind);
        self.problems.error(path, message);
        None
    }
}
