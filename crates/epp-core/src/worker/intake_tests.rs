//! How much of what others publish is taken in per tick.

use super::handover::Known;
use super::journal::{Run, Word};
use super::seats::SlotLoad;
use super::share::{Knowledge, Now, Share, INTAKE};
use super::Local;

const SERVES: Now = Now {
    serves: true,
    stirred: false,
};

/// Hashes of one segment.
const SEGMENT: usize = 4_096;

/// Counts what is taken in, by seat.
#[derive(Default)]
struct Counted {
    hashes: Vec<usize>,
}

impl Known for Counted {
    fn list(&self, _: usize, _: &mut Vec<u64>) -> Option<Run> {
        None
    }
}

impl Knowledge for Counted {
    fn cut(&self) -> u64 {
        1
    }

    fn place(&mut self, seat: u32, _: Run, prompt: &[u64], _: usize) {
        self.hashes
            .resize(self.hashes.len().max(seat as usize + 1), 0);
        self.hashes[seat as usize] += prompt.len();
    }

    fn expect_loose_blocks(&mut self, _: bool) {}

    fn held(&self) -> u32 {
        0
    }

    fn in_flight(&self, _: &mut Vec<SlotLoad>) {}

    fn others_in_flight(&mut self, _: &mut dyn Iterator<Item = &[SlotLoad]>) {}
}

#[test]
fn a_tick_takes_in_a_bounded_part_of_every_journal_and_the_rest_later() {
    const RUN: Run = Run {
        word: Word::Sent,
        producer: 0,
        slot: 0,
        tag: 0,
    };
    /// As much as a journal publishes in a tick.
    const FRESH: usize = 60_000;
    let mut memory = Local::default();
    let mut vms: Vec<Share> = (1..=5).map(|own| Share::new("b", own)).collect();
    let mut tick = |vm: &mut Share| {
        let mut counted = Counted::default();
        vm.exchange(SERVES, &mut memory, &mut 0, &mut counted);
        counted.hashes
    };
    for _ in 0..60 {
        vms.iter_mut().for_each(|vm| drop(tick(vm)));
    }
    let prompt: Vec<u64> = (0..FRESH as u64).collect();
    let (listener, tellers) = vms.split_first_mut().unwrap();
    for teller in tellers.iter_mut() {
        (0..FRESH).for_each(|block| teller.note(RUN, &prompt, block));
        tick(teller);
    }
    let mut taken = vec![0; 5];
    for round in 0..10 {
        let hashes = tick(listener);
        let sum: usize = hashes.iter().sum();
        assert!(sum <= INTAKE + SEGMENT, "{sum} at once");
        if round == 0 {
            let heard = hashes.iter().filter(|hashes| **hashes > 0);
            assert_eq!(
                heard.count(),
                4,
                "one that floods keeps no other waiting: {hashes:?}"
            );
        }
        for (taken, more) in taken.iter_mut().zip(hashes) {
            *taken += more;
        }
    }
    assert!(taken[1..].iter().all(|taken| *taken >= FRESH), "{taken:?}");
}
