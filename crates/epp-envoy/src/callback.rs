//! The callbacks in which a host of the picker can fail.

/// A callback by Envoy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Callback {
    /// A configuration has come.
    Configure,
    /// The timer fires.
    Tick,
    /// A callout has ended.
    CalloutResponse,
    /// A request's headers.
    RequestHeaders,
    /// A part of its body.
    RequestBody,
    /// Its trailers.
    RequestTrailers,
    /// The headers of its response.
    ResponseHeaders,
    /// A part of its response's body.
    ResponseBody,
    /// A context was deleted.
    Delete,
}

impl Callback {
    /// Returns its name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Configure => "configure",
            Self::Tick => "tick",
            Self::CalloutResponse => "callout_response",
            Self::RequestHeaders => "request_headers",
            Self::RequestBody => "request_body",
            Self::RequestTrailers => "request_trailers",
            Self::ResponseHeaders => "response_headers",
            Self::ResponseBody => "response_body",
            Self::Delete => "delete",
        }
    }
}
