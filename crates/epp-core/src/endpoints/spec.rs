//! Metric specs, which select series of a metrics page: `name` or `name{label=value,…}`, with or without quotes
//! around the values.

use std::fmt;

/// Selects the series of a family that have certain labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricSpec {
    /// The family's name.
    pub name: String,
    /// Names and values of labels that a series must have. It may have others.
    pub labels: Vec<(String, String)>,
}

impl fmt::Display for MetricSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        for (place, (name, value)) in self.labels.iter().enumerate() {
            let before = match place {
                0 => '{',
                _ => ',',
            };
            write!(f, "{before}{name}={value:?}")?;
        }
        match self.labels.as_slice() {
            [] => Ok(()),
            _ => f.write_str("}"),
        }
    }
}

/// The reason why a text is not a metric spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecError(String);

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; expected name or name{{label=value,…}}", self.0)
    }
}

impl std::error::Error for SpecError {}

impl MetricSpec {
    /// Returns a spec that selects all series of a family.
    pub fn family(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            labels: Vec::new(),
        }
    }

    /// Parses a spec. Returns `None` for an empty text.
    pub fn parse(text: &str) -> Result<Option<Self>, SpecError> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        let (name, rest) = word(text, |char| char == ':');
        if name.is_empty() {
            return Err(missing("a metric name", text));
        }
        if rest.is_empty() {
            return Ok(Some(Self::family(name)));
        }
        let Some(list) = rest.strip_prefix('{') else {
            return Err(missing("an opening brace", rest));
        };
        let (labels, rest) = labels(list)?;
        if !rest.is_empty() {
            return Err(SpecError(format!("{rest:?} follows the closing brace")));
        }
        let name = name.to_owned();
        Ok(Some(Self { name, labels }))
    }
}

/// Returns the error that `what` was expected instead of the rest of the text.
fn missing(what: &str, rest: &str) -> SpecError {
    SpecError(match rest {
        "" => format!("{what} is missing at the end"),
        rest => format!("{what} is missing before {rest:?}"),
    })
}

type Label = (String, String);

/// Parses labels up to the closing brace. Returns them and the rest of the text.
fn labels(list: &str) -> Result<(Vec<Label>, &str), SpecError> {
    let mut labels = Vec::new();
    let mut rest = list.trim_start();
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Ok((labels, after.trim_start()));
        }
        let (name, after) = word(rest, |_| false);
        if name.is_empty() {
            return Err(missing("a label name or a closing brace", rest));
        }
        let Some(after) = after.strip_prefix('=').filter(|it| !it.starts_with('~')) else {
            return Err(missing(&format!("`=` behind the label {name}"), after));
        };
        let (value, after) = value(after.trim_start())?;
        labels.push((name.to_owned(), value));
        rest = match after.strip_prefix(',') {
            Some(more) => more.trim_start(),
            None if after.starts_with('}') => after,
            None => return Err(missing("a comma or a closing brace", after)),
        };
    }
}

/// Parses a label's value. Returns it and the rest of the text.
fn value(text: &str) -> Result<(String, &str), SpecError> {
    let Some(quoted) = text.strip_prefix('"') else {
        let ends = |char: char| matches!(char, '"' | ',' | '}') || char.is_whitespace();
        let (bare, rest) = text.split_at(text.find(ends).unwrap_or(text.len()));
        return match bare {
            "" => Err(missing("a label value", text)),
            bare => Ok((bare.to_owned(), rest.trim_start())),
        };
    };
    let mut value = String::new();
    let mut chars = quoted.chars();
    while let Some(char) = chars.next() {
        match char {
            '"' => return Ok((value, chars.as_str().trim_start())),
            '\\' => match chars.next() {
                Some('n') => value.push('\n'),
                Some(escaped @ ('\\' | '"')) => value.push(escaped),
                _ => return Err(missing("`n`, `\\` or `\"` behind a backslash", text)),
            },
            char => value.push(char),
        }
    }
    Err(missing("a closing quote", ""))
}

