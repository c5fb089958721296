//! Settings of the picker itself, beside what its plugins are set to. Where the document has them is said in
//! [`crate::plugins::proxy::envoy_proxy`].

use std::time::Duration;

use crate::endpoints::outlier::OutlierSettings;
use crate::protocol::DESTINATION_HEADER;

/// The treatment of a request for which no endpoint could be picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureMode {
    /// It gets the Endpoint Picker's error as a local reply.
    FailClose,
    /// The proxy's own load balancing chooses.
    FailOpen,
}

/// The conditions under which bodies are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadBody {
    /// If the plan needs them, and the host finds that its proxy delivers them before routing.
    Auto,
    /// If the plan needs them.
    Always,
    /// Never.
    Never,
}

/// The condition for a decision before the end of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EarlyRelease {
    /// A decision is made as soon as the rest of the body cannot change it.
    Exact,
    /// Like [`Self::Exact`], but tools, system text and salt that were not seen so far are assumed to be absent.
    AssumeAbsent,
}

/// The treatment of a request whose prompt another endpoint was to compute, where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingPrefill {
    /// It gets the Endpoint Picker's error as a local reply.
    Reject,
    /// Its primary endpoint computes the prompt itself.
    DecodeOnly,
}

/// Settings of the picker itself.
#[derive(Debug, Clone, PartialEq)]
pub struct PickerSettings {
    /// Whether requests are decided, and left as they are.
    pub dry_run: bool,
    /// The header that names the endpoints of a request to the proxy, in lower case.
    pub destination_header: String,
    /// The treatment of requests for which no endpoint could be picked.
    pub failure_mode: FailureMode,
    /// The treatment of requests whose prompt no endpoint can compute that should.
    pub missing_prefill: MissingPrefill,
    /// Next best endpoints named after the picks.
    pub fallback_endpoints: usize,
    /// The conditions under which bodies are read.
    pub read_body: ReadBody,
    /// The header that names the model where the body is not read, in lower case.
    pub model_header: String,
    /// Whether a header may name another model to ask for.
    pub rewrite_header: bool,
    /// Bodies up to this are held to their end where need be; longer ones are not.
    pub decide_after_bytes: usize,
    /// Silence of a held request after which the decision is taken.
    pub body_timeout: Duration,
    /// Requests that one picker holds at a time.
    pub max_held: usize,
    /// Whether a decision waits for all that can change it.
    pub early_release: EarlyRelease,
    /// Whether requests sent since the last scrape count as waiting.
    pub correct_queue: bool,
    /// Whether model servers are asked to report their load with responses.
    pub request_load_metrics: bool,
    /// Whether the prefix index forgets blocks where responses report fewer cached tokens than it expected.
    pub correct_index: bool,
    /// Whether the pickers of one proxy share their state.
    pub share_state: bool,
    /// How long endpoints at which requests fail are left out; `None` if they are not.
    pub outlier_detection: Option<OutlierSettings>,
    /// Memory bound of the prefix index.
    pub max_index_bytes: usize,
    /// Whether clients may ask for an explanation.
    pub explain: bool,
    /// Whether the document is refused where it has something that is approximated here.
    pub strict: bool,
}

impl Default for PickerSettings {
    fn default() -> Self {
        Self {
            dry_run: false,
            destination_header: DESTINATION_HEADER.to_owned(),
            failure_mode: FailureMode::FailClose,
            missing_prefill: MissingPrefill::Reject,
            fallback_endpoints: 2,
            read_body: ReadBody::Auto,
            model_header: "x-gateway-model-name".to_owned(),
            rewrite_header: false,
            // What Envoy's buffers take by default (per_connection_buffer_limit_bytes).
            decide_after_bytes: 1 << 20,
            body_timeout: Duration::from_secs(5),
            max_held: 1024,
            early_release: EarlyRelease::Exact,
            correct_queue: true,
            request_load_metrics: false,
            correct_index: true,
            share_state: true,
            outlier_detection: Some(OutlierSettings {
                first: Duration::from_secs(1),
                max: Duration::from_secs(60),
            }),
            max_index_bytes: 64 << 20,
            explain: false,
            strict: false,
        }
    }
}
