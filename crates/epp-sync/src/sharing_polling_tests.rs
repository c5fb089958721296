//! How many pages the pickers of one Envoy fetch.

use super::*;

/// Has VMs tick every 50 ms while all pages stay the same. Returns how many pages are fetched.
fn fetched_pages(vms: &mut [Vm], now: &mut Timestamp, memory: &mut InProcess, ticks: u32) -> usize {
    let mut pages = 0;
    for _ in 0..ticks {
        *now = now.after(std::time::Duration::from_millis(50));
        for Vm { picker, sharing } in vms.iter_mut() {
            sharing.before_tick(picker, memory);
            picker.tick(*now);
            sharing.after_tick(picker, memory, *now);
            while let Some(effect) = picker.poll_effect() {
                if let Effect::Fetch { id, .. } = effect {
                    pages += 1;
                    let mut page = SliceBody::whole(b"vllm:num_requests_waiting 7\n");
                    picker.fetched(*now, id, Ok(Fetched::Page(&mut page)));
                }
            }
        }
    }
    pages
}

#[test]
fn a_reload_fetches_the_pages_of_a_pool_at_rest_over_an_interval() {
    let member = |number| format!("{{name: p{number}, address: 10.0.1.{number}, port: 80}}");
    let members: Vec<String> = (0..250).map(member).collect();
    let document = QUEUE.replace("{name: a,", &format!("{}, {{name: a,", members.join(", ")));
    let (mut memory, mut now) = (InProcess::default(), NOW);
    let mut vms = [Vm::start(&document, 1, &mut memory)];
    fetched_pages(&mut vms, &mut now, &mut memory, 400);
    let mut reload = |document: &str| {
        let [Vm { picker, sharing }] = &mut vms;
        picker.install(config::load(document).unwrap().plan);
        sharing.plan_changed(picker);
        sharing.join(picker, &mut memory, now);
        // An interval is four ticks.
        [(); 5].map(|()| fetched_pages(&mut vms, &mut now, &mut memory, 1))
    };
    // Nothing has changed: the pool stays at rest.
    let per_tick = reload(&document);
    assert!(per_tick.iter().all(|pages| *pages < 60), "{per_tick:?}");
    let per_tick = reload(&document.replace("weight: 3", "weight: 4"));
    assert!(per_tick.iter().sum::<usize>() >= 252, "{per_tick:?}");
    assert!(per_tick.iter().all(|pages| *pages < 120), "{per_tick:?}");
}

/// Returns the pages that a serving picker fetches in 10 s while only another one has requests in flight.
fn pages_for_the_other(settings: &str) -> usize {
    let document = QUEUE.replace("plugins:\n", &format!("plugins:\n{settings}"));
    let (mut memory, mut now) = (InProcess::default(), NOW);
    let mut vms = [1, 2].map(|number| Vm::start(&document, number, &mut memory));
    let mut run =
        |vms: &mut [Vm], seconds: u32| fetched_pages(vms, &mut now, &mut memory, seconds * 20);
    for vm in &mut vms {
        vm.ask(1);
        vm.picker.closed(NOW, ExchangeId(1));
    }
    run(&mut vms, 20);
    let polls = vms.iter_mut().position(|vm| vm.picker.peers().polls());
    let other = 1 - polls.unwrap();
    (10..30).for_each(|id| vms[other].ask(id));
    run(&mut vms, 10)
}

#[test]
fn requests_of_another_worker_have_pages_fetched_whether_or_not_loads_are_shared() {
    // Two endpoints, 200 ms.
    let shared = pages_for_the_other("");
    let apart = "- {type: envoy-proxy, parameters: {shareState: false}}\n";
    let apart = pages_for_the_other(apart);
    assert!(shared >= 80 && apart >= 80, "{shared}, {apart}");
}
