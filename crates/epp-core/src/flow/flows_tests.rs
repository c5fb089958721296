use super::*;

fn at(seconds: u64) -> Instant {
    Instant::default().after(Duration::from_secs(1_000 + seconds))
}

fn key() -> Key {
    Key::Secret(crate::prefix::key::Secret::from(7))
}

#[test]
fn an_id_has_one_flow() {
    let mut flows = Flows::default();
    let ids = ["b", "", "a", "c", "default-flow"];
    let places = ids.map(|id| flows.find_or_add(id, &key(), at(0)));
    assert_eq!(ids.map(|id| flows.find_or_add(id, &key(), at(0))), places);
    assert_eq!(ids.map(|id| flows.find(id, &key())), places.map(Some));
    assert_eq!(flows.find("d", &key()), None);
    assert_eq!(flows.len(), 5);
}

#[test]
fn an_id_of_any_length_takes_little_memory() {
    let mut flows = Flows::default();
    let long = "x".repeat(64 << 10);
    let place = flows.find_or_add(&long, &key(), at(0));
    assert!(flows.get_mut(place).unwrap().id.len() <= MAX_ID_BYTES);
    assert_eq!(flows.find_or_add(&long, &key(), at(0)), place);
    let other = format!("{long}y");
    assert_ne!(flows.find_or_add(&other, &key(), at(0)), place);
    // Its name is no id of a client.
    let name = flows.get_mut(place).unwrap().id.clone();
    assert!(name.contains('\0'));
}

#[test]
fn idle_flows_make_room_for_others() {
    let mut flows = Flows::default();
    for id in 0..MAX_FLOWS {
        let place = flows.find_or_add(&format!("{id}"), &key(), at(id as u64));
        flows.get_mut(place).unwrap().waiting = usize::from(id != 3 && id != 9);
    }
    let kept = flows.find("8", &key());
    flows.find_or_add("new", &key(), at(5_000));
    assert_eq!(flows.len(), MAX_FLOWS);
    assert_eq!(flows.find("3", &key()), None, "it was idle longest");
    assert_eq!(flows.find("8", &key()), kept);
    assert!(flows.find("9", &key()).is_some());
}

#[test]
fn the_flows_of_any_number_of_ids_are_bounded() {
    let mut flows = Flows::default();
    let mut shared = std::collections::BTreeSet::new();
    for id in 0..20_000 {
        let place = flows.find_or_add(&format!("{id}"), &key(), at(0));
        flows.get_mut(place).unwrap().waiting += 1;
        if id >= MAX_FLOWS {
            shared.insert(place);
        }
    }
    assert_eq!(flows.len(), MAX_FLOWS + SHARED_FLOWS as usize);
    assert_eq!(shared.len(), SHARED_FLOWS as usize);
    // Which ids share a flow cannot be told without the key.
    let another = Key::Secret(crate::prefix::key::Secret::from(8));
    let same =
        |id: &&String| hashed(id, SHARED_FLOWS, &key()) == hashed(id, SHARED_FLOWS, &another);
    let ids: Vec<String> = (0..6_400).map(|id| format!("{id}")).collect();
    assert!(ids.iter().filter(same).count() < 200);
}

#[test]
fn idle_flows_are_forgotten() {
    let mut flows = Flows::default();
    for (id, waiting) in [("a", 0), ("b", 1), ("c", 0)] {
        let place = flows.find_or_add(id, &key(), at(0));
        flows.get_mut(place).unwrap().waiting = waiting;
    }
    let c = flows.find("c", &key()).unwrap();
    flows.get_mut(c).unwrap().last_used = at(10);
    flows.sweep(Duration::from_secs(300), at(300));
    assert_eq!(flows.find("a", &key()), None);
    assert!(flows.find("b", &key()).is_some());
    assert_eq!(flows.find("c", &key()), Some(c));
    flows.sweep(Duration::from_secs(300), at(310));
    assert_eq!(flows.find("c", &key()), None);
    assert_eq!(flows.len(), 1);
    // Places are used again.
    let places = ["x", "y"].map(|id| flows.find_or_add(id, &key(), at(310)));
    assert!(places.iter().all(|place| *place < 3));
}

#[test]
fn what_a_flow_got_halves() {
    let mut flows = Flows::default();
    let half_life = Some(Duration::from_secs(60));
    let places = ["early", "late"].map(|id| flows.find_or_add(id, &key(), at(0)));
    flows.served(places[0], (100, 50), half_life, at(0));
    flows.served(places[1], (100, 0), half_life, at(60));
    let service = |flows: &mut Flows| places.map(|place| flows.get_mut(place).unwrap().service);
    let [early, late] = service(&mut flows);
    assert!((early / late - 1.0).abs() < 1e-9, "{early} {late}");
    // Also where the numbers are scaled down in between.
    flows.served(places[1], (0, 0), half_life, at(60 * 100));
    let [early, late] = service(&mut flows);
    assert!((early / late - 1.0).abs() < 1e-9, "{early} {late}");
    assert!(late > 0.0 && late < 1e-20);
    // Years later nothing is left, and nothing is not a number.
    flows.served(
        places[1],
        (u64::MAX, u64::MAX),
        half_life,
        at(60 * 10_000_000),
    );
    let [early, late] = service(&mut flows);
    assert_eq!(early, 0.0);
    assert!(late.is_finite());
}

#[test]
fn without_a_half_life_nothing_is_forgotten() {
    let mut flows = Flows::default();
    let place = flows.find_or_add("a", &key(), at(0));
    flows.served(place, (10, 5), None, at(0));
    flows.served(place, (10, 5), None, at(10_000));
    assert_eq!(flows.get_mut(place).unwrap().service, 40.0);
}
