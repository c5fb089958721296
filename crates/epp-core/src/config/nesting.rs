//! An upper bound on the nesting depth of the flow collections (`[…]`, `{…}`) of a YAML text, found in one pass
//! over its characters.
//!
//! The parser judges a document only after it has scanned all of it, and its scanner takes time in
//! proportion to length times depth: half a megabyte of `{"a":` would take minutes. Depth has to be
//! bounded before, and without a scanner of our own: which bracket of block style opens a collection
//! and which is text depends on indentation, quotes, comments and more. So each such bracket is taken
//! for both. Within a flow collection the rules are few, and where one is in doubt both readings are
//! followed, too; of all readings in the same [`State`] only the deepest is kept. The depth found is therefore never below the parser's. It is above it where unbalanced
//! brackets in text count as open ones: the limit leaves room for hundreds of those.

/// Deepest nesting that the parser is given. With it a megabyte takes the parser about a second at
/// the worst, where a plain document of that size takes a tenth of one.
pub const MAX_OPEN_BRACKETS: u32 = 256;

/// The position of a reading in a flow collection. Block style is not among the states: that reading is
/// always followed, and has no depth.
#[derive(Clone, Copy)]
enum State {
    /// At the possible beginning of a value.
    Start,
    /// In a scalar without quotes.
    Plain,
    /// In an anchor or an alias.
    Anchor,
    /// In a tag, which may hold brackets.
    Tag,
    /// In a comment.
    Comment,
    /// Between single quotes.
    Single,
    /// Between double quotes.
    Double,
    /// There, behind a backslash.
    Escaped,
}

use State::{Anchor, Comment, Double, Escaped, Plain, Single, Start, Tag};

const STATES: [State; 8] = [Start, Plain, Anchor, Tag, Comment, Single, Double, Escaped];

/// The deepest reading in each state, if there is one.
#[derive(Clone, Copy, Default)]
struct Readings([Option<u32>; STATES.len()]);

impl Readings {
    /// Adds a reading. One that has left the outermost collection is in block style again.
    fn add(&mut self, state: State, depth: u32) {
        if let (true, Some(known)) = (depth > 0, self.0.get_mut(state as usize)) {
            *known = (*known).max(Some(depth));
        }
    }

    fn iter(&self) -> impl Iterator<Item = (State, u32)> + '_ {
        let states = STATES.iter().zip(&self.0);
        states.filter_map(|(state, depth)| Some((*state, (*depth)?)))
    }

    fn deepest(&self) -> u32 {
        self.0.iter().flatten().copied().max().unwrap_or(0)
    }

    /// Adds what becomes of a reading with one more character. `before` is the one before it.
    fn follow(&mut self, state: State, depth: u32, before: char, letter: char) {
        let next = match (state, letter) {
            (Single, '\'') | (Double, '"') => Start,
            (Double, '\\') => Escaped,
            (Escaped, _) => Double,
            (Comment, letter) if is_break(letter) => Start,
            (Single | Double | Comment, _) => state,
            // Between angle brackets a tag may hold these; elsewhere it ends with the comma.
            (Tag, '[' | ']' | '{' | '}') => Tag,
            (Tag, ',') => {
                self.add(Start, depth);
                Tag
            }
            (_, '[' | '{') => return self.add(Start, depth.saturating_add(1)),
            (_, ']' | '}') => return self.add(Start, depth.saturating_sub(1)),
            (_, ',') | (Start | Anchor, ':' | '?') => Start,
            (Start, '\'') => Single,
            (Start, '"') => Double,
            (Start, '#') => Comment,
            (Start, '&' | '*') => Anchor,
            (Start, '!') => Tag,
            // An entry of a list in block style, or the first letter of a scalar.
            (Start, '-') => {
                self.add(Start, depth);
                Plain
            }
            (Start | Anchor | Tag, letter) if is_space(letter) => Start,
            (Start, _) => Plain,
            (Plain, letter) if before == ':' && is_space(letter) => Start,
            (Plain, '#') if is_space(before) => Comment,
            (Plain | Anchor | Tag, _) => state,
        };
        self.add(next, depth);
    }
}

/// The byte at which some reading of the text is deeper than [`MAX_OPEN_BRACKETS`].
pub fn too_deep(text: &str) -> Option<usize> {
    let brackets = text.bytes().filter(|byte| matches!(byte, b'[' | b'{'));
    if brackets.count() <= MAX_OPEN_BRACKETS as usize {
        return None;
    }
    depth(text, MAX_OPEN_BRACKETS).err()
}

/// The depth of the deepest reading, or the byte at which it is deeper than `most`.
fn depth(text: &str, most: u32) -> Result<u32, usize> {
    let mut readings = Readings::default();
    let mut before = '\n';
    let mut deepest = 0;
    for (place, letter) in text.char_indices() {
        let mut next = Readings::default();
        for (state, depth) in readings.iter() {
            next.follow(state, depth, before, letter);
        }
        if matches!(letter, '[' | '{') {
            next.add(Start, 1);
            deepest = deepest.max(next.deepest());
        }
        if deepest > most {
            return Err(place);
        }
        before = letter;
        readings = next;
    }
    Ok(deepest)
}

/// Line breaks of YAML 1.1.
fn is_break(letter: char) -> bool {
    matches!(letter, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// Returns whether a character separates tokens.
fn is_space(letter: char) -> bool {
    matches!(letter, ' ' | '\t') || is_break(letter)
}

#[cfg(test)]
#[path = "nesting_tests.rs"]
mod tests;
