use super::*;
use crate::config;
use crate::picker::testing::{begin, close, pass, show};
use crate::picker::{meter, ExchangeId, Head, Origin, Seen};
use crate::prefix::key::Secret;
use crate::worker::Local;

const CONFIG: &str = "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: prefix-cache-scorer}
- {type: approx-prefix-cache-producer, parameters: {autoTune: false}}
- {type: envoy-proxy, parameters: {readBody: always}}
- {name: pods, type: static-discovery, parameters: {endpoints: [{name: p, address: 10.0.0.1, port: 80}]}}
schedulingProfiles: [{name: default, plugins: [{pluginRef: prefix-cache-scorer}]}]
dataLayer: {discovery: {pluginRef: pods}}
";

/// VMs of one Envoy, with one endpoint.
struct Vms {
    memory: Local,
    vms: Vec<Picker>,
    requests: u32,
}

impl Vms {
    fn start(count: u64) -> Self {
        let plan = config::load(CONFIG).unwrap().plan;
        let vms = (1..=count).map(|seed| {
            let meter = Box::new(meter::Unmetered);
            let clock = || 1_000_000_000_000;
            let mut picker = Picker::new("test", plan.clone(), seed, meter, clock);
            picker.install(plan.clone(), 1);
            picker
        });
        let mut vms = Self {
            memory: Local::default(),
            vms: vms.collect(),
            requests: 0,
        };
        // As long as they ask each other what they know.
        (0..60).for_each(|_| vms.tick());
        vms
    }

    fn tick(&mut self) {
        for vm in &mut self.vms {
            vm.tick(1, &mut self.memory);
        }
    }

    /// Sends a request through this VM. Returns its number and what share of it the endpoint was expected to
    /// hold.
    fn send(&mut self, vm: usize, body: &str) -> (u32, f64) {
        self.requests += 1;
        let id = self.requests;
        let head = Head {
            path: b"/v1/completions",
            method: b"POST",
            content_type: b"application/json",
            content_length: Some(body.len()),
            ..Head::default()
        };
        let picker = &mut self.vms[vm];
        assert!(begin(picker, id, &head).is_none());
        show(picker, id, body.as_bytes(), true);
        let exchange = &picker.exchanges[&id];
        assert!(exchange.primary().is_some());
        (id, exchange.answer.predicted.unwrap())
    }

    /// Sends a request of which nothing is learnt.
    fn expected(&mut self, vm: usize, body: &str) -> f64 {
        let (id, expected) = self.send(vm, body);
        close(&mut self.vms[vm], id);
        expected
    }

    /// Sends a request that is answered.
    fn serve(&mut self, vm: usize, body: &str) {
        let (id, _) = self.send(vm, body);
        answer(&mut self.vms[vm], id, b"10.0.0.1:80", 200);
        close(&mut self.vms[vm], id);
    }
}

fn body(model: &str, prompt: &str) -> String {
    serde_json::json!({"model": model, "prompt": prompt}).to_string()
}

/// This endpoint answers, as far as that is looked at.
fn answer(picker: &mut Picker, id: u32, server: &[u8], status: u16) {
    let id = ExchangeId(id);
    let seen = picker.asks_for_server(id).then(|| Seen {
        server: server.to_vec(),
        status,
        origin: Origin::Endpoint,
    });
    picker.answered(id, seen.as_ref(), &mut Local::default());
}

/// So many characters, others for each number.
fn text(number: u64, length: usize) -> String {
    let mut rng = fastrand::Rng::with_seed(number);
    (0..length).map(|_| rng.alphanumeric()).collect()
}

#[test]
fn a_prompt_counts_while_it_is_under_way_and_no_more_once_it_has_failed() {
    let mut vms = Vms::start(1);
    // Its answer was looked at: for the next 100 ms no other need be, but for what it proves.
    vms.serve(0, &body("m", "hello"));
    let prompt = body("m", &text(1, 5_000));
    let ends: [fn(&mut Picker, u32); 4] = [
        // Another status than 2xx.
        |picker, id| answer(picker, id, b"10.0.0.1:80", 404),
        // The client leaves, or nothing answers.
        |_, _| {},
        // Another endpoint answers, after a retry.
        |picker, id| answer(picker, id, b"10.0.0.9:80", 200),
        |picker, id| answer(picker, id, b"10.0.0.1:80", 200),
    ];
    for (number, end) in ends.into_iter().enumerate() {
        let (id, expected) = vms.send(0, &prompt);
        assert!(expected < 0.01, "{number}");
        assert!(vms.expected(0, &prompt) > 0.99, "{number}");
        end(&mut vms.vms[0], id);
        close(&mut vms.vms[0], id);
        let served = number == 3;
        assert_eq!(vms.expected(0, &prompt) > 0.99, served, "{number}");
    }
    // Neither does a failing copy take away what was answered, nor is it looked at.
    let (id, _) = vms.send(0, &prompt);
    assert!(!vms.vms[0].is_doubted(id));
    vms.vms[0].refute(id);
    assert!(vms.expected(0, &prompt) > 0.99);
}

