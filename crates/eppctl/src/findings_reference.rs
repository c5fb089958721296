//! `eppctl reference --findings`: what may be wrong with a pool, from the filter's own catalogue.

use epp_core::findings::Finding;

use crate::markdown::Inserted;

/// Returns the table for docs/operations.md.
pub fn table() -> Inserted {
    let mut rows = "| finding | severity | cause | what to do |\n|---|---|---|---|\n".to_owned();
    for finding in Finding::all() {
        let (id, severity) = (finding.id(), finding.severity().name());
        let (cause, remedy) = (finding.cause(), finding.remedy());
        rows.push_str(&format!("| `{id}` | {severity} | {cause} | {remedy} |\n"));
    }
    Inserted {
        marker: "<!-- eppctl reference: findings -->".to_owned(),
        rows,
    }
}
