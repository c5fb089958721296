//! Capabilities of plugins: what a plugin can do for a plan, of which it may do several at once.

use std::sync::Arc;
use std::time::Duration;

use super::admission::probabilistic_admitter::ProbabilisticAdmitter;
use super::admission::static_objectives::Objectives;
use super::discovery::envoy_cluster::EnvoyClusterDiscovery;
use super::discovery::inline::StaticDiscovery;
use super::producer::inflight_load::InflightLoad;
use super::producer::mm_embeddings_cache::MediaCache;
use super::proxy::envoy_proxy::EnvoyProxy;
use super::rewrite::model_rewrite::ModelRewrite;
use super::session::SessionId;
use super::source::core_metrics_extractor::CoreMetricsExtractor;
use super::source::metrics_data_source::MetricsDataSource;
use super::topology::Topology;
use crate::flow::{Fairness, Ordering, SaturationDetector, UsageLimit};
use crate::scheduling::{
    Decider, Filter, Gate, Hook, PickerPlugin, ProducerId, ProfileHandler, Scorer,
};

/// The source of the endpoints.
#[derive(Debug, Clone, PartialEq)]
pub enum Discovery {
    /// Listed in the document.
    Static(StaticDiscovery),
    /// The members of an Envoy cluster.
    EnvoyCluster(EnvoyClusterDiscovery),
}

impl Discovery {
    /// Returns how long it may take until a change of the members is known.
    pub fn interval(&self) -> Duration {
        match self {
            Self::Static(_) => Duration::ZERO,
            Self::EnvoyCluster(discovery) => discovery.interval,
        }
    }
}

impl Default for Discovery {
    fn default() -> Self {
        Self::EnvoyCluster(EnvoyClusterDiscovery::default())
    }
}

/// The name of something that a plugin can do: its type declares them, and other plugins and sections
/// of the document refer to plugins by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capability {
    /// Removes candidates.
    Filter,
    /// Scores candidates.
    Scorer,
    /// Picks among the scored.
    Picker,
    /// Decides which profiles run.
    ProfileHandler,
    /// Decides whether endpoints of other profiles do a part of a request.
    Decider,
    /// Names these endpoints to the primary one.
    HelperHeaders,
    /// Says how prompts are cut into prefix blocks and remembered.
    PrefixProducer,
    /// Finds the identifier of a request's session.
    SessionId,
    /// Remembers which endpoints have encoded which media.
    MediaCache,
    /// Configures in-flight accounting.
    InflightLoad,
    /// Says where endpoints come from.
    Discovery,
    /// Says where and how often metrics pages are fetched.
    MetricsSource,
    /// Says which families of a metrics page mean what.
    MetricsExtractor,
    /// Says which labels say where endpoints are.
    Topology,
    /// Reads bodies of some API.
    Parser,
    /// Measures how full a pool is.
    SaturationDetector,
    /// Says which priorities requests can have.
    Objectives,
    /// Drops requests for their priority.
    Admitter,
    /// Says which request of a flow goes first.
    Ordering,
    /// Says which flow of a band is next.
    Fairness,
    /// Says at which saturation each band stops.
    UsageLimit,
    /// Says which requests in flight are evicted.
    Eviction,
    /// Selects the name under which a model is requested.
    Rewrite,
    /// Has settings of the proxy itself.
    Proxy,
}

impl Capability {
    /// Returns what messages call a plugin that can do it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Scorer => "scorer",
            Self::Picker => "picker",
            Self::ProfileHandler => "profile handler",
            Self::Decider => "decider",
            Self::HelperHeaders => "disagg-headers-handler",
            Self::PrefixProducer => "prefix producer",
            Self::SessionId => "plugin that finds sessions",
            Self::MediaCache => "mm-embeddings-cache-producer",
            Self::InflightLoad => "inflight-load-producer",
            Self::Discovery => "discovery plugin",
            Self::MetricsSource => "metrics source",
            Self::MetricsExtractor => "metrics extractor",
            Self::Topology => "topology extractor",
            Self::Parser => "parser",
            Self::SaturationDetector => "saturation detector",
            Self::Objectives => "static-objectives",
            Self::Admitter => "admitter",
            Self::Ordering => "ordering policy",
            Self::Fairness => "fairness policy",
            Self::UsageLimit => "usage limit policy",
            Self::Eviction => "eviction policy",
            Self::Rewrite => "model-rewrite",
            Self::Proxy => "envoy-proxy",
        }
    }

    /// Returns the name with its article.
    pub fn a_name(self) -> String {
        let name = self.name();
        let article = if name.starts_with(['a', 'e', 'i', 'o']) {
            "an"
        } else {
            "a"
        };
        format!("{article} {name}")
    }
}

