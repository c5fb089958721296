//! Labels of the filter's metrics stay in their names.

use epp_core::config::value::{Node, Path};
use epp_core::metrics::definitions::CATALOGUE;

use super::site::{entries, flag, text, Site};
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "stats-tags",
    finds: "a bootstrap with a filter that lacks `stats_tags` for labels of its metrics; with a dynamic module, one that leaves a prefix before their names",
    why: "those labels stay in the metrics' names, where dashboards and alerts do not find them",
    fix: "take over stats_config.stats_tags of envoy/production/static.yaml (Istio: envoy/istio/metric-labels.yaml)",
    check: |site| {
        let mut faults = Vec::new();
        for (path, bootstrap) in site.bootstraps() {
            faults.extend(fault(site, &path, bootstrap));
            faults.extend(prefixed(site, &path, bootstrap));
        }
        faults
    },
};

/// Returns whether a picker of this form is in a bootstrap, instead of inserted by a control plane, which has a bootstrap
/// of its own.
fn has(site: &Site<'_>, is_module: bool) -> bool {
    let mut pickers = site.pickers.iter();
    pickers.any(|picker| picker.home.is_module() == is_module && !picker.is_inserted(site))
}

/// Finds a bootstrap that leaves Envoy's prefix before the names of a dynamic module's metrics.
fn prefixed(site: &Site<'_>, path: &Path, bootstrap: &Node) -> Option<Fault> {
    const FLAG: &str = "envoy.reloadable_features.dynamic_modules_strip_custom_stat_prefix";
    let layers = entries(bootstrap, &["layered_runtime", "layers"]);
    // The last layer that sets it counts. What a file or a server sets is not known.
    let strips = layers
        .iter()
        .rev()
        .find_map(|layer| match layer.get("static_layer") {
            Some(settings) => setting(settings, FLAG),
            None => {
                let unknown = layer.get("disk_layer").or(layer.get("rtds_layer"));
                unknown.map(|_| true)
            }
        });
    if !has(site, true) || strips == Some(true) {
        return None;
    }
    let what = format!("no layer sets {FLAG}");
    let fault = Fault::at(&path.key("layered_runtime"), what);
    Some(
        fault
            .because("metrics of the dynamic module are called envoy_dynamicmodulescustom_…, where dashboards and alerts do not find them")
            .fixed_by("take over layered_runtime of envoy/production/module.yaml"),
    )
}

/// Returns a setting of a runtime layer: under its name, or in nested sections that make up the name.
fn setting(section: &Node, name: &str) -> Option<bool> {
    let own = section.get(name).and_then(flag);
    own.or_else(|| {
        let mut dots = name.match_indices('.');
        dots.find_map(|(at, _)| {
            let (outer, inner) = (name.get(..at)?, name.get(at + 1..)?);
            setting(section.get(outer)?, inner)
        })
    })
}

/// Finds a bootstrap without tags for labels of the wasm module's metrics.
fn fault(site: &Site<'_>, path: &Path, bootstrap: &Node) -> Option<Fault> {
    if !has(site, false) {
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
        let module = include_str!("../../../../envoy/module.yaml");
        assert!(found(&super::RULE, module).is_empty());
        for wrong in ["strip_custom_stat_prefix: false", "another: true"] {
            let prefixed = module.replace("strip_custom_stat_prefix: true", wrong);
            let all = found(&super::RULE, &prefixed);
            assert!(
                all.len() == 1 && all[0].contains("no layer sets"),
                "{all:?}"
            );
        }
        let strip = "{envoy.reloadable_features.dynamic_modules_strip_custom_stat_prefix: true}";
        let nested =
            "{envoy: {reloadable_features: {dynamic_modules_strip_custom_stat_prefix: true}}}";
        assert!(module.contains(strip));
        assert!(found(&super::RULE, &module.replace(strip, nested)).is_empty());
        // The last layer counts.
        let off = "  - {name: off, static_layer: {envoy: {reloadable_features: {dynamic_modules_strip_custom_stat_prefix: false}}}}\n";
        let (before, layer) = module.split_once("  - name: static\n").unwrap();
        let both = format!("{before}{off}  - name: static\n{layer}");
        assert!(found(&super::RULE, &both).is_empty());
        let turned_off = both
            .replace("false", "true")
            .replace(strip, &strip.replace("true", "false"));
        assert_eq!(found(&super::RULE, &turned_off).len(), 1);
        let no_filter = without.replace("wasm.v3.Wasm", "other.v3.Other");
        assert!(found(&super::RULE, &no_filter).is_empty());
    }
}
