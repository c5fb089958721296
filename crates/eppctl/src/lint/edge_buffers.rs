//! Envoy answers 413 before the picker has read enough.

use epp_wasm::document::Node;

use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "edge-buffers",
    why: "a held body that fills the listener's buffer is answered 413; the 32 KiB that guides for the edge advise are less than a usual prompt",
    fix: "raise per_connection_buffer_limit_bytes on the listener, or lower decideAfterBytes on the envoy-proxy plugin to it",
    check: |site| {
        let plans = site.pickers.iter().filter_map(|picker| picker.loaded.as_ref().ok());
        let Some(needed) = plans.map(|plan| plan.proxy.decide_after_bytes).max() else {
            return Vec::new();
        };
        let mut faults = Vec::new();
        for (path, map) in &site.maps {
            let is_listener = map.get("filter_chains").is_some();
            match map.get("per_connection_buffer_limit_bytes") {
                Some(Node::Number(limit)) if is_listener && *limit < needed as f64 => {
                    let what = format!("{limit} bytes, below decideAfterBytes ({needed})");
                    faults.push(Fault::at(&path.key("per_connection_buffer_limit_bytes"), what));
                }
                _ => {}
            }
        }
        faults
    },
};

#[cfg(test)]
mod tests {
    #[test]
    fn finds_the_edges_advice() {
        let right = "  - name: llm\n    address";
        let wrong = "  - name: llm\n    per_connection_buffer_limit_bytes: 32768\n    address";
        crate::lint::finds(&super::RULE, right, wrong);
    }
}
