//! Clients whose requests are at fault, and pods that are at fault: a simulation of one worker and four pods
//! in steps of a millisecond. A prompt goes where it was sent before, as a prefix scorer would choose, unless
//! that pod is ejected.

use std::collections::HashMap;

use super::*;
use crate::scheduling::Metrics;
use crate::testing;

const PODS: u32 = 4;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// A client.
struct Client {
    /// Milliseconds between its requests.
    every: u64,
    /// Maps the number of a request to the number of its prompt.
    prompt: fn(u64) -> u64,
    /// Maps the number of a prompt to the number of its first block.
    begins: fn(u64) -> u64,
    /// Maps the number of a request to the pod that its prompt was sent to before, if any.
    placed: fn(u64) -> Option<u32>,
    /// Whether the client is not an attacker.
    honest: bool,
    /// How its requests fail at every pod.
    failure: Option<Reason>,
}

/// Thirty prompts a second, each with a first block of its own.
const HONEST: Client = Client {
    every: 33,
    prompt: |number| 1_000_000 + number,
    begins: |prompt| prompt,
    placed: |_| None,
    honest: true,
    failure: None,
};

const ATTACKER: Client = Client {
    every: 10,
    prompt: |_| 1,
    begins: |prompt| prompt,
    placed: |_| None,
    honest: false,
    failure: Some(Reason::Errors),
};

/// The observations of a simulation.
#[derive(Debug, Default)]
struct Seen {
    /// Honest requests by pod.
    honest: [u32; PODS as usize],
    /// Honest requests that failed.
    failed: u32,
    /// Milliseconds for which each pod was ejected.
    ejected: [u64; PODS as usize],
    majorities: u64,
    prompts: u64,
}

impl Seen {
    /// Returns whether honest requests stay spread: no pod has less than half of its fair share.
    fn is_spread(&self) -> bool {
        let all: u32 = self.honest.iter().sum();
        self.honest.iter().all(|own| own * 2 * PODS >= all)
    }

    fn longest(&self) -> u64 {
        self.ejected.iter().copied().max().unwrap()
    }
}

struct Simulation {
    detector: OutlierDetector,
    pool: Pool,
    rng: fastrand::Rng,
    homes: HashMap<u64, u32>,
    request: u32,
    seen: Seen,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let settings = OutlierSettings {
            first: Duration::from_secs(1),
            max: Duration::from_secs(60),
        };
        let mut detector = OutlierDetector::new(Some(settings), fastrand::Rng::with_seed(seed));
        (0..PODS).for_each(|slot| detector.add_endpoint(Slot(slot), u64::from(slot) + 1));
        let mut pool = testing::pool((0..PODS).map(|_| Metrics::default()));
        for slot in 0..PODS {
            pool.get_mut(Slot(slot)).unwrap().freshness = Freshness::Fresh;
        }
        Self {
            detector,
            pool,
            rng: fastrand::Rng::with_seed(seed),
            homes: HashMap::new(),
            request: 0,
            seen: Seen::default(),
        }
    }

    fn pick(&mut self, prompt: u64, placed: Option<u32>) -> u32 {
        let pool = &self.pool;
        let free = |slot: &u32| !pool.get(Slot(*slot)).unwrap().ejected;
        let home = self.homes.get(&prompt).copied().or(placed).filter(free);
        let slot = home.unwrap_or_else(|| {
            let slots: Vec<u32> = (0..PODS).filter(free).collect();
            slots[self.rng.usize(0..slots.len())]
        });
        self.homes.insert(prompt, slot);
        slot
    }

    fn send(&mut self, client: &Client, number: u64, broken: Option<u32>, now: u64) {
        let prompt = (client.prompt)(number);
        let slot = self.pick(prompt, (client.placed)(number));
        self.request += 1;
        self.detector.start_probe(Slot(slot), self.request, at(now));
        self.detector.flag_ejected(&mut self.pool, at(now));
        let broken = (broken == Some(slot)).then_some(Reason::Errors);
        let reason = client.failure.or(broken);
        let outcome = Outcome {
            request: self.request,
            prompt: Some((client.begins)(prompt)),
            served: true,
            failure: reason.map(|reason| Failure {
                reason,
                certain: false,
            }),
        };
        if client.honest {
            self.seen.honest[slot as usize] += 1;
            self.seen.failed += u32::from(reason.is_some());
        }
        self.detector
            .record_outcome(Slot(slot), &outcome, Freshness::Fresh, at(now));
        self.detector.flag_ejected(&mut self.pool, at(now));
    }

    /// Simulates this range of milliseconds. From `broken.1` on the pod `broken.0` fails.
    fn run(&mut self, clients: &[Client], times: std::ops::Range<u64>, broken: Option<(u32, u64)>) {
        for now in times {
            for client in clients.iter().filter(|client| now % client.every == 0) {
                let broken = broken.filter(|(_, from)| now >= *from);
                self.send(client, now, broken.map(|(slot, _)| slot), now);
            }
            if now % 50 == 0 {
                self.detector.renew_claims(at(now));
                for slot in self.detector.due_probes(&self.pool, at(now)) {
                    let entry = self.detector.claim(slot, at(now)).unwrap();
                    self.detector.accept_claim(slot, entry);
                }
                self.detector.flag_ejected(&mut self.pool, at(now));
            }
            for (slot, ejected) in self.seen.ejected.iter_mut().enumerate() {
                let endpoint = self.pool.get(Slot(slot as u32)).unwrap();
                *ejected += u64::from(endpoint.ejected);
            }
        }
        let faults = self.detector.take_request_faults();
        self.seen.majorities += faults.majorities;
        self.seen.prompts += faults.prompts;
    }
}

