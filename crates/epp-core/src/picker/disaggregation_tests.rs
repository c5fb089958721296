//! Requests that several endpoints serve: their headers, what they count as, and their local replies.

use crate::body::SliceBody;
use crate::config;
use crate::metrics::MetricUpdate;
use crate::picker::testing::{begin, close, decision, exchange, respond_with_body, show, NOW};
use crate::picker::{Effect, ExchangeId, Head, Picker, Upstream};
use crate::scheduling::Slot;

/// Two endpoints of each role, behind this handler and these settings.
fn picker(handler: &str, roles: &[&str]) -> Picker {
    let endpoints = roles.iter().enumerate().map(|(place, role)| {
        format!("    - {{name: p{place}, address: 10.0.0.{place}, port: '80{place}', labels: {{role: {role}}}}}\n")
    });
    let of = |role: &str| {
        format!("- {{name: {role}s, type: label-selector-filter, parameters: {{matchLabels: {{role: {role}}}}}}}\n")
    };
    let profile = |role: &str| {
        format!(
            "- {{name: {role}, plugins: [{{pluginRef: {role}s}}, {{pluginRef: queue-scorer}}]}}\n"
        )
    };
    let roles = ["decode", "prefill"];
    let text = format!(
        "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n- {{type: queue-scorer}}\n{}{handler}\
         - name: pods\n  type: static-discovery\n  parameters:\n    endpoints:\n{}\
         schedulingProfiles:\n{}dataLayer: {{discovery: {{pluginRef: pods}}}}\n",
        roles.map(of).concat(),
        endpoints.collect::<String>(),
        roles.map(profile).concat()
    );
    let mut picker = Picker::new(config::load(&text).unwrap().plan, 1);
    picker.tick(NOW);
    picker
}

const ALWAYS: &str = "- {type: always-disagg-pd-decider}
- {type: disagg-profile-handler, parameters: {deciders: {prefill: always-disagg-pd-decider}}}
";

const CACHED: &str = "- {type: prefix-based-pd-decider, parameters: {nonCachedTokens: 100}}
- {type: disagg-profile-handler, parameters: {deciders: {prefill: prefix-based-pd-decider}}}
- {type: approx-prefix-cache-producer, parameters: {autoTune: false}}
";

const HEAD: Head<'static> = Head {
    end: true,
    ..Head::post_json("/v1/chat/completions", None)
};

