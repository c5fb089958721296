//! JSON numbers: their grammar, and what they stand for.

use super::extra::fold;

/// Bytes of a number that are kept; what is longer is folded and not taken for a number.
pub const MOST_DIGITS: usize = 48;

/// Where in a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Digits {
    /// Before the first byte.
    None,
    /// Behind the sign.
    Minus,
    /// Behind a leading zero, which no digit follows.
    Zero,
    /// In the whole part.
    Whole,
    /// Behind the point.
    Point,
    /// In the fraction.
    Fraction,
    /// Behind the `e`.
    E,
    /// Behind the exponent's sign.
    Sign,
    /// In the exponent.
    Exponent,
}

impl Digits {
    /// Where the byte leads, if it goes on with the number.
    pub fn next(self, byte: u8) -> Option<Self> {
        match (self, byte) {
            (Self::None, b'-') => Some(Self::Minus),
            (Self::None | Self::Minus, b'0') => Some(Self::Zero),
            (Self::None | Self::Minus, b'1'..=b'9') | (Self::Whole, b'0'..=b'9') => {
                Some(Self::Whole)
            }
            (Self::Zero | Self::Whole, b'.') => Some(Self::Point),
            (Self::Point | Self::Fraction, b'0'..=b'9') => Some(Self::Fraction),
            (Self::Zero | Self::Whole | Self::Fraction, b'e' | b'E') => Some(Self::E),
            (Self::E, b'+' | b'-') => Some(Self::Sign),
            (Self::E | Self::Sign | Self::Exponent, b'0'..=b'9') => Some(Self::Exponent),
            _ => None,
        }
    }

    /// Whether the number may end here.
    pub fn may_end(self) -> bool {
        matches!(
            self,
            Self::Zero | Self::Whole | Self::Fraction | Self::Exponent
        )
    }
}

/// Keeps more of a number, as far as it can be one; a longer one is folded.
pub fn push_digits(digits: &mut Vec<u8>, bytes: &[u8]) {
    fold(digits, bytes, MOST_DIGITS);
}

/// The whole number that a JSON number stands for, if it is one that is not negative and at most
/// `most`; `1e2` and `1.0` are, as for the Endpoint Picker.
pub fn whole_number(digits: &[u8], most: u64) -> Option<u64> {
    if digits.len() > MOST_DIGITS {
        return None;
    }
    let text = std::str::from_utf8(digits).ok()?;
    let number = text.parse::<u64>().ok().or_else(|| {
        let number = text.parse::<f64>().ok()?;
        // Above 2^53 doubles skip whole numbers: no count is so large.
        let whole = number.trunc() == number && (0.0..=9_007_199_254_740_992.0).contains(&number);
        whole.then_some(number as u64)
    });
    number.filter(|number| *number <= most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_told_however_they_are_written() {
        for (text, number) in [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("4294967295", Some(4_294_967_295)),
            ("4294967296", None),
            ("1.0", Some(1)),
            ("2e2", Some(200)),
            ("1.5", None),
            ("-1", None),
            ("1e400", None),
            ("true", None),
            ("", None),
        ] {
            assert_eq!(
                whole_number(text.as_bytes(), u64::from(u32::MAX)),
                number,
                "{text}"
            );
        }
        assert_eq!(
            whole_number(b"18446744073709551615", u64::MAX),
            Some(u64::MAX)
        );
    }

    #[test]
    fn a_number_too_long_to_keep_is_none() {
        let mut digits = Vec::new();
        (0..1_000).for_each(|_| push_digits(&mut digits, b"0"));
        assert!(digits.len() <= MOST_DIGITS + 8);
        assert_eq!(whole_number(&digits, u64::MAX), None);
    }
}
