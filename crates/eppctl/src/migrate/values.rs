//! The Helm values of the charts that install an Endpoint Picker: inferencepool and standalone of the Gateway API
//! Inference Extension, llm-d-router, and llm-d-modelservice.

use super::sources::Chart;
use super::target::Target::{self, *};

/// Values without a place, below both charts' section of the Endpoint Picker.
const PROCESS: &str = "there is no process of its own to run";
const PROXY: &str = "the proxy is the Envoy that the filter runs in";
const GATEWAY: &str = "the gateway and its routes are configured as before";
const MONITORING: &str = "Prometheus scrapes Envoy; docs/operations.md has a dashboard and alerts";
const TRACING: &str = "Envoy traces requests";
const POOL: &str = "the pool is the Envoy cluster";
const SERVERS: &str = "the model servers stay as they are";
const PREDICTOR: &str = "there is no latency predictor here";
const GRPC: Target =
    ToDo("gRPC bodies are not read here: `grpc` model servers are picked by their metrics only");

/// Values by path; a path stands for all below it that has no longer one.
pub const VALUES: &[(&str, Target)] = &[
    // inferencepool and standalone of the Gateway API Inference Extension.
    ("inferenceExtension.pluginsConfigFile", DocumentName),
    ("inferenceExtension.pluginsCustomConfig", Document),
    ("inferenceExtension.failureMode", Proxy("failureMode")),
    (
        "inferenceExtension.metricsDataSource.scheme",
        ChartSource("scheme"),
    ),
    (
        "inferenceExtension.metricsDataSource.path",
        ChartSource("path"),
    ),
    (
        "inferenceExtension.metricsDataSource.insecureSkipVerify",
        TLS,
    ),
    (
        "inferenceExtension.latencyPredictor.enabled",
        ChartPredictor,
    ),
    ("inferenceExtension.latencyPredictor", Gone(PREDICTOR)),
    // Of v0.5, which has flags of these.
    (
        "inferenceExtension.modelServerMetricsScheme",
        Source("scheme"),
    ),
    ("inferenceExtension.modelServerMetricsPath", Source("path")),
    (
        "inferenceExtension.modelServerMetricsHttpsInsecureSkipVerify",
        TLS,
    ),
    (
        "inferenceExtension.endpointsServer.endpointSelector",
        Selector,
    ),
    ("inferenceExtension.endpointsServer.targetPorts", Ports),
    (
        "inferenceExtension.endpointsServer.modelServerType",
        DefaultEngine,
    ),
    (
        "inferenceExtension.endpointsServer.modelServerProtocol",
        GRPC,
    ),
    (
        "inferenceExtension.endpointsServer.createInferencePool",
        Gone(PROCESS),
    ),
    ("inferenceExtension.sidecar.enabled", OwnProxy),
    ("inferenceExtension.sidecar", Gone(PROXY)),
    ("inferenceExtension.monitoring", Gone(MONITORING)),
    ("inferenceExtension.tracing", Gone(TRACING)),
    ("inferenceExtension.image.tag", Release),
    ("inferencePool.apiVersion", Gone(POOL)),
    ("inferencePool.targetPorts", Ports),
    ("inferencePool.targetPortNumber", Ports),
    ("inferencePool.modelServers.matchLabels", Selector),
    ("inferencePool.modelServerType", DefaultEngine),
    ("inferencePool.modelServerProtocol", GRPC),
    ("inferencePool.parser", ChartParsers),
    // llm-d-router.
    ("router.epp.image.tag", Release),
    ("router.epp.pluginsConfigFile", DocumentName),
    ("router.epp.pluginsCustomConfig", Document),
    ("router.epp.parsers", ChartParsers),
    ("router.epp.metricsDataSource.scheme", ChartSource("scheme")),
    ("router.epp.metricsDataSource.path", ChartSource("path")),
    ("router.epp.metricsDataSource.insecureSkipVerify", TLS),
    ("router.metricsPort", Gone(PROCESS)),
    ("router.modelServers.type", DefaultEngine),
    ("router.modelServers.protocol", GRPC),
    ("router.modelServers.targetPorts", Ports),
    ("router.modelServers.targetPortNumber", Ports),
    ("router.modelServers.matchLabels", Selector),
    ("router.inferencePool.failureMode", Proxy("failureMode")),
    ("router.inferencePool.create", Gone(POOL)),
    ("router.inferenceObjectives", Objectives),
    ("router.latencyPredictor.enabled", ChartPredictor),
    ("router.latencyPredictor", Gone(PREDICTOR)),
    (
        "router.tokenizer",
        Gone("no tokenizer is asked: tokens are estimated from the bytes of the prompt"),
    ),
    ("router.proxy.enabled", OwnProxy),
    ("router.proxy.failOpen", FailOpen),
    ("router.proxy", Gone(PROXY)),
    ("router.monitoring", Gone(MONITORING)),
    ("router.tracing", Gone(TRACING)),
    ("router.extraServicePorts", Gone(PROXY)),
    ("router.clusterDomain", Gone(PROCESS)),
    // llm-d-modelservice.
    ("routing.epp.pluginsConfigFile", DocumentName),
    ("routing.epp.defaultConfig", Document),
    ("routing.epp.pluginsCustomConfig", Document),
    ("routing.servicePort", Ports),
    (
        "routing.proxy",
        Gone("the routing sidecar stays beside the decode pods"),
    ),
    ("routing.inferencePool", Gone(POOL)),
    ("routing.inferenceModel", Gone(POOL)),
    ("routing.httpRoute", Gone(GATEWAY)),
    ("routing.parentRefs", Gone(GATEWAY)),
    ("routing.modelName", Gone("the model is read from the body")),
    ("modelArtifacts.labels", Selector),
    ("modelArtifacts", Gone(SERVERS)),
    ("decode", Gone(SERVERS)),
    ("prefill", Gone(SERVERS)),
    // Beside them.
    ("inferenceObjectives", Objectives),
    ("provider", Gone(GATEWAY)),
    ("gke", Gone(GATEWAY)),
    ("istio", Gone(GATEWAY)),
    ("inferenceGateway", Gone(GATEWAY)),
    ("httpRoute", Gone(GATEWAY)),
    ("experimentalHttpRoute", Gone(GATEWAY)),
];

