//! `core-metrics-extractor`: which families of a metrics page mean what, by inference engine.
//!
//! The engines `vllm`, `sglang`, `trtllm-serve`, `triton-tensorrt-llm` and `triton` are built in. `triton`
//! has no number of running requests: Triton exports a counter of all that it ever ran, and no gauge.
//!
//! Series of a family that differ in labels of engines, ranks or processes (`engine`, `dp_rank`, `pid`) are
//! one endpoint: requests and blocks add up, the greatest KV-cache utilization counts, LoRA adapters are
//! united. Of series that differ in other labels one is read. A spec that names labels reads the series
//! that have them. `eppctl metrics` shows what is read of a page, and what is not.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `engineLabelKey` | `llm-d.ai/engine-type` | the endpoint label that names its engine; `inference.networking.k8s.io/engine-type` is read, too |
//! | `defaultEngine` | `vllm` | the engine of endpoints without the label |
//! | `engineConfigs` | none | further engines, or others by the name of a built-in one |
//! | `engineConfigs[].name` | required | the label's value |
//! | `engineConfigs[].queuedRequestsSpec`, `runningRequestsSpec`, `kvUsageSpec`, `loraSpec` | none | metric specs, `name{label=value}` |
//! | `engineConfigs[].cacheInfoSpec`, `cacheBlockSizeLabelName`, `cacheNumBlocksLabelName` | none | KV-cache geometry in labels |
//! | `engineConfigs[].cacheBlockSizeSpec`, `cacheNumBlocksSpec` | none | the same as values |
//! | `engineConfigs[].customMetrics` | none | attributes for `endpoint-attribute-scorer` and `endpoint-attribute-filter`, at most 16 |
//! | `engineConfigs[].customMetrics[].attributeKey` | required | the attribute's name |
//! | `engineConfigs[].customMetrics[].metricSpec` | required | a metric spec; of several engines or ranks the greatest value counts |
//!
//! ```yaml
//! - type: core-metrics-extractor
//!   parameters:
//!     engineConfigs:
//!     - name: mine
//!       queuedRequestsSpec: "my_queue{kind=all}"
//!       customMetrics: [{attributeKey: temperature, metricSpec: gpu_temperature}]
//! ```

use crate::config::value::{Fields, Node, Path, Problems};
use crate::endpoints::engine::{built_in, is_counter_name, EngineConfig, TRITON};
use crate::endpoints::spec::MetricSpec;
use crate::plugins::{
    Build, Capabilities, Capability, Dialect, FormerName, Parity, PluginType, Standing,
};
use crate::scheduling::MAX_ATTRIBUTES;

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "core-metrics-extractor",
    former_names: &[FormerName {
        name: FORMER_NAME,
        dialect: Dialect::GieV1,
    }],
    provides: &[Capability::MetricsExtractor],
    references: &[],
    build,
    parity: Parity::of(Standing::Differs(
        "series of engines, ranks or processes of one endpoint count together",
    )),
};

/// The standing of a parameter that names the producer of an attribute.
pub const ONLY_ITS: Standing = Standing::Approximated(NO_OTHERS);

/// What happens to attributes of other producers.
pub const NO_OTHERS: &str = "attributes of other producers are missing at every endpoint";

/// The type's name in the Gateway API Inference Extension v1.3 and v1.4.
pub const FORMER_NAME: &str = "model-server-protocol-metrics";

/// The label's former name, which the Endpoint Picker still reads.
pub const FORMER_ENGINE_LABEL: &str = "inference.networking.k8s.io/engine-type";

/// The settings.
#[derive(Debug, Clone, PartialEq)]
pub struct CoreMetricsExtractor {
    /// The label that names an endpoint's engine.
    pub engine_label: String,
    /// The engine of endpoints without it.
    pub default_engine: String,
    /// All engines, those of the document before the built-in ones.
    pub engines: Vec<EngineConfig>,
}

impl Default for CoreMetricsExtractor {
    fn default() -> Self {
        Self {
            engine_label: "llm-d.ai/engine-type".to_owned(),
            default_engine: "vllm".to_owned(),
            engines: built_in(),
        }
    }
}

/// Reads the parameters of v1.4, and under the former name also those of v1.3.
fn build(build: &mut Build<'_, '_>) -> Capabilities {
    let is_former = build.kind == FORMER_NAME && build.declared == Dialect::GieV1;
    let fields = &mut build.fields;
    if is_former {
        fields.in_any_case();
    }
    let mut extractor = read(fields);
    if is_former {
        read_one_engine(fields, &mut extractor);
    }
    Capabilities {
        metrics_extractor: Some(extractor),
        ..Capabilities::default()
    }
}

/// Reads v1.3's specs: of the one engine that all endpoints have, whatever their labels. What is not
/// given is vLLM's there.
fn read_one_engine(fields: &mut Fields<'_>, extractor: &mut CoreMetricsExtractor) {
    let Some(mut engine) = built_in().into_iter().next() else {
        return;
    };
    let mut cache_info = None;
    let mut specs = [
        ("queueRequestsSpec", &mut engine.queued),
        ("runningRequestsSpec", &mut engine.running),
        ("kvUsageSpec", &mut engine.kv_usage),
        ("loraSpec", &mut engine.lora),
        ("cacheInfoSpec", &mut cache_info),
    ];
    // From v1.4 on they are engines' own, and ignored here.
    let is_later =
        ["engineConfigs", "defaultEngine", "engineLabelKey"].map(|name| fields.has(name));
    if is_later.contains(&true) {
        for (name, _) in specs {
            fields.no_effect(name, "engineConfigs has the specs of engines");
        }
        return;
    }
    let given =
        |fields: &mut Fields<'_>, name| !matches!(fields.node(name), None | Some(Node::Null));
    let mut any = false;
    for (name, spec) in &mut specs {
        let read = read_load(fields, name);
        if given(fields, name) {
            any = true;
            **spec = read;
        }
    }
    if given(fields, "kvUsageSpec") {
        engine.old_kv_usage = None;
    }
    if given(fields, "cacheInfoSpec") {
        engine.cache_info = cache_info.map(|spec| (spec, String::new(), String::new()));
    }
    if any {
        extractor.engines = vec![engine];
    }
}

