use std::sync::Arc;

use super::*;
use crate::config;
use crate::metrics::definitions::FORCED_RELEASES;
use crate::picker::testing::{begin, change, close, decisions, exchange, pass, respond, show, NOW};
use crate::picker::{Effect, ExchangeId, Head};

#[path = "../../../../tests/memory/bodies.rs"]
mod bodies;
use bodies::{hostile, Hostile};

/// The plan of the chart's template, with listed endpoints and without a limit on prompts.
const PLAN: &str = "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: prefix-cache-scorer}, {type: queue-scorer},
  {type: approx-prefix-cache-producer, parameters: {autoTune: false}},
  {type: envoy-proxy, parameters: {maxHeld: 100000}},
  {name: pods, type: static-discovery, parameters: {endpoints: [
    {name: p0, address: 10.0.0.1, port: 80}, {name: p1, address: 10.0.0.2, port: 80}]}}]
schedulingProfiles: [{name: default, plugins: [{pluginRef: prefix-cache-scorer}, {pluginRef: queue-scorer}]}]
dataLayer: {discovery: {pluginRef: pods}}
";

fn picker() -> Picker {
    let plan = config::load(PLAN).unwrap().plan;
    let mut picker = Picker::new(plan.clone(), 1);
    picker.install(plan);
    picker.tick(NOW);
    picker
}

fn used(picker: &Picker) -> usize {
    picker.dispatcher.readers.memory.memory.used()
}

fn forced(picker: &mut Picker) -> u64 {
    let handle = picker
        .dispatcher
        .statistics
        .registry
        .counter(FORCED_RELEASES, ForcedRelease::Memory);
    picker.dispatcher.statistics.registry.counted(handle)
}

/// Opens a request whose declared length is not reached.
fn open(picker: &mut Picker, id: u32, path: &str) -> Option<Effect> {
    let head = Head::post_json(path, Some(1 << 20));
    begin(picker, id, &head)
}

/// Sends a body as Envoy shows it, in parts. Whether the request was released.
fn send(picker: &mut Picker, id: u32, path: &str, body: &[u8]) -> bool {
    let mut released = open(picker, id, path).is_some();
    let mut shown = 0;
    while shown < body.len() {
        shown = body.len().min(shown + (16 << 10));
        released |= show(picker, id, &body[..shown], false).is_some();
    }
    released
}

fn tick(picker: &mut Picker) -> usize {
    picker.tick(NOW);
    decisions(picker).len()
}

/// Returns the memory that one request keeps after this body, and whether it is held.
fn kept_after(body: &Hostile) -> (usize, bool) {
    let mut picker = picker();
    let released = send(&mut picker, 1, body.path, &body.bytes());
    let kept = used(&picker);
    assert_eq!(kept, exchange(&picker, 1).allocated(), "{}", body.name);
    close(&mut picker, 1);
    assert_eq!(used(&picker), 0, "{}", body.name);
    (kept, !released)
}

#[test]
fn the_memory_of_a_request_is_bounded_counted_and_given_back() {
    for body in hostile() {
        let (kept, held) = kept_after(&body);
        println!(
            "{}: {} sent, {kept} kept, held: {held}",
            body.name,
            body.bytes().len()
        );
        assert!(kept < 4 << 20, "{}: {kept}", body.name);
    }
}

#[test]
fn json_that_is_too_much_is_given_back_at_once() {
    let mut bodies = hostile();
    let names = [
        "tools: a text",
        "tools: escapes",
        "tools: many members",
        "tools: escaped keys",
    ];
    bodies.retain(|body| names.contains(&body.name));
    assert_eq!(bodies.len(), names.len());
    for mut body in bodies {
        body.size = body.size * 11 / 10;
        let (kept, _) = kept_after(&body);
        assert!(kept < 40 << 10, "{}: {kept}", body.name);
    }
}