/// Simulates a minute of honest requests beside those of attackers, for several seeds.
fn attack(attackers: impl Fn() -> Vec<Client>) -> Vec<Seen> {
    let simulation = |seed| {
        let mut simulation = Simulation::new(seed);
        simulation.run(&[HONEST], 1_000..4_000, None);
        simulation.seen = Seen::default();
        let mut clients = attackers();
        clients.push(HONEST);
        simulation.run(&clients, 4_000..64_000, None);
        simulation.seen
    };
    (0..4).map(simulation).collect()
}

/// Asserts that an attack changes little: honest requests stay spread, and no pod is ejected for long.
fn assert_harmless(attackers: impl Fn() -> Vec<Client>) {
    for seen in attack(attackers) {
        assert!(seen.is_spread(), "{seen:?}");
        // One ejection by chance and its repetitions, in a minute.
        assert!(seen.longest() <= 6_000, "{seen:?}");
        assert_eq!(seen.failed, 0);
    }
}

const REASONS: [Reason; 3] = [Reason::Errors, Reason::Overloaded, Reason::Unserved];

#[test]
fn one_prompt_that_breaks_pods_ejects_none() {
    for reason in REASONS {
        assert_harmless(|| {
            let one = Client {
                failure: Some(reason),
                ..ATTACKER
            };
            vec![one, ATTACKER]
        });
    }
}

#[test]
fn different_prompts_that_break_pods_eject_none() {
    for reason in REASONS {
        assert_harmless(|| {
            vec![Client {
                prompt: |number| 2_000_000 + number,
                failure: Some(reason),
                ..ATTACKER
            }]
        });
    }
}

#[test]
fn different_prompts_that_affinity_brings_to_two_of_four_pods_eject_none() {
    for reason in REASONS {
        assert_harmless(|| {
            vec![Client {
                prompt: |number| 2_000_000 + number,
                placed: |number| Some(number as u32 / 10 % 2),
                failure: Some(reason),
                ..ATTACKER
            }]
        });
    }
}

