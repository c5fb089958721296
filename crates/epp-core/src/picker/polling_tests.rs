//! How often pages are fetched, by what the plan and the pickers need of them.

use std::time::Duration;

use super::EndpointLoad;
use crate::body::SliceBody;
use crate::config;
use crate::endpoints::load_report::LoadReport;
use crate::endpoints::outlier::{Failure, Outcome, Reason};
use crate::endpoints::store::Member;
use crate::picker::peers::IndexPeer;
use crate::picker::testing::{begin, close, NOW};
use crate::picker::{Effect, Fetched, Head, Picker};
use crate::scheduling::{Freshness, Slot};
use crate::time::Timestamp;

/// The plan of two listed endpoints with these scorers.
fn plan(scorers: &str) -> config::Plan {
    let text = format!(
            "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {{type: queue-scorer}}
- {{type: active-request-scorer}}
- {{type: prefix-cache-scorer, parameters: {{autoTune: true}}}}
- name: pods
  type: static-discovery
  parameters: {{endpoints: [{{name: p0, address: 10.0.0.1, port: 80}}, {{name: p1, address: 10.0.0.2, port: 80}}]}}
schedulingProfiles: [{{name: default, plugins: [{scorers}]}}]
dataLayer: {{discovery: {{pluginRef: pods}}}}
"
        );
    let loaded = config::load(&text).unwrap_or_else(|rejected| panic!("{rejected:#?}"));
    loaded.plan
}

/// A picker with two endpoints whose pages stay the same.
struct Vm {
    picker: Picker,
    now: Timestamp,
}

impl Vm {
    fn new(scorers: &str) -> Self {
        Self::of(plan(scorers))
    }

    fn of(plan: config::Plan) -> Self {
        Self {
            picker: Picker::new(plan, 1),
            now: NOW,
        }
    }

    /// Ticks for this time. Returns how many pages were fetched.
    fn run(&mut self, millis: u64) -> usize {
        let mut pages = 0;
        for _ in 0..millis / 50 {
            self.now = self.now.after(Duration::from_millis(50));
            self.picker.tick(self.now);
            let effects: Vec<Effect> = std::iter::from_fn(|| self.picker.poll_effect()).collect();
            for effect in effects {
                if let Effect::Fetch { id, .. } = effect {
                    pages += 1;
                    let text = b"vllm:num_requests_waiting 7\nvllm:cache_config_info{block_size=\"32\"} 1\n";
                    let mut page = SliceBody::whole(text);
                    let fetched = Ok(Fetched::Page(&mut page));
                    self.picker.fetched(self.now, id, fetched);
                }
            }
        }
        pages
    }

    fn loads(&mut self) -> Vec<EndpointLoad> {
        let mut loads = Vec::new();
        self.picker.peers().own_loads(&mut loads);
        loads
    }
}

const QUEUE: &str = "{pluginRef: queue-scorer}";

#[test]
fn pages_are_fetched_as_rarely_as_the_plan_needs_them() {
    let pages = |scorers| {
        let mut vm = Vm::new(scorers);
        vm.run(120_000);
        vm.run(120_000)
    };
    assert_eq!(pages("{pluginRef: active-request-scorer}"), 0);
    let of_constants = pages("{pluginRef: prefix-cache-scorer}");
    assert!((2..=6).contains(&of_constants), "{of_constants}");
    let at_rest = pages(QUEUE);
    assert!((120..=160).contains(&at_rest), "{at_rest}");
}

#[test]
fn a_request_in_flight_has_pages_of_its_endpoint_fetched_at_each_interval() {
    let mut vm = Vm::new(QUEUE);
    vm.run(10_000);
    let effect = begin(&mut vm.picker, 1, &Head::post_json("/v1/completions", None));
    assert!(matches!(effect, Some(Effect::Forward { .. })), "{effect:?}");
    assert_eq!(vm.loads().len(), 1);
    let busy = vm.run(10_000);
    assert!((45..=60).contains(&busy), "{busy}");
    close(&mut vm.picker, 1);
    vm.run(10_000);
    let at_rest = vm.run(10_000);
    assert!((9..=14).contains(&at_rest), "{at_rest}");
}

