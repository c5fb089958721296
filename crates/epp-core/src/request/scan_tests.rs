use super::*;

/// Records every call and enters every container.
#[derive(Default)]
struct Recorder {
    calls: Vec<String>,
    raw_key: Vec<u8>,
}

impl Visit for Recorder {
    type Node = usize;

    fn begin(&mut self, parent: usize, key: &[u8], kind: ValueKind, at: usize) -> Want<usize> {
        let key_text = String::from_utf8_lossy(key);
        self.calls
            .push(format!("{parent} {key_text} {kind:?} {at}"));
        if key == b"skip" {
            return Want::Nothing;
        }
        if !key.is_empty() && key == self.raw_key {
            return Want::Raw(99);
        }
        Want::Inside(parent + 1)
    }

    fn bytes(&mut self, place: usize, bytes: &[u8]) -> bool {
        let text = String::from_utf8_lossy(bytes);
        match self.calls.last_mut() {
            Some(last) if last.starts_with('=') => last.push_str(&text),
            _ => self.calls.push(format!("={place} {text}")),
        }
        true
    }

    fn end(&mut self, place: usize, at: usize) {
        self.calls.push(format!("end {place} {at}"));
    }

    fn is_done(&self) -> bool {
        self.calls
            .last()
            .is_some_and(|last| last.starts_with("=") && last.ends_with("STOP"))
    }
}

fn scan(text: &[u8], piece: usize, raw_key: &[u8]) -> (Reading, Vec<String>) {
    let mut scanner = Scanner::default();
    let mut recorder = Recorder {
        raw_key: raw_key.to_vec(),
        ..Recorder::default()
    };
    scanner.reset(0, 0);
    for piece in text.chunks(piece) {
        scanner.push(piece, &mut TextBuffer::default(), &mut recorder);
    }
    scanner.finish();
    (scanner.reading(), recorder.calls)
}

#[test]
fn values_are_reported_with_their_keys_and_offsets() {
    let text = br#" {"a" : [1, "x\n", true],"skip":{"b":[{}]}, "c":{"d":-1.5e3} }"#;
    let expected = [
        "0 a Array 8",
        "1  Number 9",
        "=2 1",
        "end 2 10",
        "1  String 12",
        "=2 x\n",
        "end 2 17",
        "1  Word 19",
        "=2 true",
        "end 2 23",
        "end 1 24",
        "0 skip Object 32",
        "0 c Object 48",
        "1 d Number 53",
        "=2 -1.5e3",
        "end 2 59",
        "end 1 60",
        "end 0 62",
    ];
    for piece in [1, 2, 7, 99] {
        assert_eq!(
            scan(text, piece, b""),
            (Reading::Complete, expected.map(str::to_owned).to_vec()),
            "by {piece}"
        );
    }
}

