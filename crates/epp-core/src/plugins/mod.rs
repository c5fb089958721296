//! The plugins, one file each, and the registry that knows them by their type names.
//!
//! Adding one means its file and its line below.

pub mod any_capacity;
mod build;
mod capability;
mod declaration;
mod keep;
mod label_values;
mod normalize;
mod parity;
mod prefix_producer;
mod session;
#[cfg(test)]
mod test_plugins;
mod topology;

#[cfg(test)]
pub use build::build_default;
pub use build::{questions, Build, Built};
pub use capability::{Capabilities, Capability, Discovery};
pub use declaration::{Dialect, FormerName, PluginType, Reference};
pub use parity::{Parity, Standing};
pub use prefix_producer::{PrefixProducer, TOKEN_BYTES};

/// Plugins that do the same kind of work.
#[cfg(not(target_arch = "wasm32"))]
pub struct Kind {
    /// Its folder.
    pub name: &'static str,
    /// The purpose of its plugins.
    pub about: &'static str,
    /// The types, each with the text of its file.
    pub plugins: &'static [(&'static PluginType, &'static str)],
}

/// Declares the plugin modules and the table of their types.
macro_rules! registry {
    ($($(#[doc = $doc:literal])* $kind:ident { $($plugin:ident,)* })*) => {
        $($(#[doc = $doc])* pub mod $kind { $(pub mod $plugin;)* })*

        /// The types that can be configured here, in the order of the reference's tables.
        pub const TYPES: &[&PluginType] = &[$($(&$kind::$plugin::TYPE,)*)*];

        /// The purpose of each kind, and the kind's plugins with the text of their
        /// files, whose first comment documents them. The module does not use it.
        #[cfg(not(target_arch = "wasm32"))]
        pub const KINDS: &[Kind] = &[$(Kind {
            name: stringify!($kind),
            about: concat!($($doc),*),
            plugins: &[$((
                &$kind::$plugin::TYPE,
                include_str!(concat!(stringify!($kind), "/", stringify!($plugin), ".rs")),
            ),)*],
        },)*];
    };
}

registry! {
    /// Profile handlers select the profiles that run, and the result that counts.
    profile_handler {
        data_parallel,
        disagg,
        header,
        pd,
        single,
    }
    /// Decide which parts of a request endpoints of other profiles do, and name these to the endpoint that it is sent to.
    disaggregation {
        always_disagg_multimodal,
        always_disagg_pd,
        disagg_headers,
        prefix_based_pd,
    }
    /// Say which priorities requests have, and drop some for theirs.
    admission {
        probabilistic_admitter,
        static_objectives,
    }
    /// Measure how full the pool is: what its requests have to wait for, or are dropped for.
    saturation {
        concurrency_detector,
        max_saturation_detector,
        utilization_detector,
    }
    /// Remove candidates.
    filter {
        by_label,
        decode,
        encode,
        endpoint_attribute,
        header_based_testing,
        label_selector,
        prefill,
        prefix_cache_affinity,
        session_affinity,
        topology_affinity,
        utilization,
    }
    /// Rate candidates between 0 and 1.
    scorer {
        active_request,
        context_length_aware,
        endpoint_attribute,
        header_label_affinity,
        kv_cache_utilization,
        latency,
        load_aware,
        lora_affinity,
        mm_embeddings_cache,
        no_hit_lru,
        precise_prefix_cache,
        prefix_cache,
        prefix_rendezvous,
        queue,
        running_requests_size,
        session_affinity,
        token_load,
        topology_affinity,
    }
    /// Choose among the scored candidates.
    picker {
        max_score,
        random,
        weighted_random,
    }
    /// Producers compute data of a request for scorers.
    producer {
        agent_identity,
        approx_prefix_cache,
        burst_prefix_cache,
        inflight_load,
        mm_embeddings_cache,
        precise_prefix_cache,
        session_id,
        token,
    }
    /// The source of the endpoints.
    discovery {
        envoy_cluster,
        inline,
    }
    /// How endpoints' metrics are fetched and read.
    source {
        core_metrics_extractor,
        metrics_data_source,
        topology_extractor,
    }
    /// How bodies are read. All of them always work here, by path, so that listing them changes nothing.
    parser {
        anthropic,
        openai,
        passthrough,
        sglang_http,
        vllm_http,
    }
    /// Flow control: which of the requests that wait goes next, and from which saturation of the pool on they wait.
    flow {
        fcfs,
        edf,
        slo_deadline,
        global_strict,
        round_robin,
        program_aware,
        static_usage_limit,
        priority_holdback,
        soft_reflective,
        sheddable_eviction,
        priority_then_time_eviction,
    }
    /// The name under which a model is requested.
    rewrite {
        model_rewrite,
    }
    /// Settings of the proxy itself.
    proxy {
        envoy_proxy,
    }
}

/// Returns the type of this name, or of a former one.
pub fn find(name: &str) -> Option<&'static PluginType> {
    let mut types = TYPES.iter();
    let found = types.find(|plugin| plugin.is_named(name));
    #[cfg(test)]
    let found = found.or_else(|| test_plugins::find(name));
    found.copied()
}
