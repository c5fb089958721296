//! One sample line of a metrics page, `name{label="value",…} value timestamp`: its grammar
//! (Prometheus text format 0.0.4) and nothing else.
//!
//! The parser is strict, because a damaged line may look like an intact one with another value: text that is not
//! in the format is rejected.

use std::borrow::Cow;

use memchr::{memchr, memchr2};

/// One line of a series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample<'p> {
    /// Labels of the series.
    pub labels: Labels<'p>,
    /// Value of the series.
    pub value: f64,
    /// Time of the value in milliseconds since 1970, if the line has one.
    pub timestamp: Option<i64>,
}

impl<'p> Sample<'p> {
    /// Parses the text that follows the name on a line.
    pub fn parse(text: &'p [u8]) -> Option<Self> {
        let (labels, rest) = Labels::parse(text)?;
        let mut words = words(rest);
        // -0 and 0 are the same, and only one of them is shown.
        let value = parsed::<f64>(words.next()?)? + 0.0;
        let timestamp = match words.next() {
            Some(word) => Some(parsed(word)?),
            None => None,
        };
        let sample = Self {
            labels,
            value,
            timestamp,
        };
        words.next().is_none().then_some(sample)
    }

    /// Returns whether both samples come from the same line of the same page.
    pub fn same_line(&self, other: &Sample<'_>) -> bool {
        let value = self.value.to_bits() == other.value.to_bits();
        std::ptr::eq(self.labels.0, other.labels.0) && value
    }
}

/// The labels of a series as on the page, with the closing brace.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Labels<'p>(&'p [u8]);

impl<'p> Labels<'p> {
    /// Parses the labels at the beginning of a text, if it has any. Returns them and the rest of the text.
    fn parse(text: &'p [u8]) -> Option<(Self, &'p [u8])> {
        let Some(list) = text.trim_ascii_start().strip_prefix(b"{") else {
            return Some((Self::default(), text));
        };
        let mut rest = list.trim_ascii_start();
        loop {
            if let Some(after) = rest.strip_prefix(b"}") {
                let labels = list.get(..list.len() - after.len())?;
                return Some((Self(labels), after));
            }
            rest = pair(rest)?.2;
        }
    }

    /// Returns the unescaped value of a label, or `None` if the label is missing or its value is not text.
    pub fn get(&self, name: &str) -> Option<Cow<'p, str>> {
        let found = self.pairs().find(|(key, _)| *key == name.as_bytes());
        unescape(found?.1)
    }

    /// Returns the names and the values, which are still escaped.
    pub fn pairs(&self) -> impl Iterator<Item = (&'p [u8], &'p [u8])> {
        let mut rest = self.0.trim_ascii_start();
        std::iter::from_fn(move || {
            let (name, value, more) = pair(rest)?;
            rest = more;
            Some((name, value))
        })
    }
}

/// Returns the name and the escaped value of the first label of a list, and the rest of the list.
fn pair(list: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (name, text) = list.split_at_checked(memchr(b'=', list)?)?;
    let name = name.trim_ascii_end();
    // Otherwise a stray brace or quote before the next `=` would become part of the name.
    if !name.iter().all(|byte| is_name_byte(*byte)) {
        return None;
    }
    let text = text.get(1..)?.trim_ascii_start().strip_prefix(b"\"")?;
    let (value, text) = text.split_at_checked(closing_quote(text)?)?;
    let text = text.get(1..)?.trim_ascii_start();
    let rest = match text.split_first()? {
        (b',', more) => more.trim_ascii_start(),
        (b'}', _) => text,
        _ => return None,
    };
    Some((name, value, rest))
}

fn closing_quote(text: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + memchr2(b'"', b'\\', text.get(from..)?)?;
        if text.get(at) == Some(&b'"') {
            return Some(at);
        }
        from = at + 2;
    }
}

/// Unescapes a label's value. The format escapes a backslash, a quote and a line break, and nothing else.
fn unescape(value: &[u8]) -> Option<Cow<'_, str>> {
    let text = std::str::from_utf8(value).ok()?;
    if !text.contains('\\') {
        return Some(Cow::Borrowed(text));
    }
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        plain.push(match char {
            '\\' => match chars.next()? {
                'n' => '\n',
                escaped @ ('\\' | '"') => escaped,
                _ => return None,
            },
            char => char,
        });
    }
    Some(Cow::Owned(plain))
}

