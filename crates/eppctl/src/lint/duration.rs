//! Durations and sizes as the formats of Envoy, Go and Kubernetes write them.

use epp_wasm::document::Node;

use super::site::number;

/// Returns the seconds of a duration: `15s`, `0.5s`, `1h30m`, `500ms`.
pub fn seconds(text: &str) -> Option<f64> {
    let (mut rest, mut sum) = (text.trim(), 0.0);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|sign: char| !sign.is_ascii_digit() && sign != '.')?;
        let (count, after) = rest.split_at(end);
        let units = [
            ("ms", 0.001),
            ("us", 0.000_001),
            ("ns", 0.000_000_001),
            ("h", 3600.0),
            ("m", 60.0),
            ("s", 1.0),
        ];
        let found = units
            .iter()
            .find_map(|(unit, seconds)| Some((after.strip_prefix(unit)?, seconds)));
        let (after, unit) = found?;
        sum += count.parse::<f64>().ok()? * unit;
        rest = after;
    }
    Some(sum)
}

/// Returns the bytes of a quantity of Kubernetes: `32Ki`, `2M`, `32768`.
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
    fn durations_are_read() {
        for (text, expected) in [
            ("0s", Some(0.0)),
            ("15s", Some(15.0)),
            ("0.5s", Some(0.5)),
            ("1h30m", Some(5400.0)),
            ("500ms", Some(0.5)),
            ("15", None),
            ("", None),
            ("soon", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }

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
