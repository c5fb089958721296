//! Others than this machine reach the admin interface.

use super::site::{below, text};
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "admin-open",
    why:
        "whoever reaches the admin interface can stop Envoy and read its configuration and secrets",
    fix: "bind it to 127.0.0.1, or to a pipe",
    check: |site| {
        let address = below(site.top, &["admin", "address", "socket_address"]);
        let open = address.filter(|address| {
            let host = text(address, "address");
            !(host.starts_with("127.") || matches!(host, "::1" | "localhost"))
        });
        let path = epp_wasm::document::Path::default()
            .key("admin")
            .key("address");
        open.map(|address| Fault::at(&path, format!("bound to {}", text(address, "address"))))
            .into_iter()
            .collect()
    },
};

#[cfg(test)]
mod tests {
    #[test]
    fn finds_an_open_one() {
        let right = "{address: 127.0.0.1, port_value: 9901}}\n\nstatic";
        crate::lint::finds(
            &super::RULE,
            right,
            "{address: 0.0.0.0, port_value: 9901}}\n\nstatic",
        );
    }
}
