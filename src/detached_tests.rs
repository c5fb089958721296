//! Bodies that pause, over a host in the same process. Its `body` is what Envoy shows: its buffer, or a
//! part that comes by itself once nothing is buffered any more.

use super::abi::{Action, BodyAction};
use super::fake_host::host;
use super::filter_tests::{listed, request, tick, vm, wait, ROOT};
use super::guard::Callback;
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

/// Shows this part. Returns the action on it, and Envoy's buffer afterwards.
fn show(vm: &mut Vm, id: u32, part: &str, end: bool) -> (BodyAction, String) {
    host(|host| host.body = part.into());
    let action = vm.request_body(id, part.len(), end);
    (action, shown())
}

fn shown() -> String {
    host(|host| String::from_utf8_lossy(&host.body).into_owned())
}

/// Runs a tick after this many seconds. Returns the requests that it resumed.
fn resumed(vm: &mut Vm, seconds: u64) -> Vec<u32> {
    host(|host| host.resumed.clear());
    wait(vm, seconds);
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
fn detached_bytes_precede_the_first_part_outside_of_the_buffer() {
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
fn trailers_wait_for_what_was_detach() {
    let mut vm = paused(FIRST.len() + 1);
    // All of it has come: what follows shows the buffer once more.
    let nothing = (BodyAction::Buffer, String::new());
    assert_eq!(show(&mut vm, 10, "!", false), nothing);
    assert_eq!(vm.request_trailers(10), Action::Pause);
    assert_eq!(resumed(&mut vm, 0), [10]);
    assert_eq!(shown(), format!("{FIRST}!"));
}

/// A request's body has come up to `size` bytes and pauses. Which requests are resumed then.
fn pause(vm: &mut Vm, id: u32, size: usize) -> Vec<u32> {
    begin(vm, id, 1 << 20);
    let mut part = FIRST.to_owned() + &"x".repeat(size);
    part.truncate(size);
    show(vm, id, &part, false);
    resumed(vm, 6)
}

/// The bytes of a body that pauses near its end: of 1 MiB, the longest that can be held.
const LONG: usize = (1 << 20) - 100;

/// Bodies pause until one is not set aside. Returns its number.
fn fill(vm: &mut Vm) -> u32 {
    // A quarter of 128 MiB, less what readers keep.
    let refused = (11..60).find(|id| pause(vm, *id, LONG).is_empty());
    let refused = refused.unwrap();
    assert!((41..44).contains(&refused), "{refused}");
    refused
}

#[test]
fn a_body_that_cannot_be_detached_leaves_with_its_next_part() {
    let mut vm = paused(100);
    let refused = fill(&mut vm);
    let whole = format!("{} world", shown());
    assert_eq!(whole.len(), LONG + 6);
    let goes = (BodyAction::Continue, whole.clone());
    assert_eq!(show(&mut vm, refused, &whole, false), goes);
    // What is reserved is given back with the stream.
    vm.delete(11);
    assert_eq!(pause(&mut vm, 60, LONG), [60]);
    assert!(pause(&mut vm, 61, LONG).is_empty());
}

#[test]
fn a_part_that_cannot_be_detached_stays_behind_what_was() {
    for end in [false, true] {
        let mut vm = paused(1 << 20);
        fill(&mut vm);
        let part = " wor".repeat(LONG / 4);
        let action = match end {
            false => BodyAction::Watermark,
            true => BodyAction::Buffer,
        };
        let all = (action, format!("{FIRST}{part}"));
        assert_eq!(show(&mut vm, 10, &part, end), all);
        let tick: &[u32] = if end { &[10] } else { &[] };
        assert_eq!(resumed(&mut vm, 0), tick);
        assert_eq!(shown(), all.1, "once");
        if !end {
            assert_eq!(show(&mut vm, 10, &all.1, true).0, BodyAction::Continue);
        }
    }
}

/// A client may say that any number of bytes follows.
#[test]
fn bytes_that_have_not_come_use_up_no_memory() {
    let mut vm = paused(1 << 20);
    (11..500).for_each(|id| assert_eq!(pause(&mut vm, id, 1), [id]));
    assert_eq!(pause(&mut vm, 500, LONG), [500]);
}

/// The bytes that are counted for all requests.
fn used(vm: &mut Vm) -> i64 {
    // Until the statistics are flushed.
    (0..21).for_each(|_| tick(vm));
    host(|host| {
        // A pool that was removed gives back its own.
        let mut metrics = host.metrics.iter().rev();
        let last = metrics.find(|(name, _)| name.starts_with("epp_wasm_prompt_bytes"));
        last.unwrap().1
    })
}

#[test]
fn a_reservation_is_given_back_once() {
    type End = fn(&mut Vm);
    let ends: [End; 7] = [
        |vm| vm.delete(10),
        |vm| {
            vm.recover(Callback::Delete, 10);
            vm.delete(10);
        },
        |vm| {
            vm.recover(Callback::ResponseHeaders, 10);
            vm.delete(10);
        },
        |vm| {
            vm.recover(Callback::RequestBody, 10);
            vm.delete(10);
        },
        |vm| {
            show(vm, 10, "", true);
            resumed(vm, 0);
            vm.delete(10);
        },
        |vm| {
            assert!(vm.configure(2), "the listener is loaded again");
            vm.delete(ROOT);
            vm.delete(10);
            assert!(vm.configure(ROOT));
        },
        |vm| {
            // Another pool has the place of the one that it was of.
            vm.delete(ROOT);
            assert!(vm.configure(ROOT));
            vm.delete(10);
        },
    ];
    for (number, end) in ends.into_iter().enumerate() {
        let mut vm = vm(&listed("prefix-cache-scorer", ""));
        assert_eq!(pause(&mut vm, 11, LONG), [11]);
        let before = used(&mut vm);
        assert!(before > LONG as i64, "{before}");
        assert_eq!(pause(&mut vm, 10, LONG), [10]);
        assert!(used(&mut vm) > 2 * LONG as i64);
        end(&mut vm);
        // The readers' memory may have been freed with their pool.
        let missing = before - used(&mut vm);
        assert!((0..64 << 10).contains(&missing), "{number}: {missing}");
    }
}

#[test]
fn a_panic_while_a_body_is_detached_loses_no_byte_of_it() {
    // In the part that Envoy has added to its buffer: it leaves with the next one.
    let mut vm = paused(100);
    host(|host| host.body = b" wor".to_vec());
    assert!(vm.recover(Callback::RequestBody, 10), "it waits");
    assert_eq!(shown(), format!("{FIRST} wor"));
    assert_eq!(vm.request_body(10, 1, true), BodyAction::Continue);
    assert_eq!(shown(), format!("{FIRST} wor"));
    // In one that comes outside of its buffer.
    let mut vm = paused(100);
    show(&mut vm, 10, " wor", false);
    host(|host| host.body = b"ld".to_vec());
    assert!(!vm.recover(Callback::RequestBody, 10), "it continues");
    assert_eq!(shown(), format!("{FIRST} world"));
    // In the callback of something else.
    let mut vm = paused(100);
    assert!(!vm.recover(Callback::ResponseHeaders, 10));
    assert_eq!(shown(), "");
    show(&mut vm, 10, " wor", false);
    let all = (BodyAction::Continue, format!("{FIRST} world"));
    assert_eq!(show(&mut vm, 10, "ld", false), all);
}

#[test]
fn a_panic_at_the_end_of_a_body_that_is_detached_loses_no_byte_of_it() {
    let ends: [fn(&mut Vm) -> bool; 2] = [
        |vm| vm.recover(Callback::RequestTrailers, 10),
        |vm| {
            vm.request_trailers(10);
            !vm.recover(Callback::ResponseHeaders, 10)
        },
    ];
    for end in ends {
        let mut vm = paused(100);
        assert!(end(&mut vm), "it waits");
        assert_eq!(resumed(&mut vm, 0), [10]);
        assert_eq!(shown(), FIRST);
        assert!(resumed(&mut vm, 0).is_empty(), "once");
    }
}

#[test]
fn detached_bytes_follow_even_after_their_pool_was_removed() {
    let mut vm = paused(100);
    vm.delete(ROOT);
    show(&mut vm, 10, " wor", false);
    let all = (BodyAction::Continue, format!("{FIRST} world"));
    assert_eq!(show(&mut vm, 10, "ld", false), all);
}

#[test]
fn the_model_is_rewritten_before_a_timeout_releases_its_body() {
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
