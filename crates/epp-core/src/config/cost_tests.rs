//! Documents that are made to be expensive: each takes little longer than a plain one of its size.

use std::time::Duration;

use cpu_time::ThreadTime;

use super::tests::{errors, llm_d, refused};
use super::*;

/// Bytes of each, half of the limit. What grows with the square of the size takes most of the time then, and what is
/// bounded, such as the suggestions in a thousand errors, does not.
const SIZE: usize = 1 << 19;

/// A document takes this many times the CPU time of a plain one at most. Linear work differs by what it does per byte:
/// sixfold was measured, on a busy machine as well. Thirtyfold was measured where each key was compared with all others.
const MAX_SLOWDOWN: f64 = 15.0;

/// A document of nearly that size with this repeated in it; `#` stands for a number that counts up.
fn filled(before: &str, each: &str, after: &str) -> String {
    filled_to(SIZE, before, each, after)
}

fn filled_to(size: usize, before: &str, each: &str, after: &str) -> String {
    let mut text = format!("apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n{before}");
    for number in 1.. {
        let start = text.len();
        for (position, part) in each.split('#').enumerate() {
            // In hexadecimal it may be the end of an address.
            let number = if position > 0 {
                format!("{number:x}")
            } else {
                String::new()
            };
            text.push_str(&number);
            text.push_str(part);
        }
        if text.len() + after.len() > size {
            text.truncate(start);
            break;
        }
    }
    text + after
}

/// One thing over and over.
fn only(each: &str) -> String {
    each.repeat(SIZE / each.len())
}

fn long(letter: &str) -> String {
    letter.repeat(SIZE / 2)
}

fn pods() -> String {
    let pods = "plugins:\n- {type: queue-scorer}\n- type: static-discovery\n  parameters:\n    endpoints:\n";
    filled(pods, "    - {name: p#, address: '::#', port: 80}\n", "")
}

/// Plugins with as many sources as may be, of producers that are to follow.
fn sessions() -> String {
    let sources = "{attribute: SessionIDDataKey}, ".repeat(16);
    let plugin = format!("- {{type: session-affinity-scorer, parameters: {{strategy: session_id, sessionIdConfig: {{sources: [{sources}]}}}}}}\n");
    let names =
        (0..100).map(|number| plugin.replacen("{type", &format!("{{name: s{number}, type"), 1));
    format!("plugins:\n{}", names.collect::<String>())
}

