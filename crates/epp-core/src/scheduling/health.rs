//! The health of endpoints, as discovery reports it.

use serde::{Deserialize, Serialize};

/// The health of an endpoint, as discovery reports it: the worst first.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash, Serialize, Deserialize,
)]
#[serde(into = "u8", from = "u8")]
pub enum Health {
    /// It may not be picked, for a reason that is not known.
    #[default]
    Unhealthy,
    /// It fails the proxy's active health check.
    FailedCheck,
    /// The proxy's own outlier detection has ejected it.
    Outlier,
    /// The control plane reports it as unhealthy.
    FailedEds,
    /// It is draining.
    Draining,
    /// It has left the cluster, and is removed once it has no requests.
    Leaving,
    /// Its first active health check has not ended.
    Pending,
    /// It may be picked only where no member of its cluster is healthy, and one is.
    Degraded,
    /// It may be picked.
    Healthy,
}

impl Health {
    const ALL: [Self; 9] = [
        Self::Unhealthy,
        Self::FailedCheck,
        Self::Outlier,
        Self::FailedEds,
        Self::Draining,
        Self::Leaving,
        Self::Pending,
        Self::Degraded,
        Self::Healthy,
    ];

    /// Returns whether an endpoint of this health may be picked.
    pub fn may_be_picked(self) -> bool {
        self == Self::Healthy
    }

    /// Returns the health in words: the reason, where it may not be picked.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unhealthy => "unhealthy",
            Self::FailedCheck => "failed health check",
            Self::Outlier => "Envoy's outlier detection",
            Self::FailedEds => "unhealthy in EDS",
            Self::Draining => "draining",
            Self::Leaving => "removed, draining",
            Self::Pending => "first health check pending",
            Self::Degraded => "degraded while others are healthy",
            Self::Healthy => "healthy",
        }
    }
}

/// In shared data.
impl From<Health> for u8 {
    fn from(health: Health) -> Self {
        health as Self
    }
}

impl From<u8> for Health {
    fn from(place: u8) -> Self {
        let health = Self::ALL.get(usize::from(place)).copied();
        health.unwrap_or_default()
    }
}
