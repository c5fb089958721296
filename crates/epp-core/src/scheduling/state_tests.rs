use super::*;

fn bindings(capacity: usize, ttl: Option<u64>) -> Bindings {
    Bindings::new(StateSpec {
        plugin: "p".to_owned(),
        capacity,
        per_endpoint: false,
        ttl: ttl.map(Duration::from_secs),
    })
}

fn at(seconds: u64) -> Instant {
    Instant::default().after(Duration::from_secs(seconds))
}

fn keys(bindings: &Bindings) -> Vec<(u64, u32)> {
    bindings.iter().map(|(key, slot)| (key, slot.0)).collect()
}

#[test]
fn keys_are_bound_in_the_order_of_their_last_use() {
    let mut bindings = bindings(3, None);
    assert!(bindings.is_empty());
    for (key, slot) in [(7, 1), (8, 2), (7, 3), (9, 1)] {
        bindings.bind(key, Slot(slot), at(0));
    }
    assert_eq!(keys(&bindings), [(8, 2), (7, 3), (9, 1)]);
    bindings.bind(5, Slot(4), at(0));
    assert_eq!(keys(&bindings), [(7, 3), (9, 1), (5, 4)], "8 made room");
    assert_eq!((bindings.get(8), bindings.get(7)), (None, Some(Slot(3))));
    let turns: Vec<u64> = bindings.turns().collect();
    assert!(turns.is_sorted());
    assert_eq!(bindings.turn(5), turns.last().copied());
    bindings.remove_endpoint(Slot(1));
    assert_eq!(keys(&bindings), [(7, 3), (5, 4)]);
}

#[test]
fn keys_without_use_expire() {
    let mut bindings = bindings(10, Some(300));
    bindings.bind(1, Slot(0), at(0));
    bindings.bind(2, Slot(0), at(100));
    bindings.bind(1, Slot(0), at(200));
    bindings.expire(at(400));
    assert_eq!(
        keys(&bindings),
        [(2, 0), (1, 0)],
        "not for longer than that"
    );
    bindings.expire(at(401));
    assert_eq!(keys(&bindings), [(1, 0)]);
    bindings.expire(at(501));
    assert!(bindings.is_empty());
}

#[test]
fn pickers_that_bind_a_key_at_the_same_time_agree() {
    let mut pair = [bindings(10, None), bindings(10, None)];
    for round in 0..3 {
        let bound = [3, 1].map(Slot);
        for (own, slot) in pair.iter_mut().zip(bound) {
            // Later requests go where the key is bound.
            let slot = own.get(7).unwrap_or(slot);
            own.bind(7, slot, at(round));
        }
        let published = [0, 1].map(|place: usize| pair[place].get(7).unwrap());
        pair[0].bind_by_peer(7, published[1], 0, at(round));
        pair[1].bind_by_peer(7, published[0], 0, at(round));
        assert_eq!(pair[0].get(7), Some(Slot(1)));
        assert_eq!(pair[1].get(7), Some(Slot(1)));
    }
}

#[test]
fn a_key_that_moved_stays_moved_whichever_slot_is_lower() {
    let mut pair = [bindings(10, None), bindings(10, None)];
    pair.iter_mut().for_each(|own| own.bind(7, Slot(0), at(0)));
    pair[0].bind(7, Slot(2), at(1));
    assert_eq!(pair[0].generation(7), 1);
    // The other has not learnt of it yet, and publishes its use of the former endpoint.
    pair[0].bind_by_peer(7, Slot(0), 0, at(1));
    pair[1].bind_by_peer(7, Slot(2), 1, at(1));
    for own in &mut pair {
        own.bind(7, own.get(7).unwrap(), at(2));
        assert_eq!((own.get(7), own.generation(7)), (Some(Slot(2)), 1));
    }
    // Both move it at the same time.
    pair[0].bind(7, Slot(4), at(3));
    pair[1].bind(7, Slot(3), at(3));
    pair[0].bind_by_peer(7, Slot(3), 2, at(3));
    pair[1].bind_by_peer(7, Slot(4), 2, at(3));
    assert!(pair.iter().all(|own| own.get(7) == Some(Slot(3))));
    for slot in [0, 1].repeat(40_000) {
        pair[0].bind(7, Slot(slot), at(4));
    }
    assert_eq!(pair[0].generation(7), u16::MAX);
}

