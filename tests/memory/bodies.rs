//! Bodies that make a reader keep as much as it can for what they send.

/// A body that does not end.
pub struct Hostile {
    /// The attack, in words.
    pub name: &'static str,
    /// The path to which it is sent.
    pub path: &'static str,
    /// Its beginning.
    pub head: String,
    /// The part that follows, again and again.
    pub rest: String,
    /// Bytes that are sent of it, at most.
    pub size: usize,
}

impl Hostile {
    /// The body, as far as it is sent.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head.clone().into_bytes();
        let more = self.size.saturating_sub(bytes.len()) / self.rest.len();
        bytes.extend(self.rest.repeat(more).into_bytes());
        bytes
    }
}

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";
const MESSAGES: &str = "/v1/messages";
const RESPONSES: &str = "/v1/responses";

/// An image of 65,535 by 65,535 points, of which only the header is there: four million tokens.
const IMAGE: &str = r#"{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAA//8AAP//"}},"#;

fn body(name: &'static str, path: &'static str, head: &str, rest: &str, size: usize) -> Hostile {
    Hostile {
        name,
        path,
        head: head.to_owned(),
        rest: rest.to_owned(),
        size,
    }
}

/// A megabyte, less what would make a reader give up.
const MEGABYTE: usize = (1 << 20) - 200;

/// The bodies of the attack that this bound is for, and others that keep more for each byte sent.
// A table, long as it is.
#[allow(clippy::too_many_lines)]
pub fn hostile() -> Vec<Hostile> {
    let tools = r#"{"model":"m","tools":["#;
    let ended = format!(r#"{tools}{{"a":"{}"}},{{"a":""#, "x".repeat(256 << 10));
    let early = r#"{"model":"m","messages":[{"role":"user","content":["#;
    vec![
        body(
            "tools: a text",
            CHAT,
            &format!(r#"{tools}""#),
            "x",
            MEGABYTE,
        ),
        body("tools: an object that ends", CHAT, &ended, "x", MEGABYTE),
        body(
            "tools: escapes",
            CHAT,
            &format!(r#"{tools}""#),
            "<",
            174_000,
        ),
        body(
            "tools: many members",
            CHAT,
            &format!("{tools}{{"),
            r#""a":1,"#,
            98_000,
        ),
        body(
            "tools: numbers",
            CHAT,
            &format!("{tools}0"),
            ",1e20",
            230_000,
        ),
        body(
            "tools: escaped keys",
            CHAT,
            &format!("{tools}{{"),
            &format!(r#""{}":1,"#, "<".repeat(1000)),
            150_000,
        ),
        body("tools: depth", CHAT, tools, "[", 1_000),
        body("tools: depth of objects", CHAT, tools, r#"{"":"#, 4_000),
        body("depth", CHAT, r#"{"model":"m","a":"#, "[", 1_000),
        body(
            "a list of prompts",
            COMPLETIONS,
            r#"{"model":"m","prompt":["#,
            r#""a","#,
            264_000,
        ),
        body("an image", CHAT, early, IMAGE, 200),
        body(
            "a prompt",
            COMPLETIONS,
            r#"{"model":"m","prompt":""#,
            "x y ",
            600_000,
        ),
        body(
            "content before its role",
            CHAT,
            r#"{"model":"m","messages":[{"content":""#,
            "x",
            530_000,
        ),
        body(
            "media before their role",
            CHAT,
            r#"{"model":"m","messages":[{"content":["#,
            r#"{"type":"audio_url"},"#,
            90_000,
        ),
        body(
            "a part's text before its type",
            CHAT,
            &format!(r#"{early}{{"text":""#),
            "x",
            530_000,
        ),
        body(
            "a role",
            CHAT,
            r#"{"model":"m","messages":[{"role":""#,
            "x",
            530_000,
        ),
        body(
            "a tool's input",
            MESSAGES,
            r#"{"model":"m","messages":[{"role":"user","content":[{"type":"tool_use","input":""#,
            "x",
            530_000,
        ),
        body(
            "a tool's result",
            MESSAGES,
            r#"{"model":"m","messages":[{"role":"user","content":[{"type":"tool_result","content":["#,
            r#"{"type":"text","text":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"},"#,
            900_000,
        ),
        body(
            "system text",
            MESSAGES,
            r#"{"model":"m","system":[{"text":""#,
            "x",
            530_000,
        ),
        body(
            "input and tools",
            RESPONSES,
            r#"{"model":"m","input":[{"a":["#,
            r#"{"b":"<<<<<<<<"},"#,
            300_000,
        ),
        body("a model", CHAT, r#"{"model":""#, "x", 5_000),
    ]
}
