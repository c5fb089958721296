//! Several gateways that each learn for themselves where prompts are.

use epp_core::config::value::{Node, Path};
use epp_core::config::Profiled;

use super::prefix_twice::SCORERS;
use super::site::{below, entries, number, path_below, text, text_below, Site};
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "several-gateways",
    finds: "a prefix scorer without `prefix-rendezvous-scorer`, where the files have several gateways run",
    why: "each gateway has a prefix index of its own, and a prompt that another one has sent somewhere is new to it: in a simulation, 63 % of the prompts' tokens were cached with four gateways instead of 84 % with one",
    fix: "add prefix-rendezvous-scorer with weight 1 beside the prefix scorer, with which all gateways prefer the same endpoint for a prompt (docs/sizing.md#several-gateways)",
    check: |site| {
        let Some((place, gateways)) = several(site) else {
            return Vec::new();
        };
        let mut faults = Vec::new();
        for (_, plan) in site.loaded() {
            let alone = plan.profiles.iter().find_map(alone);
            let what = alone.map(|(profile, scorer)| {
                format!("{gateways}, and profile {profile} has {scorer} without prefix-rendezvous-scorer")
            });
            faults.extend(what.map(|what| Fault::at(&place, what)));
        }
        faults
    },
};

/// Returns a profile's name, and its prefix scorer, if nothing has gateways agree on where prompts go.
fn alone(profile: &Profiled) -> Option<(&str, &'static str)> {
    let weighted = || profile.plugins.iter().filter(|(_, weight)| *weight > 0.0);
    let (scorer, _) = weighted().find(|(one, _)| SCORERS.contains(&one.kind))?;
    let agrees = weighted().any(|(one, _)| one.kind == "prefix-rendezvous-scorer");
    (!agrees).then_some((&profile.name, scorer.kind))
}

/// Returns where the files have more than one gateway run, and how many.
fn several(site: &Site<'_>) -> Option<(Path, String)> {
    let proxies = site.objects("EnvoyProxy");
    let of_envoy_gateway = proxies.filter_map(|(path, proxy)| {
        let provider = ["spec", "provider", "kubernetes"];
        of_provider(&path_below(path, &provider), below(proxy, &provider)?)
    });
    let sets = ["Deployment", "StatefulSet"];
    let sets = sets.into_iter().flat_map(|kind| site.objects(kind));
    let of_sets = sets.filter_map(|(path, set)| {
        let scaled = || {
            scaled(
                site,
                text(set, "kind"),
                text_below(set, &["metadata", "name"]),
            )
        };
        let own = counted(&path.key("spec"), set.get("spec")?, "replicas");
        is_gateway(set).then(|| own.or_else(scaled)).flatten()
    });
    let daemons = site.objects("DaemonSet").filter(|(_, set)| is_gateway(set));
    let of_daemons = daemons.map(|(path, _)| (path.key("spec"), EACH_NODE.to_owned()));
    of_envoy_gateway.chain(of_sets).chain(of_daemons).next()
}

const EACH_NODE: &str = "a gateway on each node";

/// Returns how many proxies Envoy Gateway is to run.
fn of_provider(path: &Path, provider: &Node) -> Option<(Path, String)> {
    if provider.get("envoy_daemon_set").is_some() {
        return Some((path.key("envoy_daemon_set"), EACH_NODE.to_owned()));
    }
    let of = |key, count| counted(&path.key(key), provider.get(key)?, count);
    of("envoy_hpa", "max_replicas").or_else(|| of("envoy_deployment", "replicas"))
}

/// Returns how many pods a HorizontalPodAutoscaler may make of this object.
fn scaled(site: &Site<'_>, kind: &str, name: &str) -> Option<(Path, String)> {
    let target = |scaler, key| text_below(scaler, &["spec", "scale_target_ref", key]);
    let mut scalers = site.objects("HorizontalPodAutoscaler");
    let (path, scaler) = scalers
        .find(|(_, scaler)| target(scaler, "kind") == kind && target(scaler, "name") == name)?;
    counted(&path.key("spec"), scaler.get("spec")?, "max_replicas")
}