/// Splits a text behind the name with which it begins. The name is empty if there is none.
fn word(text: &str, more: impl Fn(char) -> bool) -> (&str, &str) {
    let ends = |char: char| !(char.is_ascii_alphanumeric() || char == '_' || more(char));
    if text.starts_with(|char: char| char.is_ascii_digit()) {
        return ("", text);
    }
    let (word, rest) = text.split_at(text.find(ends).unwrap_or(text.len()));
    (word, rest.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (String, Vec<Label>) {
        let spec = MetricSpec::parse(text).unwrap().unwrap();
        (spec.name, spec.labels)
    }

    fn labels(pairs: &[(&str, &str)]) -> Vec<Label> {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn the_reference_vectors_parse() {
        let one: &[(&str, &str)] = &[("label1", "value1")];
        let two: &[(&str, &str)] = &[("label1", "value1"), ("label2", "value2")];
        for (text, expected) in [
            ("my_metric", &[][..]),
            ("my_metric ", &[]),
            ("  my_metric  ", &[]),
            ("my_metric{label1=value1}", one),
            ("my_metric{label1=\"value1\"}", one),
            ("my_metric{label1=value1,label2=value2}", two),
            ("my_metric{label1=value1,label2=\"value2\"}", two),
            (
                "  my_metric  {  label1  =  value1  ,  label2  =  value2  }  ",
                two,
            ),
            ("my_metric{}", &[]),
            ("my_metric{label1=value1,}", one),
        ] {
            let expected = ("my_metric".to_owned(), labels(expected));
            assert_eq!(parsed(text), expected, "{text}");
        }
        for text in ["", "  "] {
            assert_eq!(MetricSpec::parse(text), Ok(None));
        }
    }

    #[test]
    fn quotes_hold_what_would_end_a_bare_value() {
        let text = r#"vllm:m{a="x,y}",b="say \"\\\"",c="",d=x{y}"#;
        let expected = [("a", "x,y}"), ("b", "say \"\\\""), ("c", ""), ("d", "x{y")];
        assert_eq!(parsed(text), ("vllm:m".to_owned(), labels(&expected)));
    }

    #[test]
    fn invalid_reference_vectors_are_rejected_with_a_reason() {
        for (text, reason) in [
            (
                "my_metric{label1=value1",
                "a comma or a closing brace is missing at the end",
            ),
            (
                "my_metriclabel1=value1}",
                "an opening brace is missing before \"=value1}\"",
            ),
            (
                "my_metric{  =  }",
                "a label name or a closing brace is missing before \"=  }\"",
            ),
            (
                "my_metric{label1}",
                "`=` behind the label label1 is missing before \"}\"",
            ),
            (
                "my_metric{=v}",
                "a label name or a closing brace is missing before \"=v}\"",
            ),
            ("my_metric{l=}", "a label value is missing before \"}\""),
            ("my_metric{l=v} x", "\"x\" follows the closing brace"),
            (
                "my_metric{label=val}extra",
                "\"extra\" follows the closing brace",
            ),
            ("{l=v}", "a metric name is missing before \"{l=v}\""),
            // A query language would accept these.
            ("my metric", "an opening brace is missing before \"metric\""),
            (
                "my-metric",
                "an opening brace is missing before \"-metric\"",
            ),
            ("1metric", "a metric name is missing before \"1metric\""),
            (
                "m{l=~v}",
                "`=` behind the label l is missing before \"=~v}\"",
            ),
            (
                "m{l!=v}",
                "`=` behind the label l is missing before \"!=v}\"",
            ),
            ("m{l=\"v}", "a closing quote is missing at the end"),
            (
                "m{l=\"\\v\"}",
                "`n`, `\\` or `\"` behind a backslash is missing before \"\\\"\\\\v\\\"}\"",
            ),
            (
                "m{l=v k=w}",
                "a comma or a closing brace is missing before \"k=w}\"",
            ),
        ] {
            let error = MetricSpec::parse(text).unwrap_err();
            let expected = format!("{reason}; expected name or name{{label=value,…}}");
            assert_eq!(error.to_string(), expected, "{text}");
        }
    }
}
