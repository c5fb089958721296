//! What measures how full a pool is.

use std::fmt::Debug;

use crate::scheduling::{Needs, Pool};

/// The endpoints of a pool that do one kind of work, by their role label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partition {
    /// All of them.
    All,
    /// Those that do prefills.
    Prefill,
    /// Those that decode.
    Decode,
}

/// Measures how full a pool is. Implementations are plugins.
pub trait SaturationDetector: Debug + Send + Sync {
    /// Returns the saturation of the endpoints of a partition: 0 where they are idle, 1 where they are full; it may
    /// exceed 1. It is 1 where there are none.
    fn saturation(&self, pool: &Pool, partition: Partition) -> f64;

    /// Returns what it reads.
    fn needs(&self) -> Needs;
}