/// Returns the field of this name if it is more than one.
fn counted(path: &Path, map: &Node, key: &str) -> Option<(Path, String)> {
    let count = map.get(key).and_then(number).filter(|count| *count > 1.0)?;
    Some((path.key(key), format!("{count} gateways")))
}

/// Returns whether an object's pods are Envoys: by their image, which Istio sets where it says `auto`.
fn is_gateway(set: &Node) -> bool {
    let containers = entries(set, &["spec", "template", "spec", "containers"]);
    containers.iter().any(|container| {
        let image = text(container, "image");
        image == "auto" || image.contains("envoy") || image.contains("proxyv2")
    })
}

#[cfg(test)]
mod tests {
    use crate::lint::found;

    const FILTER: &str = include_str!("../../../../envoy/gateway/filter.yaml");

    fn with(objects: &str) -> Vec<String> {
        found(&super::RULE, &format!("{FILTER}\n---\n{objects}"))
    }

    fn proxy(provider: &str) -> String {
        format!("kind: EnvoyProxy\nspec: {{provider: {{kubernetes: {provider}}}}}\n")
    }

    fn deployment(image: &str, spec: &str) -> String {
        format!("kind: Deployment\nmetadata: {{name: edge}}\nspec: {{{spec}template: {{spec: {{containers: [{{image: '{image}'}}]}}}}}}\n")
    }

    #[test]
    fn finds_several_gateways_with_an_index_each() {
        let autoscaler = "---\nkind: HorizontalPodAutoscaler\nspec: {scaleTargetRef: {kind: Deployment, name: edge}, minReplicas: 1, maxReplicas: 4}\n";
        for (objects, place) in [
            (
                proxy("{envoyDeployment: {replicas: 2}}"),
                "spec.provider.kubernetes.envoyDeployment.replicas: 2 gateways",
            ),
            (
                proxy("{envoyHpa: {minReplicas: 1, maxReplicas: 3}}"),
                "spec.provider.kubernetes.envoyHpa.maxReplicas: 3 gateways",
            ),
            (
                proxy("{envoyDaemonSet: {}}"),
                "spec.provider.kubernetes.envoyDaemonSet: a gateway on each node",
            ),
            (
                deployment("envoyproxy/envoy:v1.40.0", "replicas: 2, "),
                "spec.replicas: 2 gateways",
            ),
            (
                deployment("auto", "") + autoscaler,
                "spec.maxReplicas: 4 gateways",
            ),
            (
                deployment("istio/proxyv2:1.30", "").replace("Deployment", "DaemonSet"),
                "spec: a gateway on each node",
            ),
        ] {
            let faults = with(&objects);
            assert!(
                faults.len() == 1 && faults[0].starts_with(place),
                "{place}: {faults:?}"
            );
        }
        let several = proxy("{envoyDeployment: {replicas: 2}}");
        let agreeing = FILTER.replace(
            "- {pluginRef: prefix-cache-scorer, weight: 3}",
            "- {pluginRef: prefix-cache-scorer, weight: 3}\n        - {pluginRef: prefix-rendezvous-scorer}",
        );
        let agreeing = agreeing.replacen(
            "- type: queue-scorer",
            "- type: prefix-rendezvous-scorer\n      - type: queue-scorer",
            1,
        );
        assert_ne!(agreeing, FILTER);
        assert_eq!(
            found(&super::RULE, &format!("{agreeing}\n---\n{several}")),
            Vec::<String>::new()
        );
    }

    #[test]
    fn one_gateway_and_other_pods_are_no_fault() {
        for objects in [
            proxy("{envoyDeployment: {replicas: 1}}"),
            proxy("{envoyHpa: {maxReplicas: 1}}"),
            deployment("envoyproxy/envoy:v1.40.0", ""),
            deployment("vllm/vllm-openai:v0.12.0", "replicas: 8, "),
        ] {
            assert_eq!(with(&objects), Vec::<String>::new(), "{objects}");
        }
    }
}
