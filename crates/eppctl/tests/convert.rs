//! `eppctl convert` over all documents.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{documents, eppctl, out};
use epp_wasm::config;
use epp_wasm::plugins::Generation;

fn convert(to: &str, text: &str) -> String {
    let output = eppctl(&["convert", "--to", to, "-"], text);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    out(&output)
}

#[test]
fn whatever_is_converted_loads_as_the_other_generation() {
    for (place, text) in documents() {
        for (to, generation) in [("today", Generation::Today), ("seed", Generation::Seed)] {
            let converted = convert(to, &text);
            match config::load(&converted) {
                Ok(loaded) => assert_eq!(loaded.plan.generation, generation, "{place}"),
                Err(rejected) => panic!("{place} to {to}: {:#?}\n{converted}", rejected.errors),
            }
        }
    }
}

#[test]
fn blocks_become_tokens_and_the_length_of_prompt_stays() {
    let seed = std::fs::read_to_string(common::top().join("examples/full.yaml")).unwrap();
    let today = convert("today", &seed);
    // 256 blocks of 64 bytes are 4096 tokens of four bytes.
    assert!(today.contains("maxPrefixTokensToMatch: 4096"), "{today}");
    assert!(today.contains("blockSizeTokens: 64"), "{today}");
    assert!(
        today.contains("# prefix-cache-scorer: blocks of 64 bytes become"),
        "{today}"
    );
    let back = convert("seed", &today);
    assert!(back.contains("hashBlockSize: 256"), "{back}");
    assert!(back.contains("maxPrefixBlocksToMatch: 64"), "{back}");
}

#[test]
fn fractions_become_whole_weights() {
    let text = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins: [{type: queue-scorer}, {type: kv-cache-utilization-scorer}]\nschedulingProfiles: [{name: a, plugins: [{pluginRef: queue-scorer, weight: 0.5}, {pluginRef: kv-cache-utilization-scorer}]}]\n";
    let seed = convert("seed", text);
    assert!(
        seed.contains("weight: 5\n") && seed.contains("weight: 10\n"),
        "{seed}"
    );
}