fn body(tokens: usize) -> String {
    format!(r#"{{"model":"m","prompt":"{}"}}"#, "abcd".repeat(tokens))
}

/// Returns the outcome of a request with this prompt.
fn send(picker: &mut Picker, id: u32, tokens: usize, prefer: Option<&str>) -> Effect {
    let body = body(tokens);
    let headers = [prefer.map(str::as_bytes)];
    let head = Head {
        headers: &headers,
        ..Head::post_json("/v1/completions", Some(body.len()))
    };
    let early = begin(picker, id, &head);
    early.unwrap_or_else(|| show(picker, id, body.as_bytes(), true).unwrap())
}

fn refused(effect: Effect) -> (u32, Option<&'static str>) {
    match effect {
        Effect::Reply { reply, .. } => (reply.status, reply.reason),
        other => panic!("{other:?}"),
    }
}

/// Returns the addresses and the further headers of a request that is sent.
fn sent(effect: Effect) -> (String, Vec<(&'static str, String)>) {
    match effect {
        Effect::Forward { route, .. } => {
            let endpoints: Vec<&str> = route.endpoints().collect();
            (endpoints.join(","), route.headers)
        }
        other => panic!("{other:?}"),
    }
}

/// Returns how requests were counted by the parts that other endpoints do, and why.
fn counted(picker: &mut Picker) -> Vec<String> {
    picker.dispatcher.statistics.registry.flush();
    let updates = std::iter::from_fn(|| picker.poll_metric());
    let mut found: Vec<String> = updates
        .filter_map(|update| match update {
            MetricUpdate::Define { name, .. } => {
                Some(name.split_once("disagg_decision_total")?.1.to_owned())
            }
            _ => None,
        })
        .collect();
    found.sort();
    found
}

#[test]
fn the_endpoint_that_computes_the_prompt_is_named_and_counted() {
    let mut picker = picker(ALWAYS, &["decode", "prefill", "decode", "prefill"]);
    let (endpoints, headers) = sent(begin(&mut picker, 1, &HEAD).unwrap());
    assert!(matches!(
        endpoints.as_str(),
        "10.0.0.0:800,10.0.0.2:802" | "10.0.0.2:802,10.0.0.0:800"
    ));
    let [(name, address)] = headers.as_slice() else {
        panic!("{headers:?}");
    };
    assert_eq!(*name, "x-prefiller-host-port");
    assert!(["10.0.0.1:801", "10.0.0.3:803"].contains(&address.as_str()));
    // A retry goes to the other decode endpoint with the same headers.
    let targets = exchange(&picker, 1).targets().unwrap();
    let prefill = targets.prefill.unwrap().slot;
    assert_eq!(
        picker.pool().get(prefill).unwrap().address,
        address.as_str().into()
    );
    let loads = [0, 1, 2, 3].map(|slot| picker.pool().load(Slot(slot)).requests);
    assert_eq!(loads.iter().sum::<u32>(), 2);
    assert_eq!(
        counted(&mut picker),
        [";pool=inference-pool;decision_type=prefill-decode"]
    );
}

#[test]
fn a_request_that_only_one_endpoint_serves_is_counted_with_the_reason() {
    let mut picker = picker(CACHED, &["decode", "prefill"]);
    let (_, headers) = sent(send(&mut picker, 1, 99, None));
    assert_eq!(headers, []);
    let (_, headers) = sent(send(&mut picker, 2, 640, None));
    assert_eq!(
        headers,
        [("x-prefiller-host-port", "10.0.0.1:801".to_owned())]
    );
    // The decode endpoint holds it now.
    let (_, headers) = sent(send(&mut picker, 3, 640, None));
    assert_eq!(headers, []);
    let only = ";pool=inference-pool;decision_type=decode-only;reason=";
    assert_eq!(
        counted(&mut picker),
        [
            format!("{only}cached"),
            format!("{only}short"),
            ";pool=inference-pool;decision_type=prefill-decode".to_owned(),
        ]
    );
}

#[test]
fn a_missing_endpoint_is_an_error_or_its_part_is_the_decode_endpoints() {
    let error = |handler: &str, roles: &[&str]| {
        let mut picker = picker(handler, roles);
        refused(begin(&mut picker, 1, &HEAD).unwrap())
    };
    let unavailable = (503, Some("rejected-no-endpoints"));
    assert_eq!(error(ALWAYS, &["decode"]), unavailable);
    assert_eq!(error(ALWAYS, &["prefill"]), unavailable);
    let lenient =
        format!("{ALWAYS}- {{type: envoy-proxy, parameters: {{missingPrefill: decodeOnly}}}}\n");
    assert_eq!(error(&lenient, &["prefill"]), unavailable);
    let mut picker = picker(&lenient, &["decode"]);
    let (endpoints, headers) = sent(begin(&mut picker, 1, &HEAD).unwrap());
    assert_eq!(
        (endpoints.as_str(), headers.as_slice()),
        ("10.0.0.0:800", [].as_slice())
    );
    let only = ";pool=inference-pool;decision_type=decode-only;reason=no-endpoint";
    assert_eq!(counted(&mut picker), [only]);
}

#[test]
fn a_request_that_prefers_the_cache_is_refused_in_every_failure_mode() {
    for mode in ["FailClose", "FailOpen"] {
        let handler =
            format!("{CACHED}- {{type: envoy-proxy, parameters: {{failureMode: {mode}}}}}\n");
        let mut picker = picker(&handler, &["decode", "prefill"]);
        let effect = send(&mut picker, 1, 640, Some("if-available"));
        assert_eq!(refused(effect), (412, None), "{mode}");
        assert!(counted(&mut picker).is_empty());
        sent(send(&mut picker, 2, 640, None));
        sent(send(&mut picker, 3, 640, Some("wait=1, if-available")));
        let statistics = &picker.dispatcher.statistics;
        assert_eq!(statistics.without_endpoint(), (0, 0), "the pool has one");
    }
}

#[test]
fn an_unread_prompt_is_not_cached_unless_requests_go_on_when_in_doubt() {
    let outcome = |mode: &str, show_body: bool| {
        let handler =
            format!("{CACHED}- {{type: envoy-proxy, parameters: {{failureMode: {mode}}}}}\n");
        let mut picker = picker(&handler, &["decode", "prefill"]);
        let head = Head {
            headers: &[Some(b"if-available")],
            ..Head::post_json("/v1/completions", Some(1 << 20))
        };
        assert!(begin(&mut picker, 1, &head).is_none(), "it is held");
        if show_body {
            // Its prompt may turn out to be short: nothing is settled by there being none yet.
            return show(&mut picker, 1, body(9).as_bytes(), true).unwrap();
        }
        picker.body_withheld(NOW, ExchangeId(1));
        decision(&mut picker).unwrap()
    };
    assert_eq!(refused(outcome("FailClose", false)), (412, None));
    sent(outcome("FailOpen", false));
    sent(outcome("FailClose", true));
}

#[test]
fn the_first_decider_refuses_even_if_it_is_turned_off() {
    let first = "- {type: prefix-based-pd-decider, name: never}\n";
    let mut picker = picker(&format!("{first}{CACHED}"), &["decode", "prefill"]);
    sent(send(&mut picker, 1, 640, Some("if-available")));
}

#[test]
fn a_request_goes_to_the_port_of_all_ranks_and_names_its_own() {
    let handler = "- {type: always-disagg-pd-decider}
- {type: pd-profile-handler, parameters: {deciderPluginName: always-disagg-pd-decider, primaryPort: 9000}}
- {type: prefill-header-handler}
";
    let mut picker = picker(handler, &["decode", "prefill", "decode"]);
    let (endpoints, headers) = sent(begin(&mut picker, 1, &HEAD).unwrap());
    let slot = exchange(&picker, 1).primary().unwrap().slot.0;
    assert_eq!(
        endpoints,
        format!("10.0.0.{slot}:9000"),
        "and no retry target"
    );
    assert_eq!(
        headers,
        [
            (
                "x-data-parallel-host-port",
                format!("10.0.0.{slot}:80{slot}")
            ),
            ("x-prefiller-host-port", "10.0.0.1:801".to_owned()),
        ]
    );
    let served = Upstream {
        server: Some(format!("10.0.0.{slot}:9000").into_bytes()),
        status: Some(200),
        ..Upstream::default()
    };
    picker.response_headers(NOW, ExchangeId(1), Some(&served));
    assert_eq!(picker.status().counts.elsewhere, 0);
}

#[test]
fn an_explanation_says_who_does_the_parts_or_why_nobody_does() {
    let explained = |handler: &str, tokens| {
        let handler = format!("{handler}- {{type: envoy-proxy, parameters: {{explain: true}}}}\n");
        let mut picker = picker(&handler, &["decode", "prefill"]);
        let body = body(tokens);
        let head = Head {
            explain: true,
            ..Head::post_json("/v1/completions", Some(body.len()))
        };
        if begin(&mut picker, 1, &head).is_none() {
            show(&mut picker, 1, body.as_bytes(), true).unwrap();
        }
        let explanation = picker.explanation(ExchangeId(1)).unwrap();
        assert_eq!(explanation.scorers.len(), 1, "those of the decode profile");
        explanation.text(picker.pool())
    };
    assert_eq!(
        explained(ALWAYS, 9),
        "10.0.0.0:800=1.0000(queue-scorer:1.0000); prefill: 10.0.0.1:801"
    );
    assert_eq!(
        explained(CACHED, 9),
        "10.0.0.0:800=1.0000(queue-scorer:1.0000); prefill: 9 tokens of prompt, under 100"
    );
}

/// Returns how many blocks each of the endpoints is expected to hold.
fn held(picker: &Picker) -> [usize; 2] {
    [0, 1].map(|slot| {
        let mut hashes = Vec::new();
        picker.dispatcher.prefixes.indexes[0].list(slot, &mut hashes);
        hashes.len()
    })
}

#[test]
fn the_index_learns_who_computes_the_prompt_and_forgets_it_where_no_response_proves_it() {
    let responded = |server: &str, status| {
        let mut picker = picker(CACHED, &["decode", "prefill"]);
        sent(send(&mut picker, 1, 640, None));
        assert_eq!(held(&picker), [10, 10]);
        let served = Upstream {
            server: Some(server.as_bytes().to_vec()),
            status: Some(status),
            ..Upstream::default()
        };
        picker.response_headers(NOW, ExchangeId(1), Some(&served));
        respond_with_body(&mut picker, 1);
        close(&mut picker, 1);
        held(&picker)
    };
    let (picked, other) = ("10.0.0.0:800", "10.0.0.9:809");
    assert_eq!(responded(picked, 200), [10, 10]);
    assert_eq!(responded(picked, 400), [0, 0]);
    // A retry has the prompt computed by the same endpoint.
    assert_eq!(responded(other, 200), [0, 10]);
    assert_eq!(responded(other, 503), [0, 0]);
    let mut picker = picker(CACHED, &["decode", "prefill"]);
    sent(send(&mut picker, 1, 640, None));
    close(&mut picker, 1);
    assert_eq!(held(&picker), [0, 0], "no response came");
}

/// llm-d's sidecar reports the cached tokens of the endpoint that computed the prompt.
#[test]
fn the_index_is_not_corrected_by_what_another_endpoint_had_cached() {
    // Prompts that the decode endpoint gets to know, and the last of them once more, with this behind it.
    let corrections = |tail: &str| {
        let mut picker = picker(CACHED, &["decode", "prefill"]);
        let prompts = (1..=20).map(|number| format!("{number:0>8}").repeat(500));
        let known = prompts.clone().next_back().unwrap();
        for (id, prompt) in (1..).zip(prompts.chain([known + tail])) {
            let body = format!(r#"{{"model":"m","prompt":"{prompt}"}}"#);
            let head = Head::post_json("/v1/completions", Some(body.len()));
            let early = begin(&mut picker, id, &head);
            sent(early.unwrap_or_else(|| show(&mut picker, id, body.as_bytes(), true).unwrap()));
            let served = Upstream {
                server: Some(b"10.0.0.0:800".to_vec()),
                status: Some(200),
                ..Upstream::default()
            };
            picker.response_headers(NOW, ExchangeId(id), Some(&served));
            let usage =
                br#"{"usage":{"prompt_tokens":1000,"prompt_tokens_details":{"cached_tokens":0}}}"#;
            picker.response_body(NOW, ExchangeId(id), &mut SliceBody::whole(usage));
            close(&mut picker, id);
        }
        picker.dispatcher.statistics.corrections()
    };
    assert!(
        corrections("") > 0,
        "the decode endpoint had nothing cached"
    );
    assert_eq!(corrections(&"a longer prompt ".repeat(200)), 0);
}
