//! Requests that pass the filter and are not the pool's: how many, and where they go.

use super::statistics::Statistics;
use super::Picker;
use crate::findings::printable;
use crate::metrics::definitions::LEFT_ALONE;
use crate::metrics::labels::RouteCluster;
use crate::metrics::CounterHandle;

/// Clusters that are counted apart. A route may have the client choose among those that the host has.
const MAX_CLUSTERS: usize = 8;

/// Bytes of a cluster's name that are kept.
const MAX_NAME_BYTES: usize = 160;

/// The counters.
#[derive(Debug, Default)]
pub struct LeftAlone {
    /// By the names of clusters, in full.
    clusters: Vec<(Box<[u8]>, CounterHandle)>,
    other: Option<CounterHandle>,
    total: u64,
    /// Requests that an endpoint was picked for and whose route leads elsewhere, and where the last one went.
    misrouted: u64,
    misrouted_to: String,
}

impl LeftAlone {
    /// Returns how many requests were counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Returns the clusters to which they go, as far as these are counted apart.
    pub fn clusters(&self) -> String {
        let names = self.clusters.iter();
        // Quoted: a client may have chosen them.
        let names = names.map(|(name, _)| format!("{:?}", printed(name)));
        names.collect::<Vec<_>>().join(", ")
    }

    /// An endpoint was picked for a request whose route leads to this cluster, which is not the pool's.
    pub fn misroute(&mut self, cluster: &[u8]) {
        self.misrouted += 1;
        self.misrouted_to = printed(cluster);
    }

    /// Returns how many of those there were, and the cluster of the last one.
    pub fn misrouted(&self) -> (u64, &str) {
        (self.misrouted, &self.misrouted_to)
    }
}

impl Statistics {
    fn count_left_alone(&mut self, cluster: &[u8]) {
        let counted = &mut self.left_alone;
        counted.total += 1;
        let known = counted.clusters.iter().find(|(name, _)| **name == *cluster);
        let handle = match known {
            Some((_, known)) => *known,
            None if counted.clusters.len() < MAX_CLUSTERS && cluster.len() <= MAX_NAME_BYTES => {
                let label = printed(cluster);
                let new = self.registry.counter(LEFT_ALONE, RouteCluster(&label));
                counted.clusters.push((cluster.into(), new));
                new
            }
            None => *counted
                .other
                .get_or_insert_with(|| self.registry.counter(LEFT_ALONE, RouteCluster("other"))),
        };
        self.registry.count(handle, 1);
    }
}

fn printed(name: &[u8]) -> String {
    printable(&String::from_utf8_lossy(name), MAX_NAME_BYTES)
}

impl Picker {
    /// A request has passed that is not this pool's: its route leads to this cluster.
    pub fn left_alone(&mut self, cluster: &[u8]) {
        self.dispatcher.statistics.count_left_alone(cluster);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_are_counted_apart_up_to_a_bound() {
        let mut statistics = Statistics::new("pool");
        for number in 0..20 {
            for _ in 0..=number {
                statistics.count_left_alone(format!("cluster-{number}").as_bytes());
            }
        }
        statistics.count_left_alone(&[b'x'; 4096]);
        statistics.count_left_alone(b"cluster-0");
        assert_eq!(statistics.left_alone.total(), 212);
        let counted = |statistics: &mut Statistics, label| {
            let handle = statistics.registry.counter(LEFT_ALONE, RouteCluster(label));
            statistics.registry.counted(handle)
        };
        assert_eq!(counted(&mut statistics, "cluster-0"), 2);
        assert_eq!(counted(&mut statistics, "cluster-7"), 8);
        assert_eq!(counted(&mut statistics, "other"), 212 - 36 - 1);
        let names = statistics.left_alone.clusters();
        assert!(
            names.starts_with("\"cluster-0\", ") && names.ends_with("\"cluster-7\""),
            "{names}"
        );
    }

    #[test]
    fn names_that_clients_choose_stay_on_their_line() {
        let mut statistics = Statistics::new("pool");
        statistics.count_left_alone(b"a\n\xff\x1b[31m");
        assert!(!statistics.left_alone.clusters().contains(char::is_control));
        statistics.count_left_alone("x\"] Restart \u{202e}Envoy.".as_bytes());
        let names = statistics.left_alone.clusters();
        assert!(names.ends_with(r#", "x\"] Restart ?Envoy.""#), "{names}");
    }
}
