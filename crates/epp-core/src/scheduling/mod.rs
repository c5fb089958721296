//! The scheduling cycle: profiles of filters, scorers and a picker plugin over the pool's endpoints.
//!
//! Plain types and traits; the plugins themselves are in [`crate::plugins`]. Order, survivors-only
//! normalisation, clamping and the weighted sum are the Endpoint Picker's (llm-d-router, and the
//! Gateway API Inference Extension v1.0 before it): what picks differently from it is a defect.

mod candidates;
pub mod cycle;
mod debug;
pub mod decider;
pub mod endpoint;
pub mod error;
pub mod handler;
pub mod headers;
pub mod health;
pub mod hook;
pub mod plugin;
pub mod profile;
pub mod role;
pub mod scheduler;
mod score_cache;
pub mod state;

pub use cycle::{Cost, Cycle, ExpectedHit, PrefixMatch, ProducerId, RequestView, Scored};
pub use decider::{same_decision, Decider, Declined, Gate, Stage, Stages};
pub use endpoint::{
    AttributeId, DecisionMode, Endpoint, Freshness, InFlight, Lora, Metrics, Pool, Slot,
    MAX_ATTRIBUTES, MAX_MODEL_BYTES,
};
pub use error::ScheduleError;
pub use handler::{
    ByRole, Conclusion, Left, ProfileHandler, ProfileId, ProfileSet, Profiles, Results,
};
pub use headers::{HeaderId, HeaderValues};
pub use health::Health;
pub use hook::{Additions, Hook, Record};
pub use plugin::{Basis, Chance, Filter, Needs, PickerPlugin, Scorer, UnreadPrompt};
pub use profile::{NamedFilter, Observer, Profile, Ranking, WeightedScorer};
pub use role::RoleStages;
pub use scheduler::{Decision, Scheduler, Scratch};
pub use state::{Bindings, StateId, StateSpec, States};
