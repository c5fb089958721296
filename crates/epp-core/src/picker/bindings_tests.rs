use super::super::peers::IndexPeer;
use super::super::testing::{begin, close, show, NOW};
use super::super::{Effect, Head, Picker};
use super::*;
use crate::config;
use crate::time::Timestamp;

fn plan(endpoints: &str, parameters: &str) -> config::Plan {
    let text = format!(
        "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {{type: no-hit-lru-scorer, parameters: {parameters}}}
- {{name: pods, type: static-discovery, parameters: {{endpoints: [{endpoints}]}}}}
dataLayer: {{discovery: {{pluginRef: pods}}}}
"
    );
    config::load(&text).unwrap().plan
}

fn members(numbers: &[u32]) -> String {
    let one = |n: &u32| format!("{{name: p{n}, address: 10.0.0.{n}, port: 80}}");
    let all: Vec<String> = numbers.iter().map(one).collect();
    all.join(", ")
}

fn picker(numbers: &[u32]) -> Picker {
    let mut picker = Picker::new(plan(&members(numbers), "{}"), 1);
    picker.peers().set_sharing(true);
    picker.tick(NOW);
    picker
}

/// Sends a request without a prompt, which is cold. Returns where it went.
fn send(picker: &mut Picker) -> String {
    let head = Head {
        end: true,
        ..Head::post_json("/v1/models", None)
    };
    let Some(Effect::Forward { route, .. }) = begin(picker, 1, &head) else {
        panic!("not forwarded");
    };
    close(picker, 1);
    let address = route.endpoints().next().unwrap().to_owned();
    address
}

fn bound(picker: &Picker) -> Vec<u32> {
    let state = picker.dispatcher.states.get(StateId(0)).unwrap();
    state.iter().map(|(_, slot)| slot.0).collect()
}

/// Passes what one picker has learnt to another.
fn pass(from: &mut Picker, to: &mut Picker) {
    let mut peer = from.peers();
    let learnt: Vec<_> = peer
        .learnt()
        .entries()
        .map(|(placement, span, hashes)| (placement, span.context, hashes.to_vec()))
        .collect();
    peer.learnt().clear();
    for (placement, from, hashes) in learnt {
        to.peers().learn(0, placement, &hashes, from);
    }
}

#[test]
fn pickers_learn_what_others_have_bound() {
    let mut pair = [picker(&[1, 2, 3]), picker(&[1, 2, 3])];
    let mut sent = Vec::new();
    for turn in 0..6 {
        let [one, other] = &mut pair;
        sent.push(send(one));
        pass(one, other);
        assert_eq!(bound(one), bound(other), "turn {turn}");
        pair.reverse();
    }
    sent.sort();
    sent.dedup();
    assert_eq!(sent.len(), 3, "each endpoint in turn, from both pickers");
}

#[test]
fn an_endpoint_that_left_is_forgotten_and_its_slot_is_another_ones() {
    let (mut one, mut other) = (picker(&[1, 2, 3]), picker(&[1, 2, 3]));
    (0..3).for_each(|_| drop(send(&mut one)));
    assert_eq!(bound(&one), [0, 1, 2]);
    // Endpoint 2 leaves, and 4 takes its slot, before the other has learnt of it.
    other.install(plan(&members(&[1, 4, 3]), "{}"));
    other.tick(Timestamp::from_nanos(NOW.as_nanos() + 50_000_000));
    pass(&mut one, &mut other);
    assert_eq!(bound(&other), [0, 2]);
    one.install(plan(&members(&[1, 4, 3]), "{}"));
    one.tick(Timestamp::from_nanos(NOW.as_nanos() + 50_000_000));
    assert_eq!(bound(&one), [0, 2]);
}

#[test]
fn a_picker_that_starts_takes_over_whole_states() {
    let (mut one, mut new) = (picker(&[1, 2, 3]), picker(&[1, 2, 3]));
    (0..5).for_each(|_| drop(send(&mut one)));
    let (mut lists, mut words) = (0, Vec::new());
    while let Some(list) = one.peers().index_list(lists, &mut words) {
        new.peers().take_over(list, &mut words.drain(..));
        lists += 1;
    }
    // Three endpoints of one producer, one state.
    assert_eq!(lists, 4);
    assert_eq!(bound(&new), bound(&one));
    // An odd word, a slot that does not exist, a state that does not, an endpoint's former tag.
    let list = |state| Placement::State(StateId(state));
    for (state, words) in [
        (0, vec![7]),
        (0, vec![7, u64::MAX]),
        (0, vec![7, 1]),
        (usize::MAX, vec![7, 0]),
    ] {
        new.peers().take_over(list(state), &mut words.into_iter());
    }
    new.peers().learn(0, list(0), &[1, 2], 9);
    assert_eq!(bound(&new), bound(&one));
}

