//! The columns of the page's tables, and what they mean.

use maud::{html, Markup};

/// A column of a table: its class, its name, and what it means.
pub type Column = (&'static str, &'static str, &'static str);

/// The table of the endpoints.
pub const ENDPOINTS: &[Column] = &[
    ("l", "endpoint", "Its address, and its name where discovery knows one."),
    ("", "may be\npicked", "Whether new requests may go there, and why not."),
    ("", "metrics", "Whether its metrics page was read lately. Without fresh metrics it counts as the average of the others. /v1/loads: its load is read there. At rest: its page is not needed now, and is read more rarely."),
    ("", "age", "Time since its load was read."),
    ("", "waiting\nrequests", "Its queue, from all clients, as it says."),
    ("", "running\nrequests", "Requests that it computes, as it says."),
    ("", "KV cache\nused", "As it says."),
    ("", "LoRA adapters", "Loaded, waiting, and the most that it loads."),
    ("", "requests\nin flight", "Requests of this Envoy that it has not finished."),
    ("", "tokens\nin flight", "Tokens that those still cost it, estimated."),
    ("", "times\npicked", "By the workers of this Envoy since they started."),
];

/// The table of the workers.
pub const WORKERS: &[Column] = &[
    ("", "worker", "Its number; one is Envoy's main thread."),
    ("l", "traffic", "Whether it has served requests."),
    ("l", "polls\nmetrics", "One worker fetches members and metrics for all."),
    ("", "heartbeats", "They go on while the worker lives."),
    ("", "last\nreport", "How old this row is."),
    ("l", "decides by", "Metrics; its own counts where too few endpoints have fresh metrics; nothing yet before the endpoints are known."),
    ("", "request\nbodies", "Whether they reach the filter before it decides."),
    ("", "open\nrequests", "Requests that have not ended."),
    ("", "of these\nheld", "They wait for more of their body."),
    ("w", "requests in flight\nby endpoint", "Requests that this worker sent and that have not ended."),
    ("", "index\nentries", "Blocks of prompts that endpoints probably have cached; none on the main thread under load."),
    ("", "index\nused", "Share of the index's memory, maxIndexBytes."),
    ("", "index\nevictions", "Entries dropped for newer ones."),
    ("", "memory", "Of the module in this worker."),
];

/// The table of the workers' counters.
pub const TOTALS: &[Column] = &[
    ("", "worker", "Its number."),
    ("", "decisions", "Requests decided."),
    (
        "",
        "of these\nearly",
        "Before the end of the body, which could not change the decision.",
    ),
    (
        "",
        "rejected",
        "No endpoint could be picked, under failureMode: FailClose.",
    ),
    (
        "",
        "left to\nEnvoy",
        "No endpoint could be picked, under failureMode: FailOpen.",
    ),
    (
        "",
        "served by a\nretry",
        "Another endpoint than the picked one responded.",
    ),
    ("", "left\nalone", "Their route leads to another cluster."),
];

/// The table of the latest decisions.
pub const DECISIONS: &[Column] = &[
    ("", "when", "How long ago."),
    ("", "worker", "Which worker decided."),
    ("l", "model", "As the client requested it."),
    (
        "",
        "prompt\ntokens",
        "As far as the prompt was read; estimated.",
    ),
    (
        "",
        "cached at\nthe pick",
        "Share of the prompt that the picked endpoint probably has cached.",
    ),
    (
        "",
        "decided",
        "Early: before the end of the body, which could not change the decision.",
    ),
    (
        "l",
        "removed by\nfilters",
        "How many candidates each filter removed.",
    ),
    ("", "candidates", "Endpoints that were scored."),
    (
        "l",
        "endpoint",
        "The best candidates; picks are highlighted.",
    ),
    (
        "",
        "weighted\nsum",
        "Each scorer's score times its weight, added up.",
    ),
];

/// Returns the head of a table, and what its columns mean: names with their meanings. A line break in a name is one.
pub fn head(columns: &[Column]) -> Markup {
    html! {
        thead { tr {
            @for (class, name, meaning) in columns { th class=(class) { abbr title=(meaning) { (name) } } }
        } }
    }
}

/// Returns the meanings of a table's columns, for readers without a mouse.
pub fn legend(columns: &[Column]) -> Markup {
    html! {
        details {
            summary { "What the columns mean" }
            dl { @for (_, name, meaning) in columns { dt { (name) } dd { (meaning) } } }
        }
    }
}
