use super::*;
use crate::config::value::Node;

fn opened(text: &str) -> u32 {
    depth(text, u32::MAX).unwrap()
}

#[test]
fn brackets_that_open_collections_are_counted() {
    for (text, deep) in [
        ("a: [b, {c: d}]", 2),
        ("[[[]]]", 3),
        ("a: ['[]', \"[\\\"]\", b[c]]", 2),
        ("[a, # []\n b]", 1),
        ("[a:'b', c]", 1),
        ("[!<[]> a, &b [c], *b]", 2),
        ("[http://x/#[, y]", 2),
        ("['it''s', [x]]", 2),
    ] {
        assert_eq!(opened(text), deep, "{text}");
    }
}

#[test]
fn brackets_that_may_be_text_hide_none_behind_them() {
    for before in [
        "a: 'b #c': ",
        "a: it's\nb: ",
        "a: x ['\nb: ",
        "# it's\n",
        "a: \"'\"\nb: ",
        "a: |\n  ['\nb: ",
        "a: [x, 'it''s'] # ]]]]\nb: ",
        "[!<]]]> a, ",
        "[a, # ]]\n ",
        "[a, # ]]\u{85} ",
        "[\"\\\"]]\", ",
        "[']]', ",
        "[&a ']]', ",
        "[- ']]', ",
        "{? ']]', ",
        "[:']]', ",
    ] {
        let text = format!("{before}{}", "[".repeat(300));
        assert!(too_deep(&text).is_some(), "{before}");
    }
}

#[test]
fn long_texts_are_not_deep_ones() {
    let entry = "- {name: it's, labels: {a: '[b]', c: \"{}\"}, text: a b} # see [1], it's\n";
    assert_eq!(too_deep(&entry.repeat(10_000)), None);
    let prose = "- about: a list [of many\n".repeat(200);
    assert_eq!(too_deep(&(prose + "- [a]\n- {b: c}\n")), None);
}

/// Levels of collections in a text that is one collection in flow style. A mapping of one entry may
/// stand in a list without brackets, and does not count.
fn levels(node: &Node) -> u32 {
    match node {
        Node::List(entries) => 1 + entries.iter().map(levels).max().unwrap_or(0),
        Node::Map(entries) => {
            let within = entries.iter().map(|(_, node)| levels(node)).max();
            within.unwrap_or(0) + u32::from(entries.len() != 1)
        }
        _ => 0,
    }
}

/// All that decides what a bracket is, in random order: what the parser makes of it is never deeper
/// than what is found here.
#[test]
fn the_depth_of_a_text_is_never_underestimated() {
    let pieces = [
        "[", "]", "{", "}", "[", "]", "'", "\"", ",", ", ", ":", ": ", "#", " #", "&a ", "!", "!<",
        ">", "-", "- ", "? ", " ", "\n", "\\", "a", "'b'", "\u{85}", "%", "\t",
    ];
    let mut rng = fastrand::Rng::with_seed(7);
    let (mut read, mut deep) = (0, 0);
    for _ in 0..60_000 {
        let mut text = "[".to_owned();
        for _ in 0..rng.usize(1..14) {
            text.push_str(pieces[rng.usize(..pieces.len())]);
        }
        // Whatever is still open is closed.
        for close in [String::new(), "]".repeat(rng.usize(1..4)), "}]".to_owned()] {
            let text = format!("{text}{close}");
            if let Ok(node) = crate::config::parse(&text) {
                read += 1;
                deep += u32::from(levels(&node) > 1);
                assert!(opened(&text) >= levels(&node), "{text:?} {node:?}");
            }
        }
    }
    assert!(read > 2_000 && deep > 500, "{read} {deep}");
}