/// The capabilities of a plugin. Each part is optional; a plugin fills all that it implements.
#[derive(Debug, Clone, Default)]
pub struct Capabilities {
    /// Removes candidates.
    pub filter: Option<Arc<dyn Filter>>,
    /// Scores candidates.
    pub scorer: Option<Arc<dyn Scorer>>,
    /// Picks among the scored.
    pub picker: Option<Arc<dyn PickerPlugin>>,
    /// Decides which profiles run.
    pub profile_handler: Option<Arc<dyn ProfileHandler>>,
    /// Does something when a request is sent.
    pub hook: Option<Arc<dyn Hook>>,
    /// Decides whether endpoints of other profiles do a part of a request.
    pub decider: Option<Arc<dyn Decider>>,
    /// Refuses requests that are to be served from the cache.
    pub gate: Option<Gate>,
    /// Whether it names these endpoints to the primary one.
    pub helper_headers: bool,
    /// Under which number of the plan it cuts and remembers prompts.
    pub prefix_producer: Option<ProducerId>,
    /// The attribute under which other plugins refer to the identifier of a request's session, and where it is found.
    pub session_id: Option<(&'static str, SessionId)>,
    /// Which endpoints have encoded which media.
    pub media_cache: Option<MediaCache>,
    /// The counting of requests in flight.
    pub inflight_load: Option<InflightLoad>,
    /// The source of the endpoints.
    pub discovery: Option<Discovery>,
    /// The path and the interval of fetching metrics pages.
    pub metrics_source: Option<MetricsDataSource>,
    /// The meaning of the families of a metrics page.
    pub metrics_extractor: Option<CoreMetricsExtractor>,
    /// The labels that say where endpoints are.
    pub topology: Option<Topology>,
    /// Whether it reads bodies of some API. All parsers are always on, so that there is nothing to
    /// hold.
    pub parser: bool,
    /// The objectives that requests can name.
    pub objectives: Option<Objectives>,
    /// Drops requests for their priority.
    pub admitter: Option<ProbabilisticAdmitter>,
    /// Measures how full a pool is.
    pub saturation_detector: Option<Arc<dyn SaturationDetector>>,
    /// Which request of a flow goes first.
    pub ordering: Option<Ordering>,
    /// Which flow of a band is next.
    pub fairness: Option<Fairness>,
    /// At which saturation each band stops.
    pub usage_limit: Option<UsageLimit>,
    /// Whether it says which requests in flight are evicted. There is one rule, so that there is nothing to hold.
    pub eviction: bool,
    /// The name under which a model is requested.
    pub rewrite: Option<ModelRewrite>,
    /// Settings of the proxy itself.
    pub proxy: Option<Box<EnvoyProxy>>,
}

impl Capabilities {
    /// A filter and nothing else.
    pub fn filter(filter: impl Filter + 'static) -> Self {
        Self {
            filter: Some(Arc::new(filter)),
            ..Self::default()
        }
    }

    /// A scorer and nothing else.
    pub fn scorer(scorer: impl Scorer + 'static) -> Self {
        Self {
            scorer: Some(Arc::new(scorer)),
            ..Self::default()
        }
    }

    /// A picker and nothing else.
    pub fn picker(picker: impl PickerPlugin + 'static) -> Self {
        Self {
            picker: Some(Arc::new(picker)),
            ..Self::default()
        }
    }

    /// A profile handler and nothing else.
    pub fn profile_handler(handler: impl ProfileHandler + 'static) -> Self {
        Self {
            profile_handler: Some(Arc::new(handler)),
            ..Self::default()
        }
    }

    /// A decider and nothing else.
    pub fn decider(decider: impl Decider + 'static) -> Self {
        Self {
            decider: Some(Arc::new(decider)),
            ..Self::default()
        }
    }

    /// The identifier of a request's session and nothing else.
    pub fn session_id(attribute: &'static str, id: SessionId) -> Self {
        Self {
            session_id: Some((attribute, id)),
            ..Self::default()
        }
    }

    /// A parser and nothing else.
    pub fn parser() -> Self {
        Self {
            parser: true,
            ..Self::default()
        }
    }

    /// Returns whether the plugin can do it.
    pub fn has(&self, capability: Capability) -> bool {
        match capability {
            Capability::Filter => self.filter.is_some(),
            Capability::Scorer => self.scorer.is_some(),
            Capability::Picker => self.picker.is_some(),
            Capability::ProfileHandler => self.profile_handler.is_some(),
            Capability::Decider => self.decider.is_some(),
            Capability::HelperHeaders => self.helper_headers,
            Capability::PrefixProducer => self.prefix_producer.is_some(),
            Capability::SessionId => self.session_id.is_some(),
            Capability::MediaCache => self.media_cache.is_some(),
            Capability::InflightLoad => self.inflight_load.is_some(),
            Capability::Discovery => self.discovery.is_some(),
            Capability::MetricsSource => self.metrics_source.is_some(),
            Capability::MetricsExtractor => self.metrics_extractor.is_some(),
            Capability::Topology => self.topology.is_some(),
            Capability::Parser => self.parser,
            Capability::SaturationDetector => self.saturation_detector.is_some(),
            Capability::Objectives => self.objectives.is_some(),
            Capability::Admitter => self.admitter.is_some(),
            Capability::Ordering => self.ordering.is_some(),
            Capability::Fairness => self.fairness.is_some(),
            Capability::UsageLimit => self.usage_limit.is_some(),
            Capability::Eviction => self.eviction,
            Capability::Rewrite => self.rewrite.is_some(),
            Capability::Proxy => self.proxy.is_some(),
        }
    }

    /// Returns whether the plugin does anything in a scheduling profile.
    pub fn in_profile(&self) -> bool {
        self.filter.is_some() || self.scorer.is_some() || self.picker.is_some()
    }
}
