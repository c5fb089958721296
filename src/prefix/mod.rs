//! interim
pub mod digest;
pub mod index;
pub mod walk;