#[test]
fn prompts_that_break_one_pod_and_are_served_elsewhere_eject_none() {
    // The same beginnings, harmless at the third pod, so that each failure counts.
    assert_harmless(|| {
        vec![
            Client {
                prompt: |number| number % 50,
                placed: |_| Some(0),
                ..ATTACKER
            },
            Client {
                every: 7,
                prompt: |number| number % 50,
                begins: |prompt| prompt,
                placed: |_| Some(2),
                honest: false,
                failure: None,
            },
        ]
    });
}

#[test]
fn without_other_traffic_one_prompt_costs_one_pod_a_second() {
    let mut simulation = Simulation::new(1);
    simulation.run(&[ATTACKER, ATTACKER], 1_000..61_000, None);
    assert!(simulation.seen.prompts > 0, "{:?}", simulation.seen);
    let (first, second) = (
        simulation.detector.reason(Slot(0)),
        simulation.detector.reason(Slot(1)),
    );
    let ejected = (0..PODS).filter(|slot| simulation.detector.reason(Slot(*slot)).is_some());
    assert!(ejected.count() <= 1, "{first:?} {second:?}");
    // The first honest request that reaches the pod brings it back.
    simulation.seen = Seen::default();
    simulation.run(&[ATTACKER, HONEST], 61_000..71_000, None);
    assert!(simulation.seen.is_spread(), "{:?}", simulation.seen);
}

/// Returns how many honest requests fail at a pod that fails all, until it is ejected.
fn failed(clients: &[Client], seed: u64) -> u32 {
    let mut simulation = Simulation::new(seed);
    simulation.run(clients, 1_000..4_000, None);
    simulation.seen = Seen::default();
    simulation.run(clients, 4_000..8_000, Some((1, 4_000)));
    assert_eq!(
        simulation.seen.ejected.map(|time| time > 1_500),
        [false, true, false, false]
    );
    simulation.seen.failed
}

#[test]
fn a_pod_that_fails_all_requests_is_ejected_after_a_few() {
    let mean = |client: fn() -> Client| {
        let failed = (0..40).map(|seed| failed(&[client()], seed));
        f64::from(failed.sum::<u32>()) / 40.0
    };
    let distinct = mean(|| HONEST);
    // Six requests until its peers have served enough, and a probe after a second.
    assert!((4.0..12.0).contains(&distinct), "{distinct}");
    // All prompts begin alike, as with a system prompt.
    let alike = mean(|| Client {
        begins: |_| 7,
        ..HONEST
    });
    assert!((4.0..12.0).contains(&alike), "{alike}");
    println!("{distinct} and {alike} requests failed");
}

#[test]
fn a_pod_that_fails_the_only_prompt_is_ejected_within_seconds() {
    let one = Client {
        prompt: |_| 7,
        ..HONEST
    };
    let mut simulation = Simulation::new(1);
    simulation.run(&[one], 1_000..3_000, None);
    let pod = simulation.homes[&7];
    let one = Client {
        prompt: |_| 7,
        ..HONEST
    };
    simulation.seen = Seen::default();
    simulation.run(&[one], 3_000..20_000, Some((pod, 3_000)));
    let others = simulation.seen.honest.iter().sum::<u32>() - simulation.seen.failed;
    // Then the prompt goes to another pod and stays there.
    assert!(
        simulation.seen.failed < 150 && others > 300,
        "{:?}",
        simulation.seen
    );
}

#[test]
fn a_pod_that_lists_its_models_and_fails_all_else_is_ejected() {
    let mut simulation = Simulation::new(3);
    simulation.run(&[HONEST], 1_000..3_000, None);
    for now in 3_000..5_000 {
        simulation.run(&[HONEST], now..now + 1, Some((1, 3_000)));
        if now % 250 == 0 {
            let listed = Outcome::default();
            simulation
                .detector
                .record_outcome(Slot(1), &listed, Freshness::Fresh, at(now));
        }
        if simulation.detector.reason(Slot(1)).is_some() {
            return;
        }
    }
    panic!("{:?}", simulation.seen);
}
