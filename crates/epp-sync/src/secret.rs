//! The secret that the VMs of one Envoy share: it keys their digests and the tables of their indexes, which
//! must be the same in all of them, since they exchange hashes.
//!
//! It is in the store, which no request can reach. The first VM stores its own. Two that find none at
//! the same time both do, since Envoy compares no version where a key is missing: the value that is there
//! afterwards counts, and each checks repeatedly. Until then neither accepts the other's values, because the
//! fingerprint of how prompts are cut covers the secret.

use epp_core::prefix::key::{Secret, SECRET_BYTES};

use crate::shared::Shared;

/// Returns the secret that counts under these keys: this VM's own where there was none, or one that is not
/// recognised.
pub fn agree(base: &str, own: &Secret, shared: &mut Shared<'_>) -> Secret {
    let key = format!("{base}/secret");
    let (found, version) = read(&key, shared);
    if let Some(secret) = found {
        return secret;
    }
    shared.put(&key, own.bytes().as_slice(), version);
    read(&key, shared).0.unwrap_or_else(|| own.clone())
}

fn read(key: &str, shared: &mut Shared<'_>) -> (Option<Secret>, Option<u32>) {
    let is_sound = |bytes: &Vec<u8>| bytes.len() == SECRET_BYTES;
    let (found, version) = shared.get(key, is_sound);
    let bytes = found.value().and_then(|bytes| bytes.try_into().ok());
    (bytes.map(Secret::new), version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::encode;
    use crate::shared::Traffic;
    use crate::{InProcess, Store};

    /// Agrees on the secret, and counts unrecognised values.
    fn agree(base: &str, own: &Secret, store: &mut dyn Store, unrecognised: &mut u64) -> Secret {
        let mut traffic = Traffic::default();
        let secret = super::agree(base, own, &mut Shared::new(store, &mut traffic));
        *unrecognised += traffic.unrecognised;
        secret
    }

    #[test]
    fn the_first_vms_secret_counts() {
        let (mut host, mut unrecognised) = (InProcess::default(), 0);
        let [one, other] = [1, 2].map(Secret::from);
        assert_eq!(agree("b", &one, &mut host, &mut unrecognised), one);
        assert_eq!(agree("b", &other, &mut host, &mut unrecognised), one);
        assert_eq!(agree("c", &other, &mut host, &mut unrecognised), other);
        assert_eq!(unrecognised, 0);
    }

    #[test]
    fn a_corrupt_secret_is_replaced() {
        let (mut host, mut unrecognised) = (InProcess::default(), 0);
        let [one, other] = [1, 2].map(Secret::from);
        agree("b", &one, &mut host, &mut unrecognised);
        host.corrupt("b/secret");
        assert_eq!(agree("b", &other, &mut host, &mut unrecognised), other);
        assert_eq!(unrecognised, 1);
        assert_eq!(agree("b", &one, &mut host, &mut unrecognised), other);
    }

    /// Shared data in which another VM is as quick: it finds no secret either, and puts its own there
    /// after ours.
    struct Raced(InProcess, Option<Secret>);

    impl Store for Raced {
        fn get(&mut self, key: &str) -> Option<(Vec<u8>, u32)> {
            let found = self.0.get(key);
            if let Some(other) = self.1.take_if(|_| found.is_some()) {
                self.0.set(key, &encode(other.bytes().as_slice()), None);
            }
            found
        }

        fn set(&mut self, key: &str, value: &[u8], cas: Option<u32>) -> bool {
            self.0.set(key, value, cas)
        }
    }

    #[test]
    fn of_two_secrets_that_are_stored_at_the_same_time_one_prevails() {
        let [one, other] = [1, 2].map(Secret::from);
        let mut host = Raced(InProcess::default(), Some(other.clone()));
        assert_eq!(agree("b", &one, &mut host, &mut 0), one);
        assert_eq!(agree("b", &one, &mut host, &mut 0), other);
    }
}
