//! The numbers in a short JSON text that a model server sends of itself, with the names under which they stand.
//!
//! The text is read as a whole, in one pass, and nothing of it is stored. Only numbers are passed on; a text that is not JSON
//! to its end has none.

use memchr::memchr2;

/// Containers within each other. Those that servers send have three; more are refused, because each takes a call.
const MAX_DEPTH: usize = 8;

/// Takes a number: how many containers it is in, the key of the object or list that it belongs to, and its own key in that
/// object.
type Take<'a> = &'a mut dyn FnMut(usize, &[u8], &[u8], f64);

/// Passes on the numbers of a text. Returns `None` if it is not JSON; what was passed on by then is void.
pub fn read(text: &[u8], take: Take<'_>) -> Option<()> {
    let mut reader = Reader { rest: text };
    reader.value(0, b"", b"", take)?;
    reader.rest.trim_ascii().is_empty().then_some(())
}

struct Reader<'t> {
    rest: &'t [u8],
}

impl<'t> Reader<'t> {
    /// Reads a value. `holder` and `key` say where it stands.
    fn value(&mut self, depth: usize, holder: &[u8], key: &[u8], take: Take<'_>) -> Option<()> {
        let first = self.next()?;
        match first {
            b'{' | b'[' => self.container(depth + 1, holder, key, take),
            b'"' => self.string().map(|_| ()),
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'n' => self.word(b"null"),
            b'-' | b'0'..=b'9' => {
                take(depth, holder, key, self.number()?);
                Some(())
            }
            _ => None,
        }
    }

    /// Reads an object or a list. What stands in a list belongs to the list's key.
    fn container(&mut self, depth: usize, holder: &[u8], key: &[u8], take: Take<'_>) -> Option<()> {
        let is_object = self.next()? == b'{';
        let end = if is_object { b'}' } else { b']' };
        self.skip(1);
        if depth > MAX_DEPTH {
            return None;
        }
        if self.next()? == end {
            self.skip(1);
            return Some(());
        }
        loop {
            if is_object {
                let own = self.string()?;
                self.expect(b':')?;
                self.value(depth, key, own, take)?;
            } else {
                self.value(depth, holder, key, take)?;
            }
            let byte = self.next()?;
            self.skip(1);
            if byte != b',' {
                return (byte == end).then_some(());
            }
        }
    }

    /// Reads a string. Returns it as it is written: no name that is looked for has an escape.
    fn string(&mut self) -> Option<&'t [u8]> {
        self.expect(b'"')?;
        let text = self.rest;
        let mut end = 0;
        loop {
            end += memchr2(b'"', b'\\', text.get(end..)?)?;
            if text.get(end) == Some(&b'"') {
                self.skip(end + 1);
                return text.get(..end);
            }
            end += 2;
        }
    }

    fn number(&mut self) -> Option<f64> {
        let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        let length = self.rest.iter().take_while(|byte| is_part(byte)).count();
        let text = std::str::from_utf8(self.rest.get(..length)?).ok()?;
        self.skip(length);
        text.parse().ok()
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(word)?;
        Some(())
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then(|| self.skip(1))
    }

    /// Returns the next byte that is no white space.
    fn next(&mut self) -> Option<u8> {
        self.rest = self.rest.trim_ascii_start();
        self.rest.first().copied()
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the numbers of a text, each with where it stands.
    fn numbers(text: &str) -> Option<Vec<String>> {
        let mut found = Vec::new();
        read(text.as_bytes(), &mut |depth, holder, key, number| {
            let [holder, key] = [holder, key].map(String::from_utf8_lossy);
            found.push(format!("{depth} {holder}.{key} {number}"));
        })?;
        Some(found)
    }

    #[test]
    fn numbers_come_with_where_they_stand() {
        let cases = [
            ("7", "0 . 7"),
            (r#"{"a": -1.5e3}"#, "1 .a -1500"),
            (r#" { "a" : { "b" : 2 } } "#, "2 a.b 2"),
            (
                r#"{"a":[{"b":1,"c":"x","d":[]},{"b":2}]}"#,
                "3 a.b 1, 3 a.b 2",
            ),
            (r#"{"a":{"b":{"c":1}}}"#, "3 b.c 1"),
            (
                r#"{"x":"\"a\":1\\","b":null,"c":true,"d":false,"e":{}}"#,
                "",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(numbers(text).unwrap().join(", "), expected, "{text}");
        }
    }

    #[test]
    fn a_text_that_is_not_json_to_its_end_has_none() {
        let text = r#"{"a": {"b": 1, "c": [2, "x\"y"]}}"#;
        assert!(numbers(text).is_some());
        for end in 0..text.len() {
            assert_eq!(numbers(&text[..end]), None, "{}", &text[..end]);
        }
        for text in [
            "{\"a\" 1}",
            "{\"a\": 1,}",
            "{\"a\": 1 \"b\": 2}",
            "{a: 1}",
            "[1 2]",
            "{\"a\": 1]",
            "{\"a\": NaN}",
            "{\"a\": 1-2}",
            "{\"a\": 1} x",
            "\u{0}",
        ] {
            assert_eq!(numbers(text), None, "{text}");
        }
    }

    #[test]
    fn deep_texts_are_refused_and_long_ones_are_read() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert!(numbers(&nested(MAX_DEPTH)).is_some());
        assert_eq!(numbers(&nested(MAX_DEPTH + 1)), None);
        // In one pass: if each byte took another look at those before or after it, this would not end.
        const LONG: usize = 1 << 20;
        for (text, expected) in [
            ("[".repeat(LONG), None),
            (format!("[{}1]", "1,".repeat(LONG)), Some(LONG + 1)),
            (format!("\"{}\"", "\\\"".repeat(LONG)), Some(0)),
            ("1".repeat(LONG), Some(1)),
        ] {
            let found = numbers(&text).map(|found| found.len());
            assert_eq!(found, expected, "{}", &text[..8]);
        }
    }
}
