//! Findings in the formats of other programs: SARIF 2.1.0 for code scanning, JUnit XML for the test reports of CI.

use std::fmt::Write as _;

use serde_json::{json, Map, Value};

use super::report::{Finding, Findings};
use super::{Rule, RULES};

/// Where the rules are documented.
const GUIDE: &str = concat!(
    env!("CARGO_PKG_REPOSITORY"),
    "/blob/main/docs/operations.md#what-lint-looks-for"
);

/// Returns the findings as a SARIF log with one run. Settings that were not seen are notifications: they are no
/// results.
pub fn sarif(findings: &Findings) -> Value {
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "eppctl lint",
                "version": env!("CARGO_PKG_VERSION"),
                "informationUri": env!("CARGO_PKG_REPOSITORY"),
                "rules": RULES.map(rule).as_slice(),
            }},
            "columnKind": "unicodeCodePoints",
            "invocations": [{
                "executionSuccessful": true,
                "toolExecutionNotifications":
                    findings.not_seen.iter().map(notification).collect::<Vec<_>>(),
            }],
            "results": findings.findings.iter().map(result).collect::<Vec<_>>(),
        }],
    })
}

fn rule(rule: &Rule) -> Value {
    json!({
        "id": rule.name,
        "shortDescription": {"text": sentence(rule.finds)},
        "fullDescription": {"text": sentence(rule.why)},
        "help": {"text": sentence(rule.fix)},
        "helpUri": GUIDE,
        "defaultConfiguration": {"level": "warning"},
    })
}

fn result(finding: &Finding) -> Value {
    let index = RULES.iter().position(|rule| rule.name == finding.rule);
    json!({
        "ruleId": finding.rule,
        "ruleIndex": index,
        "level": "warning",
        "message": {"text": format!("{} {} To fix it: {}", sentence(&finding.found), sentence(finding.why), sentence(&finding.fix))},
        "locations": [location(finding)],
    })
}

fn notification(finding: &Finding) -> Value {
    json!({
        "level": "note",
        "associatedRule": {"id": finding.rule},
        "message": {"text": sentence(&format!("not seen: {}", finding.found))},
        "locations": [location(finding)],
    })
}

/// Returns a finding's place. Standard input and a running Envoy are not files.
fn location(finding: &Finding) -> Value {
    let mut location = Map::new();
    let mut add = |key: &str, value: Value| location.insert(key.to_owned(), value);
    if !finding.path.is_empty() {
        add(
            "logicalLocations",
            json!([{"fullyQualifiedName": finding.path}]),
        );
    }
    if std::path::Path::new(&finding.file).is_file() {
        let file = json!({"uri": uri(&finding.file)});
        let place = match finding.line {
            Some(line) => json!({"artifactLocation": file, "region": {"startLine": line}}),
            None => json!({"artifactLocation": file}),
        };
        add("physicalLocation", place);
    }
    location.into()
}

/// Returns a path as a reference of a URI.
fn uri(path: &str) -> String {
    let mut uri = String::new();
    if path.starts_with('/') {
        uri.push_str("file://");
    }
    for byte in path.trim_start_matches("./").bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                uri.push(char::from(byte));
            }
            // Writing to a String cannot fail.
            _ => {
                let _ = write!(uri, "%{byte:02X}");
            }
        }
    }
    uri
}

/// Returns a text with a capital letter and a full stop, without Markdown.
fn sentence(text: &str) -> String {
    let text = text.replace('`', "");
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string());
    let end = if text.ends_with('.') { "" } else { "." };
    format!("{}{}{end}", first.unwrap_or_default(), letters.as_str())
}

/// Returns the findings as JUnit XML: a test case for each finding, and one for each rule without any.
pub fn junit(findings: &Findings) -> String {
    let mut cases = String::new();
    for rule in RULES {
        let own: Vec<&Finding> = findings
            .findings
            .iter()
            .filter(|one| one.rule == rule.name)
            .collect();
        if own.is_empty() {
            let _ = writeln!(
                cases,
                "    <testcase classname=\"{}\" name=\"no findings\"/>",
                rule.name
            );
        }
        for finding in own {
            let _ = write!(
                cases,
                "    <testcase classname=\"{}\" name=\"{}\">\n      <failure message=\"{}\" type=\"{}\">why: {}\nfix: {}</failure>\n    </testcase>\n",
                rule.name,
                xml(&finding.place()),
                xml(&finding.found),
                rule.name,
                xml(finding.why),
                xml(&finding.fix),
            );
        }
    }
    let failures = findings.findings.len();
    let tests = cases.matches("<testcase ").count();
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  <testsuite name=\"eppctl lint\" tests=\"{tests}\" failures=\"{failures}\" errors=\"0\" skipped=\"0\">\n{cases}  </testsuite>\n</testsuites>\n"
    )
}

/// Escapes a text for an element or an attribute of XML, which has no way to write most control characters.
fn xml(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' => escaped.push_str("&#10;"),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            letter if letter.is_control() && letter != '\t' => escaped.push('\u{fffd}'),
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped() {
        assert_eq!(
            xml("a<b> & \"c\"\n\u{1}"),
            "a&lt;b&gt; &amp; &quot;c&quot;&#10;\u{fffd}"
        );
        assert_eq!(uri("./a b/ü.yaml"), "a%20b/%C3%BC.yaml");
        assert_eq!(uri("/a.yaml"), "file:///a.yaml");
        assert_eq!(sentence("`a` is b"), "A is b.");
        assert_eq!(sentence(""), ".");
    }
}
