//! The names of a request's model: the client's, and the one that is requested instead.

use super::models::ModelEvidence;
use super::Head;
use crate::plugins::rewrite::model_rewrite::ModelRewrite;
use crate::request::{BodyReader, Fact};

/// The names of one request's model beside the one in its body.
#[derive(Debug, Default)]
pub struct Naming {
    /// The model that is requested instead of the client's, if another one is.
    target: OptionalName,
    /// Whether a rule was looked for.
    ruled: bool,
    /// The model that a header names, for where the body is not read.
    header: OptionalName,
    /// Whether no body is read, whatever its client sends: then something in front of this filter has to name the
    /// model.
    header_only: bool,
}

/// A name that a request may lack. Its memory is kept for the next request's name.
#[derive(Debug, Default)]
struct OptionalName(String);

impl OptionalName {
    /// Adopts a header's value; one that is empty or not text is not a name.
    fn set(&mut self, value: &[u8]) {
        self.0.clear();
        self.0
            .push_str(std::str::from_utf8(value).unwrap_or_default());
    }

    fn get(&self) -> Option<&str> {
        (!self.0.is_empty()).then_some(&self.0)
    }
}

impl Naming {
    /// Returns the bytes of memory that it has allocated.
    pub fn allocated(&self) -> usize {
        self.target.0.capacity() + self.header.0.capacity()
    }

    /// Begins another request; `header_only` where the plan reads no bodies.
    pub fn reset(&mut self, head: &Head<'_>, header_only: bool) {
        self.ruled = false;
        self.header_only = header_only;
        self.target.set(head.rewrite);
        self.header.set(head.model);
    }

    /// The body cannot be read, through no doing of its client.
    pub fn rely_on_header(&mut self) {
        self.header_only = true;
    }

    /// Returns the model that is requested, as far as it is known.
    pub fn model<'a>(&'a self, reader: &'a BodyReader) -> Fact<&'a str> {
        self.target()
            .map_or_else(|| self.asked(reader), Fact::Known)
    }

    /// Returns the model that is requested instead of the client's, if another one is.
    pub fn target(&self) -> Option<&str> {
        self.target.get()
    }

    /// Returns the model that an endpoint has served if it responds with success, and how sure that is. None where only a
    /// header names it that clients can set: an endpoint does not read it.
    pub fn served<'a>(&'a self, reader: &'a BodyReader) -> Option<(&'a str, ModelEvidence)> {
        let evidence = match reader.is_whole_read() {
            true => ModelEvidence::Read,
            false => ModelEvidence::Likely,
        };
        match (reader.model().known(), self.target()) {
            // Which one is read as the model is up to the endpoint.
            _ if reader.repeats_model() => None,
            // It is replaced where it stands.
            (Some(_), Some(target)) => Some((target, evidence)),
            (Some(asked), None) => Some((asked, evidence)),
            (None, None) if self.header_only => Some((self.header.get()?, ModelEvidence::Read)),
            (None, _) => None,
        }
    }

    /// The client's model.
    fn asked<'a>(&'a self, reader: &'a BodyReader) -> Fact<&'a str> {
        match (reader.model(), self.header.get()) {
            (Fact::Unknown | Fact::Absent, Some(header)) if !reader.wants_more() => {
                Fact::Known(header)
            }
            (model, _) => model,
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
            self.target.set(target.as_bytes());
        }
    }
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
        let head = Head {
            model: b"from-header",
            ..Head::default()
        };
        naming.reset(&head, false);
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
