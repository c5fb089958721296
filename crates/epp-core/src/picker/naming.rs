//! The names of a request's model: what the client asks for, and what is asked for instead.

use super::Head;
use crate::plugins::rewrite::model_rewrite::ModelRewrite;
use crate::request::{BodyReader, Fact};

/// The names of one request's model beside the one in its body.
#[derive(Debug, Default)]
pub struct Naming {
    /// The model that is asked for instead of the client's; empty: the client's.
    pub target: String,
    /// Whether a rule was looked for.
    ruled: bool,
    /// The model that a header names, for where the body is not read.
    header: String,
}

impl Naming {
    /// Returns the bytes of memory that it has allocated.
    pub fn allocated(&self) -> usize {
        self.target.capacity() + self.header.capacity()
    }

    /// Begins another request.
    pub fn reset(&mut self, head: &Head<'_>) {
        self.ruled = false;
        set(&mut self.target, head.rewrite);
        set(&mut self.header, head.model);
    }

    /// Returns the model that is asked for, as far as it is known.
    pub fn model<'a>(&'a self, reader: &'a BodyReader) -> Fact<&'a str> {
        if self.target.is_empty() {
            self.asked(reader)
        } else {
            Fact::Known(&self.target)
        }
    }

    /// The client's model.
    fn asked<'a>(&'a self, reader: &'a BodyReader) -> Fact<&'a str> {
        match reader.model() {
            Fact::Unknown | Fact::Absent if !reader.wants_more() && !self.header.is_empty() => {
                Fact::Known(&self.header)
            }
            model => model,
        }
    }

    /// Once the client's model is known, chooses the target that a rule has for it.
    pub fn choose(&mut self, reader: &BodyReader, rules: &ModelRewrite, rng: &mut fastrand::Rng) {
        if rules.is_empty() || self.ruled {
            return;
        }
        let Some(model) = self.asked(reader).known() else {
            return;
        };
        let target = rules.target(model, rng);
        self.ruled = true;
        if let Some(target) = target {
            set(&mut self.target, target.as_bytes());
        }
    }
}

/// A header's value as text; what is not text is none.
fn set(text: &mut String, value: &[u8]) {
    text.clear();
    text.push_str(std::str::from_utf8(value).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::TextBuffer;
    use crate::request::{Api, ReadPlan};

    #[test]
    fn a_header_names_the_model_only_where_the_body_names_none() {
        let mut reader = BodyReader::default();
        let mut naming = Naming::default();
        naming.reset(&Head {
            model: b"from-header",
            ..Head::default()
        });
        for (body, model) in [
            (r#"{"model":"from-body","prompt":"hello"}"#, "from-body"),
            (r#"{"prompt":"hello"}"#, "from-header"),
        ] {
            reader.reset(Api::Completions, ReadPlan::default());
            reader.push(body.as_bytes(), &mut TextBuffer::default());
            reader.finish();
            assert_eq!(naming.model(&reader), Fact::Known(model));
        }
    }
}