#[test]
fn the_budget_holds_for_any_bodies_of_any_number_of_clients() {
    const SMALL_BUDGET: usize = 4 << 20;
    for body in hostile() {
        let mut picker = picker();
        picker.share_memory(&Arc::new(Memory::of(SMALL_BUDGET)));
        let bytes = body.bytes();
        let mut released = 0;
        // As many as a test has time for: `tests/e2e/memory.rs` sends 1,500 of each.
        let count = ((3 << 20) / bytes.len()).clamp(4, 300) as u32;
        for id in 0..count {
            released += u32::from(send(&mut picker, id, body.path, &bytes));
            assert!(used(&picker) <= SMALL_BUDGET, "{}", body.name);
        }
        let large = kept_after(&body).0 * count as usize > 2 * SMALL_BUDGET;
        assert!(!large || forced(&mut picker) > 0, "{}", body.name);
        tick(&mut picker);
        // Others' prompts are read, and looked up.
        let text = format!(
            r#"{{"model":"m","messages":[{{"role":"user","content":"{}"#,
            "a chat that goes on ".repeat(1_000)
        );
        let held = !send(&mut picker, 9_000, "/v1/chat/completions", text.as_bytes());
        assert!(held, "{}: {released} released", body.name);
        assert!(
            exchange(&picker, 9_000).walks[0].total() > 10,
            "{}",
            body.name
        );
        (0..count).for_each(|id| close(&mut picker, id));
        close(&mut picker, 9_000);
        assert_eq!(used(&picker), 0, "{}", body.name);
    }
}

#[test]
fn a_silent_client_does_not_keep_memory_that_it_got_earlier() {
    let mut picker = picker();
    picker.share_memory(&Arc::new(Memory::of(16 << 20)));
    let bytes = hostile().remove(0).bytes();
    let path = "/v1/chat/completions";
    let held = (0..).take_while(|id| !send(&mut picker, *id, path, &bytes));
    let held = held.count();
    assert!((6..16).contains(&held), "{held} of a megabyte each");
    assert_eq!(
        forced(&mut picker),
        1,
        "there was no room for the new request"
    );
    // More come, each smaller than its share.
    let before = picker.dispatcher.readers.memory.memory.allowance();
    for id in 1_000..1_200 {
        let part = &bytes[..before / 3];
        send(&mut picker, id, path, part);
    }
    assert!(picker.dispatcher.readers.memory.memory.allowance() < before);
    assert!(tick(&mut picker) > 0, "the largest are released");
    assert!(!picker.dispatcher.readers.memory.memory.is_short());
    let largest = (0..held as u32).filter(|id| exchange(&picker, *id).is_held());
    assert!(largest.count() < held, "the largest are released");
    let budget = picker.dispatcher.readers.memory.memory.budget;
    assert!(used(&picker) > budget / 4, "no more go than must");
}

