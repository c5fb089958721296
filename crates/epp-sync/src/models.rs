//! The model names that statistics are kept under, the same ones in all VMs of an Envoy.
//!
//! A name is the client's, a statistic stays for as long as Envoy runs, and each name costs some
//! 140 of them at each endpoint. So a name is taken only after an endpoint has answered it well,
//! and there is room for a bounded number of them, which all VMs share: the list is one value,
//! changed by compare-and-swap.

use super::pack::{Reader, Writer};
use super::Store;
use epp_core::picker::models::{ModelNames, MAX_NAMES};

/// Version of the layout; another one is foreign.
const SCHEMA: u32 = 1;

/// Admits a model, if there is room for it among those of all VMs. Returns whether it is admitted.
pub fn admit(
    key: &str,
    name: &str,
    (models, endpoints): (&mut ModelNames, usize),
    host: &mut dyn Store,
    foreign: &mut u64,
) -> bool {
    // Two VMs may write at once: the second try finds what the other wrote.
    for _ in 0..2 {
        let shared = host.get(key);
        let version = shared.as_ref().map(|(_, version)| *version);
        if let Some((value, _)) = shared {
            match unpack(&value) {
                Some(names) => {
                    for name in names {
                        models.admit(&name, endpoints);
                    }
                }
                None => *foreign += 1,
            }
        }
        if models.contains(name) {
            return true;
        }
        if !models.has_room(name, endpoints) {
            return false;
        }
        let names = models.iter().chain([name]);
        if host.set(key, &pack(names), version) {
            return models.admit(name, endpoints);
        }
    }
    false
}

fn pack<'a>(names: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let names: Vec<&str> = names.collect();
    let mut writer = Writer::default();
    writer.u32(SCHEMA);
    writer.u32(names.len() as u32);
    names.into_iter().for_each(|name| writer.text(name));
    writer.seal()
}

fn unpack(value: &[u8]) -> Option<Vec<String>> {
    let mut reader = Reader::open(value)?;
    if reader.u32()? != SCHEMA {
        return None;
    }
    let count = (reader.u32()? as usize).min(MAX_NAMES);
    let names = (0..count).map(|_| reader.text().map(str::to_owned));
    names.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::InProcess;
    use epp_core::picker::models::MAX_NAME_BYTES;

    fn take(names: &mut ModelNames, name: &str, endpoints: usize, host: &mut InProcess) -> bool {
        admit("names", name, (names, endpoints), host, &mut 0)
    }

    #[test]
    fn all_vms_take_the_same_names_and_no_more_than_there_is_room_for() {
        for (endpoints, room) in [(0, 64), (4, 64), (100, 17), (10_000, 8)] {
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
        assert!(take(&mut names, &"n".repeat(MAX_NAME_BYTES), 1, &mut host));
        assert!(!take(
            &mut names,
            &"n".repeat(MAX_NAME_BYTES + 1),
            1,
            &mut host
        ));
    }

    #[test]
    fn a_torn_list_is_counted_and_replaced() {
        let mut host = InProcess::default();
        let mut names = ModelNames::default();
        assert!(take(&mut names, "a", 1, &mut host));
        host.tear("names");
        let (mut other, mut foreign) = (ModelNames::default(), 0);
        assert!(admit(
            "names",
            "b",
            (&mut other, 1),
            &mut host,
            &mut foreign
        ));
        assert_eq!(foreign, 1);
        assert!(take(&mut names, "c", 1, &mut host) && names.contains("b"));
    }
}