/// As where each connection is refused: the request is nowhere in flight when the poller looks.
#[test]
fn requests_that_fail_at_once_have_the_page_fetched_by_the_picker_that_polls() {
    let (mut poller, mut worker) = (Vm::new(QUEUE), Vm::new(QUEUE));
    poller.run(10_000);
    worker.run(10_000);
    assert_eq!(worker.loads(), []);
    let outcome = Outcome {
        request: 1,
        failure: Some(Failure {
            reason: Reason::Unserved,
            certain: true,
        }),
        served: false,
        prompt: None,
    };
    let outliers = &mut worker.picker.dispatcher.endpoints.monitor.outliers;
    outliers.record_outcome(Slot(1), &outcome, Freshness::Fresh, worker.now);
    let loads = worker.loads();
    assert!(matches!(
        loads[..],
        [EndpointLoad {
            slot: 1,
            requests: 0,
            needs_page: true,
            ..
        }]
    ));
    let mut peer = poller.picker.peers();
    peer.set_peer_loads(&mut [loads.as_slice()].into_iter());
    let pages = poller.run(1_000);
    assert!((4..=7).contains(&pages), "{pages}");
    // For two seconds after the last.
    worker.run(1_500);
    let outliers = &mut worker.picker.dispatcher.endpoints.monitor.outliers;
    outliers.record_outcome(Slot(1), &outcome, Freshness::Fresh, worker.now);
    worker.run(1_500);
    assert!(matches!(
        worker.loads()[..],
        [EndpointLoad {
            needs_page: true,
            ..
        }]
    ));
    worker.run(550);
    assert_eq!(worker.loads(), []);
}

/// The pages of the former plan are a minute apart.
#[test]
fn another_plan_has_all_pages_fetched_within_an_interval() {
    let mut vm = Vm::new("{pluginRef: prefix-cache-scorer}");
    vm.run(130_000);
    assert_eq!(vm.run(1_000), 0);
    let installed = vm.now;
    vm.picker.install(plan(QUEUE));
    vm.run(300);
    let store = &vm.picker.dispatcher.endpoints.monitor.store;
    let is_new = |slot| store.condition(Slot(slot)).scraped > Some(installed);
    assert!(is_new(0) && is_new(1));
    // At its cadence, up to the longest time of an endpoint at rest.
    let pages = vm.run(20_000);
    assert!((20..=40).contains(&pages), "{pages}");
}

/// The pages that were to be kept for a minute are not trusted for longer than any others.
#[test]
fn another_plan_ends_the_rests_of_endpoints_whose_pages_do_not_come() {
    let mut vm = Vm::new("{pluginRef: prefix-cache-scorer}");
    vm.run(130_000);
    vm.picker.install(plan(QUEUE));
    let freshness = |vm: &Vm| vm.picker.pool().get(Slot(0)).unwrap().freshness;
    assert_eq!(freshness(&vm), Freshness::Fresh);
    for _ in 0..45 {
        vm.now = vm.now.after(Duration::from_millis(50));
        vm.picker.tick(vm.now);
    }
    assert_eq!(freshness(&vm), Freshness::Stale);
}

#[test]
fn a_request_without_a_response_has_a_page_fetched_each_second_where_only_constants_are_needed() {
    for correct_queue in [true, false] {
        let mut plan = plan("{pluginRef: prefix-cache-scorer}");
        plan.settings.correct_queue = correct_queue;
        let mut vm = Vm::of(plan);
        vm.run(130_000);
        let mut pages = 0;
        for id in 1..=20 {
            let head = Head::post_json("/v1/completions", None);
            begin(&mut vm.picker, id, &head);
            pages += vm.run(500);
        }
        assert!((8..=24).contains(&pages), "{pages}");
        (1..=20).for_each(|id| close(&mut vm.picker, id));
        vm.run(130_000);
        assert_eq!(vm.run(1_000), 0);
    }
}

