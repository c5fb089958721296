//! Keys for digests and tables, so that a client cannot compute which of its texts collide.
//!
//! Without a key a client can find texts offline whose blocks all fall into one bucket, or have the same digest as
//! another text's. The secret is random; the VMs of one Envoy that share an index share it.

use std::fmt;
use std::sync::Arc;

use xxhash_rust::xxh3::{xxh3_64_with_secret, Xxh3};
use xxhash_rust::xxh64::{xxh64, Xxh64};

use super::digest::chain;

/// Bytes of a secret, as XXH3 requires.
pub const SECRET_BYTES: usize = 192;

/// One of this many blocks is always in the table, see [`TableKey::context`].
const BLOCKS_PER_MILESTONE: u32 = 16;

/// Maximum blocks of a context. A prompt has this many blocks in a row without a milestone with a probability of
/// (15/16)^1024, 10^-29: the bound limits the work and cuts nothing.
const MAX_CONTEXT: usize = 1024;

/// Random bytes from which keys are derived.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<[u8; SECRET_BYTES]>);

impl Secret {
    /// Creates a secret from random bytes.
    pub fn new(bytes: [u8; SECRET_BYTES]) -> Self {
        Self(Arc::new(bytes))
    }

    /// Returns the bytes.
    pub fn bytes(&self) -> &[u8; SECRET_BYTES] {
        &self.0
    }

    /// Returns a number for a purpose. It reveals nothing about the numbers for other purposes.
    pub fn number(&self, purpose: &str) -> u64 {
        xxh3_64_with_secret(purpose.as_bytes(), self.0.as_slice())
    }
}

/// Derives a secret from a number. It is only as random as that number.
impl From<u64> for Secret {
    fn from(number: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(number);
        let mut bytes = [0; SECRET_BYTES];
        rng.fill(&mut bytes);
        Self::new(bytes)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(..)")
    }
}

/// The key of the hashes that digest blocks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Key {
    /// XXH64, which equals the Endpoint Picker to the bit. Collisions are easy to compute.
    #[default]
    Plain,
    /// XXH3 with a secret. XXH64 with a secret seed would not suffice: if the top bits of two lanes 32 bytes apart are
    /// flipped, its digest stays the same for every other seed.
    Secret(Secret),
}

impl Key {
    /// Returns the digest of a block.
    // XXH3 is 5 KB, and blocks are digested in two places.
    #[inline(never)]
    pub fn digest(&self, block: &[u8]) -> u64 {
        match self {
            Self::Plain => xxh64(block, 0),
            Self::Secret(secret) => xxh3_64_with_secret(block, secret.0.as_slice()),
        }
    }

    /// Returns the hash with which a chain begins. With a secret, model and salt are separate; the Endpoint Picker hashes
    /// them as one text, so that model `m` with salt `x` equals model `mx` without salt.
    pub fn seed(&self, model: &str, salt: &str) -> u64 {
        match self {
            Self::Plain => {
                let mut hasher = Xxh64::new(0);
                hasher.update(model.as_bytes());
                hasher.update(salt.as_bytes());
                hasher.digest()
            }
            Self::Secret(_) if salt.is_empty() => self.digest(model.as_bytes()),
            Self::Secret(_) => {
                let salted = chain(self.digest(model.as_bytes()), self.digest(salt.as_bytes()));
                // One more step than for a prompt whose first block is the salt.
                chain(salted, self.digest(b"cache_salt"))
            }
        }
    }
}

/// Digests a block that arrives in pieces.
#[derive(Clone)]
pub enum BlockDigest {
    /// The digest for [`Key::Plain`].
    Plain(Xxh64),
    /// The digest for [`Key::Secret`]. It is boxed because it holds the secret and 256 bytes of text.
    Keyed(Box<Xxh3>),
}

impl BlockDigest {
    /// Begins a block.
    pub fn new(key: &Key) -> Self {
        match key {
            Key::Plain => Self::Plain(Xxh64::new(0)),
            Key::Secret(secret) => Self::Keyed(Box::new(Xxh3::with_secret(*secret.0))),
        }
    }

    /// Begins another block.
    pub fn reset(&mut self) {
        match self {
            Self::Plain(hasher) => hasher.reset(0),
            Self::Keyed(hasher) => hasher.reset(),
        }
    }

    /// Adds bytes of the block.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Plain(hasher) => hasher.update(bytes),
            Self::Keyed(hasher) => hasher.update(bytes),
        }
    }

    /// Returns the digest of the block so far.
    pub fn digest(&self) -> u64 {
        match self {
            Self::Plain(hasher) => hasher.digest(),
            Self::Keyed(hasher) => hasher.digest(),
        }
    }
}

impl Default for BlockDigest {
    fn default() -> Self {
        Self::new(&Key::Plain)
    }
}

/// The hash of a block, and the same hash scattered by a table's key.
#[derive(Debug, Clone, Copy, Default)]
pub struct ScatteredHash {
    /// The block's hash.
    pub hash: u64,
    /// The result of [`TableKey::mix`].
    pub mixed: u64,
}

impl ScatteredHash {
    /// Returns [`TableKey::is_milestone`].
    #[inline]
    pub fn is_milestone(self) -> bool {
        self.mixed >> (u64::BITS - BLOCKS_PER_MILESTONE.ilog2()) == 0
    }
}

/// Scatters hashes over the buckets of a table.
#[derive(Clone, Copy)]
pub struct TableKey {
    add: u64,
    first: u64,
    second: u64,
}

impl TableKey {
    /// Derives a table key from a secret.
    pub fn new(secret: &Secret) -> Self {
        Self {
            add: secret.number("table"),
            // Multiplication by an odd number is a bijection.
            first: secret.number("table, first factor") | 1,
            second: secret.number("table, second factor") | 1,
        }
    }

    /// Scatters a hash. Hashes alone do not reveal which of them fall into the same bucket: the factors are secret, and
    /// the shifts between them make every bit depend on every other.
    #[inline]
    pub fn mix(self, hash: u64) -> u64 {
        let hash = hash ^ self.add;
        let hash = (hash ^ hash >> 32).wrapping_mul(self.first);
        let hash = (hash ^ hash >> 29).wrapping_mul(self.second);
        hash ^ hash >> 32
    }

    /// Returns a hash with its [`Self::mix`], which a new block needs several times.
    #[inline]
    pub fn scatter(self, hash: u64) -> ScatteredHash {
        let mixed = self.mix(hash);
        ScatteredHash { hash, mixed }
    }

    /// Returns whether a block is a milestone, which is always in the table. This depends on hash and secret, so that all
    /// workers have the same milestones and no client can choose them. The highest bits decide, since the lowest select
    /// the bucket.
    pub fn is_milestone(self, hash: u64) -> bool {
        self.scatter(hash).is_milestone()
    }

    /// Returns the context of a block: those of the blocks before it in its prompt that a look-up needs to find it. They
    /// begin with the last milestone.
    pub fn context(self, before: &[u64]) -> &[u64] {
        let near = before.len().saturating_sub(MAX_CONTEXT);
        let before = before.get(near..).unwrap_or_default();
        let from = before.iter().rposition(|hash| self.is_milestone(*hash));
        before.get(from.unwrap_or(0)..).unwrap_or_default()
    }
}

/// Returns a fixed key, for a table that is not in use yet.
impl Default for TableKey {
    fn default() -> Self {
        Self::new(&Secret::from(0))
    }
}

impl fmt::Debug for TableKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TableKey(..)")
    }
}

/// Tests, and attacks for the tests of other modules.
#[cfg(test)]
#[path = "key_tests.rs"]
pub mod tests;
