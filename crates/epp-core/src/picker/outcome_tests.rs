//! What is counted of answers, and under which names.

use super::super::metrics::tests::Kept;
use super::super::testing::begin;
use super::super::{Head, Seen};
use super::*;
use crate::config;
use crate::worker::Local;

const ENDPOINTS: usize = 4;

/// VMs of one Envoy, and what they counted.
struct Vms {
    directors: Vec<Picker>,
    memory: Local,
    kept: Kept,
    request: u32,
}

impl Vms {
    fn new(count: usize) -> Self {
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
        let (mut memory, kept) = (Local::default(), Kept::default());
        let new = |seed| {
            let meter = Box::new(kept.clone());
            let clock = || 1_000_000_000_000;
            let mut picker = Picker::new("test", plan.clone(), seed, meter, clock);
            picker.install(plan.clone(), 1);
            (0..2).for_each(|_| drop(picker.tick(1, &mut memory)));
            picker
        };
        let directors = (0..count as u64).map(new).collect();
        Self {
            directors,
            memory,
            kept,
            request: 0,
        }
    }

    /// A request for this model, which is answered so, by whichever VM.
    fn ask(&mut self, model: &str, status: u16) {
        self.request += 1;
        let id = self.request;
        let vm = id as usize % self.directors.len();
        let picker = &mut self.directors[vm];
        let head = Head {
            model: model.as_bytes(),
            ..Head::default()
        };
        assert!(begin(picker, id, &head).is_some());
        let slot = picker.exchanges[&id].primary().unwrap().slot;
        let server = picker.watch.store.pool.get(slot).unwrap();
        let server = server.address.clone().into_bytes();
        let seen = Seen {
            server,
            status,
            ..Seen::default()
        };
        let id = ExchangeId(id);
        let seen = picker.asks_for_server(id).then_some(seen);
        picker.answered(id, seen.as_ref(), &mut self.memory);
        picker.answering(id);
        picker.close(id);
    }

    /// The models that were counted, and the bytes of all that was defined.
    fn told(&mut self) -> (Vec<String>, usize) {
        self.directors
            .iter_mut()
            .for_each(|one| one.metrics.flush());
        let kept = self.kept.0.borrow();
        let models = kept.0.iter().filter_map(|name| {
            let (_, after) = name.split_once("model_name=")?;
            after.split(';').next().map(str::to_owned)
        });
        let mut models: Vec<String> = models.collect();
        models.sort();
        models.dedup();
        let names: std::collections::BTreeSet<&String> = kept.0.iter().collect();
        (models, names.into_iter().map(String::len).sum())
    }
}

#[test]
fn invented_names_of_which_no_endpoint_knows_take_no_place() {
    let mut vms = Vms::new(3);
    (0..20).for_each(|_| vms.ask("real", 200));
    let (_, before) = vms.told();
    for number in 0..10_000 {
        let long = format!("{number:0>4096}");
        vms.ask(&long, 404);
        vms.ask(&format!("short-{number}"), 404);
        vms.ask(&long, 200);
    }
    vms.ask("second", 200);
    let (models, after) = vms.told();
    assert_eq!(models, ["other", "real", "second"]);
    // One set of series for all of them, and the second model's.
    assert!(after - before < 30_000, "{before} to {after}");
}

#[test]
fn where_endpoints_answer_to_any_name_all_vms_share_one_bound() {
    let mut vms = Vms::new(3);
    (0..20).for_each(|_| vms.ask("real", 200));
    for number in 0..10_000 {
        vms.ask(&format!("short-{number}"), 200);
    }
    vms.ask("real", 200);
    let (models, _) = vms.told();
    // 64, and "other".
    assert_eq!(models.len(), 65);
    assert!(models.contains(&"real".to_owned()));
}

#[test]
fn the_first_answer_to_a_name_counts_under_it_in_each_vm() {
    let mut vms = Vms::new(3);
    (0..6).for_each(|_| vms.ask("real", 200));
    let (models, _) = vms.told();
    assert_eq!(models, ["real"]);
    // Then also those that fail.
    vms.ask("real", 500);
    assert_eq!(vms.told().0, ["real"]);
}
