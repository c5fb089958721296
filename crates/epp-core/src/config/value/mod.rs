//! Configuration text as a tree whose every place has a path, and the typed reading of it that
//! reports every problem instead of the first.

pub mod duration;
pub mod fields;
pub mod moved;
pub mod nearest;
pub mod node;
pub mod problem;
pub mod question;

pub use duration::parse_duration;
pub use fields::Fields;
pub use node::Node;
pub use problem::{Path, Problem, Problems};
pub use question::{Kind, Question};
