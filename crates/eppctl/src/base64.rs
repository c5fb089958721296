//! Text that is written in base64: bytes of a JSON message, a Secret's `data`.

/// Returns the text that base64 stands for, in either alphabet, padded or not.
pub fn base64(coded: &str) -> Option<String> {
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0);
    for sign in coded.bytes().filter(|sign| !sign.is_ascii_whitespace()) {
        let value = match sign {
            b'A'..=b'Z' => sign - b'A',
            b'a'..=b'z' => sign - b'a' + 26,
            b'0'..=b'9' => sign - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            b'=' => break,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    String::from_utf8(bytes).ok()
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
