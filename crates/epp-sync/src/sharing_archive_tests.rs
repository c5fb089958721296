//! Which of several pickers keeps an archive.

use super::*;
use crate::peers::MIN_TAKEN_IN;

impl Vm {
    fn archives(&mut self) -> bool {
        self.sharing.peers.handover.archive().is_some()
    }

    fn polls(&mut self) -> bool {
        self.picker.peers().polls()
    }
}

#[test]
fn the_main_thread_keeps_its_archive_when_a_worker_polls_after_a_stall() {
    let (mut memory, mut vms) = vms(PREFIX, 3);
    let [main, worker, idle] = vms.as_mut_slice() else {
        panic!()
    };
    worker.send(1, &body(1));
    worker.close(1);
    for vm in [&mut *main, &mut *idle] {
        vm.sharing.peers.taken_in = MIN_TAKEN_IN;
    }
    for _ in 0..5 {
        for vm in [&mut *main, &mut *worker, &mut *idle] {
            vm.tick(&mut memory);
        }
    }
    assert!(main.polls() && main.archives());
    assert!(!idle.archives(), "it has never polled");

    // The main thread and the other worker stall.
    while !worker.polls() {
        worker.tick(&mut memory);
    }
    for _ in 0..60 {
        for vm in [&mut *main, &mut *worker, &mut *idle] {
            vm.tick(&mut memory);
        }
    }
    assert!(worker.polls() && !main.polls());
    assert!(!worker.archives(), "it serves");
    assert!(main.archives() && !idle.archives());
    assert!(!main.sharing.peers.is_requesting());

    // It serves after all.
    main.send(1, &body(2));
    main.tick(&mut memory);
    assert!(!main.archives() && main.sharing.peers.is_requesting());
}
