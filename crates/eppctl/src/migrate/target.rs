//! Where a setting of an Endpoint Picker goes.

/// The place of a setting in a configuration of epp-wasm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The document itself, or where it is.
    Document,
    /// Which of several documents is in force.
    DocumentName,
    /// The pool's identity: the cluster of its members stands for it.
    Pool,
    /// The labels of the pool's pods.
    Selector,
    /// The ports of the pool's pods.
    Ports,
    /// A parameter of `metrics-data-source`.
    Source(&'static str),
    /// A parameter of `metrics-data-source` in the chart's own document, which no other document has from there.
    ChartSource(&'static str),
    /// A metric spec of the engine that all endpoints run.
    Engine(&'static str),
    /// The engine that all endpoints run, by name.
    DefaultEngine,
    /// A parameter of `envoy-proxy`.
    Proxy(&'static str),
    /// Whether the Endpoint Picker has a proxy of its own, with one route.
    OwnProxy,
    /// Whether that proxy lets requests pass if the Endpoint Picker does not answer.
    FailOpen,
    /// The tag of the Endpoint Picker's image, which names its release.
    Release,
    /// The chart's own document uses a latency predictor.
    ChartPredictor,
    /// The parsers of the chart's own document.
    ChartParsers,
    /// Objectives that requests can name, with their priorities.
    Objectives,
    /// Nothing takes its place, and why.
    Gone(&'static str),
    /// The user has to do something.
    ToDo(&'static str),
    /// Not a setting of any release.
    Unknown,
    /// A value outside the sections of the Endpoint Picker.
    LeftOut,
}
