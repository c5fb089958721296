//! Several pickers with their sharing, over one store.

use epp_core::body::SliceBody;
use epp_core::config;
use epp_core::endpoints::discovery::Listing;
use epp_core::endpoints::store::Member;
use epp_core::picker::{
    Effect, ExchangeId, Fetch, FetchError, Fetched, Head, ResponseOrigin, Upstream,
};
use epp_core::prefix::key::Secret;
use epp_core::scheduling::Slot;
use epp_core::time::Timestamp;

use super::*;
use crate::codec::Reader;
use crate::report::watch;
use crate::InProcess;

#[path = "sharing_archive_tests.rs"]
mod archive;
#[path = "sharing_polling_tests.rs"]
mod polling;

/// A prefix scorer, and one endpoint.
const PREFIX: &str = include_str!("../../../tests/fixtures/prefix-one-endpoint.yaml");

const QUEUE: &str = "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: queue-scorer}
- name: pods
  type: static-discovery
  parameters: {endpoints: [{name: a, address: 10.0.0.1, port: 80}, {name: b, address: 10.0.0.2, port: 80}]}
schedulingProfiles: [{name: default, plugins: [{pluginRef: queue-scorer, weight: 3}]}]
dataLayer: {discovery: {pluginRef: pods}}
";

const NOW_MS: u64 = 1_000_000;
const NOW: Timestamp = Timestamp::from_nanos(NOW_MS * 1_000_000);

