use super::*;
use crate::request::scan::{Reading, Scanner, Visit};
use crate::request::text::TextBuffer;

/// Re-serializes a whole text.
#[derive(Default)]
struct Whole {
    canon: Canon,
    shape: Option<Shape>,
}

/// The node `None` is the list around the value.
impl Visit for Whole {
    type Node = Option<CanonNode>;

    fn begin(
        &mut self,
        parent: Self::Node,
        key: &[u8],
        kind: ValueKind,
        _: usize,
    ) -> Want<Self::Node> {
        let want = match parent {
            None => self.canon.begin_whole(kind, self.shape),
            Some(_) => self.canon.begin(key, kind),
        };
        match want {
            Want::Nothing => Want::Nothing,
            Want::Inside(place) => Want::Inside(Some(place)),
            Want::Raw(place) => Want::Raw(Some(place)),
        }
    }

    fn bytes(&mut self, place: Self::Node, bytes: &[u8]) -> bool {
        self.canon.bytes(place.unwrap(), bytes)
    }

    fn end(&mut self, place: Self::Node, _: usize) {
        if let Some(place) = place {
            self.canon.end(place);
        }
    }

    fn is_done(&self) -> bool {
        false
    }
}

fn written(json: &str, shape: Option<Shape>, piece: usize) -> Canon {
    let mut whole = Whole {
        shape,
        ..Whole::default()
    };
    let mut scanner = Scanner::default();
    scanner.reset(None, 0);
    for bytes in format!("[{json}]").as_bytes().chunks(piece) {
        scanner.push(bytes, &mut TextBuffer::default(), &mut whole);
    }
    assert_eq!(scanner.reading(), Reading::Complete);
    whole.canon
}

#[test]
fn json_is_written_as_go_writes_it() {
    for (json, expected) in [
        (r#"{"b":1,"a":2,"":3}"#, r#"{"":3,"a":2,"b":1}"#),
        (
            r#"{"a":1,"b":{"y":1,"x":[{"d":1,"c":[]}]},"a":{}}"#,
            r#"{"a":{},"b":{"x":[{"c":[],"d":1}],"y":1}}"#,
        ),
        // Keys are sorted by their bytes before they are escaped.
        (
            r#"{"<":1,"=":2,"\"":3,"\u0001":4}"#,
            r#"{"\u0001":4,"\"":3,"\u003c":1,"=":2}"#,
        ),
        (
            r#""\/\u003c>&\u2028\u2029\u00e2\u0080\b\f\u0000\u007f""#,
            "\"/\\u003c\\u003e\\u0026\\u2028\\u2029\u{e2}\u{80}\\b\\f\\u0000\u{7f}\"",
        ),
        ("[ true , false,null ]", "[true,false,null]"),
        ("[]", "[]"),
        ("{ }", "{}"),
    ] {
        for piece in [1, 5, 999] {
            let canon = written(json, None, piece);
            assert_eq!(
                String::from_utf8_lossy(canon.text()),
                expected,
                "by {piece}"
            );
        }
    }
}

#[test]
fn numbers_are_doubles() {
    for (json, expected) in [
        ("1", "1"),
        ("1.0", "1"),
        ("-0", "-0"),
        ("-0.0", "-0"),
        ("0.1", "0.1"),
        ("1e3", "1000"),
        ("1e20", "100000000000000000000"),
        ("1e21", "1e+21"),
        ("1.5E300", "1.5e+300"),
        ("0.000001", "0.000001"),
        ("0.0000001", "1e-7"),
        ("-1.25e-9", "-1.25e-9"),
        ("12345678901234567890", "12345678901234567000"),
        ("9007199254740993", "9007199254740992"),
    ] {
        assert_eq!(
            String::from_utf8_lossy(written(json, None, 9).text()),
            expected
        );
    }
}

/// Decoding and writing such numbers costs most: a megabyte of them took half a second.
#[test]
fn after_many_numbers_others_are_written_as_they_came() {
    let list = |number: &str| {
        format!(
            "[{}{number}]",
            format!("{number},").repeat(MAX_DECODED_NUMBERS)
        )
    };
    let canon = written(&list("1.50"), None, 999);
    let text = String::from_utf8_lossy(canon.text()).into_owned();
    assert!(text.starts_with("[1.5,1.5,") && text.ends_with(",1.5,1.50]"));
    let plain = written(&list("-15"), None, 999);
    assert!(plain.text().ends_with(b",-15,-15]"));
    assert_eq!(plain.decoded, 0);
}

#[test]
fn a_shape_sorts_and_selects_members() {
    const SHAPE: Shape = &[
        Member::always(b"z"),
        Member::text(b"t"),
        Member::any(b"a"),
        Member::raw(b"r"),
    ];
    for (json, expected) in [
        (
            r#"[{"a":{"y":1,"x":2},"no":{"z":1},"z":""}]"#,
            r#"[{"z":"","a":{"x":2,"y":1},"no":{"z":1}}]"#,
        ),
        (
            r#"[{"t":"","a":null,"z":1},{"t":"t","a":""}]"#,
            r#"[{"z":1},{"t":"t","a":""}]"#,
        ),
        (
            r#"[{"r" : { "b" : "a \" <\u2028 b" , "a":1.0 },"t":"x"}]"#,
            r#"[{"t":"x","r":{"b":"a \" \u003c\u2028 b","a":1.0}}]"#,
        ),
        (
            "[{\"r\":\"\u{2028}\u{2030}\u{20ac}\"}]",
            "[{\"r\":\"\\u2028\u{2030}\u{20ac}\"}]",
        ),
        (r#"[{"r":null}]"#, r#"[{"r":null}]"#),
        (
            r#"[{"y":null,"x":1,"cache_control":{},"y":2,"z":0}]"#,
            r#"[{"z":0,"x":1,"y":2}]"#,
        ),
    ] {
        for piece in [1, 4, 999] {
            let canon = written(json, Some(SHAPE), piece);
            assert_eq!(
                String::from_utf8_lossy(canon.text()),
                expected,
                "by {piece}"
            );
        }
    }
}

#[test]
fn too_much_json_is_reported_and_dropped() {
    for json in [
        format!("\"{}\"", "x".repeat(MAX_JSON_BYTES + 1)),
        format!("[{}1]", "1,".repeat(MAX_JSON_BYTES)),
        format!("{{{}\"\":[{{}}]}}", r#""a":1,"#.repeat(MAX_JSON_BYTES / 4)),
    ] {
        let canon = written(&json, None, 1_000);
        assert!(canon.overflowed());
        assert_eq!(canon.allocated(), 0);
        assert_eq!(canon.depth, 0);
    }
}

#[test]
fn the_bound_applies_to_the_escaped_text() {
    // One byte becomes six, two or one; a list and quotes surround them.
    for (text, times) in [("<", 6), ("\\n", 2), ("x", 1), ("\u{2028}", 6)] {
        let fits = (MAX_JSON_BYTES - 200) / times;
        for (count, over) in [(fits, false), (fits + 200, true)] {
            let json = format!("[\"{}\"]", text.repeat(count));
            let canon = written(&json, None, 1_000);
            assert_eq!(canon.overflowed(), over, "{text:?} {count} times");
        }
    }
}