#[test]
fn raw_values_are_reported_as_they_stand() {
    for value in [
        r#"{ "x" : [1, "\u0041"] }"#,
        r#""a\n""#,
        "-0.5",
        "null",
        "[]",
    ] {
        let text = format!(r#"{{"k": {value} , "z":1}}"#);
        for piece in [1, 3, 99] {
            let (reading, calls) = scan(text.as_bytes(), piece, b"k");
            assert_eq!(reading, Reading::Complete);
            assert_eq!(calls[1], format!("=99 {value}"), "by {piece}");
            assert_eq!(
                calls[2],
                format!("end 99 {}", 6 + value.len()),
                "by {piece}"
            );
        }
    }
}

#[test]
fn the_grammar_agrees_with_serde_json() {
    for text in [
        "{}",
        "[]",
        "{\"a\":}",
        "{\"a\"}",
        "{\"a\":1,}",
        "{,}",
        "[1,]",
        "[,1]",
        "[1 2]",
        "{\"a\" 1}",
        "[01]",
        "[-]",
        "[1.]",
        "[.5]",
        "[1e]",
        "[1e+]",
        "[1E-2]",
        "[-0.0e0]",
        "[0]",
        "[-01]",
        "[+1]",
        "[tru]",
        "[true]",
        "[nul1]",
        "[falsey]",
        "[\"a]",
        "[\"\\q\"]",
        "[\"\t\"]",
        "{a:1}",
        "{'a':1}",
        "[1}",
        "{\"a\":1]",
        "]",
        "",
        " ",
        "{\"a\":{\"b\":[]}}",
        "[[[[]]]]",
        "[\"\\u00zz\"]",
        "[1",
        "{\"a\":1",
        "[1,\n\t\r 2]",
        "[\u{a0}1]",
        "{\"a\":1 \"b\":2}",
        "{1:2}",
    ] {
        let valid = serde_json::from_str::<serde_json::Value>(text).is_ok();
        for piece in [1, 99] {
            let (reading, _) = scan(text.as_bytes(), piece, b"");
            assert_eq!(
                reading == Reading::Complete,
                valid,
                "{text:?} by {piece}: {reading:?}"
            );
        }
    }
}

#[test]
fn extensions_of_pythons_json_are_accepted() {
    for (text, recorder) in [
        ("[NaN]", "NaN"),
        ("[Infinity]", "Infinity"),
        ("[-Infinity,1]", "-Infinity"),
        ("{\"a\":-Infinity}", "-Infinity"),
        ("\u{feff}[1]", "1"),
        ("\u{feff} {}", ""),
    ] {
        for piece in [1, 2, 99] {
            let (reading, calls) = scan(text.as_bytes(), piece, b"");
            assert_eq!(reading, Reading::Complete, "{text:?} by {piece}");
            assert!(
                calls.concat().contains(recorder),
                "{text:?} by {piece}: {calls:?}"
            );
        }
    }
    // The mark is accepted once at the beginning of the body, and only those words are.
    for text in [
        "[\u{feff}1]",
        "\u{feff}\u{feff}1",
        " \u{feff}1",
        "[Nan]",
        "[-NaN]",
        "[+Infinity]",
        "[--Infinity]",
        "[-Inf]",
        "[1Infinity]",
    ] {
        let (reading, _) = scan(text.as_bytes(), 99, b"");
        assert!(
            matches!(reading, Reading::NotJson(_)),
            "{text:?}: {reading:?}"
        );
    }
}

#[test]
fn keys_that_differ_behind_the_stored_bytes_differ() {
    let key = |end: &str| {
        let mut scanner = Scanner::default();
        scanner.reset(0, 0);
        let text = format!("{{\"{}{end}\"", "k".repeat(MAX_KEY_BYTES));
        text.as_bytes().chunks(7).for_each(|piece| {
            scanner.push(piece, &mut TextBuffer::default(), &mut Recorder::default())
        });
        scanner.key
    };
    let keys = ["", "a", "b", "ab", "ba", "\\u0000", "\\u0000\\u0000"].map(key);
    for (at, one) in keys.iter().enumerate() {
        assert!(!keys[..at].contains(one), "{at}");
    }
}

#[test]
fn errors_have_an_offset_or_are_an_early_end() {
    for (text, reading) in [
        ("{\"a\": x}", Reading::NotJson(6)),
        ("{\"a\": \"x\ny\"}", Reading::NotJson(8)),
        ("{\"a\": 1", Reading::EndedEarly),
        ("", Reading::EndedEarly),
    ] {
        for piece in [1, 3, 99] {
            assert_eq!(
                scan(text.as_bytes(), piece, b"").0,
                reading,
                "{text:?} by {piece}"
            );
        }
    }
}

#[test]
fn the_depth_is_bounded() {
    let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert_eq!(
        scan(deep(MAX_DEPTH).as_bytes(), 100, b"").0,
        Reading::Complete
    );
    assert_eq!(
        scan(deep(MAX_DEPTH + 1).as_bytes(), 100, b"").0,
        Reading::TooDeep
    );
    assert_eq!(scan(deep(10_000).as_bytes(), 100, b"").0, Reading::TooDeep);
}

#[test]
fn keys_are_folded_and_do_not_grow() {
    let mut scanner = Scanner::default();
    scanner.reset(0, 0);
    let mut recorder = Recorder::default();
    scanner.push(b"{\"", &mut TextBuffer::default(), &mut recorder);
    for _ in 0..100 {
        scanner.push(&[b'k'; 1_000], &mut TextBuffer::default(), &mut recorder);
    }
    scanner.push(b"\":1}", &mut TextBuffer::default(), &mut recorder);
    assert_eq!(scanner.reading(), Reading::Complete);
    assert_eq!(scanner.key.len(), MAX_KEY_BYTES + 8);
}
