//! What keys digests and tables, so that a client cannot compute which of its texts collide.
//!
//! Unkeyed, a client finds at home texts whose blocks all fall into one bucket, or into the same
//! digest as another text's. The secret is random; the VMs of one Envoy that share an index share it.

use std::fmt;
use std::rc::Rc;

use xxhash_rust::xxh3::{xxh3_64_with_secret, Xxh3};
use xxhash_rust::xxh64::{xxh64, Xxh64};

use super::digest::chain;

/// Bytes of a secret: what XXH3 takes.
pub const SECRET_BYTES: usize = 192;

/// Of so many blocks one is in the table in any case, see [`TableKey::context`].
const MILESTONES: u32 = 16;

/// The most blocks of a context. That a prompt has so many in a row without one that is in the table
/// in any case has a probability of (15/16)^1024, 10^-29: it bounds the work, and cuts nothing.
const MOST_CONTEXT: usize = 1024;

/// A secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Rc<[u8; SECRET_BYTES]>);

impl Secret {
    /// A secret of random bytes.
    pub fn new(bytes: [u8; SECRET_BYTES]) -> Self {
        Self(Rc::new(bytes))
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8; SECRET_BYTES] {
        &self.0
    }

    /// Returns a number for this purpose that tells nothing of the numbers for others.
    pub fn number(&self, purpose: &str) -> u64 {
        xxh3_64_with_secret(purpose.as_bytes(), self.0.as_slice())
    }
}

/// A secret that is made of a number: as good as that is.
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

/// How blocks are digested.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Key {
    /// As the Endpoint Picker does, to the bit: XXH64, for which anyone can compute collisions.
    #[default]
    Plain,
    /// XXH3 with a secret. XXH64 with a secret seed would not do: where the top bits of two lanes are
    /// flipped 32 bytes apart, its digest stays the same for every other seed.
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

    /// Returns the hash that a chain begins with. Keyed, model and salt are told apart; the Endpoint
    /// Picker hashes them as one text, so that `m` with the salt `x` is `mx` without any.
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
                // One step more than a prompt has whose first block is the salt.
                chain(salted, self.digest(b"cache_salt"))
            }
        }
    }
}

/// The digest of a block that comes in pieces.
#[derive(Clone)]
pub enum Part {
    /// With [`Key::Plain`].
    Plain(Xxh64),
    /// With [`Key::Secret`]. Boxed: it holds the secret and 256 bytes of text.
    Keyed(Box<Xxh3>),
}

impl Part {
    /// An empty block.
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

    /// More of the block.
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

impl Default for Part {
    fn default() -> Self {
        Self::new(&Key::Plain)
    }
}

/// The hash of a block, and where a table's key scatters it to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Scattered {
    /// The hash.
    pub hash: u64,
    /// Its [`TableKey::mix`].
    pub mixed: u64,
}

impl Scattered {
    /// [`TableKey::is_milestone`].
    #[inline]
    pub fn is_milestone(self) -> bool {
        self.mixed >> (u64::BITS - MILESTONES.ilog2()) == 0
    }
}

/// What hashes are scattered with over the buckets of a table.
#[derive(Clone, Copy)]
pub struct TableKey {
    add: u64,
    first: u64,
    second: u64,
}

impl TableKey {
    /// The key of a secret.
    pub fn new(secret: &Secret) -> Self {
        Self {
            add: secret.number("table"),
            // Odd: a multiplication that loses nothing.
            first: secret.number("table, first factor") | 1,
            second: secret.number("table, second factor") | 1,
        }
    }

    /// Scatters a hash. Nothing that is known of hashes tells which of them come to lie together: the
    /// factors are secret, and the shifts between them let each bit decide over each.
    #[inline]
    pub fn mix(self, hash: u64) -> u64 {
        let hash = hash ^ self.add;
        let hash = (hash ^ hash >> 32).wrapping_mul(self.first);
        let hash = (hash ^ hash >> 29).wrapping_mul(self.second);
        hash ^ hash >> 32
    }

    /// A hash with its [`Self::mix`], which a new block needs several times.
    #[inline]
    pub fn scatter(self, hash: u64) -> Scattered {
        let mixed = self.mix(hash);
        Scattered { hash, mixed }
    }

    /// Whether a block is in the table in any case. Hash and secret say so, so that all workers have
    /// the same ones there and no client can choose which. The uppermost bits, since the lowest say the
    /// bucket.
    pub fn is_milestone(self, hash: u64) -> bool {
        self.scatter(hash).is_milestone()
    }

    /// Returns the blocks before another one that it takes to find it, of all that stand before it in
    /// its prompt: from the last one on that is always in the table.
    pub fn context(self, before: &[u64]) -> &[u64] {
        let near = before.len().saturating_sub(MOST_CONTEXT);
        let before = before.get(near..).unwrap_or_default();
        let from = before.iter().rposition(|hash| self.is_milestone(*hash));
        before.get(from.unwrap_or(0)..).unwrap_or_default()
    }
}

/// The key of no secret: for what is not in use yet.
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

#[cfg(test)]
/// Tests.
#[path = "key_tests.rs"]
pub mod tests;
