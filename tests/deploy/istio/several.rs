//! Several services and several pools in one gateway, as docs/istio.md says.

use std::fs;
use std::process::Command;

use super::running::{all_same, Running};
use super::{built, gateway_yaml, manifest, manifests, OTHER_POOL, POOL, SERVICE, SUBSET};
use crate::envoy::{self, top};
use crate::stage::Stage;

const CHAT: &str = "chat.example.com";

/// Returns the output of docs/istio.md's commands for a second service (its two files) and a second pool.
pub fn copies() -> Vec<String> {
    let text = fs::read_to_string(top().join("docs/istio.md")).unwrap();
    let blocks = text.split("```sh\n").skip(1);
    let blocks = blocks.map(|block| block.split("```").next().unwrap());
    let commands: String = blocks.filter(|block| block.contains("sed -e")).collect();
    let folder = envoy::folder();
    let place = folder.path().to_string_lossy();
    let commands = commands.replace("target/", &format!("{place}/"));
    let run = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &commands])
        .current_dir(top())
        .status();
    assert!(run.unwrap().success(), "{commands}");
    let files = ["chat/cluster.yaml", "chat/filter.yaml", "qwen.yaml"];
    let read = |name: &&str| fs::read_to_string(folder.path().join(name)).unwrap();
    files.iter().map(read).collect()
}

#[test]
fn services_and_pools_of_one_gateway_are_kept_apart() {
    let mut all = manifests(&["filter.yaml", "inference-pool.yaml", "cluster.yaml"]);
    all.extend(copies());
    let gateway = Running::of(built(gateway_yaml(), &all));
    gateway.knows(2 + 2 + 3 + 2);
    for (host, cluster) in [
        (SERVICE, "outbound|8000||vllm.llm.svc.cluster.local"),
        (CHAT, "outbound|8000||chat.llm.svc.cluster.local"),
        (
            POOL,
            "outbound|54321||llama-ip-fc5a1047.llm.svc.cluster.local",
        ),
        (
            OTHER_POOL,
            "outbound|54321||qwen-ip-67f2d225.llm.svc.cluster.local",
        ),
    ] {
        let members = gateway.members(cluster);
        let pod = gateway.keeps_to(host);
        assert!(members.contains(&pod), "{host}: {pod}");
        gateway.keeps_its_choice(host, &members);
    }
    gateway.obeys_no_client(SUBSET);
    assert_eq!(gateway.leaked(), 0);
    assert!(
        !all_same(&gateway.conversation(SUBSET)),
        "nothing picks for a subset"
    );
}

#[test]
fn the_choice_is_made_before_it_is_carried_to_the_cluster() {
    let services = manifests(&["cluster.yaml", "filter.yaml"]);
    let [copies @ .., second_pool] = &copies()[..] else {
        panic!("no copies");
    };
    let services = [&services, copies].concat();
    let pools = [manifest("inference-pool.yaml"), second_pool.clone()];
    let all = [&services[..], &pools].concat();
    for (mut manifests, pickers) in [(services, 2), (all, 4)] {
        for _ in 0..manifests.len() {
            // As they may have been created.
            manifests.rotate_left(1);
            let chain = built(gateway_yaml(), &manifests).chain();
            let is_picker = |name: &String| name.starts_with("epp");
            assert_eq!(chain.iter().filter(|name| is_picker(name)).count(), pickers);
            let last = chain.iter().rposition(is_picker).unwrap();
            let carrier = "envoy.filters.http.header_to_metadata";
            assert!(
                chain[last..].iter().any(|name| name == carrier),
                "{chain:?}"
            );
        }
    }
}

/// The reason why cluster.yaml does not patch the router: a list that is merged twice has its entries twice.
#[test]
fn a_list_of_the_router_cannot_be_merged_twice() {
    let patch = r#"
kind: EnvoyFilter
spec:
  configPatches:
  - applyTo: HTTP_FILTER
    match:
      context: GATEWAY
      listener: {filterChain: {filter: {subFilter: {name: envoy.filters.http.router}}}}
    patch:
      operation: MERGE
      value:
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
          upstream_http_filters:
          - name: envoy.filters.http.upstream_codec
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec}
"#;
    let cluster = manifest("cluster.yaml");
    for (text, right) in [(cluster.as_str(), true), (patch, false)] {
        let twice = [text.to_owned(), text.to_owned()];
        let stage = Stage::of(built(gateway_yaml(), &twice).config);
        let loaded = envoy::validate(&stage.folder, &stage.text());
        assert_eq!(loaded.is_ok(), right, "{loaded:?}");
    }
}
