//! When endpoints are asked for their pages.

use super::*;

fn at(millis: u64) -> Instant {
    Instant::default().after(Duration::from_millis(millis))
}

const CADENCE: Cadence = Cadence {
    interval: Duration::from_millis(200),
    longest: Duration::from_secs(2),
};

fn rng() -> fastrand::Rng {
    fastrand::Rng::with_seed(3)
}

fn poller(endpoints: u32) -> Poller {
    let mut poller = Poller::new(CADENCE);
    (0..endpoints).for_each(|slot| poller.join(Slot(slot)));
    poller
}

#[test]
fn each_endpoint_is_scraped_once_per_interval() {
    let (mut poller, mut rng) = (poller(3), rng());
    let mut asked = 0;
    for now in (1_000..11_000).step_by(10) {
        for slot in (0..3).map(Slot) {
            if poller.take(slot, at(now), &mut rng) {
                asked += 1;
                poller.record_result(slot, PageNews::Changed, at(now), &mut rng);
            }
        }
    }
    assert!((140..=160).contains(&asked), "{asked}");
}

#[test]
fn no_endpoint_is_scraped_again_before_it_has_responded() {
    let (mut poller, mut rng) = (poller(1), rng());
    assert!(poller.take(Slot(0), at(1_000), &mut rng));
    assert!((1_000..3_000).all(|now| !poller.take(Slot(0), at(now), &mut rng)));
}

#[test]
fn a_lost_response_does_not_end_the_scraping() {
    let (mut poller, mut rng) = (poller(1), rng());
    assert!(poller.take(Slot(0), at(1_000), &mut rng));
    assert!((1_000..10_000).any(|now| poller.take(Slot(0), at(now), &mut rng)));
}

#[test]
fn a_failing_endpoint_is_scraped_less_and_less_often_but_never_dropped() {
    let (mut poller, mut rng) = (poller(1), rng());
    let mut times = Vec::new();
    for now in (1_000..61_000).step_by(10) {
        if poller.take(Slot(0), at(now), &mut rng) {
            times.push(now);
            poller.record_result(Slot(0), PageNews::Unread, at(now), &mut rng);
        }
    }
    assert!(times.len() < 40, "{}", times.len());
    let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
    assert!(gaps.max().unwrap() <= MAX_BACKOFF + 10);
}

#[test]
fn a_thousand_endpoints_are_not_scraped_in_a_burst() {
    let (mut poller, mut rng) = (poller(1_000), rng());
    let mut per_tick = Vec::new();
    for now in (1_000..5_000).step_by(50) {
        let mut asked = 0;
        for slot in (0..1_000).map(Slot) {
            if poller.take(slot, at(now), &mut rng) {
                asked += 1;
                poller.record_result(slot, PageNews::Changed, at(now), &mut rng);
            }
        }
        per_tick.push(asked);
    }
    let settled = &per_tick[20..];
    assert!(settled.iter().all(|asked| *asked < 400), "{settled:?}");
}

#[test]
fn all_endpoints_are_asked_as_often_where_too_many_requests_would_be_under_way() {
    const ENDPOINTS: u32 = 2_000;
    // A page takes longer than a tick: 512 in 100 ms, a quarter of what the interval asks for.
    let (mut poller, mut rng) = (poller(ENDPOINTS), rng());
    let mut asked = vec![0; ENDPOINTS as usize];
    let mut under_way: Vec<(u64, Slot)> = Vec::new();
    for now in (1_000..9_000).step_by(50) {
        let (come, later) = under_way.iter().partition(|(due, _)| *due <= now);
        under_way = later;
        let come: Vec<(u64, Slot)> = come;
        for (_, slot) in come {
            poller.record_result(slot, PageNews::Changed, at(now), &mut rng);
        }
        let first = poller.first().0;
        for slot in (first..ENDPOINTS).chain(0..first).map(Slot) {
            if poller.take(slot, at(now), &mut rng) {
                asked[slot.index()] += 1;
                under_way.push((now + 60, slot));
            }
        }
        assert!(under_way.len() <= MAX_IN_FLIGHT);
    }
    let (least, most) = (asked.iter().min().unwrap(), asked.iter().max().unwrap());
    assert!(*least >= 18 && most - least <= 2, "{least} to {most}");
}

/// Polls an endpoint whose page stays the same until this time. Returns when it was polled.
fn poll_same(poller: &mut Poller, until: u64, rng: &mut fastrand::Rng) -> Vec<u64> {
    let mut times = Vec::new();
    for now in (1_000..until).step_by(10) {
        if poller.take(Slot(0), at(now), rng) {
            times.push(now);
            poller.record_result(Slot(0), PageNews::Same, at(now), rng);
        }
    }
    times
}

