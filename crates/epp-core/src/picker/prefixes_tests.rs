use super::*;
use crate::body::SliceBody;
use crate::config;
use crate::picker::dispatcher::Dispatcher;
use crate::picker::peers::IndexPeer;
use crate::picker::testing::{begin, change, close, exchange, pass, show, NOW};
use crate::picker::{ExchangeId, Head, Picker, ResponseOrigin, Upstream};

/// A prefix scorer, and one endpoint.
const CONFIG: &str = include_str!("../../../../tests/fixtures/prefix-one-endpoint.yaml");

/// A picker with one endpoint.
struct Vm {
    picker: Picker,
    requests: u32,
}

impl Vm {
    fn start() -> Self {
        let plan = config::load(CONFIG).unwrap().plan;
        let mut picker = Picker::new(plan, 1);
        picker.tick(NOW);
        Self {
            picker,
            requests: 0,
        }
    }

    /// Sends a request. Returns its number and what share of it the endpoint was expected to
    /// hold.
    fn send(&mut self, body: &str) -> (u32, f64) {
        self.requests += 1;
        let id = self.requests;
        let head = Head::post_json("/v1/completions", Some(body.len()));
        let picker = &mut self.picker;
        assert!(begin(picker, id, &head).is_none());
        show(picker, id, body.as_bytes(), true);
        let exchange = exchange(picker, id);
        assert!(exchange.primary().is_some());
        (id, exchange.response.recording.unwrap().predicted.unwrap())
    }

    /// Sends a request of which nothing is learnt.
    fn expected(&mut self, body: &str) -> f64 {
        let (id, expected) = self.send(body);
        close(&mut self.picker, id);
        expected
    }

    /// Sends a request, and responds to it.
    fn serve(&mut self, body: &str) {
        let (id, _) = self.send(body);
        respond(&mut self.picker, id, b"10.0.0.1:80", 200);
        close(&mut self.picker, id);
    }
}

fn body(model: &str, prompt: &str) -> String {
    serde_json::json!({"model": model, "prompt": prompt}).to_string()
}

/// Responds from this endpoint, as far as that is looked at.
fn respond(picker: &mut Picker, id: u32, server: &[u8], status: u16) {
    let id = ExchangeId(id);
    let seen = picker.wants_upstream(id).then(|| Upstream {
        server: Some(server.to_vec()),
        status: Some(status),
        origin: ResponseOrigin::Endpoint,
        ..Upstream::default()
    });
    picker.response_headers(NOW, id, seen.as_ref());
}

/// Returns a text of this many characters, different for each number.
fn text(number: u64, length: usize) -> String {
    let mut rng = fastrand::Rng::with_seed(number);
    (0..length).map(|_| rng.alphanumeric()).collect()
}

#[test]
fn a_prompt_counts_while_it_is_under_way_and_no_more_once_it_has_failed() {
    let mut vm = Vm::start();
    // Its response was looked at: for the next 100 ms no other need be, but for what it proves.
    vm.serve(&body("m", "hello"));
    let prompt = body("m", &text(1, 5_000));
    let ends: [fn(&mut Picker, u32); 4] = [
        // Another status than 2xx.
        |picker, id| respond(picker, id, b"10.0.0.1:80", 404),
        // The client leaves, or no response comes.
        |_, _| {},
        // Another endpoint responds, after a retry.
        |picker, id| respond(picker, id, b"10.0.0.9:80", 200),
        |picker, id| respond(picker, id, b"10.0.0.1:80", 200),
    ];
    for (number, end) in ends.into_iter().enumerate() {
        let (id, expected) = vm.send(&prompt);
        assert!(expected < 0.01, "{number}");
        assert!(vm.expected(&prompt) > 0.99, "{number}");
        end(&mut vm.picker, id);
        close(&mut vm.picker, id);
        let served = number == 3;
        assert_eq!(vm.expected(&prompt) > 0.99, served, "{number}");
    }
    // A copy that fails does not take away what was proven, and is not looked at.
    let (id, _) = vm.send(&prompt);
    assert!(!exchange(&vm.picker, id).is_doubted());
    change(&mut vm.picker, id, |dispatcher, exchange| {
        dispatcher.prefixes.refute(exchange, &dispatcher.endpoints);
    });
    assert!(vm.expected(&prompt) > 0.99);
}

#[test]
fn after_an_early_rejection_the_rest_of_an_upload_adds_nothing() {
    let mut vm = Vm::start();
    let known = text(1, 5_000);
    vm.serve(&body("m", &known));
    let whole = body("m", &(known + &text(2, 5_000)));
    let (first, rest) = whole.as_bytes().split_at(3_000);
    let picker = &mut vm.picker;
    let head = Head::post_json("/v1/completions", Some(whole.len()));
    begin(picker, 70, &head);
    pass(picker, 70, 0, first, false);
    change(picker, 70, Dispatcher::decide);
    assert!(!exchange(picker, 70).is_doubted());
    respond(picker, 70, b"10.0.0.1:80", 413);
    pass(picker, 70, first.len(), rest, true);
    close(picker, 70);
    assert!(vm.expected(&whole) < 0.6);
}

