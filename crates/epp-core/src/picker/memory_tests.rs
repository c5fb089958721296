use std::sync::Arc;

use super::*;
use crate::config;
use crate::picker::{meter, Head, Verdict};
use crate::worker::Local;

#[path = "../../../../tests/memory/bodies.rs"]
mod bodies;
use bodies::{hostile, Hostile};

/// Time of the tests, in nanoseconds.
const NOW: u64 = 1_000_000_000_000;

/// As the chart's template has it, with endpoints of its own; nothing limits the prompts.
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

fn director() -> Director {
    let plan = config::load(PLAN).unwrap().plan;
    let clock = || NOW;
    let mut director = Director::new("test", plan.clone(), 1, Box::new(meter::Unmetered), clock);
    director.install(plan, 1);
    let mut memory = Local::default();
    for _ in 0..2 {
        director.tick(1, &mut memory);
    }
    director
}

fn used(director: &Director) -> usize {
    director.account.memory.used()
}

fn forced(director: &mut Director) -> i64 {
    let handle = director
        .metrics
        .handle(Metric::ForcedReleases, "reason=memory");
    director.metrics.counted(handle)
}

/// Opens a request; its length is told, and not reached.
fn open(director: &mut Director, id: u32, path: &str) -> Verdict {
    let head = Head {
        path: path.as_bytes(),
        method: b"POST",
        content_type: b"application/json",
        content_length: Some(1 << 20),
        ..Head::default()
    };
    director.open(id, &head)
}

/// Sends a body as Envoy shows it, in parts. Whether the request was released.
fn send(director: &mut Director, id: u32, path: &str, body: &[u8]) -> bool {
    let mut released = matches!(open(director, id, path), Verdict::Release(_));
    for part in body.chunks(16 << 10) {
        let verdict = director.body(id, part, false);
        released |= matches!(verdict, Some(Verdict::Release(_)));
    }
    released
}

fn tick(director: &mut Director) -> usize {
    director.tick(1, &mut Local::default()).releases.len()
}

/// What one request keeps after this body, and whether it is held.
fn kept_after(body: &Hostile) -> (usize, bool) {
    let mut director = director();
    let released = send(&mut director, 1, body.path, &body.bytes());
    let kept = used(&director);
    assert_eq!(kept, director.records[&1].allocated(), "{}", body.name);
    director.close(1);
    assert_eq!(used(&director), 0, "{}", body.name);
    (kept, !released)
}

