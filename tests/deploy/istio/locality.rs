//! The locality settings that Istio writes into a Service's cluster, taken from
//! `GetEffectiveLbSetting` and `ApplyToCluster` in pilot/pkg/networking/core/loadbalancer (Istio 1.32;
//! 1.27 to 1.31 have the same but for `zoneAwareLbSetting`), and whether Envoy accepts them together with
//! cluster.yaml.

use serde_yaml::Value;

use super::{built, gateway_yaml, manifest};
use crate::envoy;
use crate::stage::Stage;

/// The cluster's `common_lb_config` under a DestinationRule's `trafficPolicy` and the Service's
/// `spec.trafficDistribution`.
fn common_lb_config(policy: &Value, distribution: bool) -> &'static str {
    let balancer = &policy["loadBalancer"];
    if !balancer["zoneAwareLbSetting"].is_null() {
        // Where it is off, with a share of zero.
        return "{zone_aware_lb_config: {}}";
    }
    let setting = &balancer["localityLbSetting"];
    let outliers = !policy["outlierDetection"].is_null();
    let failover = !setting["failover"].is_null() || !setting["failoverPriority"].is_null();
    let weights = match setting {
        Value::Null => distribution,
        off if off["enabled"] == false => false,
        on => !on["distribute"].is_null() || (outliers && failover),
    };
    match weights {
        true => "{locality_weighted_lb_config: {}}",
        false => "{}",
    }
}

/// Returns Envoy's error if it rejects the gateway with cluster.yaml.
fn loads(policy: &str, distribution: bool) -> Result<(), String> {
    let policy = serde_yaml::from_str(policy).unwrap();
    let config = common_lb_config(&policy, distribution);
    // The first cluster with the field is the service's.
    let gateway = gateway_yaml().replacen(
        "common_lb_config: {}",
        &format!("common_lb_config: {config}"),
        1,
    );
    let stage = Stage::of(built(gateway, &[manifest("cluster.yaml")]).config);
    envoy::validate(&stage.folder, &stage.text())
}

#[test]
fn envoy_rejects_locality_weights_unless_locality_is_switched_off() {
    const OUTLIERS: &str = "outlierDetection: {consecutive5xxErrors: 5}";
    const OFF: &str = "loadBalancer: {localityLbSetting: {enabled: false}}";
    let failover = "loadBalancer: {localityLbSetting: {failover: [{from: a, to: b}]}}";
    let priority = "loadBalancer: {localityLbSetting: {failoverPriority: [a/b]}}";
    let distribute = "loadBalancer: {localityLbSetting: {distribute: [{from: a, to: {b: 100}}]}}";
    let zone = "loadBalancer: {zoneAwareLbSetting: {enabled: false}}";
    let and = |one: &str, other: &str| format!("{one}\n{other}");
    for (policy, distribution, right) in [
        (String::from("{}"), false, true),
        (OUTLIERS.to_owned(), false, true),
        (failover.to_owned(), false, true),
        (and(failover, OUTLIERS), false, false),
        (and(priority, OUTLIERS), false, false),
        (distribute.to_owned(), false, false),
        (zone.to_owned(), false, false),
        (String::from("{}"), true, false),
        // Switched off, also where the Service itself distributes.
        (OFF.to_owned(), true, true),
        (and(OFF, OUTLIERS), true, true),
    ] {
        let loaded = loads(&policy, distribution);
        assert_eq!(
            loaded.is_ok(),
            right,
            "{policy}, {distribution}: {loaded:?}"
        );
        if let Err(said) = loaded {
            assert!(
                said.contains("cannot be combined with partial fields"),
                "{said}"
            );
        }
    }
}
