//! Flow control: requests that could be sent wait here while the pool is full.
//!
//! A request waits in the band of its priority, in the flow of its fairness id. [`Queues::dispatch`] says which request
//! goes next at a saturation of the pool. A queued request costs a record; its body stays with the host.
//!
//! The settings ([`FlowControl`]) are a part of the plan, and so is what measures how full a pool is
//! ([`SaturationDetector`]). Nothing here knows a clock, a host, or the endpoints.

mod admission;
mod band;
mod ceilings;
mod detector;
mod dropped;
mod eviction;
#[cfg(test)]
mod fixture;
mod flows;
mod line;
mod meter;
mod pool_time;
mod queues;
mod saturation;
mod settings;
mod table;

pub use admission::{Admission, AdmissionHeaders, Standing, DEFAULT_FAIRNESS_ID};
pub use detector::{rounded, Part, Partition, SaturationDetector};
pub use dropped::Dropped;
pub use eviction::Evictions;
pub use flows::MAX_FLOWS_OF_BAND;
pub use meter::Meter;
pub use queues::{Arrival, BandStatus, Blocked, Departure, Full, Queues};
pub use saturation::{mean, Saturation};
pub use settings::{BandSpec, Fairness, FlowControl, Ordering, ProgramAware, Strategy, UsageLimit};