#[test]
fn indexes_have_as_many_blocks_as_the_endpoints_can_hold() {
    let mut vm = Vm::start();
    assert_eq!(vm.picker.peers().max_index_blocks(), 31_250);
    let plan = CONFIG.replace(
        "port: 80}",
        "port: 80}, {name: q, address: 10.0.0.2, port: 80}",
    );
    let plan = plan.replace(
        "autoTune: false",
        "autoTune: false, lruCapacityPerServer: 500",
    );
    let mut two = Picker::new(config::load(&plan).unwrap().plan, 1);
    two.tick(NOW);
    assert_eq!(two.peers().max_index_blocks(), 1_000);
}

#[test]
fn blocks_that_a_peer_refutes_are_removed_unless_confirmed() {
    let mut vm = Vm::start();
    let prompt = body("m", &text(1, 5_000));
    vm.picker.peers().learnt().set_enabled(true);
    vm.picker.peers().learnt().clear();
    let (id, _) = vm.send(&prompt);
    let learnt: Vec<(Placement, Vec<u64>)> = vm
        .picker
        .peers()
        .learnt()
        .entries()
        .map(|(placement, span, hashes)| (placement, hashes[span.context..].to_vec()))
        .collect();
    close(&mut vm.picker, id);
    assert!(vm.expected(&prompt) < 0.01);
    let tell = |vm: &mut Vm, peer, evidence| {
        for (placement, hashes) in &learnt {
            let Placement::Blocks(blocks) = *placement else {
                panic!("no plugin of the plan keeps state");
            };
            let placement = Placement::Blocks(PlacedBlocks { evidence, ..blocks });
            vm.picker.peers().learn(peer, placement, hashes, 0);
        }
    };
    tell(&mut vm, 1, Evidence::Sent);
    assert!(vm.expected(&prompt) > 0.99);
    tell(&mut vm, 1, Evidence::Refuted);
    assert!(vm.expected(&prompt) < 0.01);
    tell(&mut vm, 1, Evidence::Sent);
    tell(&mut vm, 2, Evidence::Proven);
    tell(&mut vm, 1, Evidence::Refuted);
    assert!(vm.expected(&prompt) > 0.99);
}

#[test]
fn one_request_does_not_empty_an_endpoints_memory() {
    let mut vm = Vm::start();
    let honest = body("m", &text(1, 50_000));
    vm.serve(&honest);
    let before = vm.picker.peers().status().index.entries;
    let list: Vec<String> = (0..60_000).map(|number| text(number, 8)).collect();
    let list = serde_json::json!({"model": "m", "prompt": list}).to_string();
    vm.serve(&list);
    // The window of a request, which is today's default.
    assert_eq!(vm.picker.peers().status().index.entries, before + 2_048);
    assert!(vm.expected(&honest) > 0.99);
}

#[test]
fn a_model_is_not_another_one_with_a_salt() {
    let mut vm = Vm::start();
    let text = text(1, 5_000);
    vm.serve(&body("mTENANT-A", &text));
    let salted = serde_json::json!({"model": "m", "cache_salt": "TENANT-A", "prompt": text});
    assert!(vm.expected(&salted.to_string()) < 0.01);
    vm.serve(&salted.to_string());
    assert!(vm.expected(&salted.to_string()) > 0.99);
    // Nor is a salt the first block of a prompt without one.
    let salt = "s".repeat(256);
    let salted = serde_json::json!({"model": "m", "cache_salt": salt, "prompt": text});
    vm.serve(&body("m", &format!("{salt}{text}")));
    assert!(vm.expected(&salted.to_string()) < 0.01);
}

/// Begins a request whose body comes in parts, of which the first says nothing. Returns the length of that.
fn hold(picker: &mut Picker, content_length: Option<usize>) -> usize {
    let head = Head::post_json("/v1/completions", content_length);
    let first = br#"{"model":"m","temperature":0.5,"#;
    assert!(begin(picker, 1, &head).is_none());
    assert!(pass(picker, 1, 0, first, false).is_none());
    first.len()
}

