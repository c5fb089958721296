//! Labels of the filter's metrics stay in their names.

use epp_core::config::value::{Node, Path};
use epp_core::metrics::definitions::CATALOGUE;

use super::site::{entries, text, Site};
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "stats-tags",
    finds: "a bootstrap with a filter that lacks `stats_tags` for labels of its metrics",
    why: "those labels stay in the metrics' names, where dashboards and alerts do not find them",
    fix: "take over stats_config.stats_tags of envoy/production/static.yaml (Istio: envoy/istio/metric-labels.yaml)",
    check: |site| site.bootstraps().filter_map(|(path, bootstrap)| fault(site, &path, bootstrap)).collect(),
};

/// Checks the bootstrap of a filter that no control plane inserts: those have bootstraps of their own.
fn fault(site: &Site<'_>, path: &Path, bootstrap: &Node) -> Option<Fault> {
    if !site.pickers.iter().any(|picker| !picker.is_inserted(site)) {
        return None;
    }
    let tags = entries(bootstrap, &["stats_config", "stats_tags"]);
    let mut missing = labels();
    missing.retain(|label| !tags.iter().any(|tag| text(tag, "tag_name") == *label));
    if missing.is_empty() {
        return None;
    }
    Some(Fault::at(
        &path.key("stats_config"),
        format!("no stats_tags for {}", missing.join(", ")),
    ))
}

/// Returns the labels of all metrics of the filter.
fn labels() -> Vec<&'static str> {
    let own = CATALOGUE.iter().flat_map(|metric| metric.labels).copied();
    // Of all metrics, and of the buckets of histograms.
    let mut labels: Vec<&str> = own.chain(["pool", "le"]).collect();
    labels.sort_unstable();
    labels.dedup();
    labels
}

#[cfg(test)]
mod tests {
    use crate::lint::{finds, found};

    #[test]
    fn finds_the_labels_without_a_tag() {
        finds(
            &super::RULE,
            "tag_name: endpoint_name",
            "tag_name: endpoint",
        );
        let bootstrap = include_str!("../../../../envoy/envoy.yaml");
        let without = bootstrap.replace("stats_tags:", "other:");
        let all = found(&super::RULE, &without);
        assert!(
            all.len() == 1 && all[0].contains("endpoint_name, ") && all[0].contains("finding"),
            "{all:?}"
        );
        let no_filter = without.replace("wasm.v3.Wasm", "other.v3.Other");
        assert!(found(&super::RULE, &no_filter).is_empty());
    }
}
