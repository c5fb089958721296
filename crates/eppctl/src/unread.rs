//! What of requests' bodies a plan leaves unread: bodies that differ only there are one to it.

use epp_core::config::Plan;
use epp_core::plugins::proxy::envoy_proxy::{EarlyRelease, ReadBody};

use crate::standings::Field;

/// Returns what a plan that looks at prompts does not see of them, the same in all dialects.
pub fn unread(plan: &Plan) -> Vec<Field> {
    if !plan.needs.prompt {
        return Vec::new();
    }
    let field = |name: &str, standing: &str| Field {
        name: name.to_owned(),
        value: String::new(),
        standing: standing.to_owned(),
    };
    if plan.proxy.read_body == ReadBody::Never {
        return vec![field("bodies", "not read (readBody): no prompt counts")];
    }
    let mut fields = vec![field(
        "bodies",
        "prompts are read of chat/completions, completions, responses, conversations, embeddings, \
         messages and generate; not of other paths (count_tokens, images/generations, rerank, …), nor \
         where a body is compressed or not JSON",
    )];
    if plan.proxy.early_release == EarlyRelease::AssumeAbsent {
        fields.push(field(
            "fields behind the turns",
            "not waited for (earlyRelease): of those only tools and system text count, once they are read",
        ));
    }
    fields
}
