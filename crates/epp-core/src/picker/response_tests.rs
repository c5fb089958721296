//! What is counted of answers, and under which names.

use super::super::testing::{answer_body, begin, close, exchange, NOW};
use super::super::{Effect, ExchangeId, Head, Picker, Upstream};
use super::*;
use crate::body::SliceBody;
use crate::config;
use crate::metrics::Exported;
use crate::scheduling::Slot;

const ENDPOINTS: usize = 4;

/// A picker, and what it counted.
struct Vm {
    picker: Picker,
    host: Exported,
    request: u32,
}

impl Vm {
    fn new() -> Self {
        let listed =
            (1..=ENDPOINTS).map(|n| format!("{{name: p{n}, address: 10.0.0.{n}, port: 80}}"));
        let listed: Vec<String> = listed.collect();
        let text = format!(
            "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{{type: random-picker}},
  {{name: pods, type: static-discovery, parameters: {{endpoints: [{}]}}}}]
schedulingProfiles: [{{name: default, plugins: [{{pluginRef: random-picker}}]}}]
dataLayer: {{discovery: {{pluginRef: pods}}}}
",
            listed.join(", ")
        );
        let plan = config::load(&text)
            .unwrap_or_else(|rejected| panic!("{rejected:#?}"))
            .plan;
        let mut picker = Picker::new(plan, 1);
        picker.tick(NOW);
        Self {
            picker,
            host: Exported::default(),
            request: 0,
        }
    }

    /// A request for this model, which is answered so.
    fn ask(&mut self, model: &str, status: u16) {
        self.request += 1;
        let id = self.request;
        let picker = &mut self.picker;
        let head = Head {
            model: model.as_bytes(),
            ..Head::default()
        };
        assert!(begin(picker, id, &head).is_some());
        let slot = exchange(picker, id).primary().unwrap().slot;
        let server = picker.dispatcher.pool.monitor.store.pool.get(slot).unwrap();
        let server = server.address.as_bytes().to_vec();
        let seen = Upstream {
            server: Some(server),
            status: Some(status),
            ..Upstream::default()
        };
        let id = ExchangeId(id);
        let seen = picker.wants_upstream(id).then_some(seen);
        picker.response_headers(NOW, id, seen.as_ref());
        while let Some(effect) = picker.poll_effect() {
            if let Effect::AdmitModel(wish) = effect {
                picker.admit_model(&wish);
            }
        }
        answer_body(picker, id.0);
        close(picker, id.0);
    }

    /// The models that were counted, and the bytes of all that was defined.
    fn told(&mut self) -> (Vec<String>, usize) {
        self.picker.dispatcher.statistics.registry.flush();
        self.host
            .take(&mut self.picker.dispatcher.statistics.registry);
        let names = &self.host.names;
        let models = names.values().filter_map(|name| {
            let (_, after) = name.split_once("model_name=")?;
            after.split(';').next().map(str::to_owned)
        });
        let mut models: Vec<String> = models.collect();
        models.sort();
        models.dedup();
        (models, names.values().map(String::len).sum())
    }
}

#[test]
fn invented_names_of_which_no_endpoint_knows_take_no_place() {
    let mut vm = Vm::new();
    (0..20).for_each(|_| vm.ask("real", 200));
    let (_, before) = vm.told();
    for number in 0..10_000 {
        let long = format!("{number:0>4096}");
        vm.ask(&long, 404);
        vm.ask(&format!("short-{number}"), 404);
        vm.ask(&long, 200);
    }
    vm.ask("second", 200);
    let (models, after) = vm.told();
    assert_eq!(models, ["other", "real", "second"]);
    // One set of series for all of them, and the second model's.
    assert!(after - before < 30_000, "{before} to {after}");
}

#[test]
fn where_endpoints_answer_to_any_name_the_number_of_names_is_bounded() {
    let mut vm = Vm::new();
    (0..20).for_each(|_| vm.ask("real", 200));
    for number in 0..10_000 {
        vm.ask(&format!("short-{number}"), 200);
    }
    vm.ask("real", 200);
    let (models, _) = vm.told();
    // 64, and "other".
    assert_eq!(models.len(), 65);
    assert!(models.contains(&"real".to_owned()));
}

#[test]
fn the_first_answer_to_a_name_counts_under_it() {
    let mut vm = Vm::new();
    (0..6).for_each(|_| vm.ask("real", 200));
    let (models, _) = vm.told();
    assert_eq!(models, ["real"]);
    // Then also those that fail.
    vm.ask("real", 500);
    assert_eq!(vm.told().0, ["real"]);
}

#[test]
fn a_request_that_is_dropped_or_replaced_is_counted_nowhere() {
    let mut vm = Vm::new();
    let picker = &mut vm.picker;
    let in_flight = |picker: &Picker| {
        let slots = (0..ENDPOINTS as u32).map(Slot);
        let pool = &picker.dispatcher.pool.monitor.store.pool;
        slots.map(|slot| pool.load(slot).requests).sum::<u32>()
    };
    for _ in 0..3 {
        // Neither is closed.
        assert!(begin(picker, 1, &Head::default()).is_some());
        assert_eq!(
            (
                in_flight(picker),
                picker.dispatcher.readers.responses.reading()
            ),
            (1, 0)
        );
        picker.response_headers(NOW, ExchangeId(1), None);
        answer_body(picker, 1);
        assert_eq!(picker.dispatcher.readers.responses.reading(), 1);
    }
    picker.recovery().drop_exchange(ExchangeId(1));
    assert_eq!(
        (
            in_flight(picker),
            picker.dispatcher.readers.responses.reading()
        ),
        (0, 0)
    );
    close(picker, 1);
    assert_eq!(
        (
            in_flight(picker),
            picker.dispatcher.readers.responses.reading()
        ),
        (0, 0)
    );
}

/// Responses that go on after their usage was read, or cannot hold any, keep no place from others.
#[test]
fn a_response_of_which_no_more_is_read_frees_its_place() {
    let mut vm = Vm::new();
    let picker = &mut vm.picker;
    for id in 1..=(2 * MAX_READ_AT_ONCE as u32) {
        if id % MAX_STARTED_PER_TICK as u32 == 0 {
            picker.tick(NOW);
        }
        assert!(begin(picker, id, &Head::default()).is_some());
        let mut part = SliceBody::beginning(b"hello");
        picker.response_body(NOW, ExchangeId(id), &mut part);
        assert_eq!(
            picker.dispatcher.readers.responses.reading(),
            0,
            "response {id}"
        );
    }
    assert_eq!(picker.dispatcher.statistics.unread_responses(), 0);
    (1..=(2 * MAX_READ_AT_ONCE as u32)).for_each(|id| close(picker, id));
    assert_eq!(picker.dispatcher.readers.responses.reading(), 0);
}
