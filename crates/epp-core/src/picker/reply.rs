//! The local reply to a request without an endpoint: the Endpoint Picker's codes and texts.

use crate::plugins::Dialect;
use crate::scheduling::ScheduleError;

/// A response of the picker's own, sent instead of forwarding the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalReply {
    /// HTTP status.
    pub status: u32,
    /// The body.
    pub body: String,
    /// Value of [`DROPPED_REASON_HEADER`](crate::protocol::DROPPED_REASON_HEADER).
    pub reason: &'static str,
    /// The error's canonical name, which counts it.
    pub code: &'static str,
}

impl LocalReply {
    /// Returns the reply to a request whose scheduling failed, as the Endpoint Picker of that dialect
    /// words it.
    pub(super) fn new(error: &ScheduleError, dialect: Dialect) -> Self {
        let empty = matches!(error, ScheduleError::NoCandidates);
        let status = if empty { 503 } else { 429 };
        let reason = if empty {
            "rejected-no-endpoints"
        } else {
            "rejected-saturated"
        };
        let (code, body) = match dialect {
            Dialect::GieV1 => gie_v1(error, empty),
            Dialect::LlmD => llm_d(error, empty),
        };
        Self {
            status,
            body,
            reason,
            code,
        }
    }

    /// Returns the reply to a request over which the picker itself failed.
    pub(super) fn defect(dialect: Dialect) -> Self {
        let prefix = match dialect {
            Dialect::GieV1 => "inference gateway",
            Dialect::LlmD => "inference error",
        };
        Self {
            status: 500,
            body: format!("{prefix}: Internal - the endpoint picker failed"),
            reason: "internal-error",
            code: "Internal",
        }
    }
}

fn gie_v1(error: &ScheduleError, empty: bool) -> (&'static str, String) {
    if empty {
        let text = "failed to find candidate pods for serving the request";
        let code = "ServiceUnavailable";
        return (code, format!("inference gateway: {code} - {text}"));
    }
    // GIE v1 wraps every scheduling error like this.
    let code = "InferencePoolResourceExhausted";
    let body = format!("inference gateway: {code} - failed to find target pod: {error}");
    (code, body)
}

fn llm_d(error: &ScheduleError, empty: bool) -> (&'static str, String) {
    let code = if empty {
        "ServiceUnavailable"
    } else {
        "ResourceExhausted"
    };
    let body = match error {
        ScheduleError::NoCandidates | ScheduleError::AllFiltered => {
            format!("inference error: {code} - {error}")
        }
        _ => format!("inference error: {code} - failed to find target endpoint: {error}"),
    };
    (code, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_pool_is_503_and_everything_else_429() {
        let cases = [
            (
                ScheduleError::NoCandidates,
                Dialect::LlmD,
                503,
                "inference error: ServiceUnavailable - failed to find endpoint candidates for serving the request",
                "rejected-no-endpoints",
            ),
            (
                ScheduleError::AllFiltered,
                Dialect::LlmD,
                429,
                "inference error: ResourceExhausted - no endpoints available for the given request",
                "rejected-saturated",
            ),
            (
                ScheduleError::NoCandidates,
                Dialect::GieV1,
                503,
                "inference gateway: ServiceUnavailable - failed to find candidate pods for serving the request",
                "rejected-no-endpoints",
            ),
            (
                ScheduleError::NoProfileRan,
                Dialect::GieV1,
                429,
                "inference gateway: InferencePoolResourceExhausted - failed to find target pod: failed to run any scheduler profile",
                "rejected-saturated",
            ),
        ];
        for (error, dialect, status, body, reason) in cases {
            let reply = LocalReply::new(&error, dialect);
            assert_eq!(
                (reply.status, reply.body.as_str(), reply.reason),
                (status, body, reason)
            );
        }
    }
}