#[test]
fn an_endpoint_at_rest_that_reports_its_load_stays_at_rest_and_its_next_page_counts() {
    let mut vm = Vm::new(QUEUE);
    vm.run(10_000);
    let text = b"TEXT named_metrics.num_requests_waiting=2";
    let report = LoadReport::read(text).unwrap();
    let endpoints = &mut vm.picker.dispatcher.endpoints;
    assert!(endpoints.take_report(Slot(0), report, vm.now));
    let waiting = |vm: &Vm| vm.picker.pool().get(Slot(0)).unwrap().metrics.waiting;
    assert_eq!(waiting(&vm), Some(2.0));
    let pages = vm.run(2_200);
    assert_eq!(waiting(&vm), Some(7.0));
    // As many as without the report.
    assert!((2..=4).contains(&pages), "{pages}");
}

#[test]
fn the_summary_of_a_plan_says_how_often_pages_are_fetched() {
    for (scorer, expected) in [
        ("active-request-scorer", "; no metrics are fetched;"),
        (
            "prefix-cache-scorer",
            "; metrics every 60 s (only the KV cache's size is needed);",
        ),
        (
            "queue-scorer",
            "; metrics every 200 ms, of endpoints at rest every 2000 ms;",
        ),
    ] {
        let summary = plan(&format!("{{pluginRef: {scorer}}}")).summary();
        assert!(summary.contains(expected), "{summary}");
    }
    let mut plan = plan(QUEUE);
    plan.source.sglang_loads = true;
    let (summary, expected) = (plan.summary(), " every 2000 ms, SGLang's from /v1/loads;");
    assert!(summary.contains(expected), "{summary}");
}

/// A VM that polls, and another one that learns from it what the pages say, 50 ms later.
struct Two {
    poller: Vm,
    worker: Vm,
    /// What the worker has in flight, as the poller has yet to learn.
    loads: Vec<EndpointLoad>,
    /// The revision of the pages that the worker has.
    pages: u64,
}

impl Two {
    fn new() -> Self {
        let (mut poller, mut worker) = (Vm::new(QUEUE), Vm::new(QUEUE));
        worker.picker.peers().set_polling(false);
        let pages = poller.picker.peers().revisions().metrics;
        poller.run(50);
        worker.now = poller.now;
        let peers = poller.picker.peers();
        let members = peers.endpoints().pool.iter();
        let members = members.map(|(slot, endpoint)| (slot, Member::from(endpoint)));
        let members: Vec<_> = members.collect();
        worker.picker.peers().adopt_members(members);
        Self {
            poller,
            worker,
            loads: Vec::new(),
            pages,
        }
    }

    /// Both have a tick.
    fn tick(&mut self) {
        let Self {
            poller,
            worker,
            loads,
            pages,
        } = self;
        let mut published = std::iter::once(loads.as_slice());
        poller.picker.peers().set_peer_loads(&mut published);
        poller.run(50);
        let peers = poller.picker.peers();
        let revision = peers.revisions().metrics;
        if std::mem::replace(pages, revision) != revision {
            let store = peers.endpoints();
            let read = store.pool.iter();
            let read = read.map(|(slot, one)| (slot, store.condition(slot), one.metrics.clone()));
            let read: Vec<_> = read.collect();
            worker.picker.peers().adopt_metrics(read);
        }
        worker.run(50);
        worker.now = poller.now;
        *loads = worker.loads();
    }
}

#[test]
fn a_page_of_an_endpoint_at_rest_does_not_hide_a_request_that_was_sent_after_it_was_read() {
    // Pages that say the same are shared up to 600 ms after they were read: in few of these ticks just after a request.
    for ticks in 400..640 {
        let mut two = Two::new();
        (0..ticks).for_each(|_| two.tick());
        let head = Head::post_json("/v1/completions", None);
        begin(&mut two.worker.picker, 1, &head);
        let sent = two.worker.now;
        let sent_to = |two: &mut Two| two.worker.loads()[0];
        assert_eq!(sent_to(&mut two).unseen, 1);
        for _ in 0..6 {
            two.tick();
            let load = sent_to(&mut two);
            let read = two
                .worker
                .picker
                .peers()
                .endpoints()
                .condition(Slot(load.slot))
                .scraped;
            assert!(
                load.unseen == 1 || read >= Some(sent),
                "after {ticks} ticks"
            );
        }
    }
}
