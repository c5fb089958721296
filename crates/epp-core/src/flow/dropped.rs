//! Why a request is dropped that could have been scheduled.

use std::fmt;

/// The reason why a request is dropped. The texts are the Endpoint Picker's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// Its priority is below 0, and the pool is full.
    Shed,
    /// `probabilistic-admitter` drew it out.
    DrawnOut {
        /// The saturation of the pool, in thousandths.
        saturation: u32,
        /// The probability, in hundredths.
        probability: u32,
    },
    /// No more requests may be queued.
    QueueFull,
    /// No more requests may be queued, and the pool has no endpoints.
    QueueFullWithoutEndpoints,
    /// It has waited for as long as it may.
    Expired,
    /// It has waited for as long as it may for a pool without endpoints.
    ExpiredWithoutEndpoints,
    /// It was in flight, and makes room for others.
    Evicted,
    /// It was queued, and nothing dispatches any more.
    ShuttingDown,
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Shed => "system saturated, sheddable request dropped",
            Self::DrawnOut {
                saturation,
                probability,
            } => {
                let (whole, part) = (saturation / 1000, saturation % 1000);
                let (one, hundredths) = (probability / 100, probability % 100);
                return write!(
                    f,
                    "probabilistic-admitter: rejected, saturation={whole}.{part:03} prob={one}.{hundredths:02}"
                );
            }
            Self::QueueFull => "request rejected pre-queue: queue at capacity",
            Self::QueueFullWithoutEndpoints => {
                "no endpoints available: request rejected pre-queue: no endpoints available"
            }
            Self::Expired => {
                "request timed out in queue: request evicted from queue: request TTL expired"
            }
            Self::ExpiredWithoutEndpoints => {
                "request timed out in queue and no endpoints are available: request evicted from queue: \
                 request TTL expired: no endpoints available"
            }
            Self::Evicted => "request evicted by flow control",
            Self::ShuttingDown => {
                "flow controller shutting down: request evicted from queue: flow controller is not running"
            }
        };
        f.write_str(text)
    }
}
