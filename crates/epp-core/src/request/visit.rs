//! How the scanner reports the values in a body.

/// The kind of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `{…}`.
    Object,
    /// `[…]`.
    Array,
    /// `"…"`.
    String,
    /// A number.
    Number,
    /// `true`, `false`, or a number that Python reads and JSON does not have: `NaN`, `Infinity`.
    Word,
    /// `null`.
    Null,
}

/// What is wanted of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want<P> {
    /// Nothing.
    Nothing,
    /// A container's members; a string's text; a number or word as it stands. `P` names the place.
    Inside(P),
    /// Its bytes as they stand.
    Raw(P),
}

/// Receives the values.
pub trait Visit {
    /// Names a place in a body.
    type Node: Copy;

    /// A value begins in the container at `parent`, under `key` if that is an object, at the
    /// body's byte `at`.
    fn begin(&mut self, parent: Self::Node, key: &[u8], kind: Kind, at: usize) -> Want<Self::Node>;

    /// More of the value at `place`. False: the rest of it is not wanted.
    fn bytes(&mut self, place: Self::Node, bytes: &[u8]) -> bool;

    /// The wanted value at `place` has ended before the body's byte `at`.
    fn end(&mut self, place: Self::Node, at: usize);

    /// Whether nothing that follows is wanted.
    fn is_done(&self) -> bool;
}
