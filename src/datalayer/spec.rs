//! Metric specs: which series of a metrics page is meant, written `name` or `name{label=value,…}`.

use std::fmt;

/// A family and the labels that a series of it must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricSpec {
    /// The family's name.
    pub name: String,
    /// Labels that a series must have, with their values; it may have others.
    pub labels: Vec<(String, String)>,
}

/// Why a text is no spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecError(&'static str);

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; expected name or name{{label=value,…}}", self.0)
    }
}

impl std::error::Error for SpecError {}

impl MetricSpec {
    /// A family without labels.
    pub fn family(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            labels: Vec::new(),
        }
    }

    /// Parses a spec; an empty text is none.
    pub fn parse(text: &str) -> Result<Option<Self>, SpecError> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        let Some((name, rest)) = text.split_once('{') else {
            return match text.contains(['}', '=', ',', ' ']) {
                true => Err(SpecError("labels without an opening brace")),
                false => Ok(Some(Self::family(text))),
            };
        };
        let name = name.trim();
        if name.is_empty() {
            return Err(SpecError("no name before the brace"));
        }
        let Some((labels, after)) = rest.split_once('}') else {
            return Err(SpecError("no closing brace"));
        };
        if !after.trim().is_empty() {
            return Err(SpecError("text behind the closing brace"));
        }
        let labels: Result<Vec<_>, _> = labels.split(',').map(label).collect();
        Ok(Some(Self {
            name: name.to_owned(),
            labels: labels?,
        }))
    }
}

fn label(text: &str) -> Result<(String, String), SpecError> {
    let Some((name, value)) = text.split_once('=') else {
        return Err(SpecError("a label without a value"));
    };
    let name = name.trim();
    let value = value.trim();
    let value = value
        .strip_prefix('"')
        .and_then(|value| value.strip_suffix('"'))
        .unwrap_or(value);
    if name.is_empty() || value.is_empty() {
        return Err(SpecError("a label with an empty name or value"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_vectors_parse() {
        for text in ["my_metric", "  my_metric  "] {
            let spec = MetricSpec::parse(text).unwrap().unwrap();
            assert_eq!(spec, MetricSpec::family("my_metric"), "{text}");
        }
        for text in [
            "my_metric{label1=value1,label2=\"value2\"}",
            " my_metric { label1 = value1 , label2 = value2 } ",
        ] {
            let spec = MetricSpec::parse(text).unwrap().unwrap();
            let labels: Vec<(&str, &str)> = spec
                .labels
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect();
            assert_eq!(spec.name, "my_metric", "{text}");
            assert_eq!(
                labels,
                [("label1", "value1"), ("label2", "value2")],
                "{text}"
            );
        }
        assert_eq!(MetricSpec::parse(""), Ok(None));
    }

    #[test]
    fn the_reference_vectors_are_refused() {
        for text in [
            "my_metric{label1=value1",
            "my_metriclabel1=value1}",
            "my_metric{  =  }",
            "my_metric{label1}",
            "my_metric{=v}",
            "my_metric{l=}",
            "my_metric{l=v} x",
            "{l=v}",
        ] {
            assert!(MetricSpec::parse(text).is_err(), "{text}");
        }
    }
}
