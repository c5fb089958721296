//! The list of models that have statistics of their own, the same one in all VMs of an Envoy, changed by
//! compare-and-swap. The picker bounds it ([`ModelNames`]).

use epp_core::picker::peers::{ModelEvidence, ModelNames, MAX_NAMES};

use crate::shared::Shared;

/// Admits a model, if there is room for it among those of all VMs. Returns whether it is admitted.
pub fn admit(
    key: &str,
    (name, evidence): (&str, ModelEvidence),
    (models, endpoints): (&mut ModelNames, usize),
    shared: &mut Shared<'_>,
) -> bool {
    // Two VMs may write at once: the second try finds what the other wrote.
    for _ in 0..2 {
        let is_sound = |names: &Vec<String>| names.len() <= MAX_NAMES;
        let (found, version) = shared.get(key, is_sound);
        for name in found.value().into_iter().flatten() {
            models.adopt(&name, endpoints);
        }
        if models.contains(name) {
            return true;
        }
        if !models.has_room(name, evidence, endpoints) {
            return false;
        }
        let names: Vec<&str> = models.iter().chain([name]).collect();
        if shared.put(key, &names, version) {
            return models.admit(name, evidence, endpoints);
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::Traffic;
    use crate::InProcess;
    use epp_core::scheduling::MAX_MODEL_BYTES;

    fn take(names: &mut ModelNames, name: &str, endpoints: usize, host: &mut InProcess) -> bool {
        let mut traffic = Traffic::default();
        admit(
            "names",
            (name, ModelEvidence::Listed),
            (names, endpoints),
            &mut Shared::new(host, &mut traffic),
        )
    }

    #[test]
    fn all_vms_take_the_same_names_and_no_more_than_there_is_room_for() {
        for (endpoints, room) in [(0, 64), (4, 64), (100, 19), (10_000, 8)] {
            let mut host = InProcess::default();
            let mut vms: Vec<ModelNames> = (0..4).map(|_| ModelNames::default()).collect();
            let mut taken = 0;
            for number in 0..1_000 {
                let vm = &mut vms[number % 4];
                taken += usize::from(take(vm, &format!("m{number}"), endpoints, &mut host));
            }
            assert_eq!(taken, room, "{endpoints}");
            // What one took the others know as soon as they ask.
            for vm in &mut vms {
                assert!(!take(vm, "another", endpoints, &mut host));
                assert!((0..room).all(|number| vm.contains(&format!("m{number}"))));
                assert_eq!(vm.len(), room);
            }
        }
    }

    #[test]
    fn a_name_that_is_too_long_is_not_taken() {
        let mut host = InProcess::default();
        let mut names = ModelNames::default();
        assert!(take(&mut names, &"n".repeat(MAX_MODEL_BYTES), 1, &mut host));
        assert!(!take(
            &mut names,
            &"n".repeat(MAX_MODEL_BYTES + 1),
            1,
            &mut host
        ));
    }

    #[test]
    fn a_corrupt_list_is_counted_and_replaced() {
        let mut host = InProcess::default();
        let mut names = ModelNames::default();
        assert!(take(&mut names, "a", 1, &mut host));
        host.corrupt("names");
        let (mut other, mut traffic) = (ModelNames::default(), Traffic::default());
        let shared = &mut Shared::new(&mut host, &mut traffic);
        let b = ("b", ModelEvidence::Listed);
        assert!(admit("names", b, (&mut other, 1), shared));
        assert_eq!(traffic.unrecognised, 1);
        assert!(take(&mut names, "c", 1, &mut host) && names.contains("b"));
    }
}
