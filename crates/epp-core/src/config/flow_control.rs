//! The `flowControl` section, and which plugins it refers to.

use std::time::Duration;

use super::sections::Named;
use crate::config::value::Fields;
use crate::flow::{BandSpec, Fairness, Ordering};
use crate::plugins::Dialect;

/// How long a request waits that nothing else is said of.
const TTL: Duration = Duration::from_secs(60);

/// The capacity of a band that says none.
const BAND_BYTES: u64 = 1_000_000_000;
const BAND_REQUESTS: u64 = 5_000;

/// Bands of a document: each is looked at for each request.
const MAX_BANDS: usize = 100;

/// The section with its defaults.
#[derive(Debug)]
pub struct FlowSection {
    /// `maxRequests`, if it is not 0.
    pub max_requests: Option<u64>,
    /// `maxBytes`, if it is not 0.
    pub max_bytes: Option<u64>,
    /// `defaultRequestTTL`; `None` where requests wait without a limit.
    pub ttl: Option<Duration>,
    /// `noEndpointRequestTTL`, likewise.
    pub empty_pool_ttl: Option<Duration>,
    /// `defaultPriorityBand`.
    pub default_band: Band,
    /// `defaultNegativePriorityBand`.
    pub negative_band: Option<Band>,
    /// `priorityBands`, in the document's order.
    pub bands: Vec<Band>,
    /// `usageLimitPolicyPluginRef`.
    pub usage_limit: Option<Named>,
    /// `enableEviction`.
    pub eviction: bool,
}

/// A band, whose policies are not looked up yet.
#[derive(Debug, Clone)]
pub struct Band {
    /// Its settings.
    pub spec: BandSpec,
    /// `orderingPolicyRef`.
    pub ordering: Option<Named>,
    /// `fairnessPolicyRef`.
    pub fairness: Option<Named>,
}

/// Reads the section, and the saturation detector that it names.
pub fn read(mut flow: Fields<'_>, dialect: Dialect) -> (FlowSection, Option<Named>) {
    // The Gateway API Inference Extension has no limit of time, and none of requests in a band.
    let newer = dialect == Dialect::LlmD || flow.problems().is_recording();
    let ttl = flow.optional_duration("defaultRequestTTL", newer.then_some(TTL));
    let empty_pool_ttl = flow.optional_duration("noEndpointRequestTTL", ttl);
    let limit = |ttl: Option<Duration>| ttl.filter(|ttl| !ttl.is_zero());
    let section = FlowSection {
        max_requests: flow.quantity("maxRequests", None),
        max_bytes: flow.quantity("maxBytes", None),
        ttl: limit(ttl),
        empty_pool_ttl: limit(empty_pool_ttl),
        default_band: match flow.section("defaultPriorityBand") {
            Some(band) => read_band(band, newer),
            None => band_of(0, newer),
        },
        negative_band: flow
            .section("defaultNegativePriorityBand")
            .map(|band| read_band(band, newer)),
        bands: read_bands(&mut flow, newer),
        usage_limit: read_reference(&mut flow, "usageLimitPolicyPluginRef"),
        eviction: flow.boolean("enableEviction", false),
    };
    let detector = flow.section("saturationDetector").and_then(|mut detector| {
        let named = read_reference(&mut detector, "pluginRef");
        detector.finish();
        named
    });
    flow.finish();
    (section, detector)
}

fn read_bands(flow: &mut Fields<'_>, newer: bool) -> Vec<Band> {
    let entries = flow.list("priorityBands");
    let place = flow.path().key("priorityBands");
    let problems = flow.problems();
    if entries.len() > MAX_BANDS {
        let found = entries.len();
        let message = format!("found {found} bands, expected at most {MAX_BANDS}");
        problems.error(&place, message);
        return Vec::new();
    }
    let mut bands: Vec<Band> = Vec::new();
    for (entry, path) in entries {
        let band = read_band(Fields::new(Some(entry), path.clone(), problems), newer);
        let priority = band.spec.priority;
        if bands.iter().any(|known| known.spec.priority == priority) {
            let message = format!("found a second band of priority {priority}, expected one");
            problems.error(&path.key("priority"), message);
            continue;
        }
        bands.push(band);
    }
    bands
}

fn read_band(mut band: Fields<'_>, newer: bool) -> Band {
    let bounds = (i64::from(i32::MIN), i64::from(i32::MAX));
    let priority = band.whole("priority", 0, bounds);
    let mut read = band_of(i32::try_from(priority).unwrap_or(0), newer);
    let spec = &mut read.spec;
    spec.max_requests = band.quantity("maxRequests", spec.max_requests);
    spec.max_bytes = band.quantity("maxBytes", spec.max_bytes);
    let ttl = band.optional_duration("defaultRequestTTL", None);
    spec.ttl = ttl.map(|ttl| Some(ttl).filter(|ttl| !ttl.is_zero()));
    read.ordering = read_reference(&mut band, "orderingPolicyRef");
    read.fairness = read_reference(&mut band, "fairnessPolicyRef");
    band.finish();
    read
}

/// Returns a band of which nothing is said.
fn band_of(priority: i32, newer: bool) -> Band {
    Band {
        spec: BandSpec {
            priority,
            max_requests: newer.then_some(BAND_REQUESTS),
            max_bytes: Some(BAND_BYTES),
            ttl: None,
            ordering: Ordering::default(),
            fairness: Fairness::default(),
        },
        ordering: None,
        fairness: None,
    }
}

/// Reads an optional reference to a plugin.
pub fn read_reference(fields: &mut Fields<'_>, name: &'static str) -> Option<Named> {
    let given = fields.string(name, "");
    (!given.is_empty()).then(|| (given, fields.path().key(name)))
}