fn read(fields: &mut Fields<'_>) -> CoreMetricsExtractor {
    let default = CoreMetricsExtractor::default();
    let engine_label = fields.string("engineLabelKey", &default.engine_label);
    let mut engines: Vec<EngineConfig> = Vec::new();
    if let Some(node) = fields.node("engineConfigs") {
        fields.note("engineConfigs", node.clone());
    }
    for (entry, path) in fields.list("engineConfigs") {
        let engine = read_engine(entry, path.clone(), fields.problems());
        let twice = engines.iter().any(|known| known.name == engine.name);
        if twice || matches!(engine.name.as_str(), "default") {
            let message = format!(
                "found {:?}, expected another name than \"default\", once",
                engine.name
            );
            fields.problems().error(&path.key("name"), message);
        }
        engines.push(engine);
    }
    engines.extend(default.engines);
    let default_engine = fields.string("defaultEngine", &default.default_engine);
    if !engines.iter().any(|engine| engine.name == default_engine) {
        let known: Vec<&str> = engines.iter().map(|engine| engine.name.as_str()).collect();
        let expected = format!("an engine: {}", known.join(", "));
        fields.refuse(
            "defaultEngine",
            &Node::String(default_engine.clone()),
            &expected,
        );
    }
    let in_force = engines.iter().find(|engine| engine.name == default_engine);
    if in_force.is_some_and(|engine| engine.name == TRITON && engine.running.is_none()) {
        let path = fields.path().key("defaultEngine");
        let message = "triton has no number of running requests: nv_inference_exec_count, which the Endpoint \
                       Picker reads, counts all that the server ever ran; running-requests-size-scorer \
                       gives all such endpoints the same";
        fields.problems().warn(&path, message);
    }
    CoreMetricsExtractor {
        engine_label,
        default_engine,
        engines,
    }
}

fn read_engine(entry: &Node, path: Path, problems: &mut Problems) -> EngineConfig {
    let mut fields = Fields::new(Some(entry), path, problems);
    let name = fields.required_string("name");
    let cache_info = read_spec(&mut fields, "cacheInfoSpec");
    let block_size = fields.string("cacheBlockSizeLabelName", "");
    let num_blocks = fields.string("cacheNumBlocksLabelName", "");
    let engine = EngineConfig {
        name,
        queued: read_load(&mut fields, "queuedRequestsSpec"),
        running: read_load(&mut fields, "runningRequestsSpec"),
        kv_usage: read_load(&mut fields, "kvUsageSpec"),
        old_kv_usage: None,
        lora: read_spec(&mut fields, "loraSpec"),
        cache_info: cache_info.map(|spec| (spec, block_size, num_blocks)),
        block_size: read_spec(&mut fields, "cacheBlockSizeSpec"),
        num_blocks: read_spec(&mut fields, "cacheNumBlocksSpec"),
        custom: read_custom(&mut fields),
    };
    fields.finish();
    engine
}

fn read_custom(fields: &mut Fields<'_>) -> Vec<(String, MetricSpec)> {
    const LIST: &str = "customMetrics";
    let mut custom: Vec<(String, MetricSpec)> = Vec::new();
    let entries = fields.list(LIST);
    // First: each is compared with all before it.
    if entries.len() > MAX_ATTRIBUTES {
        let message = format!("found {}, expected at most {MAX_ATTRIBUTES}", entries.len());
        let path = fields.path().key(LIST);
        fields.problems().error(&path, message);
        return custom;
    }
    for (entry, path) in entries {
        let mut entry = Fields::new(Some(entry), path.clone(), fields.problems());
        let name = entry.required_string("attributeKey");
        let spec = entry.required_string("metricSpec");
        let spec = parse_spec(&mut entry, "metricSpec", &spec);
        entry.finish();
        if custom.iter().any(|(known, _)| *known == name) {
            let message = format!("found {name:?} again, expected another name");
            fields.problems().error(&path.key("attributeKey"), message);
        }
        custom.extend(spec.map(|spec| (name, spec)));
    }
    custom
}

/// The spec of a load, which a family that counts all of a server's life cannot be.
fn read_load(fields: &mut Fields<'_>, name: &'static str) -> Option<MetricSpec> {
    let spec = read_spec(fields, name)?;
    if is_counter_name(&spec.name) {
        let path = fields.path().key(name);
        let message = format!(
            "{} counts all of a server's life; a page that announces it as a counter has no value here",
            spec.name
        );
        fields.problems().warn(&path, message);
    }
    Some(spec)
}

fn read_spec(fields: &mut Fields<'_>, name: &'static str) -> Option<MetricSpec> {
    let text = fields.string(name, "");
    parse_spec(fields, name, &text)
}

fn parse_spec(fields: &mut Fields<'_>, name: &str, text: &str) -> Option<MetricSpec> {
    match MetricSpec::parse(text) {
        Ok(spec) => spec,
        Err(error) => {
            let path = fields.path().key(name);
            fields
                .problems()
                .error(&path, format!("found {text:?}: {error}"));
            None
        }
    }
}
