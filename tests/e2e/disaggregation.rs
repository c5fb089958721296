//! Prefill/decode disaggregation: two pods that compute prompts, and two that generate responses behind a
//! routing sidecar. What each of them computed says whether the headers reached those that they are for.

use std::net::SocketAddr;

use envoy_harness::config::{fixed, override_host};
use fake_model_server::{Faults, Pod, ReceivedRequest, Settings, Sim, Work};
use serde_json::json;

use crate::client::{post, Response};
use crate::proxy::{Proxy, Setup};

const PREFILLER: &str = "x-prefiller-host-port";

/// The pods that compute prompts are the first two.
const PREFILL: [usize; 2] = [0, 1];
const DECODE: [usize; 2] = [2, 3];

/// A name that clients must not be able to give.
const FORGED: &str = "127.0.0.1:1";

fn pods() -> Sim {
    let mut sim = Sim::start(2, &Settings::default()).unwrap();
    for _ in DECODE {
        let settings = Settings {
            sidecar: true,
            ..Settings::default()
        };
        sim.add(0, settings).unwrap();
    }
    sim
}

/// Starts an Envoy over the pods, of which those may compute prompts.
fn start(sim: &Sim, prefill: &[usize], decider: &str, proxy: &str) -> Proxy {
    let at = sim.addresses();
    let some = |pods: &[usize]| -> Vec<SocketAddr> { pods.iter().map(|pod| at[*pod]).collect() };
    let decider_name = decider.split(',').next().unwrap();
    let document = format!(
        "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- name: members
  type: envoy-cluster-discovery
  parameters:
    clusters:
    - {{name: inference-pool, labels: {{llm-d.ai/role: decode}}}}
    - {{name: prefill, labels: {{llm-d.ai/role: prefill}}}}
- {{type: decode-filter}}
- {{type: prefill-filter}}
- {{type: active-request-scorer}}
- {{type: prefix-cache-scorer}}
- {{type: max-score-picker}}
- {{type: {decider}}}
- {{type: disagg-profile-handler, parameters: {{deciders: {{prefill: {decider_name}}}}}}}
- {{type: metrics-data-source, parameters: {{cluster: metrics}}}}
- {{type: core-metrics-extractor}}
- {{type: envoy-proxy, parameters: {{explain: true{proxy}}}}}
schedulingProfiles:
- name: prefill
  plugins: [{{pluginRef: prefill-filter}}, {{pluginRef: active-request-scorer}}, {{pluginRef: prefix-cache-scorer}}]
- name: decode
  plugins: [{{pluginRef: decode-filter}}, {{pluginRef: active-request-scorer}}, {{pluginRef: prefix-cache-scorer}}]
dataLayer:
  discovery: {{pluginRef: members}}
  sources: [{{pluginRef: metrics-data-source, extractors: [{{pluginRef: core-metrics-extractor}}]}}]
"
    );
    let mut setup = Setup::new(&some(&DECODE), &document);
    let mut metrics = fixed("metrics", &at);
    metrics["load_balancing_policy"] = override_host();
    setup.more_clusters = vec![fixed("prefill", &some(prefill)), metrics];
    let proxy = setup.start();
    proxy.wait_until("all members are known", || {
        proxy.counted("llm_d_epp_ready_endpoints") == (DECODE.len() + prefill.len()) as u64
    });
    // Until the worker knows them, too.
    proxy.wait_until("the pool responds", || {
        ask(&proxy, "ready?").status == 200 || prefill.is_empty()
    });
    sim.pods().for_each(|pod| pod.forget());
    proxy
}

fn ask(proxy: &Proxy, prompt: &str) -> Response {
    let body = json!({"model": "demo", "prompt": prompt, "max_tokens": 4});
    let headers = [
        ("x-epp-explain", "1"),
        (PREFILLER, FORGED),
        ("x-encoder-hosts-ports", FORGED),
    ];
    post(proxy.port, "/v1/completions", &body, &headers)
}

/// A prompt of this many tokens, different from any with another name.
fn prompt(name: &str, tokens: usize) -> String {
    let text = format!("{name} says that ").repeat(tokens);
    text.chars().take(tokens * 4).collect()
}

/// Returns the pod that has responded.
fn responder<'a>(sim: &'a Sim, response: &Response) -> &'a Pod {
    let number = response.pod().strip_prefix("pod-").unwrap();
    sim.pod(number.parse::<usize>().unwrap() - 1)
}

/// Returns the requests that a pod got, but those for its list of models.
fn got(pod: &Pod) -> Vec<ReceivedRequest> {
    let seen = pod.seen().into_iter();
    seen.filter(|seen| seen.path == "/v1/completions").collect()
}

/// Returns the values of a header of a request.
fn values(request: &ReceivedRequest, name: &str) -> Vec<String> {
    let headers = request.headers.iter().filter(|(key, _)| key == name);
    headers.map(|(_, value)| value.clone()).collect()
}

/// Returns the sum of some pods' work.
fn work(sim: &Sim, pods: [usize; 2]) -> Work {
    let [one, other] = pods.map(|pod| sim.pod(pod).work());
    Work {
        computed_tokens: one.computed_tokens + other.computed_tokens,
        cached_tokens: one.cached_tokens + other.cached_tokens,
        fetched_tokens: one.fetched_tokens + other.fetched_tokens,
        handed_over: one.handed_over + other.handed_over,
        encoded_media: one.encoded_media + other.encoded_media,
        generated_tokens: one.generated_tokens + other.generated_tokens,
    }
}

/// Returns the requests by a kind of decision.
fn decisions(proxy: &Proxy, kind: &str) -> u64 {
    let label = format!("decision_type=\"{kind}\"");
    proxy.counted_with("llm_d_epp_disagg_decision_total", &label)
}

