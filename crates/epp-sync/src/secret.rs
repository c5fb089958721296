//! The secret that the VMs of one Envoy share: what keys their digests and the tables of their indexes
//! must be the same in all of them, since hashes are what they tell each other.
//!
//! It stands in shared data, which no request can reach. The first VM puts its own there. Two that find
//! none at the same time both do, since Envoy compares no version where a key is missing: what stands
//! there afterwards counts, and each looks again and again. Until then each takes the other for a
//! stranger, because what tells VMs of equal cut covers the secret.

use super::pack::{Reader, Writer};
use super::Store;
use epp_core::prefix::key::{Secret, SECRET_BYTES};

/// Returns the secret that counts under these keys; this VM's own where there was none, or one that is
/// foreign or torn, which is counted.
pub fn agree(base: &str, own: &Secret, host: &mut dyn Store, foreign: &mut u64) -> Secret {
    let key = format!("{base}/secret");
    let found = host.get(&key);
    if let Some(secret) = found.as_ref().and_then(|(value, _)| unpack(value)) {
        return secret;
    }
    *foreign += u64::from(found.is_some());
    let version = found.map(|(_, version)| version);
    host.set(&key, &pack(own), version);
    let now = host.get(&key).and_then(|(value, _)| unpack(&value));
    now.unwrap_or_else(|| own.clone())
}

fn pack(secret: &Secret) -> Vec<u8> {
    let mut writer = Writer::default();
    let words = secret.bytes().chunks_exact(size_of::<u64>());
    for word in words.filter_map(|word| word.try_into().ok()) {
        writer.u64(u64::from_le_bytes(word));
    }
    writer.seal()
}

fn unpack(value: &[u8]) -> Option<Secret> {
    let mut reader = Reader::open(value)?;
    let mut bytes = [0; SECRET_BYTES];
    for place in bytes.chunks_exact_mut(size_of::<u64>()) {
        place.copy_from_slice(&reader.u64()?.to_le_bytes());
    }
    Some(Secret::new(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::InProcess;

    #[test]
    fn the_first_vms_secret_counts() {
        let (mut host, mut foreign) = (InProcess::default(), 0);
        let [one, other] = [1, 2].map(Secret::from);
        assert_eq!(agree("b", &one, &mut host, &mut foreign), one);
        assert_eq!(agree("b", &other, &mut host, &mut foreign), one);
        assert_eq!(agree("c", &other, &mut host, &mut foreign), other);
        assert_eq!(foreign, 0);
    }

    #[test]
    fn a_torn_secret_is_replaced() {
        let (mut host, mut foreign) = (InProcess::default(), 0);
        let [one, other] = [1, 2].map(Secret::from);
        agree("b", &one, &mut host, &mut foreign);
        host.tear("b/secret");
        assert_eq!(agree("b", &other, &mut host, &mut foreign), other);
        assert_eq!(foreign, 1);
        assert_eq!(agree("b", &one, &mut host, &mut foreign), other);
    }

    /// Shared data in which another VM is as quick: it finds no secret either, and puts its own there
    /// after ours.
    struct Raced(InProcess, Option<Secret>);

    impl Store for Raced {
        fn get(&mut self, key: &str) -> Option<(Vec<u8>, u32)> {
            let found = self.0.get(key);
            if let Some(other) = self.1.take_if(|_| found.is_some()) {
                self.0.set(key, &pack(&other), None);
            }
            found
        }

        fn set(&mut self, key: &str, value: &[u8], cas: Option<u32>) -> bool {
            self.0.set(key, value, cas)
        }
    }

    #[test]
    fn of_two_that_begin_at_the_same_time_one_gives_way_when_it_looks_again() {
        let [one, other] = [1, 2].map(Secret::from);
        let mut host = Raced(InProcess::default(), Some(other.clone()));
        assert_eq!(agree("b", &one, &mut host, &mut 0), one);
        assert_eq!(agree("b", &one, &mut host, &mut 0), other);
    }
}
