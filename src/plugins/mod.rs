//! The plugins, one file each, and the registry that knows them by their type names.
//!
//! Adding one means its file and its line below.

mod fresh;
pub mod role;

pub use role::{Build, Discovery, Generation, PluginType, PrefixProducer, Role};

/// Declares the plugin modules and the table of their types.
macro_rules! registry {
    ($($(#[$doc:meta])* $kind:ident { $($plugin:ident,)* })*) => {
        $($(#[$doc])* pub mod $kind { $(pub mod $plugin;)* })*

        /// The types that can be configured here, in the order of the reference's tables.
        pub const TYPES: &[&PluginType] = &[$($(&$kind::$plugin::TYPE,)*)*];
    };
}

registry! {
    /// Which profiles run, and which result is the answer.
    profile_handler {
        single,
    }
    /// Rate candidates between 0 and 1.
    scorer {
        kv_cache_utilization,
        lora_affinity,
        prefix_cache,
        queue,
        running_requests_size,
    }
    /// Choose among the scored candidates.
    picker {
        max_score,
        random,
        weighted_random,
    }
    /// What scorers need to know of a request.
    producer {
        approx_prefix_cache,
        token,
    }
    /// Where endpoints come from.
    discovery {
        envoy_cluster,
        inline,
    }
    /// How endpoints' metrics are fetched and read.
    source {
        core_metrics_extractor,
        metrics_data_source,
    }
    /// How bodies are read. All four always work here, by path, so that listing them changes nothing.
    parser {
        anthropic,
        openai,
        passthrough,
        vllm_http,
    }
    /// Under which name a model is asked for.
    rewrite {
        model_rewrite,
    }
    /// Settings of the proxy itself.
    proxy {
        envoy_proxy,
    }
}

/// The type of this name.
pub fn find(name: &str) -> Option<&'static PluginType> {
    TYPES.iter().copied().find(|plugin| plugin.name == name)
}