/// Returns the words of a text, which spaces and tabs separate.
pub fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let parts = text.split(|byte| matches!(byte, b' ' | b'\t'));
    parts.filter(|part| !part.is_empty())
}

fn parsed<T: std::str::FromStr>(word: &[u8]) -> Option<T> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

/// The bytes that label names may contain: one bit for each, of the lower and the upper half of ASCII. A page has a
/// thousand names to check.
const NAME_BYTES: [u64; 2] = [0x03ff_0000_0000_0000, 0x07ff_fffe_87ff_fffe];

fn is_name_byte(byte: u8) -> bool {
    let [lower, upper] = NAME_BYTES;
    let half = if byte < 64 { lower } else { upper };
    byte.is_ascii() && half >> (byte & 63) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Option<f64> {
        Sample::parse(text.as_bytes()).map(|sample| sample.value)
    }

    fn label(labels: &str, name: &str) -> Option<String> {
        let line = format!("{{{labels}}} 1");
        let labels = Sample::parse(line.as_bytes()).unwrap().labels;
        labels.get(name).map(Cow::into_owned)
    }

    #[test]
    fn values_in_every_notation() {
        for (text, expected) in [
            (" 7", 7.0),
            ("\t7 ", 7.0),
            (" -7.5", -7.5),
            (" +7", 7.0),
            (" 1e3", 1000.0),
            (" 1.5E-3", 0.0015),
            (" .5", 0.5),
            (" +Inf", f64::INFINITY),
            (" -Inf", f64::NEG_INFINITY),
            ("{} 7", 7.0),
            (" {a=\"b\"} 7", 7.0),
            ("{a=\"b\"}7", 7.0),
        ] {
            assert_eq!(value(text), Some(expected), "{text:?}");
        }
        assert!(value(" NaN").unwrap().is_nan());
        assert!(value(" -0.0").unwrap().is_sign_positive());
    }

    #[test]
    fn names_have_letters_digits_and_underscores() {
        let named = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        assert!((0..=u8::MAX).all(|byte| is_name_byte(byte) == named(&byte)));
    }

    #[test]
    fn timestamps() {
        let timestamp = |text: &str| Some(Sample::parse(text.as_bytes())?.timestamp);
        assert_eq!(timestamp(" 7"), Some(None));
        assert_eq!(
            timestamp("{a=\"b\"} 7  1395066363000"),
            Some(Some(1_395_066_363_000))
        );
        assert_eq!(timestamp(" 7 -1"), Some(Some(-1)));
        assert_eq!(timestamp(" 7 1.5"), None);
        assert_eq!(timestamp(" 7 1 2"), None);
    }

    #[test]
    fn text_that_is_not_in_the_format_is_not_a_sample() {
        for text in [
            "",
            " ",
            " x",
            " 7x",
            " 0x7",
            " 1_000",
            " 7\0",
            "{a=\"b\"}",
            "{a=\"b\" 7",
            "{a=\"b} 7",
            "{a=\"b\\\"} 7",
            "{a=b} 7",
            "{a} 7",
            "{a=\"b\" c=\"d\"} 7",
            "{,} 7",
            // Not a label named `a} 1 b`.
            "{a} 1 b=\"c\"} 7",
        ] {
            assert_eq!(value(text), None, "{text:?}");
        }
    }

    #[test]
    fn labels_are_found_whatever_their_neighbours_hold() {
        let labels = r#"a="x,b=\"y\"}", b = "{1}" , c="",d="z\\","#;
        assert_eq!(label(labels, "a").unwrap(), r#"x,b="y"}"#);
        assert_eq!(label(labels, "b").unwrap(), "{1}");
        assert_eq!(label(labels, "c").unwrap(), "");
        assert_eq!(label(labels, "d").unwrap(), r"z\");
        assert_eq!(label(labels, "e"), None);
        assert_eq!(label(r#"a="x\ny""#, "a").unwrap(), "x\ny");
        assert_eq!(label(r#"a="x\ty""#, "a"), None);
        assert_eq!(label("", "a"), None);
    }

    #[test]
    fn a_label_value_that_is_not_utf_8_is_missing() {
        let labels = Sample::parse(b"{a=\"\xff\",b=\"c\"} 1").unwrap().labels;
        assert_eq!(labels.get("a"), None);
        assert_eq!(labels.get("b").unwrap(), "c");
    }
}
