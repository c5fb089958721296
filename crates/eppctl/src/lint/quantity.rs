//! Kubernetes quantities.

use epp_core::config::value::Node;

use super::site::number;

/// Returns the number of bytes of a Kubernetes quantity: `32Ki`, `2M`, `32768`.
pub fn bytes(node: &Node) -> Option<f64> {
    if let Some(number) = number(node) {
        return Some(number);
    }
    let Node::String(text) = node else {
        return None;
    };
    let units = [
        ("Ki", 1024.0),
        ("Mi", 1024.0 * 1024.0),
        ("Gi", 1024.0 * 1024.0 * 1024.0),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
    ];
    units.iter().find_map(|(unit, factor)| {
        let count: f64 = text.strip_suffix(unit)?.parse().ok()?;
        Some(count * factor)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        let text = |text: &str| bytes(&Node::String(text.to_owned()));
        assert_eq!(text("32Ki"), Some(32_768.0));
        assert_eq!(text("2Mi"), Some(2_097_152.0));
        assert_eq!(text("1M"), Some(1e6));
        assert_eq!(text("32768"), Some(32_768.0));
        assert_eq!(text("much"), None);
        assert_eq!(bytes(&Node::Number(5.0)), Some(5.0));
    }
}
