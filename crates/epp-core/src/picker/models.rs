//! The model names that get statistics of their own.
//!
//! A name is the client's, a statistic stays for as long as the proxy runs, and each name costs some 130 of
//! them at each endpoint. So a name is admitted only after an endpoint has served a request for it, and there is
//! room for a bounded number of them. Some model servers serve any name, and a name may be read wrongly from a body
//! that has two: half of the room is for names that are on an endpoint's metrics page, which clients cannot choose.

use crate::scheduling::MAX_MODEL_BYTES;

/// Series of one model at one endpoint: six histograms, with their sums and counts, and three counters.
const SERIES_PER_MODEL: usize = 130;

/// Series for models in one pool, a page of some 40 MB where all are in use.
const MAX_SERIES: usize = 250_000;

/// Names that there is room for, however many endpoints there are.
const MIN_NAMES: usize = 8;

/// Names that there is room for, however few endpoints there are.
pub const MAX_NAMES: usize = 64;

/// The evidence that an endpoint serves a model of this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelEvidence {
    /// Its metrics page lists it.
    Listed,
    /// It has served a request that names this model and no other.
    Read,
    /// It has served a request that names this model, a part of whose body was not read: that may name another, which
    /// is then perhaps the one that was served.
    Likely,
}

/// The names admitted so far.
#[derive(Debug, Default)]
pub struct ModelNames {
    admitted: Vec<String>,
}

impl ModelNames {
    /// Returns among how many names, in a pool with this many endpoints, there is room for one with this evidence.
    fn room(endpoints: usize, evidence: ModelEvidence) -> usize {
        let room = (MAX_SERIES / SERIES_PER_MODEL / endpoints.max(1)).clamp(MIN_NAMES, MAX_NAMES);
        match evidence {
            ModelEvidence::Listed => room,
            ModelEvidence::Read => room / 2,
            ModelEvidence::Likely => room / 4,
        }
    }

    /// Returns how many names are admitted.
    pub fn len(&self) -> usize {
        self.admitted.len()
    }

    /// Returns whether no name is admitted.
    pub fn is_empty(&self) -> bool {
        self.admitted.is_empty()
    }

    /// Returns the admitted names.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.admitted.iter().map(String::as_str)
    }

    /// Returns whether this name is admitted.
    pub fn contains(&self, name: &str) -> bool {
        self.admitted.iter().any(|admitted| admitted == name)
    }

    /// Returns whether there is room for this name in a pool with this many endpoints.
    pub fn has_room(&self, name: &str, evidence: ModelEvidence, endpoints: usize) -> bool {
        name.len() <= MAX_MODEL_BYTES && self.admitted.len() < Self::room(endpoints, evidence)
    }

    /// Admits a name, if there is room. Returns whether it is admitted now.
    pub fn admit(&mut self, name: &str, evidence: ModelEvidence, endpoints: usize) -> bool {
        if self.contains(name) {
            return true;
        }
        let room = self.has_room(name, evidence, endpoints);
        if room {
            self.admitted.push(name.to_owned());
        }
        room
    }

    /// Adopts a name that another picker has admitted.
    pub fn adopt(&mut self, name: &str, endpoints: usize) {
        // What it was admitted for is not known here, and no other picker has more room.
        self.admit(name, ModelEvidence::Listed, endpoints);
    }
}
