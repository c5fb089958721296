//! The local reply to a request without an endpoint: the Endpoint Picker's codes and texts.

use crate::flow::Dropped;
use crate::plugins::Dialect;
use crate::scheduling::ScheduleError;

/// A response of the picker's own, sent instead of forwarding the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalReply {
    /// HTTP status.
    pub status: u32,
    /// The body.
    pub body: String,
    /// Value of [`DROPPED_REASON_HEADER`](crate::protocol::DROPPED_REASON_HEADER), where it has that header.
    pub reason: Option<&'static str>,
    /// The error's canonical name, which counts it.
    pub code: &'static str,
}

impl LocalReply {
    /// Returns the reply to a request whose scheduling failed, as the Endpoint Picker of that dialect
    /// words it.
    pub(super) fn new(error: &ScheduleError, dialect: Dialect) -> Self {
        match (error, dialect) {
            (ScheduleError::Dropped(why), _) => dropped(*why, dialect),
            (_, Dialect::GieV1) => gie_v1(error),
            (_, Dialect::LlmD) => llm_d(error),
        }
    }

    /// Returns the reply to a request over which the picker itself failed.
    pub(super) fn defect(dialect: Dialect) -> Self {
        let prefix = prefix(dialect);
        Self {
            status: 500,
            body: format!("{prefix}: Internal - the endpoint picker failed"),
            reason: Some("internal-error"),
            code: "Internal",
        }
    }
}

/// Returns how error texts begin.
fn prefix(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::GieV1 => "inference gateway",
        Dialect::LlmD => "inference error",
    }
}

/// Returns the reply to a request that is dropped.
fn dropped(why: Dropped, dialect: Dialect) -> LocalReply {
    const UNAVAILABLE: &str = "ServiceUnavailable";
    let exhausted = match dialect {
        Dialect::GieV1 => "InferencePoolResourceExhausted",
        Dialect::LlmD => "ResourceExhausted",
    };
    let prefix = prefix(dialect);
    let (status, code, reason) = match why {
        Dropped::Shed | Dropped::QueueFull => (429, exhausted, SATURATED),
        // The Endpoint Picker wraps what the plugin says.
        Dropped::DrawnOut { .. } => (500, "Internal", None),
        Dropped::QueueFullWithoutEndpoints | Dropped::ExpiredWithoutEndpoints => {
            (503, UNAVAILABLE, NO_ENDPOINTS)
        }
        // Its predecessor does not distinguish a full pool from an empty one.
        Dropped::Expired if dialect == Dialect::GieV1 => (503, UNAVAILABLE, EXPIRED),
        Dropped::Expired => (429, exhausted, EXPIRED),
        Dropped::Evicted => (429, exhausted, Some("evicted")),
        Dropped::ShuttingDown => (503, UNAVAILABLE, Some("rejected-shutting-down")),
    };
    let body = match why {
        Dropped::Evicted => why.to_string(),
        Dropped::DrawnOut { .. } => {
            format!("{prefix}: {code} - request cannot be admitted: {prefix}: {exhausted} - {why}")
        }
        _ => format!("{prefix}: {code} - {why}"),
    };
    LocalReply {
        status,
        body,
        reason,
        code,
    }
}

const EXPIRED: Option<&str> = Some("rejected-ttl-expired");
const NO_ENDPOINTS: Option<&str> = Some("rejected-no-endpoints");
const SATURATED: Option<&str> = Some("rejected-saturated");

fn gie_v1(error: &ScheduleError) -> LocalReply {
    let (status, code, reason) = match error {
        ScheduleError::NoCandidates => (503, "ServiceUnavailable", NO_ENDPOINTS),
        ScheduleError::NotCached => (412, "PreconditionFailed", None),
        _ => (429, "InferencePoolResourceExhausted", SATURATED),
    };
    let text = match error {
        ScheduleError::NoCandidates => {
            "failed to find candidate pods for serving the request".to_owned()
        }
        ScheduleError::NotCached => error.to_string(),
        // GIE v1 wraps every other error like this.
        _ => format!("failed to find target pod: {error}"),
    };
    LocalReply {
        status,
        body: format!("inference gateway: {code} - {text}"),
        reason,
        code,
    }
}