#[test]
fn a_picker_that_starts_takes_over_the_bindings_of_an_archive() {
    let (mut one, mut new) = (picker(&[1, 2, 3]), picker(&[1, 2, 3]));
    (0..5).for_each(|_| drop(send(&mut one)));
    let archived: Vec<_> = one
        .peers()
        .learnt()
        .entries()
        .map(|(placement, span, hashes)| (placement, hashes[span.context..].to_vec()))
        .collect();
    assert_eq!(archived.len(), 5);
    for (placement, words) in archived {
        new.peers().take_over(placement, &mut words.into_iter());
    }
    assert_eq!(bound(&new), bound(&one));
    new.peers().clear_index();
    assert!(bound(&new).is_empty());
}

#[test]
fn state_stays_across_a_reload_that_does_not_concern_it() {
    let mut picker = picker(&[1, 2, 3]);
    let fingerprint = picker.peers().fingerprint();
    (0..2).for_each(|_| drop(send(&mut picker)));
    let mut other = plan(&members(&[1, 2, 3]), "{}");
    other.settings.max_held = 5;
    picker.install(other);
    assert_eq!(bound(&picker), [0, 1]);
    assert_eq!(picker.peers().fingerprint(), fingerprint);
    picker.install(plan(&members(&[1, 2, 3]), "{lruSize: 7}"));
    assert!(bound(&picker).is_empty());
    assert_ne!(picker.peers().fingerprint(), fingerprint);
}

#[test]
fn what_was_bound_before_a_reload_is_not_learnt_under_another_states_number() {
    let two = |first: &str, second: &str| {
        let text = format!(
            "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {{type: no-hit-lru-scorer, name: {first}}}
- {{type: no-hit-lru-scorer, name: {second}, parameters: {{lruSize: 7}}}}
- {{name: pods, type: static-discovery, parameters: {{endpoints: [{}]}}}}
dataLayer: {{discovery: {{pluginRef: pods}}}}
",
            members(&[1, 2, 3])
        );
        config::load(&text).unwrap().plan
    };
    let (mut one, mut other) = (picker(&[1, 2, 3]), picker(&[1, 2, 3]));
    send(&mut one);
    for picker in [&mut one, &mut other] {
        picker.install(two("a", "b"));
    }
    assert_eq!(one.peers().fingerprint(), other.peers().fingerprint());
    pass(&mut one, &mut other);
    assert!(bound(&other).is_empty());
    send(&mut one);
    pass(&mut one, &mut other);
    assert_eq!(bound(&other), bound(&one));
}

#[test]
fn media_go_where_they_went_before() {
    let text = format!(
        "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {{type: mm-embeddings-cache-scorer}}
- {{name: pods, type: static-discovery, parameters: {{endpoints: [{}]}}}}
dataLayer: {{discovery: {{pluginRef: pods}}}}
",
        members(&[1, 2, 3, 4])
    );
    let mut picker = Picker::new(config::load(&text).unwrap().plan, 1);
    picker.tick(NOW);
    let mut sent = |name: &str, text: &str| {
        let image =
            format!(r#"{{"type": "image_url", "image_url": {{"url": "http://a/{name}.png"}}}}"#);
        let words = format!(r#"{{"type": "text", "text": "{text}"}}"#);
        let body = format!(
            r#"{{"model": "m", "messages": [{{"role": "user", "content": [{words}, {image}]}}]}}"#
        );
        let head = Head::post_json("/v1/chat/completions", Some(body.len()));
        assert!(begin(&mut picker, 1, &head).is_none());
        // The image may still come, until the turns have ended.
        let half = body.len() / 2;
        assert!(show(&mut picker, 1, &body.as_bytes()[..half], false).is_none());
        let Some(Effect::Forward { route, .. }) = show(&mut picker, 1, body.as_bytes(), true)
        else {
            panic!("not forwarded");
        };
        close(&mut picker, 1);
        let address = route.endpoints().next().unwrap().to_owned();
        address
    };
    for name in ["cat", "dog", "fish", "bird"] {
        let first = sent(name, "What is this?");
        for number in 0..5 {
            assert_eq!(
                sent(name, &format!("Other words, {number}")),
                first,
                "{name}"
            );
        }
    }
}

#[test]
fn a_key_that_moved_stays_moved_in_all_pickers() {
    let [mut one, mut other, mut new] = [1, 2, 3].map(|_| picker(&[1, 2, 3]));
    let record = |slot| Record {
        state: StateId(0),
        key: 7,
        slot: Slot(slot),
    };
    one.dispatcher.bind(record(0));
    pass(&mut one, &mut other);
    // One moves it, while the other does not know yet and uses the former endpoint once more.
    one.dispatcher.bind(record(2));
    other.dispatcher.bind(record(0));
    pass(&mut one, &mut other);
    pass(&mut other, &mut one);
    assert_eq!([bound(&one), bound(&other)], [[2], [2]]);
    // One that starts takes over how often it has moved, too.
    let (mut lists, mut words) = (0, Vec::new());
    while let Some(list) = one.peers().index_list(lists, &mut words) {
        new.peers().take_over(list, &mut words.drain(..));
        lists += 1;
    }
    assert_eq!(bound(&new), [2]);
    new.dispatcher.bind(record(1));
    one.dispatcher.bind(record(2));
    pass(&mut one, &mut new);
    pass(&mut new, &mut one);
    assert_eq!([bound(&one), bound(&new)], [[1], [1]]);
}
