//! What a decision needs of a request's body: bytes in, facts out.
//!
//! The reader takes in the body as it streams and tells the model, the cache salt, and the content
//! digests of the prompt's blocks. It never refuses anything: a body that it cannot read is routed
//! without the prompt, and the model server says what is wrong with it.

mod api;
mod flatten;
mod reader;

pub use api::{readable, Api};
pub use reader::{BodyReader, Fact, Flattening, Pending, ReadPlan};
