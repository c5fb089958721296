//! Clients whose requests fail by their own fault, and pods that fail by theirs: one worker, four
//! pods, in steps of a millisecond. A prompt goes where it was sent before, as a prefix scorer has
//! it, unless that pod is avoided.

use std::collections::HashMap;

use super::*;
use crate::scheduling::Metrics;
use crate::testing;

const PODS: u32 = 4;

/// One client after another; each sends a request in so many steps.
struct Client {
    every: u64,
    /// Tells its prompts apart, the number of the request given.
    prompt: fn(u64) -> u64,
    /// What the prompt with that number begins with.
    begins: fn(u64) -> u64,
    /// To which pod these prompts were brought before, if they were.
    placed: fn(u64) -> Option<u32>,
    /// Whether it is not one of the attackers'.
    honest: bool,
    /// How its requests fail, everywhere.
    failure: Option<Reason>,
}

/// Thirty prompts a second that begin as no other does.
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

/// What came of it.
#[derive(Debug, Default)]
struct Seen {
    /// Honest requests by pod, and those that failed.
    honest: [u32; PODS as usize],
    failed: u32,
    /// Milliseconds for which each pod was avoided.
    avoided: [u64; PODS as usize],
    majorities: u64,
    prompts: u64,
}

impl Seen {
    /// Whether honest requests stay spread: no pod has less than half of its fair share.
    fn is_spread(&self) -> bool {
        let all: u32 = self.honest.iter().sum();
        self.honest.iter().all(|own| own * 2 * PODS >= all)
    }

    fn longest(&self) -> u64 {
        self.avoided.iter().copied().max().unwrap()
    }
}

struct Play {
    avoider: Avoider,
    pool: Pool,
    rng: fastrand::Rng,
    homes: HashMap<u64, u32>,
    request: u32,
    seen: Seen,
}

impl Play {
    fn new(seed: u64) -> Self {
        let settings = Settings {
            first: 1_000,
            most: 60_000,
        };
        let mut avoider = Avoider::new(settings, fastrand::Rng::with_seed(seed));
        (0..PODS).for_each(|slot| avoider.join(Slot(slot), u64::from(slot) + 1));
        let mut pool = testing::pool((0..PODS).map(|_| Metrics::default()));
        for slot in 0..PODS {
            pool.get_mut(Slot(slot)).unwrap().freshness = Freshness::Fresh;
        }
        Self {
            avoider,
            pool,
            rng: fastrand::Rng::with_seed(seed),
            homes: HashMap::new(),
            request: 0,
            seen: Seen::default(),
        }
    }

    fn pick(&mut self, prompt: u64, placed: Option<u32>) -> u32 {
        let pool = &self.pool;
        let free = |slot: &u32| !pool.get(Slot(*slot)).unwrap().avoided;
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
        self.avoider.sent(Slot(slot), self.request, now);
        self.avoider.mark(&mut self.pool, now);
        let broken = (broken == Some(slot)).then_some(Reason::Errors);
        let reason = client.failure.or(broken);
        let outcome = Outcome {
            request: self.request,
            prompt: Some((client.begins)(prompt)),
            bodied: true,
            failure: reason.map(|reason| Failure {
                reason,
                certain: false,
            }),
        };
        if client.honest {
            self.seen.honest[slot as usize] += 1;
            self.seen.failed += u32::from(reason.is_some());
        }
        self.avoider
            .note(Slot(slot), &outcome, Freshness::Fresh, now);
        self.avoider.mark(&mut self.pool, now);
    }

    /// Plays from one time to another, in milliseconds. From `broken.1` on the pod `broken.0` fails.
    fn run(&mut self, clients: &[Client], times: std::ops::Range<u64>, broken: Option<(u32, u64)>) {
        for now in times {
            for client in clients.iter().filter(|client| now % client.every == 0) {
                let broken = broken.filter(|(_, from)| now >= *from);
                self.send(client, now, broken.map(|(slot, _)| slot), now);
            }
            if now % 50 == 0 {
                self.avoider.hold_claims(now);
                for slot in self.avoider.due(&self.pool, now) {
                    let entry = self.avoider.claim(slot, now).unwrap();
                    self.avoider.claimed(slot, entry);
                }
                self.avoider.mark(&mut self.pool, now);
            }
            for (slot, avoided) in self.seen.avoided.iter_mut().enumerate() {
                let endpoint = self.pool.get(Slot(slot as u32)).unwrap();
                *avoided += u64::from(endpoint.avoided);
            }
        }
        let blamed = self.avoider.take_blamed();
        self.seen.majorities += blamed.majorities;
        self.seen.prompts += blamed.prompts;
    }
}

