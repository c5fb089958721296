//! Reads a body in pieces, and asserts what must hold after each piece.

use epp_core::request::{BodyReader, Fact, TextBuffer};

/// Reads a text in pieces of these lengths, and asserts what must hold after each.
pub fn read(reader: &mut BodyReader, text: &[u8], mut length: impl FnMut() -> usize) {
    let mut rest = text;
    let mut before: Vec<u64> = Vec::new();
    let mut full = false;
    let (mut model, mut salt, mut restarts) = (None, None, 0);
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(length().min(rest.len()));
        rest = behind;
        let needed = reader.needs_more();
        reader.push(piece, &mut TextBuffer::default());
        let now: Vec<u64> = reader.prompts_from(0, 0).flatten().copied().collect();
        assert_eq!(reader.restarts(), restarts, "only feeding again restarts");
        assert!(now.starts_with(&before), "digests only grow");
        assert!(
            needed || now == before,
            "nothing changes once enough was read"
        );
        assert!(!full || now == before, "nothing is added to a full window");
        for (name, fact, last) in [
            ("model", reader.model(), &mut model),
            ("salt", reader.salt(), &mut salt),
        ] {
            let fact = match fact {
                Fact::Unknown => None,
                known => Some(known.known().map(str::to_owned)),
            };
            assert!(last.is_none() || *last == fact, "{name} changed");
            *last = fact;
        }
        full = reader.window_full();
        before = now;
    }
    reader.finish();
    while let Some(range) = reader.reread() {
        assert!(reader.pending().earlier_parts && reader.needs_more());
        let end = range.end.min(range.start + length());
        reader.feed_again(
            range.start,
            &text[range.start..end],
            &mut TextBuffer::default(),
        );
        restarts = 1;
    }
    assert_eq!(reader.restarts(), restarts, "one restart is enough");
    let all_known = !reader.pending().earlier_parts && !reader.needs_more();
    assert!(
        all_known && reader.window_full(),
        "{:?} {:?}\n{}",
        reader.pending(),
        reader.reading(),
        String::from_utf8_lossy(text)
    );
}
