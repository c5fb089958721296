//! Two VMs of one Envoy, of which one polls: it finds for both, and the other continues when it is gone.

use epp_core::config;
use epp_core::findings::Finding;
use epp_core::picker::{Effect, HostState, Picker};
use epp_core::time::Timestamp;

use super::*;
use crate::{InProcess, Sharing, Store};

const DOCUMENT: &str = "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: running-requests-size-scorer}
- name: pods
  type: static-discovery
  parameters: {endpoints: [{name: a, address: 10.0.0.1, port: 80}]}
schedulingProfiles: [{name: default, plugins: [{pluginRef: running-requests-size-scorer}]}]
dataLayer: {discovery: {pluginRef: pods}}
";

struct Vm {
    picker: Picker,
    sharing: Sharing,
    log: Vec<String>,
    ticks: u64,
}

impl Vm {
    fn start(document: &str, number: u64, memory: &mut InProcess) -> Self {
        let plan = config::load(document).unwrap().plan;
        let mut sharing = Sharing::new("epp", plan.cluster(), number);
        let mut picker = Picker::new(plan, number);
        sharing.join(&mut picker, memory, Timestamp::from_millis(1_000));
        Self {
            picker,
            sharing,
            log: Vec::new(),
            ticks: 0,
        }
    }

    fn tick(&mut self, memory: &mut dyn Store) {
        self.ticks += 1;
        let now = Timestamp::from_millis(1_000 + self.ticks * 50);
        self.sharing.before_tick(&mut self.picker, memory);
        self.picker.tick(now);
        self.sharing.after_tick(&mut self.picker, memory, now);
        while let Some(effect) = self.picker.poll_effect() {
            if let Effect::Log { text, .. } = effect {
                self.log.push(text);
            }
        }
    }

    fn set_memory(&mut self, memory_bytes: u64) {
        self.picker.set_host_state(HostState {
            memory_bytes,
            ..HostState::default()
        });
    }

    /// How many lines there were about a finding.
    fn lines(&self, about: &str) -> usize {
        self.log.iter().filter(|line| line.contains(about)).count()
    }
}

fn run(vms: &mut [&mut Vm], memory: &mut InProcess, seconds: u32) {
    for _ in 0..seconds * 20 {
        for vm in &mut *vms {
            vm.tick(memory);
        }
    }
}

fn open(memory: &mut InProcess) -> Vec<Condition> {
    let base = crate::report::base("epp", "inference-pool");
    let mut traffic = crate::shared::Traffic::default();
    let shared = &mut Shared::new(memory, &mut traffic);
    verdict(&base, shared).unwrap_or_default().open
}

#[test]
fn one_vm_says_for_all_what_they_find_and_the_next_does_not_repeat_it() {
    let mut memory = InProcess::default();
    let memory = &mut memory;
    let mut poller = Vm::start(DOCUMENT, 1, memory);
    let mut other = Vm::start(DOCUMENT, 2, memory);
    run(&mut [&mut poller], memory, 2);
    other.set_memory(1 << 30);
    run(&mut [&mut poller, &mut other], memory, 10);
    assert!(poller.picker.peers().polls());
    assert_eq!(poller.lines("memory-high"), 1, "{:?}", poller.log);
    assert_eq!(other.lines("memory-high"), 0, "{:?}", other.log);
    let found = open(memory);
    assert!(
        found.iter().any(|one| one.detail == "1024 MiB"),
        "{found:?}"
    );

    // The other one polls next, and knows it.
    run(&mut [&mut other], memory, 10);
    assert!(other.picker.peers().polls());
    assert_eq!(other.lines("memory-high"), 0, "{:?}", other.log);
    other.set_memory(0);
    run(&mut [&mut other], memory, 10);
    // All the time, of which this one has polled for 9 s.
    let over = (13..20).map(|seconds| format!("memory-high: over after {seconds} s"));
    let over: usize = over.map(|over| other.lines(&over)).sum();
    assert_eq!(over, 1, "{:?}", other.log);
    let found = open(memory);
    let is_high = |one: &Condition| one.finding == Finding::MemoryHigh;
    assert!(!found.iter().any(is_high), "{found:?}");
}

#[test]
fn plans_that_differ_are_found() {
    let mut memory = InProcess::default();
    let memory = &mut memory;
    let mut poller = Vm::start(DOCUMENT, 1, memory);
    run(&mut [&mut poller], memory, 2);
    let document = DOCUMENT.replace(
        "running-requests-size-scorer}]",
        "running-requests-size-scorer, weight: 3}]",
    );
    let mut other = Vm::start(&document, 2, memory);
    run(&mut [&mut poller, &mut other], memory, 10);
    assert_eq!(poller.lines("configurations-differ"), 1, "{:?}", poller.log);
    let found = open(memory);
    let detail = "1 of 2 workers differ from the worker that polls";
    assert!(found.iter().any(|one| one.detail == detail), "{found:?}");
}

#[test]
fn a_verdict_that_is_corrupt_or_unsound_is_none() {
    let mut memory = InProcess::default();
    let mut read = |verdict: &Verdict, corrupt: bool| {
        let mut traffic = crate::shared::Traffic::default();
        Shared::new(&mut memory, &mut traffic).put("b/findings", verdict, None);
        if corrupt {
            memory.corrupt("b/findings");
        }
        super::verdict("b", &mut Shared::new(&mut memory, &mut traffic))
    };
    let condition = Condition::new(Finding::PoolEmpty, "x");
    let sound = Verdict {
        open: vec![condition.clone()],
    };
    assert_eq!(read(&sound, false), Some(sound.clone()));
    assert_eq!(read(&sound, true), None);
    let many = Verdict {
        open: vec![condition.clone(); MAX_CONDITIONS + 1],
    };
    assert_eq!(read(&many, false), None);
    let long = Condition {
        detail: format!("\n{}", "x".repeat(10_000)),
        ..condition
    };
    let cut = Condition::new(long.finding, &long.detail);
    let read = read(&Verdict { open: vec![long] }, false);
    assert_eq!(read, Some(Verdict { open: vec![cut] }));
    memory.set("b/findings", b"", None);
}

/// A store that refuses to write the lease.
struct Refusing<'m>(&'m mut InProcess);

impl Store for Refusing<'_> {
    fn get(&mut self, key: &str) -> Option<(Vec<u8>, u32)> {
        self.0.get(key)
    }

    fn set(&mut self, key: &str, value: &[u8], cas: Option<u32>) -> bool {
        !key.ends_with("/lease") && self.0.set(key, value, cas)
    }
}

#[test]
fn a_pool_that_no_vm_polls_says_so_until_one_does() {
    let mut memory = InProcess::default();
    let memory = &mut memory;
    let mut vm = Vm::start(DOCUMENT, 1, memory);
    (0..200).for_each(|_| vm.tick(&mut Refusing(memory)));
    assert!(!vm.picker.peers().polls());
    assert_eq!(vm.lines("no-poller (broken)"), 1, "{:?}", vm.log);
    run(&mut [&mut vm], memory, 10);
    assert!(vm.picker.peers().polls());
    assert_eq!(vm.lines("no-poller: over"), 1, "{:?}", vm.log);
}
