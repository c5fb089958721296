//! Base64: bytes fields of a JSON message, a Secret's `data`.

use ::base64::alphabet::STANDARD;
use ::base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use ::base64::engine::DecodePaddingMode;
use ::base64::Engine;

/// Protobuf's JSON accepts either alphabet, padded or not.
const DECODER: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Decodes base64 text, in either alphabet, padded or not.
pub fn base64(coded: &str) -> Option<String> {
    let signs = coded.chars().filter(|sign| !sign.is_whitespace());
    let standard: String = signs
        .map(|sign| match sign {
            '-' => '+',
            '_' => '/',
            sign => sign,
        })
        .collect();
    String::from_utf8(DECODER.decode(standard).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_in_both_alphabets() {
        assert_eq!(base64("YT8+"), Some("a?>".to_owned()));
        assert_eq!(base64("YT8-"), Some("a?>".to_owned()));
        assert_eq!(base64("YQ=="), Some("a".to_owned()));
        assert_eq!(base64("YQ"), Some("a".to_owned()));
        assert_eq!(base64("Y!"), None);
    }
}
