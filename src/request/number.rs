//! The grammar of JSON's numbers, a byte at a time.

/// Where in a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Digits {
    /// Before the first byte.
    None,
    /// Behind the minus sign.
    Minus,
    /// Behind a leading zero.
    Zero,
    /// In the whole part.
    Whole,
    /// Behind the point.
    Point,
    /// In the fraction.
    Fraction,
    /// Behind the e.
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
