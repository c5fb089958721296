//! Stamps of files.

use std::ops::Range;

use sha2::{Digest, Sha256};

use super::{Placeholder, Stamp, COMMIT, DIGEST, LENGTH, MARKER, VERSION};

/// The reason why a file has no valid stamp.
#[derive(Debug, PartialEq, Eq)]
pub enum Error {
    /// The file does not have exactly one placeholder.
    Placeholders(usize),
    /// The text is not a commit.
    Commit(String),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Placeholders(0) => f.write_str("has no build stamp: not a file of epp-wasm?"),
            Self::Placeholders(found) => write!(f, "has {found} build stamps, expected one"),
            Self::Commit(text) => write!(
                f,
                "{text:?} is not a commit: expected 12 to 40 hexadecimal digits, perhaps with +, or unknown"
            ),
        }
    }
}

impl std::error::Error for Error {}

/// A file's stamp, and whether its bytes are those that were stamped.
pub struct Verified {
    /// The stamp.
    pub stamp: Stamp,
    /// Whether the stamp has the digest of these bytes.
    pub intact: bool,
    /// The SHA-256 of the file, which release notes and `SHA256SUMS` name.
    pub sha256: String,
}

impl Placeholder {
    /// Writes a commit and the digest into a file's placeholder.
    ///
    /// # Errors
    ///
    /// If the file does not have exactly one placeholder, or the text is not a commit.
    pub fn stamp(&'static self, file: &mut [u8], commit: &str) -> Result<(), Error> {
        let commit = short(commit).ok_or_else(|| Error::Commit(commit.to_owned()))?;
        let built = self.find(file)?;
        let digest = digest(file, &built);
        let mut fields = [0; COMMIT + DIGEST];
        let places = fields.iter_mut();
        let text = commit.bytes().chain(std::iter::repeat(0)).take(COMMIT);
        for (place, byte) in places.zip(text.chain(digest.bytes())) {
            *place = byte;
        }
        if let Some(place) = file.get_mut(built) {
            place.copy_from_slice(&fields);
        }
        Ok(())
    }

    /// Reads a file's stamp and compares its digest.
    ///
    /// # Errors
    ///
    /// If the file does not have exactly one placeholder.
    pub fn verify(&'static self, file: &[u8]) -> Result<Verified, Error> {
        let built = self.find(file)?;
        let begin = built.start - VERSION - MARKER.len();
        let bytes = file
            .get(begin..begin + LENGTH)
            .and_then(|bytes| bytes.try_into().ok());
        let stamp = Stamp::of(bytes.ok_or(Error::Placeholders(0))?);
        Ok(Verified {
            stamp,
            intact: stamp.digest() == digest(file, &built),
            sha256: hex(&Sha256::digest(file)),
        })
    }

    /// Returns where commit and digest are in a file.
    fn find(&'static self, file: &[u8]) -> Result<Range<usize>, Error> {
        let own = std::hint::black_box(&self.0);
        let marker = own.get(..MARKER.len()).unwrap_or_default();
        let whole = file.get(..(file.len() + 1).saturating_sub(LENGTH - MARKER.len()));
        let found = whole.unwrap_or_default().windows(MARKER.len()).enumerate();
        let mut found = found.filter(|(_, bytes)| *bytes == marker);
        let first = found.next().ok_or(Error::Placeholders(0))?.0;
        match found.count() {
            0 => {
                let begin = first + MARKER.len() + VERSION;
                Ok(begin..begin + COMMIT + DIGEST)
            }
            more => Err(Error::Placeholders(1 + more)),
        }
    }
}

/// Returns a commit with as many digits as a stamp has.
fn short(commit: &str) -> Option<String> {
    if commit == super::UNKNOWN {
        return Some(commit.to_owned());
    }
    let digits = commit.strip_suffix('+').unwrap_or(commit);
    let valid = (12..=40).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
    valid.then_some(())?;
    let changes = commit.strip_prefix(digits)?;
    Some(format!("{}{changes}", digits.get(..12)?))
}

