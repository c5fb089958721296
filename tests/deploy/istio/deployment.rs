//! From a Gateway's `infrastructure.parametersRef` to Envoy's arguments, as Istio goes: its deployment
//! controller merges the ConfigMap's `deployment` over what it makes for the Gateway
//! (pilot/pkg/config/kube/gatewaycommon/deploymentcontroller.go, a strategic merge), and istio-agent
//! hands Envoy the file that `ISTIO_BOOTSTRAP_OVERRIDE` names as `--config-yaml` (pkg/envoy/proxy.go).

use serde_yaml::Value;

use crate::envoy::top;
use crate::stage::read;

/// The keys that the controller takes of such a ConfigMap; another one is an error.
const OVERLAYS: [&str; 5] = [
    "deployment",
    "service",
    "serviceAccount",
    "horizontalPodAutoscaler",
    "podDisruptionBudget",
];

/// The text that Envoy gets as `--config-yaml` at a Gateway that names this ConfigMap; `None` where
/// it has no effect.
pub fn config_yaml(config_maps: &[Value], parameters: &str) -> Option<String> {
    let mut deployment = read(&top().join("tests/deploy/istio/deployment.yaml"));
    let data = &named(config_maps, parameters)?["data"];
    for key in data.as_mapping().unwrap().keys() {
        assert!(OVERLAYS.contains(&key.as_str().unwrap()), "{key:?}");
    }
    let overlay: Value = serde_yaml::from_str(data["deployment"].as_str()?).unwrap();
    strategic_merge(&mut deployment, &overlay);
    let pod = &deployment["spec"]["template"]["spec"];
    let proxy = entry(&pod["containers"], "name", "istio-proxy")?;
    let variable = entry(&proxy["env"], "name", "ISTIO_BOOTSTRAP_OVERRIDE")?;
    let text = file(config_maps, pod, proxy, variable["value"].as_str()?)?;
    // The agent makes JSON of it.
    let bootstrap: Value = serde_yaml::from_str(&text).unwrap();
    Some(serde_json::to_string(&bootstrap).unwrap())
}

/// Returns the file that a container sees under this path, from a mounted ConfigMap.
fn file(config_maps: &[Value], pod: &Value, container: &Value, path: &str) -> Option<String> {
    let (folder, name) = path.rsplit_once('/')?;
    let mount = entry(&container["volumeMounts"], "mountPath", folder)?;
    let volume = entry(&pod["volumes"], "name", mount["name"].as_str()?)?;
    let map = named(config_maps, volume["configMap"]["name"].as_str()?)?;
    map["data"][name].as_str().map(str::to_owned)
}

fn named<'v>(config_maps: &'v [Value], name: &str) -> Option<&'v Value> {
    config_maps
        .iter()
        .find(|map| map["metadata"]["name"] == name)
}

fn entry<'v>(list: &'v Value, key: &str, wanted: &str) -> Option<&'v Value> {
    let list = list.as_sequence()?;
    list.iter().find(|one| one[key] == wanted)
}

/// Maps are merged, lists of a pod's parts by the key that Kubernetes gives them, other lists replaced.
fn strategic_merge(into: &mut Value, from: &Value) {
    let (Value::Mapping(into), Value::Mapping(from)) = (&mut *into, from) else {
        *into = from.clone();
        return;
    };
    for (key, value) in from {
        let by = match key.as_str().unwrap() {
            "containers" | "env" | "volumes" => "name",
            "volumeMounts" => "mountPath",
            _ => "",
        };
        match (into.get_mut(key), value) {
            (Some(Value::Sequence(own)), Value::Sequence(new)) if !by.is_empty() => {
                for one in new {
                    match own.iter_mut().find(|known| known[by] == one[by]) {
                        Some(known) => strategic_merge(known, one),
                        None => own.push(one.clone()),
                    }
                }
            }
            (Some(own), value) => strategic_merge(own, value),
            (None, value) => drop(into.insert(key.clone(), value.clone())),
        }
    }
}
