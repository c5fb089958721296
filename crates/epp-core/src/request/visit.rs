//! The interface by which the scanner reports the values in a body.

/// The kind of a JSON value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
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

/// The part of a value that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want<P> {
    /// The value is skipped.
    Nothing,
    /// A container's members, a string's decoded text, or a number or word as it stands. `P` identifies the value.
    Inside(P),
    /// All bytes of the value as they stand.
    Raw(P),
}

/// Receives the values of a body.
pub trait Visit {
    /// Identifies a wanted value.
    type Node: Copy;

    /// Begins a value at the body's byte `at`, in the container `parent`, under `key` if that is an object. Returns which
    /// part of it is wanted.
    fn begin(
        &mut self,
        parent: Self::Node,
        key: &[u8],
        kind: ValueKind,
        at: usize,
    ) -> Want<Self::Node>;

    /// Adds bytes of the value `place`. Returns whether the rest of it is wanted.
    fn bytes(&mut self, place: Self::Node, bytes: &[u8]) -> bool;

    /// Ends the value `place` before the body's byte `at`.
    fn end(&mut self, place: Self::Node, at: usize);

    /// Returns whether nothing that follows in the body is wanted.
    fn is_done(&self) -> bool;
}