#[test]
fn what_is_kept_of_one_request_is_bounded_and_counted_and_given_back() {
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
fn the_budget_holds_whatever_is_sent_by_however_many() {
    const SMALL_BUDGET: usize = 4 << 20;
    for body in hostile() {
        let mut director = director();
        director.share_memory(&Arc::new(Memory::of(SMALL_BUDGET)));
        let bytes = body.bytes();
        let mut released = 0;
        // As many as a test has time for: `tests/e2e/memory.rs` sends 1,500 of each.
        let count = ((3 << 20) / bytes.len()).clamp(4, 300) as u32;
        for id in 0..count {
            released += u32::from(send(&mut director, id, body.path, &bytes));
            assert!(used(&director) <= SMALL_BUDGET, "{}", body.name);
        }
        let large = kept_after(&body).0 * count as usize > 2 * SMALL_BUDGET;
        assert!(!large || forced(&mut director) > 0, "{}", body.name);
        tick(&mut director);
        // Others' prompts are read, and looked up.
        let text = format!(
            r#"{{"model":"m","messages":[{{"role":"user","content":"{}"#,
            "a chat that goes on ".repeat(1_000)
        );
        let held = !send(
            &mut director,
            9_000,
            "/v1/chat/completions",
            text.as_bytes(),
        );
        assert!(held, "{}: {released} released", body.name);
        assert!(
            director.records[&9_000].walks[0].total() > 10,
            "{}",
            body.name
        );
        (0..count).for_each(|id| director.close(id));
        director.close(9_000);
        assert_eq!(used(&director), 0, "{}", body.name);
    }
}

#[test]
fn silence_does_not_keep_what_came_while_there_was_room() {
    let mut director = director();
    director.share_memory(&Arc::new(Memory::of(16 << 20)));
    let bytes = hostile().remove(0).bytes();
    let path = "/v1/chat/completions";
    let held = (0..).take_while(|id| !send(&mut director, *id, path, &bytes));
    let held = held.count();
    assert!((6..16).contains(&held), "{held} of a megabyte each");
    assert_eq!(
        forced(&mut director),
        1,
        "there was no room for the newcomer"
    );
    // More come, each smaller than its share.
    let before = director.account.memory.allowance();
    for id in 1_000..1_200 {
        let part = &bytes[..before / 3];
        send(&mut director, id, path, part);
    }
    assert!(director.account.memory.allowance() < before);
    assert!(tick(&mut director) > 0, "the largest go on");
    assert!(!director.account.memory.is_short());
    let largest = (0..held as u32).filter(|id| director.records[id].held.is_some());
    assert!(largest.count() < held, "the largest go on");
    let budget = director.account.memory.budget;
    assert!(used(&director) > budget / 4, "no more go than must");
}

#[test]
fn memory_that_is_short_takes_no_proof_from_prompts_under_way() {
    let mut director = director();
    let (path, prompt) = ("/v1/completions", "a prompt of its own ".repeat(400));
    let body = format!(r#"{{"model":"m","prompt":"{prompt}"}}"#);
    open(&mut director, 1, path);
    director.body(1, body.as_bytes(), true);
    assert!(director.records[&1].pick.is_some());
    let large = hostile().remove(0).bytes();
    for id in 100.. {
        send(&mut director, id, "/v1/chat/completions", &large);
        if director.account.memory.is_short() {
            break;
        }
    }
    assert!(tick(&mut director) > 0, "the largest go on");
    assert!(!director.account.memory.is_short());
    director.answered(1, None, &mut Local::default());
    director.close(1);
    open(&mut director, 2, path);
    director.body(2, body.as_bytes(), true);
    let known = director.records[&2].answer.predicted.unwrap();
    assert!(known > 0.9, "{known}");
}

#[test]
fn where_memory_is_short_nothing_is_read_on_for_the_index_alone() {
    let mut director = director();
    let chat = r#"{"model":"m","messages":[{"role":"user","content":"one two three four "#;
    let prompt = format!("{}{}", chat, "five six seven ".repeat(2_000));
    open(&mut director, 1, "/v1/chat/completions");
    director.body(1, prompt.as_bytes(), false);
    director.decide(1);
    assert!(director.records[&1].reading, "there is room for it");
    let others = Account::default();
    let mut others = Account {
        memory: Arc::clone(&director.account.memory),
        ..others
    };
    others.change(0, BUDGET / 2 + 1);
    tick(&mut director);
    assert!(!director.records[&1].reading);
    assert!(director.account.own < 8 << 10, "what an answer is to prove");
    open(&mut director, 2, "/v1/chat/completions");
    director.body(2, prompt.as_bytes(), false);
    director.decide(2);
    assert!(director.records[&2].reading);
    director.body(2, b"eight nine ten ", false);
    assert!(!director.records[&2].reading);
    drop(others);
    assert!(used(&director) < 1 << 20);
}

#[test]
fn the_pools_of_a_vm_share_a_budget() {
    let (mut one, mut other) = (director(), director());
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
    one.drop_record(1);
    assert_eq!(memory.used(), 0);
}

#[test]
fn members_in_any_order_at_any_depth_cost_a_bounded_number_of_copies() {
    // Each level's object is copied to put its members in order.
    let depth = 900;
    let mut body = br#"{"model":"m","tools":["#.to_vec();
    body.extend(r#"{"b":"#.repeat(depth).into_bytes());
    body.extend(format!("\"{}\"", "x".repeat(900 << 10)).into_bytes());
    let mut director = director();
    send(&mut director, 1, "/v1/chat/completions", &body);
    assert!(used(&director) > 900 << 10);
    director.body(1, r#","a":1}"#.repeat(depth).as_bytes(), false);
    assert!(
        used(&director) < 64 << 10,
        "it is given up: {}",
        used(&director)
    );
}
