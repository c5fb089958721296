//! Bodies that pause, over a host in the same process. Its `body` is what Envoy shows: its buffer, or a
//! part that comes by itself once nothing is buffered any more.

use super::abi::{Action, BodyAction};
use super::fake_host::host;
use super::filter_tests::{listed, request, tick, vm, ROOT, SECOND};
use super::vm::Vm;

const FIRST: &str = r#"{"prompt": "hello"#;

/// A request begins whose body says that it has this length.
fn begin(vm: &mut Vm, id: u32, length: usize) {
    request(&[
        (":path", "/v1/completions"),
        (":method", "POST"),
        ("content-type", "application/json"),
        ("content-length", &length.to_string()),
    ]);
    assert_eq!(vm.request_headers(id, false), Action::Pause);
}

/// Envoy shows this. Returns what is to become of it, and what Envoy has then.
fn show(vm: &mut Vm, id: u32, part: &str, end: bool) -> (BodyAction, String) {
    host(|host| host.body = part.into());
    let action = vm.request_body(id, part.len(), end);
    (action, shown())
}

fn shown() -> String {
    host(|host| String::from_utf8_lossy(&host.body).into_owned())
}

/// A tick, after so many seconds. Returns which requests it resumed.
fn resumed(vm: &mut Vm, seconds: u64) -> Vec<u32> {
    host(|host| {
        host.resumed.clear();
        host.now += seconds * SECOND;
    });
    tick(vm);
    host(|host| host.resumed.clone())
}

/// One whose body has paused and was released, without a byte left in Envoy's buffer.
fn paused(length: usize) -> Vm {
    let mut vm = vm(&listed("prefix-cache-scorer", ""));
    begin(&mut vm, 10, length);
    let held = (BodyAction::Buffer, FIRST.to_owned());
    assert_eq!(show(&mut vm, 10, FIRST, false), held);
    assert_eq!(resumed(&mut vm, 6), [10]);
    assert_eq!(shown(), "");
    vm
}

#[test]
fn what_was_set_aside_stands_before_the_first_part_outside_of_the_buffer() {
    let mut vm = paused(100);
    let nothing = (BodyAction::Continue, String::new());
    assert_eq!(show(&mut vm, 10, " wor", false), nothing, "buffered");
    let all = (BodyAction::Continue, format!("{FIRST} world"));
    assert_eq!(show(&mut vm, 10, "ld", false), all);
    let rest = (BodyAction::Continue, "\"}".to_owned());
    assert_eq!(show(&mut vm, 10, "\"}", true), rest);
    assert!(resumed(&mut vm, 0).is_empty());
}

#[test]
fn a_body_that_ends_with_the_next_part_is_handed_back_by_a_tick() {
    let mut vm = paused(100);
    let nothing = (BodyAction::Buffer, String::new());
    assert_eq!(show(&mut vm, 10, " world\"}", true), nothing);
    assert_eq!(resumed(&mut vm, 0), [10]);
    assert_eq!(shown(), format!("{FIRST} world\"}}"));
    assert!(resumed(&mut vm, 0).is_empty(), "once");
    assert_eq!(host(|host| host.context), ROOT);
}

#[test]
fn trailers_wait_for_what_was_set_aside() {
    let mut vm = paused(FIRST.len() + 1);
    // All of it has come: what follows shows the buffer once more.
    let nothing = (BodyAction::Buffer, String::new());
    assert_eq!(show(&mut vm, 10, "!", false), nothing);
    assert_eq!(vm.request_trailers(10), Action::Pause);
    assert_eq!(resumed(&mut vm, 0), [10]);
    assert_eq!(shown(), format!("{FIRST}!"));
}

#[test]
fn a_body_that_cannot_be_set_aside_leaves_with_its_next_part() {
    let mut vm = paused(1 << 20);
    let pause = |vm: &mut Vm, id| {
        begin(vm, id, 1 << 20);
        show(vm, id, FIRST, false);
        resumed(vm, 6)
    };
    // A quarter of 128 MiB, less what readers keep, for bodies of 1 MiB.
    let refused = (11..60).find(|id| pause(&mut vm, *id).is_empty());
    let refused = refused.unwrap();
    assert!((41..43).contains(&refused), "{refused}");
    assert_eq!(shown(), FIRST);
    let whole = format!("{FIRST} world");
    let goes = (BodyAction::Continue, whole.clone());
    assert_eq!(show(&mut vm, refused, &whole, false), goes);
    // What is reserved is given back with the stream.
    vm.delete(10);
    assert_eq!(pause(&mut vm, 60), [60]);
}

#[test]
fn the_model_is_rewritten_before_the_clock_releases_its_body() {
    let plugin = "- {type: model-rewrite, parameters: {rules: [{targets: [{model: other}]}]}}";
    let mut vm = vm(&listed("prefix-cache-scorer", plugin));
    begin(&mut vm, 10, 100);
    let first = r#"{"model": "m", "prompt": "hello"#;
    assert_eq!(show(&mut vm, 10, first, false).0, BodyAction::Buffer);
    assert_eq!(resumed(&mut vm, 6), [10]);
    show(&mut vm, 10, " world\"}", true);
    resumed(&mut vm, 0);
    assert_eq!(shown(), r#"{"model": "other", "prompt": "hello world"}"#);
    let length = ("content-length".to_owned(), "104".to_owned());
    assert!(host(|host| host.request.contains(&length)));
}
