//! How many pages of endpoints at rest are fetched while other gateways send to them.

use super::*;

const ENDPOINTS: u32 = 1_000;

/// Polls 1,000 endpoints with the default cadence for a minute, after half a minute in which no page changes. Returns the
/// pages per second of the minute; `version` is that of an endpoint's page after so many milliseconds of it.
fn pages_per_second(version: impl Fn(Slot, u64) -> u64) -> u64 {
    const BEGIN: u64 = 30_000;
    const END: u64 = 90_000;
    let mut rng = fastrand::Rng::with_seed(3);
    let mut poller = Poller::new(Cadence {
        interval: Duration::from_millis(200),
        longest: Duration::from_secs(2),
    });
    (0..ENDPOINTS).for_each(|slot| poller.join(Slot(slot)));
    let mut seen = vec![0; ENDPOINTS as usize];
    let mut fetched = 0;
    for millis in (0..END).step_by(50) {
        let now = Instant::default().after(Duration::from_millis(millis));
        poller.hasten_all(now, &mut rng);
        for slot in (0..ENDPOINTS).map(Slot) {
            if poller.take(slot, now, &mut rng) {
                fetched += u64::from(millis >= BEGIN);
                let found = version(slot, millis.saturating_sub(BEGIN));
                let news = match std::mem::replace(&mut seen[slot.index()], found) == found {
                    true => PageNews::Same,
                    false => PageNews::Changed,
                };
                poller.record_result(slot, news, now, &mut rng);
            }
        }
    }
    fetched / ((END - BEGIN) / 1_000)
}

/// The rates that docs/sizing.md states; each page at each interval would be 5,000.
#[test]
fn only_an_endpoint_that_had_rested_as_long_as_it_may_has_the_others_fetched() {
    let first = |slot: Slot| u64::from(slot == Slot(0));
    let quiet = pages_per_second(|_, _| 0);
    let every_five_seconds = pages_per_second(|slot, millis| first(slot) * (millis / 5_000));
    let every_second = pages_per_second(|slot, millis| first(slot) * (millis / 1_000));
    let another_every_second =
        pages_per_second(|slot, millis| u64::from(millis / 1_000 > u64::from(slot.0)));
    let measured = [
        quiet,
        every_five_seconds,
        every_second,
        another_every_second,
    ];
    let stated = [550, 640, 560, 910_u64];
    let is_stated = |(stated, measured): (u64, u64)| stated.abs_diff(measured) <= stated / 50;
    assert!(
        stated.into_iter().zip(measured).all(is_stated),
        "{measured:?}"
    );
}
