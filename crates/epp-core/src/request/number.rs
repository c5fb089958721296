//! The grammar and the values of JSON numbers.

use super::extra::fold;

/// Bytes of a number that are stored. A longer number is folded and has no value.
pub const MAX_NUMBER_BYTES: usize = 48;

/// How much of a number was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumberState {
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

impl NumberState {
    /// Returns the state after this byte, if the byte continues the number.
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

    /// Returns whether the number may end here.
    pub fn may_end(self) -> bool {
        matches!(
            self,
            Self::Zero | Self::Whole | Self::Fraction | Self::Exponent
        )
    }
}

/// Stores more bytes of a number; a longer one is folded.
pub fn push_digits(digits: &mut Vec<u8>, bytes: &[u8]) {
    fold(digits, bytes, MAX_NUMBER_BYTES);
}

/// Returns the value of a JSON number if it is a whole number from 0 to `max`. As in the Endpoint Picker, `1e2` and `1.0`
/// are whole numbers.
pub fn whole_number(digits: &[u8], max: u64) -> Option<u64> {
    if digits.len() > MAX_NUMBER_BYTES {
        return None;
    }
    let text = std::str::from_utf8(digits).ok()?;
    let number = text.parse::<u64>().ok().or_else(|| {
        let number = text.parse::<f64>().ok()?;
        // Above 2^53 doubles skip whole numbers; no count is that large.
        let whole = number.trunc() == number && (0.0..=9_007_199_254_740_992.0).contains(&number);
        whole.then_some(number as u64)
    });
    number.filter(|number| *number <= max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_recognised_in_every_notation() {
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
    fn a_number_that_is_too_long_has_no_value() {
        let mut digits = Vec::new();
        (0..1_000).for_each(|_| push_digits(&mut digits, b"0"));
        assert!(digits.len() <= MAX_NUMBER_BYTES + 8);
        assert_eq!(whole_number(&digits, u64::MAX), None);
    }
}
