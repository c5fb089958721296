//! Members that a picker adopts from the one that polls.

use super::*;
use crate::config;
use crate::scheduling::Health;

fn monitor() -> Monitor {
    let text = "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: queue-scorer}, {name: pods, type: static-discovery, parameters: {endpoints: []}}]
schedulingProfiles: [{name: default, plugins: [{pluginRef: queue-scorer}]}]
dataLayer: {discovery: {pluginRef: pods}}
";
    let plan = config::load(text).unwrap().plan;
    Monitor::new(&plan, fastrand::Rng::with_seed(1))
}

/// The member of this number, in the slot of that number.
fn member(number: u32) -> (Slot, Member) {
    let member = Member {
        name: number.to_string(),
        address: format!("10.0.0.{number}:80"),
        health: Health::Healthy,
        ..Member::default()
    };
    (Slot(number), member)
}

#[test]
fn members_that_are_no_longer_listed_leave() {
    let mut monitor = monitor();
    let changes = monitor.adopt_members([0, 1, 3].map(member).into());
    assert_eq!(changes.joined, [Slot(0), Slot(1), Slot(3)]);
    let changes = monitor.adopt_members([3, 5].map(member).into());
    assert_eq!(
        (changes.joined, changes.left),
        (vec![Slot(5)], vec![Slot(0), Slot(1)])
    );
}

/// The members are as many as shared data may list, in the order in which finding one takes longest.
#[test]
fn members_of_the_greatest_number_are_adopted_in_moderate_time() {
    let begun = std::time::Instant::now();
    let mut monitor = monitor();
    let listed: Vec<_> = (0..65_536).rev().map(member).collect();
    monitor.adopt_members(listed.clone());
    assert_eq!(monitor.adopt_members(listed), Changes::default());
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
}