const TLS: Target = Gone("TLS to the model servers is set on the Envoy cluster");

/// The sections of the Endpoint Picker's process, and what they have in any release.
const SECTIONS: [&str; 3] = ["inferenceExtension", "router.epp", "routing.epp"];
const OF_PROCESS: [&str; 24] = [
    "affinity",
    "apiVersion",
    "create",
    "debugLevel",
    "disableLivenessProbe",
    "disableReadinessProbe",
    "enableLeaderElection",
    "enablePprof",
    "env",
    "extProcPort",
    "extraContainerPorts",
    "extraServicePorts",
    "grpcHealthPort",
    "image",
    "logVerbosity",
    "metricsPort",
    "podAnnotations",
    "replicas",
    "resources",
    "service",
    "serviceAccount",
    "tolerations",
    "volumeMounts",
    "volumes",
];

/// The name of the image whose tag is `inferenceExtension.image.tag`; the charts of v1.5 call it a repository.
pub const IMAGE_NAMES: [&str; 2] = [
    "inferenceExtension.image.name",
    "inferenceExtension.image.repository",
];

/// Lists and mappings of flags.
pub const FLAGS: [&str; 2] = ["inferenceExtension.flags", "router.epp.flags"];

/// What tells that a mapping holds the values of such a chart.
pub const TELLING: [(&[&str], Chart); 5] = [
    (&["inferenceExtension"], Chart::Gie),
    (&["inferencePool", "modelServers"], Chart::Gie),
    (&["router", "epp"], Chart::Router),
    (&["router", "modelServers"], Chart::Router),
    (&["routing", "epp"], Chart::ModelService),
];

/// Returns the place of a value of the Endpoint Picker's process.
fn of_process(path: &str) -> Option<Target> {
    let mut below = SECTIONS
        .iter()
        .filter_map(|section| path.strip_prefix(section)?.strip_prefix('.'));
    let name = below.next()?.split('.').next()?;
    OF_PROCESS.contains(&name).then_some(Gone(PROCESS))
}

/// Returns the place of a value, and whether some values below it have places of their own.
pub fn target(path: &str) -> (Option<Target>, bool) {
    let mut found: Option<(usize, Target)> = None;
    let mut more = false;
    for (known, target) in VALUES {
        if is_below(path, known) && found.is_none_or(|(length, _)| length < known.len()) {
            found = Some((known.len(), *target));
        }
        more |= known.len() > path.len() && is_below(known, path);
    }
    let others = FLAGS.iter().chain(&SECTIONS);
    more |= others.copied().any(|one| is_below(one, path));
    let found = found.map(|(_, target)| target);
    (found.or_else(|| of_process(path)), more)
}

/// Returns whether a path is another one, or below it.
fn is_below(path: &str, above: &str) -> bool {
    let rest = path.strip_prefix(above);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_path_decides() {
        assert_eq!(
            target("router.epp.metricsDataSource.path"),
            (Some(ChartSource("path")), false)
        );
        assert_eq!(target("router.epp"), (None, true));
        assert_eq!(target("router.epp.image"), (Some(Gone(PROCESS)), true));
        assert_eq!(target("router.epp.image.tag"), (Some(Release), false));
        let registry = target("router.epp.image.registry");
        assert_eq!(registry, (Some(Gone(PROCESS)), false));
        assert_eq!(target("router.epp.pluginConfigFile"), (None, false));
        assert_eq!(target("routing"), (None, true));
        assert_eq!(target("router.eppx"), (None, false));
    }
}