#[test]
fn an_endpoint_rests_up_to_the_bound_while_its_page_stays_the_same() {
    let (mut poller, mut rng) = (poller(1), rng());
    let times = poll_same(&mut poller, 61_000, &mut rng);
    let gaps: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| *gap <= 2_010), "{gaps:?}");
    assert!(times.len() < 40, "{gaps:?}");
    assert_eq!(poller.rest(Slot(0)), 1_800);
}

#[test]
fn an_endpoint_that_rests_is_polled_at_once_when_its_page_is_needed() {
    for waiting in [false, true] {
        let (mut poller, mut rng) = (poller(1), rng());
        let last = poll_same(&mut poller, 20_000, &mut rng).pop().unwrap();
        poller.set_waiting(waiting);
        assert!(!poller.take(Slot(0), at(last + 250), &mut rng));
        assert!(poller.need(Slot(0), true));
        assert!(!poller.need(Slot(0), true));
        assert!(poller.take(Slot(0), at(last + 250), &mut rng));
        // It is needed further on: the same page is no reason to rest.
        poller.record_result(Slot(0), PageNews::Same, at(last + 251), &mut rng);
        assert!(poller.take(Slot(0), at(last + 480), &mut rng));
        assert_eq!(poller.rest(Slot(0)), 0);
    }
}

#[test]
fn a_page_that_changes_by_itself_ends_the_rest_and_hastens_the_others() {
    let (mut poller, mut rng) = (poller(2), rng());
    let last = poll_same(&mut poller, 20_000, &mut rng).pop().unwrap();
    poller.record_result(Slot(0), PageNews::Changed, at(last + 1), &mut rng);
    assert!(std::mem::take(&mut poller.hastens));
    poller.record_result(Slot(0), PageNews::Changed, at(last + 2), &mut rng);
    assert!(!poller.hastens);
    poller.record_result(Slot(1), PageNews::Same, at(last), &mut rng);
    assert!(poller.take(Slot(1), at(last), &mut rng));
    for _ in 0..9 {
        poller.record_result(Slot(1), PageNews::Same, at(last), &mut rng);
    }
    assert!(!poller.take(Slot(1), at(last + 500), &mut rng));
    poller.hasten_all(at(last + 300), &mut rng);
    assert!(!poller.take(Slot(1), at(last + 500), &mut rng));
    poller.hastens = true;
    poller.hasten_all(at(last + 300), &mut rng);
    assert!(poller.take(Slot(1), at(last + 500), &mut rng));
}

#[test]
fn a_thousand_endpoints_that_rest_are_not_hastened_in_a_burst() {
    let (mut poller, mut rng) = (poller(1_000), rng());
    for now in (1_000..21_000).step_by(50) {
        for slot in (0..1_000).map(Slot) {
            if poller.take(slot, at(now), &mut rng) {
                poller.record_result(slot, PageNews::Same, at(now), &mut rng);
            }
        }
    }
    let mut per_tick = Vec::new();
    for now in (21_000..21_450).step_by(50) {
        // With each tick the page of another one shows traffic.
        poller.hastens = true;
        poller.hasten_all(at(now), &mut rng);
        let mut asked = 0;
        for slot in (0..1_000).map(Slot) {
            if poller.take(slot, at(now), &mut rng) {
                asked += 1;
                poller.record_result(slot, PageNews::Same, at(now), &mut rng);
            }
        }
        per_tick.push(asked);
    }
    let fetched: u32 = per_tick.iter().sum();
    assert!(fetched >= 1_000, "{per_tick:?}");
    assert!(per_tick.iter().all(|asked| *asked < 400), "{per_tick:?}");
}

#[test]
fn a_page_that_alternates_does_not_hasten_the_others() {
    let (mut poller, mut rng) = (poller(1), rng());
    let last = poll_same(&mut poller, 20_000, &mut rng).pop().unwrap();
    let mut hastened = Vec::new();
    for news in [PageNews::Changed, PageNews::Same].repeat(10) {
        poller.record_result(Slot(0), news, at(last), &mut rng);
        hastened.push(std::mem::take(&mut poller.hastens));
    }
    assert!(hastened[0] && hastened[1..].iter().all(|hastens| !hastens));
}

#[test]
fn an_endpoint_that_failed_does_not_rest_as_soon_as_it_is_back() {
    let (mut poller, mut rng) = (poller(1), rng());
    let last = poll_same(&mut poller, 20_000, &mut rng).pop().unwrap();
    poller.record_result(Slot(0), PageNews::Unread, at(last + 10), &mut rng);
    assert!(poller.take(Slot(0), at(last + 500), &mut rng));
    poller.record_result(Slot(0), PageNews::Same, at(last + 500), &mut rng);
    assert!(poller.take(Slot(0), at(last + 1_000), &mut rng));
}
