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
const PREDICTOR: &str = "there is no latency predictor here";
const OBJECTIVES: Target = ToDo(
    "objectives have no effect here: requests have no priorities, and are never queued or shed",
);
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
    ("inferenceExtension.endpointsServer", Gone(PROCESS)),
    ("inferenceExtension.sidecar", Gone(PROXY)),
    ("inferenceExtension.monitoring", Gone(MONITORING)),
    ("inferenceExtension.tracing", Gone(TRACING)),
    ("inferenceExtension", Gone(PROCESS)),
    ("inferencePool.targetPorts", Ports),
    ("inferencePool.targetPortNumber", Ports),
    ("inferencePool.modelServers.matchLabels", Selector),
    ("inferencePool.modelServerType", DefaultEngine),
    ("inferencePool.modelServerProtocol", GRPC),
    ("inferencePool.parser", ChartParsers),
    ("inferencePool", Gone("the pool is the Envoy cluster")),
    // llm-d-router.
    ("router.epp.pluginsConfigFile", DocumentName),
    ("router.epp.pluginsCustomConfig", Document),
    ("router.epp.parsers", ChartParsers),
    ("router.epp.metricsDataSource.scheme", ChartSource("scheme")),
    ("router.epp.metricsDataSource.path", ChartSource("path")),
    ("router.epp.metricsDataSource.insecureSkipVerify", TLS),
    ("router.epp", Gone(PROCESS)),
    ("router.modelServers.type", DefaultEngine),
    ("router.modelServers.protocol", GRPC),
    ("router.modelServers.targetPorts", Ports),
    ("router.modelServers.matchLabels", Selector),
    ("router.inferencePool.failureMode", Proxy("failureMode")),
    (
        "router.inferencePool",
        Gone("the pool is the Envoy cluster"),
    ),
    ("router.inferenceObjectives", OBJECTIVES),
    ("router.latencyPredictor.enabled", ChartPredictor),
    ("router.latencyPredictor", Gone(PREDICTOR)),
    (
        "router.tokenizer",
        Gone("no tokenizer is asked: tokens are estimated from the bytes of the prompt"),
    ),
    ("router.proxy", Gone(PROXY)),
    ("router.monitoring", Gone(MONITORING)),
    ("router.tracing", Gone(TRACING)),
    ("router.extraServicePorts", Gone(PROXY)),
    ("router.clusterDomain", Gone(PROCESS)),
    // llm-d-modelservice.
    ("routing.epp.pluginsConfigFile", DocumentName),
    ("routing.epp.defaultConfig", Document),
    ("routing.epp.pluginsCustomConfig", Document),
    ("routing.epp", Gone(PROCESS)),
    ("routing.servicePort", Ports),
    (
        "routing.proxy",
        Gone("the routing sidecar stays beside the decode pods"),
    ),
    (
        "routing.inferencePool",
        Gone("the pool is the Envoy cluster"),
    ),
    (
        "routing.inferenceModel",
        Gone("the pool is the Envoy cluster"),
    ),
    ("routing.httpRoute", Gone(GATEWAY)),
    ("routing.parentRefs", Gone(GATEWAY)),
    ("routing.modelName", Gone("the model is read from the body")),
    ("modelArtifacts.labels", Selector),
    // Beside them.
    ("inferenceObjectives", OBJECTIVES),
    ("provider", Gone(GATEWAY)),
    ("gke", Gone(GATEWAY)),
    ("httpRoute", Gone(GATEWAY)),
    ("experimentalHttpRoute", Gone(GATEWAY)),
];

const TLS: Target = Gone("TLS to the model servers is set on the Envoy cluster");

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
    more |= FLAGS
        .iter()
        .any(|flags| flags.len() > path.len() && is_below(flags, path));
    (found.map(|(_, target)| target), more)
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
        assert_eq!(target("router.epp"), (Some(Gone(PROCESS)), true));
        assert_eq!(target("router.epp.image.tag"), (Some(Gone(PROCESS)), false));
        assert_eq!(target("routing"), (None, true));
        assert_eq!(target("router.eppx"), (None, false));
    }
}
