//! The reader of bodies: vectors in files, and random bodies compared with a simple model.

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
