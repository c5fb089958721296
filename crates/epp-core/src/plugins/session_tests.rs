use std::time::Duration;

use super::*;
use crate::picker::Head;
use crate::scheduling::Health;
use crate::testing::{close, refused, Scheduling};

const STRATEGY: &str = "strategy: session_id";

/// A session's plugin and a scorer that prefers the endpoints in turn.
fn plan(kind: &str, parameters: &str) -> Scheduling {
    let plugin = format!("{{type: session-affinity-{kind}, parameters: {{{parameters}}}}}");
    Scheduling::new(&format!("{plugin}, {{type: no-hit-lru-scorer}}"), 3)
}

fn pick(plan: &mut Scheduling, session: &str) -> u32 {
    plan.schedule(&[Some(session.as_bytes())], &[]).pick
}

#[test]
fn tokens_are_names_in_base64() {
    for (name, expected) in [
        ("", ""),
        ("f", "Zg=="),
        ("fo", "Zm8="),
        ("foo", "Zm9v"),
        ("default/p1", "ZGVmYXVsdC9wMQ=="),
        ("\u{ff}\u{3ff}?>", "w7/Pvz8+"),
    ] {
        assert_eq!(token(name), expected);
        assert!(is_token_of(expected.as_bytes(), name));
        assert!(!is_token_of(format!("{expected}=").as_bytes(), name));
    }
    assert!(!is_token_of(b"ZGVmYXVsdC9wMQ", "default/p1"));
    assert!(!is_token_of(b"ZGVmYXVsdC9wMg==", "default/p1"));
}

#[test]
fn a_response_names_its_endpoint_and_the_next_request_goes_there() {
    let mut plan = plan("scorer", "");
    let first = plan.schedule(&[None], &[]);
    assert!(close(&first.scores, &[0.0; 3]));
    let (name, token) = &first.response_headers[0];
    assert_eq!((name.as_str(), token.as_str()), ("x-session-token", "cDA="));
    let next = plan.schedule(&[Some(token.as_bytes())], &[]);
    assert!(close(&next.scores, &[1.0, 0.0, 0.0]));
    for unknown in ["", "nobody", "bm9ib2R5", "cDA"] {
        let found = plan.schedule(&[Some(unknown.as_bytes())], &[]);
        assert!(close(&found.scores, &[0.0; 3]), "{unknown:?}");
    }
    // Of a value of any length a bounded part is kept, which is not the token of any endpoint.
    let long = [token.as_bytes(), &[b'='; 100_000]].concat();
    assert!(close(&plan.schedule(&[Some(&long)], &[]).scores, &[0.0; 3]));
}

#[test]
fn the_header_can_have_another_name() {
    let mut plan = plan("scorer", "encodedEndpointHeaderConfig: {header: X-Own}");
    assert_eq!(plan.plan.headers, ["x-own"]);
    assert_eq!(plan.schedule(&[None], &[]).response_headers[0].0, "x-own");
}

#[test]
fn a_filter_keeps_a_session_at_its_endpoint() {
    let mut plan = plan("filter", STRATEGY);
    assert_eq!(plan.plan.headers, ["x-session-id"]);
    let firsts = ["a", "b", "c"].map(|session| pick(&mut plan, session));
    assert_eq!(firsts, [0, 1, 2], "new sessions go anywhere");
    for _ in 0..5 {
        assert_eq!(pick(&mut plan, "b"), 1);
        assert_eq!(pick(&mut plan, " c "), 2, "blanks do not count");
    }
    let found = plan.schedule(&[Some(b"a")], &[]);
    assert!(found.response_headers.is_empty());
    // Its endpoint is gone: the session moves, and stays where it moved.
    let own = Slot(1);
    plan.pool.get_mut(own).unwrap().health = Health::Unhealthy;
    let other = pick(&mut plan, "b");
    assert_ne!(other, 1);
    plan.pool.get_mut(own).unwrap().health = Health::Healthy;
    assert_eq!(pick(&mut plan, "b"), other);
    // Requests without a session bind nothing.
    plan.schedule(&[None], &[]);
    plan.schedule(&[Some(b"  ")], &[]);
    let state = plan.states.get(StateId(0)).unwrap();
    assert_eq!(state.len(), 3);
}

#[test]
fn a_request_that_is_outweighed_moves_no_session() {
    let scorer = "{type: session-affinity-scorer, parameters: {strategy: session_id}}";
    let mut plan = Scheduling::new(
        &format!("{scorer}, {{type: no-hit-lru-scorer}}, {{type: random-picker}}"),
        3,
    );
    let first = pick(&mut plan, "a");
    let picks: Vec<u32> = (0..50).map(|_| pick(&mut plan, "a")).collect();
    assert!(picks.iter().any(|pick| *pick != first));
    let scores = plan.schedule(&[Some(b"a")], &[]).scores;
    assert_eq!(scores[first as usize], 1.0);
    assert_eq!(scores.iter().sum::<f64>(), 1.0);
}

#[test]
fn an_idle_session_is_forgotten() {
    let mut plan = plan(
        "filter",
        "strategy: session_id, sessionIdConfig: {evictionTtlSeconds: 1.5}",
    );
    pick(&mut plan, "a");
    plan.wait(Duration::from_millis(1_000));
    assert_eq!(pick(&mut plan, "a"), 0);
    plan.wait(Duration::from_millis(1_000));
    assert_eq!(pick(&mut plan, "a"), 0, "each request extends it");
    plan.wait(Duration::from_millis(1_501));
    assert!(plan.states.get(StateId(0)).unwrap().is_empty());
}