#[test]
fn memory_that_is_short_takes_no_proof_from_prompts_under_way() {
    let mut picker = picker();
    let (path, prompt) = ("/v1/completions", "a prompt of its own ".repeat(400));
    let body = format!(r#"{{"model":"m","prompt":"{prompt}"}}"#);
    open(&mut picker, 1, path);
    show(&mut picker, 1, body.as_bytes(), true);
    assert!(exchange(&picker, 1).primary().is_some());
    let large = hostile().remove(0).bytes();
    for id in 100.. {
        send(&mut picker, id, "/v1/chat/completions", &large);
        if picker.dispatcher.readers.memory.memory.is_short() {
            break;
        }
    }
    assert!(tick(&mut picker) > 0, "the largest are released");
    assert!(!picker.dispatcher.readers.memory.memory.is_short());
    respond(&mut picker, 1);
    close(&mut picker, 1);
    open(&mut picker, 2, path);
    show(&mut picker, 2, body.as_bytes(), true);
    let known = exchange(&picker, 2)
        .response
        .recording
        .unwrap()
        .predicted
        .unwrap();
    assert!(known > 0.9, "{known}");
}

#[test]
fn if_memory_is_short_no_body_is_read_for_the_index_alone() {
    let mut picker = picker();
    let chat = r#"{"model":"m","messages":[{"role":"user","content":"one two three four "#;
    let prompt = format!("{}{}", chat, "five six seven ".repeat(2_000));
    open(&mut picker, 1, "/v1/chat/completions");
    show(&mut picker, 1, prompt.as_bytes(), false);
    change(&mut picker, 1, Dispatcher::decide);
    assert!(
        exchange(&picker, 1).reader.wants_more(),
        "there is room for it"
    );
    let others = Account::default();
    let mut others = Account {
        memory: Arc::clone(&picker.dispatcher.readers.memory.memory),
        ..others
    };
    others.change(0, BUDGET_BYTES / 2 + 1);
    tick(&mut picker);
    assert!(!exchange(&picker, 1).reader.wants_more());
    assert!(
        picker.dispatcher.readers.memory.own < 8 << 10,
        "what a response is to prove"
    );
    open(&mut picker, 2, "/v1/chat/completions");
    show(&mut picker, 2, prompt.as_bytes(), false);
    change(&mut picker, 2, Dispatcher::decide);
    assert!(exchange(&picker, 2).reader.wants_more());
    pass(&mut picker, 2, prompt.len(), b"eight nine ten ", false);
    assert!(!exchange(&picker, 2).reader.wants_more());
    drop(others);
    assert!(used(&picker) < 1 << 20);
}

#[test]
fn the_pools_of_a_vm_share_a_budget() {
    let (mut one, mut other) = (picker(), picker());
    let memory = Arc::new(Memory::default());
    one.share_memory(&memory);
    let bytes = hostile().remove(0).bytes();
    send(&mut other, 1, "/v1/chat/completions", &bytes);
    other.share_memory(&memory);
    let of_other = memory.used();
    assert!(of_other > 1 << 20, "it brings along what it keeps");
    send(&mut one, 1, "/v1/chat/completions", &bytes);
    assert_eq!(memory.used(), 2 * of_other);
    drop(other);
    assert_eq!(memory.used(), of_other);
    one.recovery().drop_exchange(ExchangeId(1));
    assert_eq!(memory.used(), 0);
}

#[test]
fn members_in_any_order_at_any_depth_cost_a_bounded_number_of_copies() {
    // Each level's object is copied to put its members in order.
    let depth = 900;
    let mut body = br#"{"model":"m","tools":["#.to_vec();
    body.extend(r#"{"b":"#.repeat(depth).into_bytes());
    body.extend(format!("\"{}\"", "x".repeat(900 << 10)).into_bytes());
    let mut picker = picker();
    send(&mut picker, 1, "/v1/chat/completions", &body);
    assert!(used(&picker) > 900 << 10);
    let more = r#","a":1}"#.repeat(depth);
    pass(&mut picker, 1, body.len(), more.as_bytes(), false);
    assert!(
        used(&picker) < 64 << 10,
        "it is given up: {}",
        used(&picker)
    );
}

#[test]
fn a_tick_decides_a_bounded_number_of_requests_for_memory() {
    const COUNT: usize = 3 * MAX_RELEASES_PER_TICK - 20;
    let mut picker = picker();
    picker.share_memory(&Arc::new(Memory::of(32 << 20)));
    let bytes = hostile().remove(0).bytes();
    for id in 0..COUNT as u32 {
        assert!(!send(
            &mut picker,
            id,
            "/v1/chat/completions",
            &bytes[..20 << 10]
        ));
    }
    let mut others = Account::default();
    others.join(&picker.dispatcher.readers.memory.memory);
    others.change(0, 17 << 20);
    let kept: Vec<usize> = picker.exchanges.iter().map(|it| it.counted_bytes).collect();
    let small = picker.dispatcher.readers.memory.memory.small();
    assert!(kept.iter().all(|kept| *kept > small), "{kept:?}");
    let ticks = [(); 4].map(|()| tick(&mut picker));
    let most = MAX_RELEASES_PER_TICK;
    assert_eq!(ticks, [most, most, most - 20, 0]);
}

#[test]
fn prompts_that_wait_in_a_queue_keep_little_more_than_the_budget() {
    const BUDGET: usize = 2 << 20;
    const REQUESTS: u32 = 1_000;
    let mut plan = config::load(PLAN).unwrap().plan;
    let mut control = crate::picker::flow_testing::control(0.5);
    control.default_band.max_requests = None;
    plan.flow = Some(control);
    let mut picker = Picker::new(plan, 1);
    picker.share_memory(&Arc::new(Memory::of(BUDGET)));
    picker.tick(NOW);
    let fills = Head {
        method: b"GET",
        end: true,
        ..Head::default()
    };
    begin(&mut picker, 0, &fills);
    let text = "word ".repeat(10_000);
    for id in 1..=REQUESTS {
        let body = format!(r#"{{"model": "m", "prompt": "{id} {text}"}}"#);
        send(&mut picker, id, "/v1/completions", body.as_bytes());
        if id % 100 == 0 {
            picker.tick(NOW);
        }
    }
    let waiting = picker.dispatcher.flow.queues.len();
    assert!(waiting > 700, "{waiting}");
    // What is read of a request before it is found to be too much: with the most that may wait, half of the budget.
    let bound = BUDGET + waiting * 1_024;
    assert!(used(&picker) < bound, "{}", used(&picker));
    assert!(used(&picker) > BUDGET / 2, "{}", used(&picker));
}