/// A minute of honest requests beside these, for several seeds.
fn attack(attackers: impl Fn() -> Vec<Client>) -> Vec<Seen> {
    let play = |seed| {
        let mut play = Play::new(seed);
        play.run(&[HONEST], 1_000..4_000, None);
        play.seen = Seen::default();
        let mut clients = attackers();
        clients.push(HONEST);
        play.run(&clients, 4_000..64_000, None);
        play.seen
    };
    (0..4).map(play).collect()
}

/// An attack changes little: honest requests stay spread, and no pod is avoided for long.
fn holds(attackers: impl Fn() -> Vec<Client>) {
    for seen in attack(attackers) {
        assert!(seen.is_spread(), "{seen:?}");
        // Once by chance, with what follows from it: of a minute.
        assert!(seen.longest() <= 6_000, "{seen:?}");
        assert_eq!(seen.failed, 0);
    }
}

const REASONS: [Reason; 3] = [Reason::Errors, Reason::Overloaded, Reason::Unserved];

#[test]
fn one_prompt_that_breaks_pods_gets_none_avoided() {
    for reason in REASONS {
        holds(|| {
            let one = Client {
                failure: Some(reason),
                ..ATTACKER
            };
            vec![one, ATTACKER]
        });
    }
}

#[test]
fn neither_do_prompts_that_are_all_different() {
    for reason in REASONS {
        holds(|| {
            vec![Client {
                prompt: |number| 2_000_000 + number,
                failure: Some(reason),
                ..ATTACKER
            }]
        });
    }
}

#[test]
fn nor_different_ones_that_affinity_brings_to_two_of_four() {
    for reason in REASONS {
        holds(|| {
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
fn nor_ones_that_are_served_elsewhere_when_they_are_not_to_break_it() {
    // The same beginnings, harmless at the third pod, so that each failure counts.
    holds(|| {
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
    let mut play = Play::new(1);
    play.run(&[ATTACKER, ATTACKER], 1_000..61_000, None);
    assert!(play.seen.prompts > 0, "{:?}", play.seen);
    let (first, second) = (play.avoider.reason(Slot(0)), play.avoider.reason(Slot(1)));
    let avoided = (0..PODS).filter(|slot| play.avoider.reason(Slot(*slot)).is_some());
    assert!(avoided.count() <= 1, "{first:?} {second:?}");
    // The first honest request that comes to it brings it back.
    play.seen = Seen::default();
    play.run(&[ATTACKER, HONEST], 61_000..71_000, None);
    assert!(play.seen.is_spread(), "{:?}", play.seen);
}

/// Requests that a pod fails which fails all, until it is left out.
fn failed(clients: &[Client], seed: u64) -> u32 {
    let mut play = Play::new(seed);
    play.run(clients, 1_000..4_000, None);
    play.seen = Seen::default();
    play.run(clients, 4_000..8_000, Some((1, 4_000)));
    assert_eq!(
        play.seen.avoided.map(|time| time > 1_500),
        [false, true, false, false]
    );
    play.seen.failed
}

#[test]
fn a_pod_that_fails_all_is_left_out_after_a_few() {
    let mean = |client: fn() -> Client| {
        let failed = (0..40).map(|seed| failed(&[client()], seed));
        f64::from(failed.sum::<u32>()) / 40.0
    };
    let distinct = mean(|| HONEST);
    // Six that its peers have served, and a trial after a second.
    assert!((4.0..12.0).contains(&distinct), "{distinct}");
    // All of them begin alike, as with a system prompt.
    let alike = mean(|| Client {
        begins: |_| 7,
        ..HONEST
    });
    assert!((4.0..12.0).contains(&alike), "{alike}");
    println!("{distinct} and {alike} requests failed");
}

#[test]
fn a_pod_that_fails_the_one_prompt_that_there_is_is_left_out_within_seconds() {
    let one = Client {
        prompt: |_| 7,
        ..HONEST
    };
    let mut play = Play::new(1);
    play.run(&[one], 1_000..3_000, None);
    let pod = play.homes[&7];
    let one = Client {
        prompt: |_| 7,
        ..HONEST
    };
    play.seen = Seen::default();
    play.run(&[one], 3_000..20_000, Some((pod, 3_000)));
    let others = play.seen.honest.iter().sum::<u32>() - play.seen.failed;
    // It goes to another pod then, and stays there.
    assert!(play.seen.failed < 150 && others > 300, "{:?}", play.seen);
}

#[test]
fn a_pod_that_lists_its_models_and_fails_all_else_is_left_out() {
    let mut play = Play::new(3);
    play.run(&[HONEST], 1_000..3_000, None);
    for now in 3_000..5_000 {
        play.run(&[HONEST], now..now + 1, Some((1, 3_000)));
        if now % 250 == 0 {
            let listed = Outcome::default();
            play.avoider.note(Slot(1), &listed, Freshness::Fresh, now);
        }
        if play.avoider.reason(Slot(1)).is_some() {
            return;
        }
    }
    panic!("{:?}", play.seen);
}
