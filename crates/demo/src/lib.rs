//! What `make run` does and the tests of the documentation do as well.

pub mod flow;
