use super::*;
use crate::flow::{Arrival, Fairness, FlowControl};
use crate::picker::flow_testing;
use crate::prefix::key::{Key, Secret};
use crate::time::Instant;
use crate::ExchangeId;

fn control() -> FlowControl {
    let mut control = flow_testing::control(1.0);
    control.default_band.fairness = Fairness::RoundRobin;
    control
}

/// Queues of a picker in which this many requests of each of these flows wait.
fn queues(control: &FlowControl, flows: &[&str], each: u32) -> Queues {
    let mut queues = Queues::new(Key::Secret(Secret::from(1)));
    let now = Instant::default();
    for id in 0..each * flows.len() as u32 {
        let arrival = arrival(id, 0, flows[id as usize % flows.len()]);
        queues.enqueue(control, &arrival, now).unwrap();
    }
    queues
}

fn arrival(id: u32, priority: i32, fairness_id: &str) -> Arrival<'_> {
    Arrival {
        id: ExchangeId(id),
        priority,
        fairness_id,
        bytes: 1,
        received: Instant::default(),
        slo_ttft: None,
        ttl: None,
    }
}

/// Sends so many requests, and returns their flows.
fn turns(queues: &mut Queues, control: &FlowControl, count: usize) -> Vec<String> {
    let sent = (0..count).map(|_| {
        let gone = queues.dispatch(control, 0.0, Instant::default()).unwrap();
        queues.label(gone.label).to_owned()
    });
    sent.collect()
}

/// The share of each of several pickers, in which these flows wait, and which one sends next, as often as `turns` says.
fn shares(pickers: &[&[&str]], turns: usize) -> Vec<(f64, Vec<String>)> {
    let control = control();
    let mut all: Vec<Queues> = pickers
        .iter()
        .map(|flows| queues(&control, flows, turns as u32))
        .collect();
    let backlogs: Vec<Backlog> = all.iter().map(Backlog::of).collect();
    let own = |(number, queues): (usize, &mut Queues)| {
        let mut others = Others::default();
        let published = backlogs.iter().enumerate();
        let mut published = published.filter(|(other, _)| *other != number);
        others.look(&mut published.by_ref().map(|(_, one)| one), queues);
        let share = others.share(queues, (0.0, 0.0)).unwrap();
        (share, self::turns(queues, &control, turns))
    };
    all.iter_mut().enumerate().map(own).collect()
}

/// The part of the pool that each flow gets.
fn parts(pickers: &[&[&str]], flow: &str) -> f64 {
    let turns = 240;
    let shares = shares(pickers, turns);
    let part = |(share, sent): &(f64, Vec<String>)| {
        let own = sent.iter().filter(|sent| *sent == flow).count();
        share * own as f64 / turns as f64
    };
    shares.iter().map(part).sum()
}

#[test]
fn flows_get_equal_parts_in_whichever_pickers_they_wait() {
    let cases: [&[&[&str]]; 5] = [
        &[&["a"], &["b"]],
        &[&["a", "b"], &["c"], &["d"]],
        &[&["a", "b"], &["a"], &["a"], &["a"]],
        &[&["a", "b", "c"], &["c", "d"], &["a", "c"], &["e"]],
        &[&["a", "b"], &["a", "b"], &["b", "a"]],
    ];
    for pickers in cases {
        let mut flows: Vec<&str> = pickers.concat();
        flows.sort_unstable();
        flows.dedup();
        for flow in &flows {
            let part = parts(pickers, flow) * flows.len() as f64;
            assert!((0.97..1.03).contains(&part), "{pickers:?}: {flow} {part}");
        }
    }
}

#[test]
fn a_flow_of_sixteen_pickers_gets_no_more_than_one_of_a_single_picker() {
    let mut pickers = vec![&["heavy"][..]; 16];
    pickers[3] = &["heavy", "light"];
    let part = parts(&pickers, "light");
    assert!((0.45..0.55).contains(&part), "{part}");
}