/// Compares with a plain list.
#[test]
fn random_uses_equal_those_of_a_list() {
    for seed in 0..50 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let capacity = rng.usize(1..20);
        let mut bindings = bindings(capacity, Some(10));
        let mut list: Vec<(u64, u32, u64)> = Vec::new();
        for now in 0..400 {
            let (key, slot) = (rng.u64(0..30), rng.u32(0..5));
            match rng.u32(0..20) {
                0 => {
                    bindings.remove_endpoint(Slot(slot));
                    list.retain(|entry| entry.1 != slot);
                }
                1 => {
                    bindings.expire(at(now));
                    list.retain(|entry| now - entry.2 <= 10);
                }
                _ => {
                    bindings.bind(key, Slot(slot), at(now));
                    list.retain(|entry| entry.0 != key);
                    list.push((key, slot, now));
                    let excess = list.len().saturating_sub(capacity);
                    list.drain(..excess);
                }
            }
            let expected: Vec<(u64, u32)> = list.iter().map(|e| (e.0, e.1)).collect();
            assert_eq!(keys(&bindings), expected, "seed {seed}");
            assert_eq!(bindings.len(), expected.len());
            let mut held: Vec<u32> = expected.iter().map(|(_, slot)| *slot).collect();
            held.sort_unstable();
            held.dedup();
            assert_eq!(bindings.holders, held.len());
        }
    }
}

/// A client that sends ever new keys: memory stays bounded, and each costs about the same.
#[test]
fn any_number_of_keys_take_bounded_memory() {
    let capacity = 10_000;
    let mut bindings = bindings(capacity, Some(300));
    for key in 0..300_000_u64 {
        bindings.bind(key.wrapping_mul(0x9E37_79B9_7F4A_7C15), Slot(0), at(0));
    }
    assert_eq!(bindings.len(), capacity);
    assert!(bindings.uses.len() <= 2 * capacity + 17);
    assert!(bindings.keys.capacity() <= 4 * capacity);
    // One key used again and again leaves nothing behind, either.
    for _ in 0..300_000 {
        bindings.bind(5, Slot(1), at(0));
    }
    assert!(bindings.uses.capacity() <= 8 * capacity);
    assert_eq!(bindings.len(), capacity);
    bindings.expire(at(1_000));
    assert_eq!(bindings.len(), 10_000 - 4_096, "a tick's work is bounded");
}

#[test]
fn states_stay_while_their_plugin_does() {
    let spec = |plugin: &str, capacity| StateSpec {
        plugin: plugin.to_owned(),
        capacity,
        per_endpoint: false,
        ttl: None,
    };
    let secret = Secret::from(1);
    let mut states = States::new(&[spec("a", 5), spec("b", 5)], &secret);
    let before = states.fingerprint();
    for place in [0, 1] {
        let state = states.get_mut(StateId(place)).unwrap();
        state.bind(place as u64, Slot(0), at(0));
    }
    let found = |states: &States| {
        let sizes = (0..states.all.len()).map(|place| states.get(StateId(place)).unwrap().len());
        sizes.collect::<Vec<usize>>()
    };
    states.install(&[spec("b", 5), spec("c", 5), spec("a", 5)], |_| true);
    assert_eq!(found(&states), [1, 0, 1]);
    assert_eq!(states.get(StateId(0)).unwrap().get(1), Some(Slot(0)));
    assert_ne!(states.fingerprint(), before);
    states.install(&[spec("a", 6), spec("b", 5)], |plugin| plugin == "a");
    assert_eq!(
        found(&states),
        [0, 0],
        "a has another bound, b is another plugin"
    );
    states.install(&[], |_| true);
    assert_eq!(states.fingerprint(), 0);
    assert_ne!(
        states.key(b"x"),
        States::new(&[], &Secret::from(2)).key(b"x")
    );
}

#[test]
fn each_endpoint_with_keys_makes_room_for_as_many() {
    let mut bindings = bindings(2, None);
    bindings.spec.per_endpoint = true;
    for key in 0..5 {
        bindings.bind(key, Slot(0), at(0));
    }
    assert_eq!(keys(&bindings), [(3, 0), (4, 0)]);
    for key in 5..9 {
        bindings.bind(key, Slot(key as u32), at(0));
    }
    assert_eq!(bindings.len(), 6, "of five endpoints, all in use");
    bindings.remove_endpoint(Slot(8));
    bindings.remove_endpoint(Slot(7));
    bindings.bind(4, Slot(0), at(0));
    assert_eq!(keys(&bindings), [(3, 0), (5, 5), (6, 6), (4, 0)]);
    bindings.spec.capacity = usize::MAX;
    assert_eq!(bindings.bound(), MAX_KEYS);
}

#[test]
fn many_states_share_a_bound() {
    let secret = Secret::from(1);
    let spec = |number: usize| StateSpec {
        plugin: format!("p{number}"),
        capacity: usize::MAX,
        per_endpoint: false,
        ttl: None,
    };
    let specs: Vec<StateSpec> = (0..16).map(spec).collect();
    let mut states = States::new(&specs[..1], &secret);
    for key in 0..MAX_KEYS as u64 + 5 {
        states
            .get_mut(StateId(0))
            .unwrap()
            .bind(key, Slot(0), at(0));
    }
    let bound = |states: &States| states.get(StateId(0)).unwrap().len();
    assert_eq!(bound(&states), MAX_KEYS);
    states.install(&specs, |_| true);
    assert_eq!(
        bound(&states),
        MAX_KEYS / 4,
        "16 states have four times as many in all"
    );
}
