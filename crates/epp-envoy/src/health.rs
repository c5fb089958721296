//! The health flags of a cluster's member.

/// The health of a member in Envoy, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Health {
    /// The member fails a check, was ejected, or is draining: it gets no new requests.
    Down,
    /// The member gets requests only if none is healthy.
    Degraded,
    /// The member gets requests.
    Healthy,
}

/// Returns the health for flags, which are `healthy` or a list such as `/failed_active_hc/active_hc_timeout`.
pub(crate) fn health_of(flags: &str) -> Health {
    let down = |flag: &str| {
        let prefixes = ["failed_", "pending_", "excluded_"];
        prefixes.iter().any(|prefix| flag.starts_with(prefix)) || flag == "eds_status_draining"
    };
    if flags.split('/').any(down) {
        Health::Down
    } else if flags.split('/').any(|flag| flag.starts_with("degraded_")) {
        Health::Degraded
    } else {
        Health::Healthy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_flags() {
        for (flags, health) in [
            ("healthy", Health::Healthy),
            ("/degraded_active_hc", Health::Degraded),
            ("/degraded_eds_health", Health::Degraded),
            ("/failed_active_hc", Health::Down),
            ("/failed_outlier_check", Health::Down),
            ("/failed_active_hc/active_hc_timeout", Health::Down),
            ("/failed_eds_health", Health::Down),
            ("/eds_status_draining", Health::Down),
            ("/pending_dynamic_removal", Health::Down),
            (
                "/failed_active_hc/excluded_via_immediate_hc_fail",
                Health::Down,
            ),
        ] {
            assert_eq!(health_of(flags), health, "{flags}");
        }
    }
}