#[test]
fn a_picker_of_more_flows_than_it_tells_of_has_about_their_share() {
    let ids: Vec<String> = (0..900).map(|id| format!("{id}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let shares = shares(&[&ids, &ids, &["a"; 100]], 1);
    let of = |number: usize| shares[number].0;
    assert!((0.45..0.55).contains(&of(0)), "{}", of(0));
    assert!((of(2) - 1.0 / 901.0).abs() < 1e-4, "{}", of(2));
}

#[test]
fn where_no_other_waits_a_flow_has_each_turn() {
    let control = control();
    let mut queues = queues(&control, &["a", "b"], 50);
    let backlog = Backlog::of(&queues);
    let mut others = Others::default();
    others.look(&mut [&backlog, &backlog].into_iter(), &mut queues);
    assert_eq!(others.parts(&queues).map(|(own, _)| own.round()), Some(1.0));
    others.look(&mut std::iter::empty(), &mut queues);
    assert_eq!(others.parts(&queues), None);
    let labels = turns(&mut queues, &control, 6);
    assert_eq!(labels, ["a", "b", "a", "b", "a", "b"]);
}

#[test]
fn a_flow_that_waits_nowhere_else_any_more_has_each_turn_again() {
    let control = control();
    // What waits elsewhere then, and here in a higher band.
    for (elsewhere, here) in [(Some(-5), false), (Some(5), false), (None, true)] {
        let mut queues = queues(&control, &["a", "b"], 50);
        let shared = Backlog::of(&self::queues(&control, &["a"], 50));
        let mut others = Others::default();
        others.look(&mut [&shared, &shared].into_iter(), &mut queues);
        if here {
            let first = arrival(1_000, 7, "c");
            queues.enqueue(&control, &first, first.received).unwrap();
        }
        let bands = elsewhere.map(|priority| Backlog {
            bands: vec![band(priority, 1)],
            ..Backlog::default()
        });
        others.look(&mut bands.iter(), &mut queues);
        let labels = turns(&mut queues, &control, 6 + usize::from(here));
        assert!(
            labels.ends_with(&["a", "b", "a", "b", "a", "b"].map(str::to_owned)),
            "{labels:?}"
        );
    }
}

fn band(priority: i32, requests: u32) -> WaitingBand {
    WaitingBand {
        priority,
        requests,
        bytes: 0,
    }
}

#[test]
fn others_are_summed_by_band() {
    let mut others = Others::default();
    let lists = [
        vec![band(1, 2), band(-3, 1)],
        vec![band(7, 0), band(1, u32::MAX)],
        vec![band(2, 1)],
    ];
    let lists = lists.map(|bands| Backlog {
        bands,
        ..Backlog::default()
    });
    others.look(&mut lists.iter(), &mut Queues::default());
    let summed = [band(2, 1), band(1, u32::MAX), band(-3, 1)];
    assert_eq!(others.bands, summed);
    assert_eq!(others.priority(), Some(2));
}

#[test]
fn a_backlog_in_another_order_or_with_repetitions_is_no_pickers() {
    let band = |priority, requests| WaitingBand {
        priority,
        requests,
        bytes: 0,
    };
    let sound = |bands: &[WaitingBand], sample: &[u32]| {
        let backlog = Backlog {
            bands: bands.to_vec(),
            flows: 64,
            sample: sample.to_vec(),
        };
        backlog.is_sound()
    };
    assert!(sound(&[band(1, 1), band(-1, 1)], &[1, 2]));
    assert!(!sound(&[band(-1, 1), band(1, 1)], &[1, 2]));
    assert!(!sound(&[band(1, 1), band(1, 1)], &[1, 2]));
    assert!(!sound(&[band(1, 1), band(-1, 0)], &[1, 2]));
    assert!(!sound(&[band(1, 1)], &[2, 1]));
    assert!(!sound(&[band(1, 1)], &[7; 64]));
}
