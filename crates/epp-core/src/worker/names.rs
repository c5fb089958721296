//! The model names that statistics are kept under, the same ones in all VMs of an Envoy.
//!
//! A name is the client's, a statistic stays for as long as Envoy runs, and each name costs some
//! 140 of them at each endpoint. So a name is taken only after an endpoint has answered it well,
//! and there is room for a bounded number of them, which all VMs share: the list is one value,
//! changed by compare-and-swap.

use super::pack::{Reader, Writer};
use super::SharedData;

/// Version of the layout; another one is foreign.
const SCHEMA: u32 = 1;

/// Bytes of a name; a longer one is counted as "other".
const LONGEST: usize = 64;

/// Series of one model at one endpoint: seven histograms, with their sums and counts, and two
/// counters.
const SERIES: usize = 140;

/// Series for models in one pool, a page of some 40 MB where all are in use.
const MOST_SERIES: usize = 250_000;

/// Names that there is room for, however many endpoints there are.
const FEWEST: usize = 8;

/// Names that there is room for, however few endpoints there are.
const MOST: usize = 64;

/// The names, to one VM.
#[derive(Debug)]
pub struct Names {
    key: String,
    known: Vec<String>,
}

impl Names {
    /// Shares under this key.
    pub fn new(key: String) -> Self {
        let known = Vec::new();
        Self { key, known }
    }

    /// How many there is room for in a pool of so many endpoints.
    fn room(endpoints: usize) -> usize {
        (MOST_SERIES / SERIES / endpoints.max(1)).clamp(FEWEST, MOST)
    }

    /// Whether this name is taken, as far as this VM knows.
    pub fn knows(&self, name: &str) -> bool {
        self.known.iter().any(|known| known == name)
    }

    /// Whether this name may be taken once an endpoint answers it well.
    pub fn may_take(&self, name: &str, endpoints: usize) -> bool {
        name.len() <= LONGEST && self.known.len() < Self::room(endpoints)
    }

    /// An endpoint has answered this name well. Returns whether it is taken now.
    pub fn take(
        &mut self,
        name: &str,
        endpoints: usize,
        host: &mut dyn SharedData,
        foreign: &mut u64,
    ) -> bool {
        // Two VMs may write at once: the second try finds what the other wrote.
        for _ in 0..2 {
            let shared = host.get(&self.key);
            let version = shared.as_ref().map(|(_, version)| *version);
            if let Some((value, _)) = shared {
                match unpack(&value) {
                    Some(names) => self.learn(names, endpoints),
                    None => *foreign += 1,
                }
            }
            if self.knows(name) {
                return true;
            }
            if !self.may_take(name, endpoints) {
                return false;
            }
            let names = self.known.iter().map(String::as_str).chain([name]);
            if host.set(&self.key, &pack(names), version) {
                self.known.push(name.to_owned());
                return true;
            }
        }
        false
    }

    fn learn(&mut self, names: Vec<String>, endpoints: usize) {
        for name in names {
            if !self.knows(&name) && self.may_take(&name, endpoints) {
                self.known.push(name);
            }
        }
    }
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
    let count = (reader.u32()? as usize).min(MOST);
    let names = (0..count).map(|_| reader.text().map(str::to_owned));
    names.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::Local;

    fn take(names: &mut Names, name: &str, endpoints: usize, host: &mut Local) -> bool {
        names.take(name, endpoints, host, &mut 0)
    }

    #[test]
    fn all_vms_take_the_same_names_and_no_more_than_there_is_room_for() {
        for (endpoints, room) in [(0, 64), (4, 64), (100, 17), (10_000, 8)] {
            let mut host = Local::default();
            let mut vms: Vec<Names> = (0..4).map(|_| Names::new("names".to_owned())).collect();
            let mut taken = 0;
            for number in 0..1_000 {
                let vm = &mut vms[number % 4];
                taken += usize::from(take(vm, &format!("m{number}"), endpoints, &mut host));
            }
            assert_eq!(taken, room, "{endpoints}");
            // What one took the others know as soon as they ask.
            for vm in &mut vms {
                assert!(!take(vm, "another", endpoints, &mut host));
                assert!((0..room).all(|number| vm.knows(&format!("m{number}"))));
                assert_eq!(vm.known.len(), room);
            }
        }
    }

    #[test]
    fn a_name_that_is_too_long_is_not_taken() {
        let mut host = Local::default();
        let mut names = Names::new("names".to_owned());
        assert!(take(&mut names, &"n".repeat(LONGEST), 1, &mut host));
        assert!(!take(&mut names, &"n".repeat(LONGEST + 1), 1, &mut host));
    }

    #[test]
    fn a_torn_list_is_counted_and_replaced() {
        let mut host = Local::default();
        let mut names = Names::new("names".to_owned());
        assert!(take(&mut names, "a", 1, &mut host));
        host.tear("names");
        let (mut other, mut foreign) = (Names::new("names".to_owned()), 0);
        assert!(other.take("b", 1, &mut host, &mut foreign));
        assert_eq!(foreign, 1);
        assert!(take(&mut names, "c", 1, &mut host) && names.knows("b"));
    }
}
