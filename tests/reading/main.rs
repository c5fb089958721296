//! What the reader of bodies tells: vectors kept as files, and random bodies against a plain model.

#[cfg(test)]
mod differing;
#[cfg(test)]
mod known;
#[cfg(test)]
mod meaning;
mod model;
#[cfg(test)]
mod pieces;
#[cfg(test)]
mod random;
#[cfg(test)]
mod vectors;
