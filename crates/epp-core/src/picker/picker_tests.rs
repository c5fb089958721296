use std::time::Duration;

use super::early_tests::HEAD;
use super::statistics::EVENTS_PER_TIMING;
use super::testing::{begin, change, close, decision, respond, respond_with_body, NOW};
use super::*;
use crate::config;
use crate::endpoints::discovery::Listing;
use crate::scheduling::{ByRole, Slot};

/// Discovery by the cluster, before any response and after one without members.
#[test]
fn members_not_yet_known_are_not_an_empty_pool() {
    let text = "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: queue-scorer}]
schedulingProfiles: [{name: default, plugins: [{pluginRef: queue-scorer}]}]
";
    let plan = config::load(text).unwrap().plan;
    let new = || {
        let mut picker = Picker::new(plan.clone(), 1);
        picker.install(plan.clone());
        picker
    };
    let asked = |picker: &mut Picker| {
        let head = Head {
            end: true,
            ..Head::default()
        };
        begin(picker, 1, &head).expect("nothing to wait for")
    };
    let decision = asked(&mut new());
    assert!(
        matches!(decision, Effect::Bypass { rewrite: None, .. }),
        "{decision:?}"
    );
    let mut poller = new();
    let now = poller.dispatcher.clock.now();
    poller
        .dispatcher
        .endpoints
        .monitor
        .on_members(Ok(Listing::default()), now);
    assert!(matches!(asked(&mut poller), Effect::Reply { .. }));
    // So is it where another picker polls.
    let mut other = new();
    other.peers().adopt_members(Vec::new());
    assert!(matches!(asked(&mut other), Effect::Reply { .. }));
}

#[test]
fn an_identical_plan_changes_nothing_and_another_fetches_the_members_at_once() {
    let plan = |path: &str| {
        let text = format!(
            "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{{type: queue-scorer}}, {{type: metrics-data-source, parameters: {{path: {path}}}}}]
schedulingProfiles: [{{name: default, plugins: [{{pluginRef: queue-scorer}}]}}]
"
        );
        config::load(&text).unwrap().plan
    };
    let mut picker = Picker::new(plan("/metrics"), 1);
    let asks = |picker: &mut Picker, milliseconds: u64| {
        picker.tick(NOW.after(Duration::from_millis(milliseconds)));
        let effects: Vec<Effect> = std::iter::from_fn(|| picker.poll_effect()).collect();
        let now = picker.dispatcher.clock.now();
        picker
            .dispatcher
            .endpoints
            .monitor
            .on_members(Err(FetchError::Timeout), now);
        !effects.is_empty()
    };
    assert!(asks(&mut picker, 0));
    assert!(!asks(&mut picker, 50));
    picker.install(plan("/metrics"));
    assert!(!asks(&mut picker, 100));
    picker.install(plan("/other"));
    assert!(asks(&mut picker, 150));
}

/// Returns the requests in flight at each of two endpoints.
fn in_flight(picker: &Picker) -> [u32; 2] {
    [0, 1].map(|slot| picker.pool().load(Slot(slot)).requests)
}

#[test]
fn the_endpoint_that_computes_the_prompt_is_done_with_the_first_bytes_of_the_response() {
    let text = "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: queue-scorer}, {name: pods, type: static-discovery, parameters: {endpoints: [
  {name: p0, address: 10.0.0.1, port: 80}, {name: p1, address: 10.0.0.2, port: 80}]}}]
schedulingProfiles: [{name: default, plugins: [{pluginRef: queue-scorer}]}]
dataLayer: {discovery: {pluginRef: pods}}
";
    let plan = config::load(text).unwrap().plan;
    let mut picker = Picker::new(plan, 1);
    picker.tick(NOW);
    let head = Head {
        end: true,
        ..Head::default()
    };
    begin(&mut picker, 1, &head);
    close(&mut picker, 1);
    assert_eq!(in_flight(&picker), [0, 0]);
    let mut exchange = Box::<exchange::Exchange>::default();
    exchange.id = ExchangeId(1);
    picker.exchanges.insert(exchange);
    change(&mut picker, 1, |dispatcher, exchange| {
        let selection = decide::Selection {
            additions: Default::default(),
            endpoints: effect::Addresses::new(),
            slots: ByRole {
                primary: Slot(0),
                prefill: Some(Slot(1)),
                encode: Vec::new(),
            },
            port: None,
            stages: None,
            hit: None,
        };
        let effect = dispatcher.send(exchange, selection);
        dispatcher.effects.push_back(effect);
    });
    let Some(Effect::Forward { route, .. }) = decision(&mut picker) else {
        panic!("it is sent");
    };
    assert_eq!(
        route.headers,
        [("x-prefiller-host-port", "10.0.0.2:80".to_owned())]
    );
    assert_eq!(in_flight(&picker), [1, 1]);
    respond(&mut picker, 1);
    assert_eq!(in_flight(&picker), [1, 1]);
    respond_with_body(&mut picker, 1);
    assert_eq!(in_flight(&picker), [1, 0]);
    close(&mut picker, 1);
    assert_eq!(in_flight(&picker), [0, 0]);
}

#[test]
fn one_event_in_seventeen_is_timed_where_nothing_is_looked_up() {
    let text = "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: queue-scorer}, {name: pods, type: static-discovery, parameters: {endpoints: [
  {name: p0, address: 10.0.0.1, port: 80}]}}]
schedulingProfiles: [{name: default, plugins: [{pluginRef: queue-scorer}]}]
dataLayer: {discovery: {pluginRef: pods}}
";
    let mut picker = Picker::new(config::load(text).unwrap().plan, 1);
    picker.tick(NOW);
    let mut timed = 0;
    for id in 0..10 * EVENTS_PER_TIMING as u32 {
        timed += usize::from(picker.wants_timing());
        assert!(
            begin(&mut picker, id, &HEAD).is_some(),
            "nothing to wait for"
        );
        close(&mut picker, id);
    }
    assert_eq!(timed, 10);
}
