//! The parts of request bodies that a plan does not read: bodies that differ only there look the same.

use epp_core::config::settings::{EarlyRelease, ReadBody};
use epp_core::config::Plan;

use crate::standings::Field;

/// Returns the parts of bodies that a plan with prompts does not read, in any dialect.
pub fn unread(plan: &Plan) -> Vec<Field> {
    if !plan.needs.prompt {
        return Vec::new();
    }
    let field = |name: &str, standing: &str| Field {
        name: name.to_owned(),
        value: String::new(),
        standing: standing.to_owned(),
    };
    if plan.settings.read_body == ReadBody::Never {
        return vec![field(
            "bodies",
            "not read (readBody): decisions ignore prompts",
        )];
    }
    let mut fields = vec![field(
        "bodies",
        "prompts are read from chat/completions, completions, responses, conversations, embeddings, \
         messages and generate; not from other paths (count_tokens, images/generations, rerank, …), nor \
         from bodies that are compressed or not JSON",
    )];
    if plan.settings.early_release == EarlyRelease::AssumeAbsent {
        fields.push(field(
            "fields after the messages",
            "not waited for (earlyRelease): only tools and system text count, if they are read in time",
        ));
    }
    fields
}