#[test]
fn prefill_pods_compute_long_prompts_and_decode_pods_all_else() {
    let sim = pods();
    let at = sim.addresses();
    let decider = "prefix-based-pd-decider, parameters: {nonCachedTokens: 200}";
    let proxy = start(&sim, &PREFILL, decider, "");
    let before = decisions(&proxy, "prefill-decode");
    let long = prompt("Ann", 1_000);
    let response = ask(&proxy, &long);
    assert_eq!(response.status, 200, "{response:?}");
    // Who computed what.
    let (prefill, decode) = (work(&sim, PREFILL), work(&sim, DECODE));
    assert_eq!((prefill.handed_over, prefill.computed_tokens), (1, 1_000));
    assert_eq!((decode.computed_tokens, decode.fetched_tokens), (0, 1_000));
    assert_eq!((prefill.generated_tokens, decode.generated_tokens), (1, 4));
    // The decode pod was told one prefill pod, and nothing of what the client said.
    let pod = responder(&sim, &response);
    let [request] = &got(pod)[..] else {
        panic!("{:?}", pod.seen());
    };
    let named = values(request, PREFILLER);
    assert_eq!(named.len(), 1);
    assert!(
        PREFILL.iter().any(|pod| at[*pod].to_string() == named[0]),
        "{named:?}"
    );
    assert_eq!(
        values(request, "x-encoder-hosts-ports"),
        Vec::<String>::new()
    );
    let said = response.header("x-epp-explain");
    assert!(said.contains(&format!("prefill: {}", named[0])), "{said}");
    // The next turn: the decode pod has fetched all but a few of its tokens.
    proxy.wait_until("the worker knows the placement", || {
        sim.pods().for_each(|pod| pod.forget());
        let next = format!("{long} And then?");
        let next = ask(&proxy, &next);
        assert_eq!(next.pod(), response.pod());
        work(&sim, PREFILL) == Work::default()
    });
    let decode = work(&sim, DECODE);
    assert!(
        decode.computed_tokens < 50 && decode.cached_tokens > 950,
        "{decode:?}"
    );
    assert!(got(pod)
        .iter()
        .all(|request| values(request, PREFILLER).is_empty()));
    // And a short one.
    sim.pods().for_each(|pod| pod.forget());
    let short = ask(&proxy, &prompt("Ben", 100));
    let said = short.header("x-epp-explain");
    assert!(said.contains("prefill: "), "{said}");
    assert_eq!(work(&sim, PREFILL), Work::default());
    assert_eq!(work(&sim, DECODE).computed_tokens, 100);
    proxy.wait_until("decisions are counted by kind", || {
        decisions(&proxy, "prefill-decode") == before + 1 && decisions(&proxy, "decode-only") >= 2
    });
}

#[test]
fn prefill_pods_get_requests_from_sidecars_only() {
    let sim = pods();
    let proxy = start(&sim, &PREFILL, "always-disagg-pd-decider", "");
    for number in 0..20 {
        assert_eq!(ask(&proxy, &prompt(&number.to_string(), 300)).status, 200);
    }
    let (prefill, decode) = (work(&sim, PREFILL), work(&sim, DECODE));
    assert_eq!((prefill.handed_over, decode.computed_tokens), (20, 0));
    for pod in PREFILL {
        let got = got(sim.pod(pod));
        assert!(got.len() >= 5, "load is spread: {}", got.len());
        // Envoy adds this to every request.
        let direct = got
            .iter()
            .filter(|request| request.header("x-forwarded-proto").is_some());
        assert_eq!(direct.count(), 0);
    }
    let handed: usize = DECODE.iter().map(|pod| got(sim.pod(*pod)).len()).sum();
    assert_eq!(handed, 20);
}

#[test]
fn a_retry_goes_to_another_decode_pod_with_the_same_prefiller() {
    let sim = pods();
    let proxy = start(&sim, &PREFILL, "always-disagg-pd-decider", "");
    sim.pod(DECODE[0]).set_faults(Faults {
        status: Some(503),
        ..Faults::default()
    });
    let mut retried = 0;
    for number in 0..8 {
        sim.pods().for_each(|pod| pod.forget());
        let response = ask(&proxy, &prompt(&number.to_string(), 300));
        assert_eq!(response.status, 200);
        assert_eq!(response.pod(), sim.pod(DECODE[1]).name);
        let [failed, served] = DECODE.map(|pod| got(sim.pod(pod)));
        let named = |requests: &[ReceivedRequest]| {
            let values = requests.iter().map(|request| values(request, PREFILLER));
            values.collect::<Vec<_>>()
        };
        if !failed.is_empty() {
            retried += 1;
            assert_eq!(named(&failed), named(&served));
        }
        assert_eq!(
            work(&sim, PREFILL).handed_over,
            1,
            "the failed one did not call it"
        );
    }
    assert!(retried > 0);
}

#[test]
fn without_prefill_pods_requests_fail_or_are_computed_where_they_are_decoded() {
    let sim = pods();
    let decider = "always-disagg-pd-decider";
    let proxy = start(&sim, &[], decider, "");
    let refused = ask(&proxy, &prompt("Ann", 300));
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.body.contains("prefill"), "{refused:?}");
    assert_eq!(work(&sim, DECODE), Work::default());
    let proxy = start(&sim, &[], decider, ", missingPrefill: decodeOnly");
    let response = ask(&proxy, &prompt("Ann", 300));
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(work(&sim, DECODE).computed_tokens, 300);
    let said = response.header("x-epp-explain");
    assert!(said.contains("prefill: "), "{said}");
}