/// Returns the digest of a file, without its commit and digest.
fn digest(file: &[u8], built: &Range<usize>) -> String {
    let mut hash = Sha256::new();
    hash.update(file.get(..built.start).unwrap_or_default());
    hash.update([0; COMMIT + DIGEST]);
    hash.update(file.get(built.end..).unwrap_or_default());
    hex(&hash.finalize()).chars().take(DIGEST).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    static PLACEHOLDER: Placeholder = Placeholder::new("1.2.3-rc.4");

    fn file(placeholders: usize) -> Vec<u8> {
        let mut file = b"before".to_vec();
        for _ in 0..placeholders {
            file.extend(PLACEHOLDER.0);
        }
        file.extend(b"after");
        file
    }

    #[test]
    fn a_stamp_is_read_back() {
        let mut file = file(1);
        let unstamped = PLACEHOLDER.verify(&file).unwrap();
        assert!(!unstamped.intact);
        assert_eq!(unstamped.stamp.commit(), "unknown");
        assert_eq!(unstamped.stamp.digest(), "unknown");
        let cleared = hex(&Sha256::digest(&file));
        PLACEHOLDER.stamp(&mut file, "0123456789abcdef+").unwrap();
        let found = PLACEHOLDER.verify(&file).unwrap();
        assert!(found.intact);
        assert_eq!(found.stamp.version(), "1.2.3-rc.4");
        assert_eq!(found.stamp.commit(), "0123456789ab+");
        assert_eq!(found.stamp.digest(), &cleared[..DIGEST]);
        assert_eq!(found.sha256, hex(&Sha256::digest(&file)));
    }

    #[test]
    fn the_digest_depends_on_all_bytes_but_the_commit() {
        let (mut first, mut second, mut other) = (file(1), file(1), file(1));
        *other.last_mut().unwrap() = b'!';
        PLACEHOLDER.stamp(&mut first, "0123456789ab").unwrap();
        PLACEHOLDER.stamp(&mut second, "ba9876543210").unwrap();
        PLACEHOLDER.stamp(&mut second, "unknown").unwrap();
        PLACEHOLDER.stamp(&mut other, "0123456789ab").unwrap();
        let digest = |file: &[u8]| PLACEHOLDER.verify(file).unwrap().stamp.digest().to_owned();
        assert_eq!(digest(&first), digest(&second));
        assert_ne!(digest(&first), digest(&other));
        for place in 0..first.len() {
            let mut changed = first.clone();
            changed[place] ^= 1;
            let found = PLACEHOLDER.verify(&changed);
            let commit = 6 + MARKER.len() + VERSION;
            let harmless = (commit..commit + COMMIT).contains(&place);
            assert!(
                found.map_or(true, |found| found.intact == harmless),
                "byte {place}"
            );
        }
    }

    #[test]
    fn files_without_exactly_one_placeholder_are_refused() {
        for (placeholders, expected) in [(0, 0), (2, 2)] {
            let found = PLACEHOLDER.stamp(&mut file(placeholders), "unknown");
            assert_eq!(found, Err(Error::Placeholders(expected)));
        }
        // A marker at the end, without room for a stamp.
        let mut cut = file(1);
        cut.truncate(6 + LENGTH - 1);
        assert_eq!(PLACEHOLDER.verify(&cut).err(), Some(Error::Placeholders(0)));
        assert_eq!(PLACEHOLDER.verify(b"").err(), Some(Error::Placeholders(0)));
    }

    #[test]
    fn commits_have_one_form() {
        for wrong in [
            "",
            "main",
            "0123456789abg",
            "0123456789a",
            "0123456789ab++",
            "0123456789aé",
        ] {
            let found = PLACEHOLDER.stamp(&mut file(1), wrong);
            assert_eq!(found, Err(Error::Commit(wrong.to_owned())));
        }
    }

    #[test]
    fn a_foreign_stamp_prints_no_control_characters() {
        let mut file = file(1);
        PLACEHOLDER.stamp(&mut file, "0123456789ab").unwrap();
        let commit = 6 + MARKER.len() + VERSION;
        file[commit + 3] = 0x1b;
        let found = PLACEHOLDER.verify(&file).unwrap();
        assert_eq!(found.stamp.commit(), "unknown");
    }
}