#[test]
fn held_requests_continue_when_the_indexes_are_replaced() {
    let plan = config::load(CONFIG).unwrap().plan;
    let other = CONFIG.replace(
        "{autoTune: false}",
        "{autoTune: false, blockSizeTokens: 64}",
    );
    for content_length in [None, Some(1 << 16)] {
        for reload in [true, false] {
            let mut picker = Picker::new(plan.clone(), 1);
            picker.tick(NOW);
            let start = hold(&mut picker, content_length);
            if reload {
                let other = config::load(&other).unwrap().plan;
                assert!(!plan.hashing_equal(&other));
                picker.install(other);
            } else {
                picker.peers().set_secret(2.into());
            }
            assert!(picker.holds(ExchangeId(1)));
            let released = pass(&mut picker, 1, start, br#""prompt":"one "#, false);
            assert!(released.is_some(), "{content_length:?}, reload: {reload}");
            close(&mut picker, 1);
            assert_eq!(picker.exchanges.held(), 0);
        }
    }
}

impl Vm {
    /// Serves a request whose response reports this share of its prompt, in hundredths, as cached.
    fn serve_cached(&mut self, body: &str, share: u32) {
        let (id, _) = self.send(body);
        self.report(id, 1_000, share * 10);
    }

    /// Responds to a request with these token counts.
    fn report(&mut self, id: u32, prompt: u32, cached: u32) {
        respond(&mut self.picker, id, b"10.0.0.1:80", 200);
        let usage = format!(
            r#"{{"usage":{{"prompt_tokens":{prompt},"prompt_tokens_details":{{"cached_tokens":{cached}}}}}}}"#
        );
        let mut part = SliceBody::whole(usage.as_bytes());
        self.picker.response_body(NOW, ExchangeId(id), &mut part);
        close(&mut self.picker, id);
    }

    /// Returns how many of these prompts the endpoint is still expected to hold in part.
    fn held(&mut self, prompts: std::ops::Range<u64>) -> usize {
        let bodies = prompts.map(|number| body("m", &text(number, 4_000)));
        bodies.filter(|body| self.expected(body) > 0.0).count()
    }
}

/// A picker whose index takes the endpoint to hold 40 prompts of the same length.
fn serve_forty() -> Vm {
    let mut vm = Vm::start();
    (0..40).for_each(|number| vm.serve(&body("m", &text(number, 4_000))));
    assert_eq!(vm.held(0..40), 40);
    vm
}

#[test]
fn where_a_response_reports_few_cached_tokens_the_blocks_used_longest_ago_are_forgotten() {
    let mut vm = serve_forty();
    vm.serve_cached(&body("m", &text(20, 4_000)), 10);
    assert!(
        vm.expected(&body("m", &text(20, 4_000))) > 0.9,
        "computed now"
    );
    // Nine tenths of a prompt are missing, and four times as many blocks are forgotten.
    assert_eq!((vm.held(0..3), vm.held(4..40)), (0, 36));
    let dropped = vm.picker.dispatcher.statistics.corrections();
    let entries = vm.picker.dispatcher.prefixes.fill().entries;
    assert!(dropped > 0 && entries > 0);
    // Two workers see half of the responses each.
    vm.picker.dispatcher.prefixes.set_sharers(2);
    vm.serve_cached(&body("m", &text(20, 4_000)), 49);
    assert_eq!((vm.held(3..8), vm.held(9..40)), (0, 31));
}

#[test]
fn where_a_response_reports_about_what_was_expected_or_nothing_no_block_is_forgotten() {
    let mut vm = serve_forty();
    for share in [51, 100] {
        vm.serve_cached(&body("m", &text(20, 4_000)), share);
    }
    vm.serve(&body("m", &text(20, 4_000)));
    // A prompt of which nothing was expected.
    vm.serve_cached(&body("m", &text(40, 4_000)), 0);
    vm.picker.dispatcher.plan.settings.correct_index = false;
    vm.serve_cached(&body("m", &text(20, 4_000)), 0);
    assert_eq!(vm.held(0..41), 41);
    assert_eq!(vm.picker.dispatcher.statistics.corrections(), 0);
}

#[test]
fn the_blocks_of_the_prompt_itself_stay() {
    let mut vm = Vm::start();
    let only = body("m", &text(1, 4_000));
    vm.serve(&only);
    for _ in 0..3 {
        vm.serve_cached(&only, 0);
        assert!(vm.expected(&only) > 0.9);
    }
}

#[test]
fn one_response_takes_an_eighth_of_the_blocks_at_most() {
    let mut vm = serve_forty();
    vm.picker.dispatcher.prefixes.set_sharers(usize::MAX);
    vm.serve_cached(&body("m", &text(39, 4_000)), 0);
    assert_eq!(vm.held(5..40), 35);
}

#[test]
fn nothing_is_forgotten_for_what_no_response_had_proven_nor_for_a_part_of_a_request() {
    let mut vm = serve_forty();
    // One after the other, before the first responds: it computes what the second was expected to find.
    let fresh = body("m", &text(50, 4_000));
    let (first, _) = vm.send(&fresh);
    let (second, expected) = vm.send(&fresh);
    assert!(expected > 0.9);
    for id in [first, second] {
        vm.report(id, 1_000, 0);
    }
    // The cached tokens of one prompt of four.
    let prompt = text(20, 4_000);
    let four = serde_json::json!({"model": "m", "prompt": [prompt, prompt, prompt, prompt]});
    let (id, expected) = vm.send(&four.to_string());
    assert!(expected > 0.9);
    vm.report(id, 4_000, 1_000);
    // The server keeps the end of a prompt only.
    let (id, _) = vm.send(&body("m", &prompt));
    vm.report(id, 64, 16);
    assert_eq!(vm.picker.dispatcher.statistics.corrections(), 0);
    vm.serve_cached(&body("m", &prompt), 0);
    assert!(vm.picker.dispatcher.statistics.corrections() > 0);
}