fn with<T>(memory: &mut InProcess, act: impl FnOnce(&mut Shared<'_>) -> T) -> T {
    act(&mut Shared::new(memory, &mut Traffic::default()))
}

struct Vm {
    picker: Picker,
    sharing: Sharing,
}

impl Vm {
    fn start(document: &str, number: u64, memory: &mut InProcess) -> Self {
        let plan = config::load(document).unwrap().plan;
        let mut sharing = Sharing::new("epp", plan.cluster(), number);
        let mut picker = Picker::new(plan, number);
        sharing.join(&mut picker, memory, NOW);
        Self { picker, sharing }
    }

    fn tick(&mut self, memory: &mut InProcess) {
        self.sharing.before_tick(&mut self.picker, memory);
        self.picker.tick(NOW);
        self.sharing.after_tick(&mut self.picker, memory, NOW);
    }

    fn ticks(&mut self, memory: &mut InProcess, count: u32) {
        (0..count).for_each(|_| self.tick(memory));
    }

    fn report(&self, memory: &mut InProcess) -> Option<Report> {
        let worker = self.sharing.peers.slot()?.0;
        with(memory, |shared| report::read(&worker, shared))
    }

    /// A request without a body.
    fn ask(&mut self, id: u32) {
        let head = Head {
            model: b"llama",
            end: true,
            ..Head::default()
        };
        self.picker.request_headers(NOW, ExchangeId(id), &head);
    }

    /// A request with a prompt.
    fn send(&mut self, id: u32, body: &str) {
        let head = Head::post_json("/v1/completions", Some(body.len()));
        let id = ExchangeId(id);
        self.picker.request_headers(NOW, id, &head);
        let mut body = SliceBody::whole(body.as_bytes());
        self.picker.request_body(NOW, id, &mut body);
    }

    fn respond(&mut self, id: u32, status: u16) {
        let seen = Upstream {
            server: Some(b"10.0.0.1:80".to_vec()),
            status: Some(status),
            origin: ResponseOrigin::Endpoint,
            ..Upstream::default()
        };
        self.picker
            .response_headers(NOW, ExchangeId(id), Some(&seen));
    }

    fn close(&mut self, id: u32) {
        self.picker.closed(NOW, ExchangeId(id));
    }

    /// The share of a prompt that the endpoint is expected to hold; nothing is learnt of asking.
    fn expected(&mut self, body: &str) -> f32 {
        const ID: u32 = 1_000;
        self.picker.peers().status();
        self.send(ID, body);
        self.close(ID);
        let status = self.picker.peers().status();
        status
            .decisions
            .last()
            .and_then(|last| last.cached_share)
            .unwrap()
    }
}

fn body(number: u64) -> String {
    let mut rng = fastrand::Rng::with_seed(number);
    let prompt: String = (0..5_000).map(|_| rng.alphanumeric()).collect();
    serde_json::json!({"model": "m", "prompt": prompt}).to_string()
}

/// VMs that have ticked for as long as they ask each other for an index.
fn vms(document: &str, count: u64) -> (InProcess, Vec<Vm>) {
    let mut memory = InProcess::default();
    let start = |number| Vm::start(document, number, &mut memory);
    let mut vms: Vec<Vm> = (1..=count).map(start).collect();
    for _ in 0..60 {
        vms.iter_mut().for_each(|vm| vm.tick(&mut memory));
    }
    (memory, vms)
}

fn two_ticks(vms: &mut [Vm], memory: &mut InProcess) {
    for _ in 0..2 {
        vms.iter_mut().for_each(|vm| vm.tick(memory));
    }
}

#[test]
fn workers_agree_on_a_secret_and_learn_what_was_refuted() {
    let (mut memory, mut vms) = vms(PREFIX, 3);
    let agreed = vms.iter_mut().map(|vm| {
        let peers = vm.picker.peers();
        (peers.secret().clone(), peers.fingerprint())
    });
    let agreed: Vec<_> = agreed.collect();
    assert!(agreed.iter().all(|other| *other == agreed[0]));
    let (good, bad) = (body(1), body(2));
    vms[0].send(1, &good);
    vms[0].respond(1, 200);
    vms[0].close(1);
    vms[1].send(2, &bad);
    two_ticks(&mut vms, &mut memory);
    for vm in &mut vms {
        assert!(vm.expected(&good) > 0.99);
        assert!(vm.expected(&bad) > 0.99, "in flight");
    }
    vms[1].respond(2, 404);
    vms[1].close(2);
    two_ticks(&mut vms, &mut memory);
    for vm in &mut vms {
        assert!(vm.expected(&good) > 0.99);
        assert!(vm.expected(&bad) < 0.01);
    }
    // What one VM has proven stays, even if the request that sent it first fails.
    vms[1].send(3, &bad);
    two_ticks(&mut vms, &mut memory);
    vms[2].send(4, &bad);
    vms[2].respond(4, 200);
    vms[2].close(4);
    two_ticks(&mut vms, &mut memory);
    vms[1].respond(3, 404);
    two_ticks(&mut vms, &mut memory);
    for vm in &mut vms {
        assert!(vm.expected(&bad) > 0.99);
    }
}

#[test]
fn vms_with_different_secrets_do_not_believe_each_other() {
    let (mut memory, mut vms) = vms(PREFIX, 2);
    vms[1].picker.peers().set_secret(Secret::from(99));
    // It has just looked.
    vms[1].sharing.secret_due = SECRET_TICKS;
    vms[0].send(1, &body(1));
    vms[0].respond(1, 200);
    two_ticks(&mut vms, &mut memory);
    assert_eq!(vms[1].picker.peers().status().index.entries, 0);
    // They agree again soon.
    for _ in 0..=SECRET_TICKS {
        vms.iter_mut().for_each(|vm| vm.tick(&mut memory));
    }
    let secret = vms[0].picker.peers().secret().clone();
    assert_eq!(*vms[1].picker.peers().secret(), secret);
}

#[test]
fn a_vm_that_starts_knows_the_members_before_its_first_tick() {
    let (mut memory, mut vms) = vms(QUEUE, 1);
    assert!(vms[0].picker.peers().polls());
    let page = b"vllm:num_requests_waiting 7\n";
    assert!(vms[0].picker.fixture().read_page(NOW, Slot(0), page));
    vms[0].tick(&mut memory);
    let mut late = Vm::start(QUEUE, 2, &mut memory);
    assert!(!late.picker.peers().polls());
    let endpoint = late.picker.pool().get(Slot(0)).unwrap();
    assert_eq!(endpoint.metrics.waiting, Some(7.0));
    assert_eq!(late.picker.pool().len(), 2);
}

/// Has a VM tick for two seconds while discovery lists these members. Returns the version of the published ones.
fn list_members(vm: &mut Vm, now: &mut Timestamp, memory: &mut InProcess, listed: &[u32]) -> u32 {
    let members = listed.iter().map(|number| Member {
        name: number.to_string(),
        address: format!("10.0.0.{number}:80"),
        ..Member::default()
    });
    let listing = Listing {
        members: members.collect(),
        missing: 0,
    };
    let Vm { picker, sharing } = vm;
    for _ in 0..40 {
        *now = now.after(std::time::Duration::from_millis(50));
        sharing.before_tick(picker, memory);
        picker.tick(*now);
        sharing.after_tick(picker, memory, *now);
        while let Some(effect) = picker.poll_effect() {
            let Effect::Fetch { id, fetch, .. } = effect else {
                continue;
            };
            let result = match fetch {
                Fetch::Members => Ok(Fetched::Members(listing.clone())),
                _ => Err(FetchError::Unreachable),
            };
            picker.fetched(*now, id, result);
        }
    }
    let key = format!("{}/members", sharing.base());
    memory.get(&key).map_or(0, |(_, version)| version)
}

#[test]
fn members_are_published_when_they_change_and_by_each_vm_that_begins_to_poll() {
    const DISCOVERED: &str = "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: queue-scorer}]
schedulingProfiles: [{name: default, plugins: [{pluginRef: queue-scorer}]}]
";
    let (mut store, mut clock) = (InProcess::default(), NOW);
    let (memory, now) = (&mut store, &mut clock);
    let mut first = Vm::start(DISCOVERED, 1, memory);
    let known = list_members(&mut first, now, memory, &[1, 2]);
    assert_eq!(list_members(&mut first, now, memory, &[1, 2]), known);
    let changed = list_members(&mut first, now, memory, &[1, 3]);
    assert_ne!(changed, known);
    let mut second = Vm::start(DISCOVERED, 2, memory);
    let other = list_members(&mut second, now, memory, &[1, 3]);
    assert!(second.picker.peers().polls() && other != changed);
    // It comes back to what it has published.
    let again = list_members(&mut first, now, memory, &[1, 3]);
    assert!(first.picker.peers().polls() && again != other);
}

/// If ticks are late, two VMs poll for a moment: the page for which the first one still waits is older than the
/// second one's.
#[test]
fn a_page_that_comes_once_another_vm_polls_is_left() {
    let (mut memory, mut vms) = vms(QUEUE, 2);
    let [first, second] = vms.as_mut_slice() else {
        panic!()
    };
    let page = b"vllm:num_requests_waiting 7\n";
    assert!(first.picker.fixture().read_page(NOW, Slot(0), page));
    // The first has stopped; the second takes its place in time.
    while !second.picker.peers().polls() {
        second.tick(&mut memory);
    }
    let found = b"vllm:num_requests_waiting 9\n";
    assert!(second.picker.fixture().read_page(NOW, Slot(0), found));
    second.ticks(&mut memory, 2);
    first.tick(&mut memory);
    let waiting = |vm: &Vm| vm.picker.pool().get(Slot(0)).unwrap().metrics.waiting;
    assert_eq!(waiting(first), Some(9.0));
    assert!(!first.picker.fixture().read_page(NOW, Slot(0), page));
    assert_eq!(waiting(first), Some(9.0));
}

#[test]
fn the_first_response_to_a_model_counts_under_its_name_in_each_vm() {
    let (mut memory, mut vms) = vms(PREFIX, 3);
    for vm in &mut vms {
        vm.send(1, &body(1));
        vm.respond(1, 200);
        assert!(vm.picker.peers().models_mut().0.is_empty());
        vm.sharing.admit_models(&mut vm.picker, &mut memory);
        assert!(vm.picker.peers().models_mut().0.contains("m"));
        vm.close(1);
        vm.send(2, &body(1));
        vm.respond(2, 200);
        assert_eq!(vm.picker.peers().take_model_wish(), None);
    }
}

#[test]
fn nothing_is_recorded_or_reported_while_nothing_watches() {
    let (mut memory, mut vms) = vms(QUEUE, 1);
    vms[0].ask(1);
    let count = memory.count();
    vms[0].ticks(&mut memory, 100);
    assert_eq!(vms[0].report(&mut memory), None);
    assert_eq!(memory.count(), count);
    assert!(vms[0].picker.peers().status().decisions.is_empty());
}

#[test]
fn decisions_are_reported_until_nothing_watches() {
    let (mut memory, mut vms) = vms(QUEUE, 1);
    let vm = &mut vms[0];
    for (slot, queue) in [(Slot(0), 4.0), (Slot(1), 0.0)] {
        let page = format!("vllm:num_requests_waiting {queue}\n");
        assert!(vm.picker.fixture().read_page(NOW, slot, page.as_bytes()));
    }
    with(&mut memory, watch);
    vm.tick(&mut memory);
    vm.ask(1);
    vm.ticks(&mut memory, REPORT_TICKS);
    let report = vm.report(&mut memory).unwrap();
    let decision = &report.status.decisions[0];
    let best: Vec<_> = decision
        .best
        .iter()
        .map(|one| (one.slot, one.sum))
        .collect();
    assert_eq!(best, [(Some(1), 3.0), (Some(0), 0.0)]);
    assert_eq!(report.status.under_way.0, 1);
    let plan = with(&mut memory, |shared| report::plan(&vm.sharing.base, shared)).unwrap();
    assert_eq!(plan.id, report.plan);
    assert_eq!(plan.summary.plugins[0].weight, Some(3.0));
    for id in 2..500 {
        vm.ask(id);
    }
    vm.ticks(&mut memory, REPORT_TICKS);
    let report = vm.report(&mut memory).unwrap();
    assert_eq!(report.status.counts.decided, 499);
    let size = serde_json::to_vec(&report).unwrap().len();
    assert!(size < 16 << 10, "{size}");

    vm.ticks(&mut memory, 300);
    vm.ask(500);
    assert!(vm.picker.peers().status().decisions.is_empty());
}

#[test]
fn every_shared_value_has_a_mark_and_a_checksum() {
    let (mut memory, mut vms) = vms(PREFIX, 2);
    with(&mut memory, watch);
    for id in 0..3 {
        vms[0].send(id, &body(id.into()));
        for _ in 0..REPORT_TICKS {
            vms.iter_mut().for_each(|vm| vm.tick(&mut memory));
        }
    }
    let mut kinds = std::collections::BTreeSet::new();
    for (key, value) in memory.values() {
        // What is no longer needed is emptied.
        let sealed = value.is_empty() || Reader::open(&value).is_some();
        assert!(sealed, "{key}: {value:?}");
        let kind = key.rsplit('/').find(|part| part.parse::<u32>().is_err());
        kinds.extend(kind.map(str::to_owned));
    }
    let expected = [
        "lease", "members", "plan", "pools", "report", "watched", "worker",
    ];
    for kind in expected {
        assert!(kinds.contains(kind), "{kind}: {kinds:?}");
    }
}

#[test]
fn a_plan_that_shares_nothing_probes_and_learns_alone() {
    let alone = PREFIX.replace("readBody: always", "readBody: always, shareState: false");
    let (mut memory, mut vms) = vms(&alone, 2);
    vms[0].send(1, &body(1));
    vms[0].respond(1, 200);
    two_ticks(&mut vms, &mut memory);
    assert!(vms[0].picker.peers().status().index.entries > 0);
    assert_eq!(vms[1].picker.peers().status().index.entries, 0);
    assert_eq!(vms[0].picker.peers().learnt().entries().count(), 0);
    // Polling stays common.
    let polls = vms.iter_mut().map(|vm| vm.picker.peers().polls());
    assert_eq!(polls.filter(|polls| *polls).count(), 1);
}

/// Sessions that the picker remembers, and two endpoints.
const SESSIONS: &str = "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: session-affinity-filter, parameters: {strategy: session_id}}
- {type: random-picker}
- name: pods
  type: static-discovery
  parameters: {endpoints: [{name: a, address: 10.0.0.1, port: 80}, {name: b, address: 10.0.0.2, port: 80}]}
dataLayer: {discovery: {pluginRef: pods}}
";

/// Sends one request of each session. Returns where each went.
fn send_sessions(vm: &mut Vm) -> Vec<String> {
    while vm.picker.poll_effect().is_some() {}
    let one = |session: usize| {
        let name = format!("session {session}");
        let head = Head {
            headers: &[Some(name.as_bytes())],
            end: true,
            ..Head::default()
        };
        vm.picker.request_headers(NOW, ExchangeId(1), &head);
        let Some(Effect::Forward { route, .. }) = vm.picker.poll_effect() else {
            panic!("not forwarded");
        };
        vm.picker.closed(NOW, ExchangeId(1));
        let address = route.endpoints().next().unwrap().to_owned();
        address
    };
    (0..40).map(one).collect()
}

#[test]
fn sessions_stay_at_their_endpoints_in_all_workers_and_in_one_that_starts() {
    let mut memory = InProcess::default();
    let mut vms = [1, 2].map(|number| Vm::start(SESSIONS, number, &mut memory));
    for _ in 0..30 {
        vms.iter_mut().for_each(|vm| vm.tick(&mut memory));
    }
    // Both place the same sessions at the same time: they disagree, and then agree.
    let [one, other] = [0, 1].map(|number: usize| send_sessions(&mut vms[number]));
    assert_ne!(one, other);
    for _ in 0..3 {
        vms.iter_mut().for_each(|vm| vm.tick(&mut memory));
    }
    let placed = send_sessions(&mut vms[0]);
    assert_eq!(send_sessions(&mut vms[1]), placed);
    let mut new = Vm::start(SESSIONS, 3, &mut memory);
    for _ in 0..30 {
        vms.iter_mut().for_each(|vm| vm.tick(&mut memory));
        new.tick(&mut memory);
    }
    assert_eq!(send_sessions(&mut new), placed);
}
