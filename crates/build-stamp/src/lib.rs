//! Which version and commit a module or program was built from, and a digest of its bytes.
//!
//! A static holds them. The linker's output names the version only; the tool of this crate fills in the rest. So a
//! new commit compiles nothing, and two commits with the same code differ in the stamp's bytes alone.
//!
//! The digest is the beginning of the SHA-256 of the whole file with commit and digest cleared. It identifies the
//! code: it cannot be the file's own SHA-256, which it is part of.

#[cfg(feature = "files")]
mod files;
#[cfg(feature = "files")]
pub use files::{Error, Verified};

/// What a stamp begins with. In a file it must be unique: nothing but a placeholder may contain it, which is why
/// tools search for the marker of their own placeholder.
const MARKER: [u8; 16] = *b"\0epp-wasm-stamp\x01";
/// Bytes of a version, padded with zeros: enough for `10.20.30-beta.40`.
const VERSION: usize = 24;
/// Bytes of a commit, padded with zeros: 12 hexadecimal digits, which are unique in far larger histories, and `+`
/// for changes that were not committed.
const COMMIT: usize = 13;
/// Hexadecimal digits of the digest: 64 bits tell builds apart. Whether a file is a published one says its SHA-256.
const DIGEST: usize = 16;
/// Bytes of a stamp.
const LENGTH: usize = MARKER.len() + VERSION + COMMIT + DIGEST;

/// The commit of a build that was not stamped, or not made from a git repository.
pub const UNKNOWN: &str = "unknown";

/// The static that a stamp is written to.
#[derive(Debug)]
#[repr(transparent)]
pub struct Placeholder([u8; LENGTH]);

impl Placeholder {
    /// Returns a placeholder for a version.
    ///
    /// # Panics
    ///
    /// At compile time, if the version is too long.
    #[must_use]
    pub const fn new(version: &str) -> Self {
        let mut bytes = [0; LENGTH];
        bytes = copied(bytes, 0, &MARKER);
        assert!(version.len() <= VERSION, "the version is too long");
        Self(copied(bytes, MARKER.len(), version.as_bytes()))
    }

    /// Returns what was written to the placeholder.
    #[must_use]
    pub fn read(&'static self) -> Stamp {
        // The compiler must not replace the static by what it contains now.
        Stamp::of(std::hint::black_box(&self.0))
    }
}

/// Returns `into` with `from` at an offset.
const fn copied(mut into: [u8; LENGTH], offset: usize, from: &[u8]) -> [u8; LENGTH] {
    let (_, mut rest) = into.split_at_mut(offset);
    let mut from = from;
    while let (Some((to, others)), Some((byte, bytes))) =
        (rest.split_first_mut(), from.split_first())
    {
        *to = *byte;
        (rest, from) = (others, bytes);
    }
    into
}

/// What a file says of its build.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    version: [u8; VERSION],
    commit: [u8; COMMIT],
    digest: [u8; DIGEST],
}

impl Stamp {
    fn of(bytes: &[u8; LENGTH]) -> Self {
        let mut stamp = Self {
            version: [0; VERSION],
            commit: [0; COMMIT],
            digest: [0; DIGEST],
        };
        let mut rest = bytes.iter().skip(MARKER.len());
        let fields = [&mut stamp.version[..], &mut stamp.commit, &mut stamp.digest];
        for (to, from) in fields.into_iter().flatten().zip(&mut rest) {
            *to = *from;
        }
        stamp
    }

    /// Returns the version.
    #[must_use]
    pub fn version(&self) -> &str {
        text(&self.version)
    }

    /// Returns the commit, with `+` if changes were not committed; [`UNKNOWN`] if there was none.
    #[must_use]
    pub fn commit(&self) -> &str {
        text(&self.commit)
    }

    /// Returns the digest; [`UNKNOWN`] if the file was not stamped.
    #[must_use]
    pub fn digest(&self) -> &str {
        text(&self.digest)
    }
}

/// Returns a field up to its padding. Files are not trusted: a stamp has no other characters than these.
fn text(field: &[u8]) -> &str {
    let text = field.split(|byte| *byte == 0).next().unwrap_or_default();
    let valid = text
        .iter()
        .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte));
    let text = std::str::from_utf8(text).unwrap_or_default();
    match valid && !text.is_empty() {
        true => text,
        false => UNKNOWN,
    }
}
