//! How many metrics pages model servers are asked for.

use std::thread::sleep;
use std::time::Duration;

use fake_model_server::{Settings, Sim};

use crate::client::complete;
use crate::{scorer, start};

/// A plan, and the pages that four pods are asked for in five seconds without traffic and in five with, at least and at
/// most.
const PLANS: [(&str, [usize; 2], [usize; 2]); 3] = [
    // It needs none.
    ("active-request-scorer", [0, 0], [0, 0]),
    // It needs the block size: after seven seconds the next page is six seconds away, and the one after that twelve. With
    // traffic it is fetched once a second at most.
    ("prefix-cache-scorer", [0, 8], [0, 24]),
    // Pages come every two seconds, and at each interval where requests are in flight. Without rests there are 100 pages.
    ("queue-scorer", [8, 30], [8, 120]),
];

#[test]
fn pods_are_asked_for_no_more_pages_than_the_plan_needs() {
    let started = PLANS.map(|(kind, ..)| {
        let sim = Sim::start(4, &Settings::default()).unwrap();
        let proxy = start(&sim, &scorer(kind));
        (sim, proxy)
    });
    let pages = || {
        let of = |sim: &Sim| sim.pods().map(|pod| pod.scrapes()).sum::<usize>();
        started.each_ref().map(|(sim, _)| of(sim))
    };
    sleep(Duration::from_secs(7));
    let begun = pages();
    sleep(Duration::from_secs(5));
    let before = pages();
    for _ in 0..20 {
        for (_, proxy) in &started {
            assert_eq!(complete(proxy.port, "m", "hello").status, 200);
        }
        sleep(Duration::from_millis(250));
    }
    let after = pages();
    for (place, (kind, idle, busy)) in PLANS.iter().enumerate() {
        let fetched = [before[place] - begun[place], after[place] - before[place]];
        for (fetched, [least, most]) in fetched.into_iter().zip([idle, busy]) {
            assert!((*least..=*most).contains(&fetched), "{kind}: {fetched}");
        }
    }
    assert_eq!(after[0], 0, "nor any before");
}