#[test]
fn sources_count_in_their_order() {
    let agents = "{type: agent-identity, parameters: {additionalSessionHeaders: [X-First]}}";
    let cookies = "{type: session-id-producer, parameters: {cookieName: sid}}";
    let affinity = "{type: session-affinity-filter, parameters: {strategy: session_id, sessionIdConfig: {sources: [
        {header: X-Session-Id}, {attribute: agent-identity}, {attribute: SessionIDDataKey, producer: session-id-producer}]}}}";
    // In this order: plugins that find sessions are built before those that ask for them.
    let mut plan = Scheduling::new(&format!("{affinity}, {agents}, {cookies}"), 1);
    let mut bound = |given: &[(&str, &str)]| {
        let pairs = given.iter();
        let pairs = pairs.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let mut values = Vec::new();
        Head::read(&plan.plan, pairs, true, &mut values);
        plan.schedule(&values, &[]);
        let state = plan.states.get(StateId(0)).unwrap();
        let newest = state.iter().last().map(|(key, _)| key);
        let known = ["a", "b", "c", "d"];
        let named = known
            .iter()
            .find(|id| Some(plan.states.key(id.as_bytes())) == newest);
        let found = named.copied();
        plan.states.remove_endpoint(Slot(0));
        found
    };
    let agent = [("session-id", "c"), ("x-first", "b"), ("cookie", "sid=d")];
    assert_eq!(bound(&agent), Some("b"));
    assert_eq!(
        bound(&[("x-session-id", "a"), agent[0], agent[1]]),
        Some("a")
    );
    assert_eq!(bound(&[("x-session-id", " "), agent[0]]), Some("c"));
    for cookie in [
        "sid=d",
        "x=1; sid=d ",
        "sids=a;xsid=b; sid=d;sid=c",
        "sid; sid=d",
    ] {
        assert_eq!(bound(&[("cookie", cookie)]), Some("d"), "{cookie}");
    }
    // Other cookies of any length before and after it do not matter.
    let long = "a".repeat(600);
    for cookie in [
        format!("other={long}; sid=d"),
        format!("other={}; sid=d; more={long}", &long[..490]),
    ] {
        assert_eq!(bound(&[("cookie", &cookie)]), Some("d"));
    }
    assert_eq!(bound(&[("cookie", "sid=d"), ("cookie", "b=a")]), Some("d"));
    for cookie in ["", "sid", "sid=", "sid =d", ";;;=", "SID=d"] {
        assert_eq!(bound(&[("cookie", cookie)]), None, "{cookie}");
    }
}

#[test]
fn parameters_are_checked() {
    for (kind, parameters, place) in [
        ("session-affinity-filter", "{strategy: other}", "strategy"),
        (
            "session-affinity-scorer",
            "{strategy: session_id, sessionIdConfig: {sources: [{}]}}",
            "sources[0]",
        ),
        (
            "session-affinity-scorer",
            "{strategy: session_id, sessionIdConfig: {sources: [{header: a}, {header: b, attribute: c}]}}",
            "sources[1]",
        ),
        (
            "session-affinity-filter",
            "{strategy: session_id, sessionIdConfig: {evictionTtlSeconds: -1}}",
            "evictionTtlSeconds",
        ),
        ("session-affinity-filter", "{headerName: a}", "headerName"),
        ("session-id-producer", "{}", "headerName and cookieName"),
        ("session-id-producer", "{headerName: a, cookieName: b}", "headerName and cookieName"),
        ("agent-identity", "{additionalSessionHeaders: a}", "additionalSessionHeaders"),
    ] {
        let error = refused(kind, parameters);
        assert!(error.contains(place), "{kind} {parameters}: {error}");
    }
}

#[test]
fn what_does_nothing_is_said() {
    for (parameters, expected) in [
        (
            "sessionIdConfig: {sources: [{header: a}]}",
            "strategy selects the other one",
        ),
        (
            "strategy: session_id, sessionIdConfig: {sources: [{attribute: other}]}",
            "no plugin of this document gives requests other",
        ),
        (
            "strategy: session_id, sessionIdConfig: {evictionSweepSeconds: 10}",
            "has no effect here",
        ),
    ] {
        let text = format!(
            "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{{type: session-affinity-scorer, parameters: {{{parameters}}}}}]"
        );
        let warnings = crate::config::load(&text).unwrap().warnings;
        let [warning] = warnings.as_slice() else {
            panic!("{warnings:?}");
        };
        assert!(warning.to_string().contains(expected), "{warning}");
    }
}

/// A source that names an attribute stands for those of all its producers.
#[test]
fn sources_of_many_producers_are_refused_and_those_that_are_the_same_are_one() {
    let scorer = "{type: session-affinity-scorer, parameters: {strategy: session_id, \
                  sessionIdConfig: {sources: [{attribute: SessionIDDataKey}, {attribute: SessionIDDataKey}]}}}";
    let load = |names: fn(usize) -> usize| {
        let producers = (0..20).map(|number| {
            let name = names(number);
            format!("{{name: p{number}, type: session-id-producer, parameters: {{headerName: h{name}}}}}, ")
        });
        let producers: String = producers.collect();
        crate::config::load(&format!(
            "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins: [{producers}{scorer}]\n"
        ))
    };
    assert!(load(|number| number % 16).is_ok());
    let errors = load(|number| number % 17).unwrap_err().errors;
    let errors: String = errors.iter().map(|error| error.to_string()).collect();
    assert!(errors.contains("at most 16 sources"), "{errors}");
}
