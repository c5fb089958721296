//! Several gateways in front of one pool, which know nothing of each other.

use super::early_tests::HEAD;
use super::testing::{begin, close, show, NOW};
use super::*;
use crate::config;

const MEMBERS: u32 = 8;

/// A gateway of its own: its members in an order of its own, and a secret of its own.
fn gateway(scorers: &[&str], seed: u64) -> Picker {
    let mut members: Vec<u32> = (0..MEMBERS).collect();
    fastrand::Rng::with_seed(seed).shuffle(&mut members);
    let members = members.iter();
    let members =
        members.map(|number| format!("{{name: p{number}, address: 10.0.0.{number}, port: 80}}"));
    let members = members.collect::<Vec<_>>().join(", ");
    let plugins: String = scorers
        .iter()
        .map(|kind| format!("{{type: {kind}}}, "))
        .collect();
    let text = format!(
        "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{plugins}{{type: envoy-proxy, parameters: {{fallbackEndpoints: 1}}}},
  {{name: pods, type: static-discovery, parameters: {{endpoints: [{members}]}}}}]
dataLayer: {{discovery: {{pluginRef: pods}}}}
"
    );
    let plan = config::load(&text).unwrap().plan;
    let mut picker = Picker::new(plan.clone(), seed);
    picker.install(plan);
    picker.tick(NOW);
    picker
}

/// Where a request with this body is sent, and where it is sent again if that fails; and how many bytes of it were
/// read, in pieces of this size.
fn sent(picker: &mut Picker, body: &str, piece: usize) -> (Vec<String>, usize) {
    let mut decided = begin(picker, 1, &HEAD);
    let mut read = 0;
    while decided.is_none() {
        assert!(read < body.len(), "never released: {body}");
        read = (read + piece).min(body.len());
        decided = show(picker, 1, &body.as_bytes()[..read], read == body.len());
    }
    close(picker, 1);
    let Some(Effect::Forward { route, .. }) = decided else {
        panic!("{decided:?}");
    };
    (route.endpoints().map(str::to_owned).collect(), read)
}

fn chat(model: &str, salt: &str, text: &str) -> String {
    format!("{{\"model\": \"{model}\", \"tools\": [], \"cache_salt\": \"{salt}\", \"messages\": [{{\"role\": \"user\", \"content\": \"{text}\"}}]}}")
}

/// How many of 100 prompts three gateways send to the same endpoint each.
fn agreed(scorers: &[&str]) -> usize {
    let mut gateways = [1, 2, 3].map(|seed| gateway(scorers, seed));
    let agreed = (0..100).filter(|number| {
        let body = chat("m", "", &format!("{number} ").repeat(100 + number * 20));
        let mut pieces = [64, 300, 1 << 20].into_iter();
        let found = gateways.each_mut().map(|gateway| {
            let piece = pieces.next().unwrap();
            sent(gateway, &body, piece).0
        });
        let [first, second, third] = found;
        first == second && second == third
    });
    agreed.count()
}

#[test]
fn gateways_agree_on_the_first_and_the_second_endpoint_of_every_prompt() {
    assert_eq!(agreed(&["prefix-rendezvous-scorer"]), 100);
    // By chance three of eight would agree in one of 64 cases, and on the second endpoint in one of 49 of those.
    assert!(agreed(&["prefix-cache-scorer"]) < 10);
}

#[test]
fn a_prompt_goes_elsewhere_for_another_model_or_with_another_salt() {
    let mut gateway = gateway(&["prefix-rendezvous-scorer"], 1);
    let text = "a".repeat(4_000);
    let mut targets = |body: &dyn Fn(u32) -> String| {
        let bodies = (0..32).map(body);
        let targets = bodies.map(|body| sent(&mut gateway, &body, 1 << 20).0);
        targets.collect::<std::collections::BTreeSet<_>>().len()
    };
    assert_eq!(
        targets(&|number| chat("m", "s", &format!("{text}{number}"))),
        1
    );
    assert!(targets(&|number| chat(&format!("m{number}"), "s", &text)) > 8);
    assert!(targets(&|number| chat("m", &format!("s{number}"), &text)) > 8);
}

#[test]
fn a_request_is_released_once_its_anchor_was_read() {
    // The head of the body, and 2 KB of text, by default.
    for scorers in [
        &["prefix-rendezvous-scorer"][..],
        &["prefix-cache-scorer", "prefix-rendezvous-scorer"],
    ] {
        let mut gateway = gateway(scorers, 1);
        let body = chat("m", "s", &"a".repeat(100_000));
        let head = body.find("aaa").unwrap();
        let (_, read) = sent(&mut gateway, &body, 64);
        assert!((head + 2_000..head + 2_048 + 64).contains(&read), "{read}");
        // A shorter prompt is waited for, since it may get longer.
        let short = chat("m", "s", "a");
        assert_eq!(sent(&mut gateway, &short, 1).1, short.len());
    }
}
