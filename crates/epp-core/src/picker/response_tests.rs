//! The metrics of responses, and their labels.

use std::borrow::Cow;
use std::ops::Range;

use super::super::models::{ModelNames, MAX_NAMES};
use super::super::testing::{begin, close, exchange, respond_with_body, show, NOW};
use super::super::{ExchangeId, Head, Picker, Upstream};
use super::*;
use crate::body::{BodyView, OutOfMemory, SliceBody};
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
    /// A picker whose plan reads no bodies.
    fn new() -> Self {
        Self::with("random-picker")
    }

    /// A picker that reads the models in bodies.
    fn reading() -> Self {
        Self::with("lora-affinity-scorer")
    }

    /// A picker that reads the prompts in bodies.
    fn reading_prompts() -> Self {
        Self::with("prefix-cache-scorer")
    }

    fn with(plugin: &str) -> Self {
        let listed =
            (1..=ENDPOINTS).map(|n| format!("{{name: p{n}, address: 10.0.0.{n}, port: 80}}"));
        let listed: Vec<String> = listed.collect();
        let text = format!(
            "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{{type: {plugin}}},
  {{name: pods, type: static-discovery, parameters: {{endpoints: [{}]}}}}]
schedulingProfiles: [{{name: default, plugins: [{{pluginRef: {plugin}}}]}}]
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

    /// A request for this model, which gets a response with this status.
    fn serve_named(&mut self, model: &str, status: u16) {
        let head = Head {
            model: model.as_bytes(),
            ..Head::default()
        };
        self.request += 1;
        assert!(begin(&mut self.picker, self.request, &head).is_some());
        self.respond(status);
    }

    /// A request with this header and body, which is served.
    fn serve(&mut self, header: &str, body: &str) {
        let head = Head {
            model: header.as_bytes(),
            ..Head::post_json("/v1/completions", Some(body.len()))
        };
        self.request += 1;
        begin(&mut self.picker, self.request, &head);
        show(&mut self.picker, self.request, body.as_bytes(), true);
        self.respond(200);
    }

    /// Returns the models that have statistics of their own.
    fn admitted(&self) -> &ModelNames {
        &self.picker.dispatcher.statistics.models
    }

    /// The last request gets a response.
    fn respond(&mut self, status: u16) {
        let id = self.request;
        let picker = &mut self.picker;
        let slot = exchange(picker, id).primary().unwrap().slot;
        let server = picker
            .dispatcher
            .endpoints
            .monitor
            .store
            .pool
            .get(slot)
            .unwrap();
        let server = server.address.as_bytes().to_vec();
        let seen = Upstream {
            server: Some(server),
            status: Some(status),
            ..Upstream::default()
        };
        let id = ExchangeId(id);
        let seen = picker.wants_upstream(id).then_some(seen);
        picker.response_headers(NOW, id, seen.as_ref());
        respond_with_body(picker, id.0);
        close(picker, id.0);
    }

    /// The models that were counted, and the bytes of all that was defined.
    fn counted(&mut self) -> (Vec<String>, usize) {
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
fn invented_names_that_no_endpoint_serves_take_no_place() {
    let mut vm = Vm::new();
    (0..20).for_each(|_| vm.serve_named("real", 200));
    let (_, before) = vm.counted();
    for number in 0..10_000 {
        let long = format!("{number:0>4096}");
        vm.serve_named(&long, 404);
        vm.serve_named(&format!("short-{number}"), 404);
        vm.serve_named(&long, 200);
    }
    vm.serve_named("second", 200);
    let (models, after) = vm.counted();
    assert_eq!(models, ["other", "real", "second"]);
    // One set of series for all of them, and the second model's.
    assert!(after - before < 30_000, "{before} to {after}");
}

#[test]
fn where_endpoints_serve_any_name_the_number_of_names_is_bounded() {
    let mut vm = Vm::new();
    (0..20).for_each(|_| vm.serve_named("real", 200));
    for number in 0..10_000 {
        vm.serve_named(&format!("short-{number}"), 200);
    }
    vm.serve_named("real", 200);
    let (models, _) = vm.counted();
    // Half of the 64 that have room, and "other": no endpoint's page lists them.
    assert_eq!(models.len(), 33);
    assert!(models.contains(&"real".to_owned()));
}

/// Clients that name models which no endpoint has must not take the places of those that are there.
#[test]
fn names_that_no_endpoint_serves_leave_room_for_others() {
    // An endpoint reads no header, so that it serves these requests with its own model.
    let mut vm = Vm::reading();
    for number in 0..64 {
        let junk = format!("junk-{number}");
        vm.serve(&junk, r#"{"prompt":"x"}"#);
        vm.serve(&junk, "");
    }
    assert!(vm.admitted().is_empty());
    // Of two models it serves the last one.
    let twice = |number, text: &str| {
        format!(r#"{{"model":"junk-{number}","prompt":"{text}","model":"real"}}"#)
    };
    let mut vm = Vm::reading_prompts();
    (0..64).for_each(|number| vm.serve("", &twice(number, "x")));
    assert!(vm.admitted().is_empty());
    // It may stand where nothing is read any more.
    let long = "x".repeat(1 << 20);
    (0..64).for_each(|number| vm.serve("", &twice(number, &long)));
    assert_eq!(vm.admitted().len(), MAX_NAMES / 4);
    // Some servers serve any name.
    let once = |name: &str| format!(r#"{{"model":"{name}","prompt":"x"}}"#);
    (0..64).for_each(|number| vm.serve("", &once(&format!("any-{number}"))));
    assert_eq!(vm.admitted().len(), MAX_NAMES / 2);
    for slot in (0..ENDPOINTS as u32).map(Slot) {
        let endpoint = vm.picker.fixture().pool().get_mut(slot).unwrap();
        endpoint.metrics.model = Some("real".to_owned());
        endpoint.metrics.lora.active = vec!["adapter".to_owned()];
    }
    for listed in ["real", "adapter"] {
        vm.serve("", &once(listed));
        assert!(vm.admitted().contains(listed));
    }
    vm.serve("", &once("other"));
    assert!(!vm.admitted().contains("other"));
}

#[test]
fn a_model_is_counted_in_any_position_in_a_body() {
    let long = "x".repeat(48 << 10);
    for body in [
        format!(r#"{{"prompt":"{long}","model":"m"}}"#),
        format!(r#"{{"model":"m","prompt":"{long}"}}"#),
    ] {
        for mut vm in [Vm::reading(), Vm::reading_prompts()] {
            vm.serve("", &body);
            vm.serve("", &body);
            assert_eq!(vm.counted().0, ["m"], "{}", &body[..20]);
        }
    }
}

#[test]
fn the_first_response_to_a_name_counts_under_it() {
    let mut vm = Vm::new();
    (0..6).for_each(|_| vm.serve_named("real", 200));
    let (models, _) = vm.counted();
    assert_eq!(models, ["real"]);
    // Then also those that fail.
    vm.serve_named("real", 500);
    assert_eq!(vm.counted().0, ["real"]);
}

#[test]
fn a_request_that_is_dropped_or_replaced_is_counted_nowhere() {
    let mut vm = Vm::new();
    let picker = &mut vm.picker;
    let in_flight = |picker: &Picker| {
        let slots = (0..ENDPOINTS as u32).map(Slot);
        let pool = picker.pool();
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
        respond_with_body(picker, 1);
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

/// A body whose reading panics.
struct BrokenBody;

impl BodyView for BrokenBody {
    fn available(&self) -> Range<usize> {
        0..1
    }

    fn read(&mut self, _: Range<usize>) -> Result<Cow<'_, [u8]>, OutOfMemory> {
        panic!("on purpose")
    }

    fn ended(&self) -> bool {
        true
    }
}

#[test]
fn the_exchange_that_a_panic_was_about_is_known_until_it_is_gone() {
    let picker = &mut Vm::reading().picker;
    let head = Head {
        path: b"/v1/completions",
        method: b"POST",
        ..Head::default()
    };
    let strike = |picker: &mut Picker, id: u32| {
        let act = || picker.request_body(NOW, ExchangeId(id), &mut BrokenBody);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(act)).unwrap_err();
    };
    for id in [1, 2] {
        assert!(begin(picker, id, &head).is_none());
    }
    strike(picker, 1);
    assert!(picker.holds(ExchangeId(1)));
    assert_eq!(picker.recovery().take_broken(), Some(ExchangeId(1)));
    assert_eq!(picker.recovery().take_broken(), None);
    strike(picker, 2);
    close(picker, 2);
    assert_eq!(picker.recovery().take_broken(), None);
}

/// Responses that last after their usage was read, or cannot have any, take no place from others.
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
