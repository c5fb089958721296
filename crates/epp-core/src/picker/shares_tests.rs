use super::*;
use crate::flow::Fairness;
use crate::flow::{Arrival, FlowControl};
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
        let arrival = Arrival {
            id: ExchangeId(id),
            priority: 0,
            fairness_id: flows[id as usize % flows.len()],
            bytes: 1,
            received: now,
            slo_ttft: None,
            ttl: None,
        };
        queues.enqueue(control, &arrival, now).unwrap();
    }
    queues
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
        let sent = (0..turns).map(|_| {
            let gone = queues.dispatch(&control, 0.0, Instant::default()).unwrap();
            queues.label(gone.label).to_owned()
        });
        (share, sent.collect())
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
    let labels = (0..6).map(|_| {
        let gone = queues.dispatch(&control, 0.0, Instant::default()).unwrap();
        queues.label(gone.label).to_owned()
    });
    assert_eq!(labels.collect::<Vec<_>>(), ["a", "b", "a", "b", "a", "b"]);
}

#[test]
fn others_are_summed_by_band() {
    let mut others = Others::default();
    let band = |priority, requests| WaitingBand {
        priority,
        requests,
        bytes: 0,
    };
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
