//! The health flags of a cluster's member.

use epp_core::scheduling::Health;

/// How flags begin, and what they mean. A member may have several: the first line counts that one of them matches, so
/// that what a member waits for comes before the flags that it has meanwhile.
const FLAGS: &[(&str, Health)] = &[
    ("pending_active_hc", Health::Pending),
    ("pending_dynamic_removal", Health::Leaving),
    ("eds_status_draining", Health::Draining),
    ("failed_active_hc", Health::FailedCheck),
    ("failed_outlier_check", Health::Outlier),
    ("failed_eds_health", Health::FailedEds),
    ("failed_", Health::Unhealthy),
    ("pending_", Health::Unhealthy),
    ("excluded_", Health::Unhealthy),
    ("degraded_", Health::Degraded),
];

/// Returns the health for flags, which are `healthy` or a list such as `/failed_active_hc/active_hc_timeout`. A degraded
/// member gets requests only if none is healthy.
pub(crate) fn health_of(flags: &str) -> Health {
    let is_set = |prefix: &str| flags.split('/').any(|flag| flag.starts_with(prefix));
    let known = FLAGS.iter().find(|(prefix, _)| is_set(prefix));
    known.map_or(Health::Healthy, |(_, health)| *health)
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
            ("/failed_active_hc", Health::FailedCheck),
            ("/failed_active_hc/pending_active_hc", Health::Pending),
            ("/failed_outlier_check", Health::Outlier),
            (
                "/failed_outlier_check/failed_active_hc",
                Health::FailedCheck,
            ),
            ("/failed_active_hc/active_hc_timeout", Health::FailedCheck),
            ("/failed_eds_health", Health::FailedEds),
            ("/eds_status_draining", Health::Draining),
            ("/pending_dynamic_removal", Health::Leaving),
            (
                "/failed_active_hc/excluded_via_immediate_hc_fail",
                Health::FailedCheck,
            ),
            ("/excluded_via_immediate_hc_fail", Health::Unhealthy),
            ("/failed_in_a_new_way", Health::Unhealthy),
        ] {
            assert_eq!(health_of(flags), health, "{flags}");
        }
    }
}