fn crafted() -> Vec<(&'static str, String)> {
    let engines = "plugins:\n- type: core-metrics-extractor\n  parameters:\n    engineConfigs:\n";
    let steps: String = (0..700).map(|depth| " ".repeat(depth) + "a:\n").collect();
    vec![
        ("flow maps", only("{a: ")),
        ("json maps", only("{\"a\":")),
        ("json lists", only("[")),
        ("flow lists over lines", only("[\n")),
        ("nested within limits", only(&("[".repeat(60) + &"]".repeat(60) + ",\n"))),
        ("brackets in text", filled("a: |\n", "  [[[\n", "")),
        ("lists in block style", only("- ")),
        ("keys in block style", only("? ")),
        ("indentation", steps),
        ("anchors in anchors", filled("", "a#: &a# [", "")),
        ("aliases", filled("a: &a [1, 2, 3, 4, 5, 6, 7, 8]\nb: [", "*a, ", "]\n")),
        ("aliases of a long text", filled(&format!("a: &a {}\nb: [", long("x")), "*a, ", "]\n")),
        ("aliases of a long number", filled(&format!("a: &a {}\nb: [", long("1")), "*a, ", "]\n")),
        ("aliases of a number", filled(&format!("a: &a {}\nb: [", "1".repeat(400)), "*a, ", "]\n")),
        ("a long key", filled(&format!("? {}\n: [", long("k")), "1, ", "]\n")),
        ("keys", filled("", "key#: 1\n", "")),
        ("one key", filled("", "a: 1\n", "")),
        ("a key in a list", filled("plugins: [", "{a: 1, a: 1}, ", "]\n")),
        ("near keys", filled("", "plugin#: 1\n", "")),
        ("plugins", filled("plugins:\n", "- {type: a#}\n", "")),
        ("one plugin", filled("plugins:\n", "- {type: queue-scorer, weigth: 1}\n", "")),
        ("near plugins", filled("plugins:\n", "- {name: n#, type: prefix-cache-scoring}\n", "")),
        ("good plugins", filled("plugins:\n", "- {name: n#, type: prefix-cache-scorer}\n", "")),
        ("profiles", filled("schedulingProfiles:\n", "- {name: n#}\n", "")),
        ("references", filled("plugins: [{type: queue-scorer}]\nschedulingProfiles:\n- name: a\n  plugins:\n", "  - {pluginRef: r#}\n", "")),
        ("endpoints twice", filled("plugins:\n- type: static-discovery\n  parameters:\n    endpoints:\n", "    - {name: pod, address: 10.0.0.1, port: 80}\n", "")),
        ("wrong endpoints", filled("plugins:\n- type: static-discovery\n  parameters:\n    endpoints:\n", "    - {name: pod#, adress: 10, port: x}\n", "")),
        ("labels", filled("plugins:\n- type: static-discovery\n  parameters:\n    endpoints:\n    - name: a\n      address: 10.0.0.1\n      port: 80\n      labels:\n", "        l#: x\n", "")),
        ("engines", filled(engines, "    - {name: e#, queuedRequestsSpec: 'a{b=c}'}\n", "")),
        ("a metric", filled(&format!("{engines}    - {{name: e, queuedRequestsSpec: 'a{{"), "b=c,", "}'}\n")),
        ("attributes", filled(&format!("{engines}    - name: e\n      customMetrics:\n"), "      - {attributeKey: a#, metricSpec: b}\n", "")),
        ("sources of sessions", filled(&sessions(), "- {name: n#, type: session-id-producer, parameters: {headerName: h}}\n", "")),
        ("wrong metrics", filled(engines, "    - {name: e#, loraSpec: 'a{'}\n", "")),
        ("rules", filled("plugins:\n- type: model-rewrite\n  parameters:\n    rules:\n", "    - {models: [m#], targets: [{model: x}]}\n", "")),
        ("gates", filled("featureGates: [", "g#, ", "]\n")),
        ("a duration", filled("plugins:\n- type: metrics-data-source\n  parameters: {interval: '", "1ms", "'}\n")),
        ("a text", filled("plugins: [{type: '", "x", "'}]\n")),
        ("no json", format!("{{\"a\": [{}", "1,".repeat(SIZE / 2 - 8))),
    ]
}

fn seconds(text: &str) -> f64 {
    let start = ThreadTime::now();
    let loaded = load(text);
    let problems = match &loaded {
        Ok(loaded) => loaded.warnings.iter(),
        Err(rejected) => rejected.errors.iter(),
    };
    // What is wrong is written to a log.
    let said: usize = problems.map(|problem| problem.to_string().len()).sum();
    assert!(said < 8 << 20, "{said} bytes of problems");
    start.elapsed().max(Duration::from_micros(1)).as_secs_f64()
}

#[test]
fn no_document_takes_much_longer_than_a_plain_one_of_its_size() {
    let plain = pods();
    assert!(plain.len() > SIZE - 100);
    let loaded = load(&plain).unwrap();
    assert!(
        matches!(&loaded.plan.discovery, crate::plugins::Discovery::Static(pods) if pods.members.len() > 5_000)
    );
    let plain = seconds(&plain);
    let mut slow = Vec::new();
    for (kind, text) in crafted() {
        assert!(text.len() < 1 << 20, "{kind}");
        let took = seconds(&text) / plain;
        if took > MAX_SLOWDOWN {
            slow.push(format!("{kind}: {took:.1} times a plain one"));
        }
    }
    assert!(slow.is_empty(), "{slow:#?}");
}

