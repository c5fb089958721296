//! What the reader of bodies tells: vectors kept as files, and random bodies against a plain model.

mod model;
mod random;
mod vectors;