#[test]
fn an_early_refusal_teaches_nothing_of_what_is_uploaded_after_it() {
    let mut vms = Vms::start(1);
    let known = text(1, 5_000);
    vms.serve(0, &body("m", &known));
    let whole = body("m", &(known + &text(2, 5_000)));
    let (first, rest) = whole.as_bytes().split_at(3_000);
    let picker = &mut vms.vms[0];
    let head = Head {
        path: b"/v1/completions",
        method: b"POST",
        content_type: b"application/json",
        content_length: Some(whole.len()),
        ..Head::default()
    };
    begin(picker, 70, &head);
    pass(picker, 70, 0, first, false);
    picker.decide(70);
    assert!(!picker.is_doubted(70));
    answer(picker, 70, b"10.0.0.1:80", 413);
    pass(picker, 70, first.len(), rest, true);
    close(picker, 70);
    assert!(vms.expected(0, &whole) < 0.6);
}

#[test]
fn workers_agree_on_a_secret_and_hear_what_was_taken_back() {
    let mut vms = Vms::start(3);
    let [one, rest @ ..] = vms.vms.as_slice() else {
        panic!()
    };
    assert!(rest
        .iter()
        .all(|vm| vm.secret == one.secret && vm.cut == one.cut));
    let (good, bad) = (body("m", &text(1, 5_000)), body("m", &text(2, 5_000)));
    vms.serve(0, &good);
    let (id, _) = vms.send(1, &bad);
    (0..2).for_each(|_| vms.tick());
    for vm in 0..3 {
        assert!(vms.expected(vm, &good) > 0.99, "{vm}");
        assert!(vms.expected(vm, &bad) > 0.99, "in flight: {vm}");
    }
    vms.vms[1].refute(id);
    (0..2).for_each(|_| vms.tick());
    for vm in 0..3 {
        assert!(vms.expected(vm, &good) > 0.99, "{vm}");
        assert!(vms.expected(vm, &bad) < 0.01, "{vm}");
    }
    // What one VM has proven stays, even if the request that sent it first fails.
    let (id, _) = vms.send(1, &bad);
    (0..2).for_each(|_| vms.tick());
    vms.serve(2, &bad);
    (0..2).for_each(|_| vms.tick());
    vms.vms[1].refute(id);
    (0..2).for_each(|_| vms.tick());
    for vm in 0..3 {
        assert!(vms.expected(vm, &bad) > 0.99, "{vm}");
    }
}

#[test]
fn vms_with_different_secrets_do_not_believe_each_other() {
    let mut vms = Vms::start(2);
    let prompt = body("m", &text(1, 5_000));
    let other = &mut vms.vms[1];
    other.secret = Secret::from(99);
    other.key = Key::Secret(other.secret.clone());
    other.begin_indexes();
    // It has just looked.
    other.timing.agreed = 1;
    vms.serve(0, &prompt);
    (0..2).for_each(|_| vms.tick());
    assert_eq!(vms.vms[1].fill().entries, 0);
    // They agree again soon.
    (0..=SECRET_EACH).for_each(|_| vms.tick());
    assert_eq!(vms.vms[1].secret, vms.vms[0].secret);
}

#[test]
fn one_request_does_not_empty_an_endpoints_memory() {
    let mut vms = Vms::start(1);
    let honest = body("m", &text(1, 50_000));
    vms.serve(0, &honest);
    let before = vms.vms[0].fill().entries;
    let list: Vec<String> = (0..60_000).map(|number| text(number, 8)).collect();
    let list = serde_json::json!({"model": "m", "prompt": list}).to_string();
    vms.serve(0, &list);
    // The window of a request, which is today's default.
    assert_eq!(vms.vms[0].fill().entries, before + 2_048);
    assert!(vms.expected(0, &honest) > 0.99);
}

#[test]
fn a_model_is_not_another_one_with_a_salt() {
    let mut vms = Vms::start(1);
    let text = text(1, 5_000);
    vms.serve(0, &body("mTENANT-A", &text));
    let salted = serde_json::json!({"model": "m", "cache_salt": "TENANT-A", "prompt": text});
    assert!(vms.expected(0, &salted.to_string()) < 0.01);
    vms.serve(0, &salted.to_string());
    assert!(vms.expected(0, &salted.to_string()) > 0.99);
    // Nor is a salt the first block of a prompt without one.
    let salt = "s".repeat(256);
    let salted = serde_json::json!({"model": "m", "cache_salt": salt, "prompt": text});
    vms.serve(0, &body("m", &format!("{salt}{text}")));
    assert!(vms.expected(0, &salted.to_string()) < 0.01);
}