/// Eight times as many keys take eight to nine times as long; 57 times was measured where each was compared with all
/// others.
#[test]
fn keys_take_time_in_proportion_to_their_number() {
    let keys = |size| filled_to(size, "a:\n", "  key#: 1\n", "");
    let (short, long) = (keys(1 << 17), keys((1 << 20) - 100));
    let grown = seconds(&long) / seconds(&short);
    assert!(grown <= 20.0, "{grown:.1} times");
}

#[test]
fn nesting_is_rejected_with_its_location() {
    let steps = (0..100).map(|depth| " ".repeat(depth) + "a:\n");
    for (text, place) in [
        ("{\"a\":".repeat(100), "line 1, column "),
        ("{\"a\":".repeat(100_000), "line 1, column "),
        ("{a: ".repeat(100), "line 1, column "),
        ("{a: ".repeat(100_000), "line 1, column "),
        (
            format!("{}1{}", "[".repeat(100), "]".repeat(100)),
            "line 1, column ",
        ),
        ("- ".repeat(100), "line 1, column "),
        (steps.collect(), "line 6"),
        (
            "\n\n".to_owned() + &"[\n".repeat(1_000),
            "line 259, column 1: ",
        ),
        (
            "a: &a [1]\nb: ".to_owned() + &"[".repeat(64) + "*a" + &"]".repeat(64),
            "line ",
        ),
    ] {
        let start = &text[..text.len().min(40)];
        let errors = errors(&text);
        assert_eq!(errors.len(), 1, "{start}: {errors:#?}");
        let expected = "found values nested deeper than 64 levels, expected at most 64";
        assert!(errors[0].ends_with(expected), "{start}: {errors:#?}");
        assert!(errors[0].starts_with(place), "{start}: {errors:#?}");
    }
    // What is just as deep as it may be is refused for what it holds.
    let text = format!("a: {}1{}", "[".repeat(63), "]".repeat(63));
    refused(&text, &["a (line 1, column 1): unknown field"]);
}

#[test]
fn a_text_holds_no_more_than_its_bounds() {
    let alias = |value: &str| format!("a: &a {value}\nb: [{}]\n", "*a, ".repeat(100_000));
    refused(
        &alias(&"x".repeat(1_000)),
        &["line ", "bytes of keys and strings"],
    );
    refused(&alias("[1, 1]"), &["line ", "more than 200000 values"]);
    let number = "1".repeat(401);
    refused(
        &format!("a: 1\nb: {number}"),
        &["line 2, column 404: ", "400 digits"],
    );
    refused(&format!("a: \"{}\"", " ".repeat(1 << 20)), &["1048576"]);
    let many =
        |list: &str, entry: &str| format!("{list}: [{}]\n", format!("{entry}, ").repeat(1_001));
    refused(
        &llm_d(&many("plugins", "{type: queue-scorer}")),
        &["plugins (line 3", "1001 entries"],
    );
    refused(
        &llm_d(&many("schedulingProfiles", "{name: p}")),
        &["schedulingProfiles", "1001"],
    );
}

#[test]
fn error_messages_about_a_text_are_short() {
    let long = "x".repeat(100_000);
    let wrong = "- {weigth: 1}\n".repeat(100_000 / 14);
    for text in [
        format!("{long}: 1\n"),
        format!("plugins: {long}\n"),
        format!("plugins: [{{type: {long}}}]\n"),
        format!("plugins: [{{name: {long}, type: queue-scorer}}, {{name: {long}, type: x}}]\n"),
        format!("plugins:\n{wrong}"),
    ] {
        let errors = errors(&llm_d(&text));
        assert!(
            errors.iter().all(|error| error.len() < 5_000),
            "{}",
            errors[0]
        );
        assert!(errors.len() <= 1_001, "{}", errors.len());
    }
    refused(
        &llm_d(&format!("plugins:\n{wrong}")),
        &["more errors are not shown"],
    );
}