fn llm_d(error: &ScheduleError) -> LocalReply {
    let (status, code, reason) = match error {
        ScheduleError::NoCandidates
        | ScheduleError::NoDecodeEndpoint
        | ScheduleError::NoPrefillEndpoint => (503, "ServiceUnavailable", NO_ENDPOINTS),
        ScheduleError::AllFiltered | ScheduleError::NoneMatches | ScheduleError::NoneChosen => {
            (429, "ResourceExhausted", SATURATED)
        }
        ScheduleError::NotCached => (412, "PreconditionFailed", None),
        ScheduleError::NoProfileRan | ScheduleError::ManyResults(_) | ScheduleError::Dropped(_) => {
            (429, "ResourceExhausted", None)
        }
    };
    let text = match error {
        ScheduleError::NoCandidates
        | ScheduleError::AllFiltered
        | ScheduleError::NoneMatches
        | ScheduleError::NoneChosen
        | ScheduleError::NotCached => error.to_string(),
        _ => format!("failed to find target endpoint: {error}"),
    };
    LocalReply {
        status,
        body: format!("inference error: {code} - {text}"),
        reason,
        code,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Case = (
        ScheduleError,
        Dialect,
        u32,
        &'static str,
        Option<&'static str>,
    );

    fn check(cases: &[Case]) {
        for (error, dialect, status, body, reason) in cases {
            let reply = LocalReply::new(error, *dialect);
            assert_eq!(
                (reply.status, reply.body.as_str(), reply.reason),
                (*status, *body, *reason)
            );
        }
    }

    #[test]
    fn each_error_has_the_code_and_the_text_of_its_dialect() {
        let cases = [
            (
                ScheduleError::NoCandidates,
                Dialect::LlmD,
                503,
                "inference error: ServiceUnavailable - failed to find endpoint candidates for serving the request",
                Some("rejected-no-endpoints"),
            ),
            (
                ScheduleError::AllFiltered,
                Dialect::LlmD,
                429,
                "inference error: ResourceExhausted - no endpoints available for the given request",
                Some("rejected-saturated"),
            ),
            (
                ScheduleError::NoCandidates,
                Dialect::GieV1,
                503,
                "inference gateway: ServiceUnavailable - failed to find candidate pods for serving the request",
                Some("rejected-no-endpoints"),
            ),
            (
                ScheduleError::NoProfileRan,
                Dialect::LlmD,
                429,
                "inference error: ResourceExhausted - failed to find target endpoint: failed to run any scheduler profile",
                None,
            ),
            (
                ScheduleError::NoProfileRan,
                Dialect::GieV1,
                429,
                "inference gateway: InferencePoolResourceExhausted - failed to find target pod: failed to run any scheduler profile",
                Some("rejected-saturated"),
            ),
        ];
        check(&cases);
    }

    #[test]
    fn what_disaggregated_plans_fail_with_is_not_saturation() {
        check(&[
            (
                ScheduleError::NoDecodeEndpoint,
                Dialect::LlmD,
                503,
                "inference error: ServiceUnavailable - failed to find target endpoint: failed to find available decode workers",
                Some("rejected-no-endpoints"),
            ),
            (
                ScheduleError::NoPrefillEndpoint,
                Dialect::LlmD,
                503,
                "inference error: ServiceUnavailable - failed to find target endpoint: prefill profile was required but produced no result",
                Some("rejected-no-endpoints"),
            ),
            (
                ScheduleError::NotCached,
                Dialect::LlmD,
                412,
                "inference error: PreconditionFailed - no decode worker has the requested KV cache",
                None,
            ),
        ]);
    }

    fn check_dropped(
        dialect: Dialect,
        cases: &[(Dropped, u32, &'static str, Option<&'static str>)],
    ) {
        for (why, status, body, reason) in cases {
            check(&[(
                ScheduleError::Dropped(*why),
                dialect,
                *status,
                body,
                *reason,
            )]);
        }
    }

    const DRAWN_OUT: Dropped = Dropped::DrawnOut {
        saturation: 1_234,
        probability: 97,
    };

    #[test]
    fn what_llm_d_drops_has_its_codes_and_texts() {
        check_dropped(
            Dialect::LlmD,
            &[
                (
                    Dropped::Shed,
                    429,
                    "inference error: ResourceExhausted - system saturated, sheddable request dropped",
                    Some("rejected-saturated"),
                ),
                (
                    DRAWN_OUT,
                    500,
                    "inference error: Internal - request cannot be admitted: inference error: ResourceExhausted - \
                     probabilistic-admitter: rejected, saturation=1.234 prob=0.97",
                    None,
                ),
                (
                    Dropped::QueueFull,
                    429,
                    "inference error: ResourceExhausted - request rejected pre-queue: queue at capacity",
                    Some("rejected-saturated"),
                ),
                (
                    Dropped::QueueFullWithoutEndpoints,
                    503,
                    "inference error: ServiceUnavailable - no endpoints available: request rejected pre-queue: no \
                     endpoints available",
                    Some("rejected-no-endpoints"),
                ),
                (
                    Dropped::Expired,
                    429,
                    "inference error: ResourceExhausted - request timed out in queue: request evicted from queue: \
                     request TTL expired",
                    Some("rejected-ttl-expired"),
                ),
                (
                    Dropped::ExpiredWithoutEndpoints,
                    503,
                    "inference error: ServiceUnavailable - request timed out in queue and no endpoints are available: \
                     request evicted from queue: request TTL expired: no endpoints available",
                    Some("rejected-no-endpoints"),
                ),
                (
                    Dropped::Evicted,
                    429,
                    "request evicted by flow control",
                    Some("evicted"),
                ),
                (
                    Dropped::ShuttingDown,
                    503,
                    "inference error: ServiceUnavailable - flow controller shutting down: request evicted from queue: \
                     flow controller is not running",
                    Some("rejected-shutting-down"),
                ),
            ],
        );
    }

    #[test]
    fn what_gie_v1_drops_has_its_codes_and_texts() {
        check_dropped(
            Dialect::GieV1,
            &[
                (
                    Dropped::Shed,
                    429,
                    "inference gateway: InferencePoolResourceExhausted - system saturated, sheddable request dropped",
                    Some("rejected-saturated"),
                ),
                (
                    DRAWN_OUT,
                    500,
                    "inference gateway: Internal - request cannot be admitted: inference gateway: \
                     InferencePoolResourceExhausted - probabilistic-admitter: rejected, saturation=1.234 prob=0.97",
                    None,
                ),
                (
                    Dropped::Expired,
                    503,
                    "inference gateway: ServiceUnavailable - request timed out in queue: request evicted from queue: \
                     request TTL expired",
                    Some("rejected-ttl-expired"),
                ),
            ],
        );
    }
}
