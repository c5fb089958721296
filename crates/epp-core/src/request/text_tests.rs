use super::*;

const NONE: &str = "\u{FFFD}";

/// Decodes the inside of a string with its closing quote, in pieces of this many bytes. Returns the text up to the error
/// if the string is invalid.
fn decode(inside: &[u8], piece: usize) -> Result<Vec<u8>, Vec<u8>> {
    let mut reader = StringReader::default();
    let (mut text, mut buffer) = (Vec::new(), TextBuffer::default());
    reader.begin(true);
    for bytes in inside.chunks(piece) {
        let mut take = |piece: &[u8]| {
            assert!(from_utf8(piece).is_ok(), "a character was cut");
            text.extend_from_slice(piece);
            true
        };
        match reader.read(bytes, &mut buffer, &mut take) {
            Reach::Open => {}
            Reach::Closed(rest) => {
                assert!(rest.is_empty());
                return Ok(text);
            }
            Reach::Bad(_) => return Err(text),
        }
    }
    panic!("the string did not end");
}

#[test]
fn strings_decode_as_gos_decoder_decodes_them() {
    for (inside, expected) in [
        (&b"plain\""[..], "plain".to_owned()),
        (br#"\"\\\/\b\f\n\r\t""#, "\"\\/\u{8}\u{c}\n\r\t".to_owned()),
        (br#"\u0041\u00e9\u65E5\u0000""#, "Aé日\0".to_owned()),
        ("é日😀\"".as_bytes(), "é日😀".to_owned()),
        (br#"\ud83d\ude00""#, "😀".to_owned()),
        // A surrogate without its other half, at the end, before text and before escapes.
        (br#"\ud83d""#, NONE.to_owned()),
        (br#"\ud83dx""#, format!("{NONE}x")),
        (br#"\ud83d\n""#, format!("{NONE}\n")),
        (br#"\ud83d\u0041""#, format!("{NONE}A")),
        (br#"\ud83d\ud83d\ude00""#, format!("{NONE}😀")),
        (br#"\ude00\ud83d""#, NONE.repeat(2)),
        // Each byte that is not part of valid UTF-8: stray, cut short, too long a form, surrogate.
        (b"\x80a\xff\"", format!("{NONE}a{NONE}")),
        (b"\xe6\x97\"", NONE.repeat(2)),
        (b"\xe6\x97a\"", format!("{}a", NONE.repeat(2))),
        (b"\xe6\x97\\n\"", format!("{}\n", NONE.repeat(2))),
        (b"\xc0\xaf\"", NONE.repeat(2)),
        (b"\xed\xa0\x80\"", NONE.repeat(3)),
        (
            b"\xf0\x9f\x98\xe6\x97\xa5\"",
            format!("{}日", NONE.repeat(3)),
        ),
        (b"\xf4\x90\x80\x80\"", NONE.repeat(4)),
        (b"\xef\xbf\xbd\"", NONE.to_owned()),
    ] {
        for piece in 1..=inside.len() {
            let text = decode(inside, piece).unwrap();
            let text = String::from_utf8_lossy(&text);
            assert_eq!(text, expected, "{} by {piece}", inside.escape_ascii());
        }
    }
}

#[test]
fn text_before_an_invalid_byte_is_passed_on() {
    for (inside, text) in [
        (&b"a\nb\""[..], "a"),
        (b"\x00\"", ""),
        ("日\u{1}\"".as_bytes(), "日"),
        (b"\xe6\x97\x1f\"", ""),
        (br#"\x""#, ""),
        (br#"a\tb\x""#, "a\tb"),
        (br#"\u12g4""#, ""),
        (br#"ab\U0041""#, "ab"),
        (br#"\u+123""#, ""),
    ] {
        for piece in [1, 2, 99] {
            let decoded = decode(inside, piece);
            assert_eq!(decoded, Err(text.into()), "{}", inside.escape_ascii());
        }
    }
}

/// Applies Go's rule: bytes of a valid character stay, and every other byte becomes U+FFFD.
fn repaired(mut bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    while !bytes.is_empty() {
        let valid =
            (1..=4).find(|length| bytes.get(..*length).is_some_and(|c| from_utf8(c).is_ok()));
        match valid {
            Some(length) => text.extend_from_slice(&bytes[..length]),
            None => text.extend_from_slice(NONE.as_bytes()),
        }
        bytes = &bytes[valid.unwrap_or(1)..];
    }
    text
}

#[test]
fn bytes_decode_alike_however_they_are_split() {
    let mut random = fastrand::Rng::with_seed(7);
    let bits: [&[u8]; 7] = [
        b"a",
        "é".as_bytes(),
        "日".as_bytes(),
        "😀".as_bytes(),
        b"\x80",
        b"\xe6",
        b"\xf0\x9f",
    ];
    for _ in 0..2_000 {
        let length = random.usize(..40) * if random.bool() { 1 } else { 300 };
        let mut inside: Vec<u8> = Vec::new();
        for _ in 0..length {
            inside.extend_from_slice(bits[random.usize(..bits.len())]);
        }
        let expected = repaired(&inside);
        inside.push(b'"');
        for piece in [1 + random.usize(..9), inside.len()] {
            assert_eq!(decode(&inside, piece).unwrap(), expected);
        }
    }
}

#[test]
fn a_run_ends_at_a_quote_a_backslash_or_a_control_character() {
    for byte in 0..=255 {
        for at in [0, 5, 8, 31, 32, 70] {
            let mut bytes = [b'x'; 80];
            bytes[at] = byte;
            let expected = if byte < 0x20 || byte == b'"' || byte == b'\\' {
                at
            } else {
                80
            };
            assert_eq!(plain(&bytes).ascii, byte < 0x80, "{byte} at {at}");
            assert_eq!(plain(&bytes).length, expected, "{byte} at {at}");
        }
    }
}

#[test]
fn text_that_is_not_wanted_is_skipped() {
    let mut reader = StringReader::default();
    reader.begin(true);
    let text = "y".repeat(3 * PIECE_BYTES) + r#"\n\ud83d""#;
    let mut pieces = 0;
    let reach = reader.read(text.as_bytes(), &mut TextBuffer::default(), &mut |_| {
        pieces += 1;
        false
    });
    assert_eq!((reach, pieces), (Reach::Closed(&[][..]), 1));
    assert_eq!(reader.filled, 0);
}

#[test]
fn the_rest_of_a_character_is_forgotten_when_no_more_is_wanted() {
    let mut reader = StringReader::default();
    reader.begin(true);
    let mut decoded = Vec::new();
    let mut take = |text: &[u8]| {
        decoded.extend_from_slice(text);
        false
    };
    assert_eq!(
        reader.read(b"a\xe6\x97", &mut TextBuffer::default(), &mut take),
        Reach::Open
    );
    assert_eq!(
        reader.read(b"\xa5b", &mut TextBuffer::default(), &mut take),
        Reach::Open
    );
    assert_eq!(
        reader.read(b"\" x", &mut TextBuffer::default(), &mut take),
        Reach::Closed(b" x")
    );
    assert_eq!(decoded, b"a");
}

#[test]
fn readers_that_share_a_buffer_do_not_mix_their_text() {
    let (text, mut buffer) = ("日本é😀".repeat(3), TextBuffer::default());
    let mut readers: [(StringReader, Vec<u8>); 3] = Default::default();
    readers
        .iter_mut()
        .for_each(|(reader, _)| reader.begin(true));
    for byte in text.as_bytes() {
        for (reader, decoded) in &mut readers {
            let mut take = |piece: &[u8]| {
                decoded.extend_from_slice(piece);
                true
            };
            assert_eq!(reader.read(&[*byte], &mut buffer, &mut take), Reach::Open);
        }
    }
    for (_, decoded) in readers {
        assert_eq!(decoded, text.as_bytes());
    }
}

#[test]
fn escapes_around_the_end_of_a_piece_are_read() {
    let mut random = fastrand::Rng::with_seed(11);
    let bits: [(&[u8], &[u8]); 9] = [
        (b"a", b"a"),
        ("日".as_bytes(), "日".as_bytes()),
        (b"\x80", NONE.as_bytes()),
        (br"\n", b"\n"),
        (br"\\", b"\\"),
        (br#"\""#, b"\""),
        (br"\u0041", b"A"),
        (br"\ud83d\ude00", "😀".as_bytes()),
        (
            b"0123456789012345678901234567890123456789",
            b"0123456789012345678901234567890123456789",
        ),
    ];
    for round in 0..3_000 {
        let (mut inside, mut expected) = (Vec::new(), Vec::new());
        // Up to the end of a piece, give or take.
        let lead = PIECE_BYTES - 80 + random.usize(..90);
        inside.resize(lead, b'x');
        expected.resize(lead, b'x');
        let few = random.bool();
        for _ in 0..random.usize(..if round % 3 == 0 { 6_000 } else { 60 }) {
            let place = if few {
                3 + random.usize(..3)
            } else {
                random.usize(..bits.len())
            };
            inside.extend_from_slice(bits[place].0);
            expected.extend_from_slice(bits[place].1);
        }
        inside.push(b'"');
        for piece in [1 + random.usize(..60), inside.len()] {
            assert!(decode(&inside, piece).unwrap() == expected, "{round}");
        }
    }
}
