//! Fields that hold a Kubernetes quantity.

use super::Fields;
use crate::config::value::{Kind, Node};

impl Fields<'_> {
    /// An amount such as `500`, `10k` or `5Gi`, rounded up. Zero stands for the default, which may be no limit.
    pub fn quantity(&mut self, name: &'static str, default: Option<u64>) -> Option<u64> {
        let stated = default.map(|default| Node::Number(default as f64));
        self.ask(name, Kind::Quantity, stated);
        let amount = match self.node(name) {
            None | Some(Node::Null) => return default,
            Some(given) => match given {
                Node::Number(amount) => Some(*amount),
                Node::String(text) => parse(text),
                _ => None,
            }
            .filter(|amount| *amount >= 0.0)
            .or_else(|| {
                let expected = "a quantity of at least 0, such as 500, 10k or 5Gi";
                self.refuse(name, given, expected);
                None
            }),
        };
        let amount = amount.map(|amount| amount.ceil() as u64);
        amount.filter(|amount| *amount > 0).or(default)
    }
}

/// Parses a Kubernetes quantity.
fn parse(text: &str) -> Option<f64> {
    const SUFFIXES: [(&str, f64); 15] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
    ];
    let mut suffixes = SUFFIXES.iter();
    let scaled = suffixes.find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, factor)));
    let (number, factor) = scaled.unwrap_or((text, &1.0));
    // Rust also reads names of numbers.
    let named = number.contains(|c: char| c.is_ascii_alphabetic() && !matches!(c, 'e' | 'E'));
    let number: f64 = number.parse().ok().filter(|_| !named)?;
    Some(number * factor).filter(|amount| amount.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::value::{Path, Problems};

    fn read(given: Node) -> Result<Option<u64>, String> {
        let mut problems = Problems::default();
        let node = Node::Map(vec![("q".to_owned(), given)]);
        let mut fields = Fields::new(Some(&node), Path::default(), &mut problems);
        let found = fields.quantity("q", Some(7));
        match problems.errors.first() {
            Some(error) => Err(error.to_string()),
            None => Ok(found),
        }
    }

    #[test]
    fn quantities_are_read_as_kubernetes_does() {
        for (text, expected) in [
            ("1Gi", 1_073_741_824),
            ("500Mi", 524_288_000),
            ("5Ki", 5_120),
            ("500", 500),
            ("10k", 10_000),
            ("1.5k", 1_500),
            ("2M", 2_000_000),
            ("1G", 1_000_000_000),
            ("1e3", 1_000),
            ("2E", 2_000_000_000_000_000_000),
            ("1500m", 2),
            ("1n", 1),
            ("0", 7),
            ("0Gi", 7),
        ] {
            assert_eq!(
                read(Node::String(text.to_owned())),
                Ok(Some(expected)),
                "{text}"
            );
        }
        assert_eq!(read(Node::Number(1.5)), Ok(Some(2)));
        assert_eq!(read(Node::Number(0.0)), Ok(Some(7)));
        assert_eq!(read(Node::Null), Ok(Some(7)));
        assert_eq!(read(Node::Number(1e30)), Ok(Some(u64::MAX)));
    }

    #[test]
    fn all_else_is_refused() {
        for text in [
            "", "-1", "much", "5 Gi", "5GB", "inf", "NaN", "infinity", "1e999", "Gi", "--1",
        ] {
            let error = read(Node::String(text.to_owned())).unwrap_err();
            let found = format!("found \"{text}\", expected a quantity of at least 0");
            assert!(error.contains(&found), "{error}");
        }
        assert!(read(Node::Number(-1.0)).is_err());
        assert!(read(Node::Bool(true)).is_err());
        assert!(read(Node::List(Vec::new())).is_err());
    }
}
