//! The timer of a root context, as the filter asks Envoy for it.

use crate::abi::Action;
use crate::fake_host::host;
use crate::filter_tests::{listed, request, vm, ROOT};
use crate::vm::Vm;

#[test]
fn the_timer_fires_between_ticks_only_while_workers_have_something_in_flight() {
    let mut workers = [vm(&listed("queue-scorer", "")), Vm::default()];
    assert!(workers[1].configure(ROOT));
    let fire = |workers: &mut [Vm]| {
        let periods = workers.iter_mut().map(|vm| {
            host(|host| host.period = 0);
            vm.on_timer(ROOT);
            host(|host| host.period)
        });
        periods.collect::<Vec<u32>>()
    };
    for (id, vm) in (10..).zip(&mut workers) {
        request(&[(":path", "/v1/models"), (":method", "GET")]);
        assert_eq!(vm.request_headers(id, true), Action::Continue);
    }
    let begun: Vec<u32> = (0..5).flat_map(|_| fire(&mut workers)).collect();
    assert_eq!(begun.iter().filter(|period| **period == 10).count(), 2);
    for (id, vm) in (10..).zip(&mut workers) {
        vm.delete(id);
    }
    let ended: Vec<u32> = (0..200).flat_map(|_| fire(&mut workers)).collect();
    assert_eq!(
        ended
            .iter()
            .filter(|period| **period != 0)
            .collect::<Vec<_>>(),
        [&50, &50]
    );
}
