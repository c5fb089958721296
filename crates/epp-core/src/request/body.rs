//! Reads a body's outermost object: dispatches its fields to their readers, and orders those that are parts of the prompt.
//!
//! Tools and system text come first in a prompt and often last in a body. The turns are hashed as they come, as if there
//! were no other parts. A part that comes after one that it precedes makes the prompt restart once no other part can
//! come.

use std::ops::Range;

use super::api::chat::ChatPart;
use super::api::completions::{self, PromptReader};
use super::api::messages::{self, MessagesPart, System, SystemNode};
use super::api::{chat, conversations, embeddings, responses, Api, Field};
use super::canon;
use super::extra::{self, Extras};
use super::facts::{self, Facts};
use super::json::JsonParts;
use super::message::{self, Messages};
use super::prompt::Prompts;
use super::scan::{ValueKind, Visit, Want};
use super::section::Section;
use super::{Fact, Flattening, ReadPlan};

/// Identifies a value in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyNode {
    /// The outermost object.
    Body,
    /// A fact.
    Fact(facts::FactNode),
    /// An object with facts as members.
    Facts(&'static [(&'static [u8], Field)]),
    /// A value in a prompt or a list of prompts.
    Prompt(completions::PromptNode),
    /// A value in the messages of a chat.
    Chat(message::MessageNode<chat::ChatNode>),
    /// A value in Anthropic's messages.
    Messages(message::MessageNode<messages::ContentNode>),
    /// A value in the system text.
    System(SystemNode),
    /// A value in a part that is re-serialized as JSON.
    Json(canon::CanonNode),
    /// A value in a field that the flattening does not read.
    Extra(extra::ExtraNode),
}

/// Receives the values of one body from the scanner.
#[derive(Debug, Default)]
pub struct BodyVisitor {
    api: Api,
    flattening: Flattening,
    /// Whether the turns end the prompt ([`ReadPlan::assume_absent`]).
    assumes: bool,
    extras: Extras,
    facts: Facts,
    prompts: Prompts,
    prompt: PromptReader,
    chat: Messages<ChatPart>,
    messages: Messages<MessagesPart>,
    system_text: System,
    json: JsonParts,
    tools: Section,
    system: Section,
    turns: Section,
    /// Whether the body has ended.
    finished: bool,
    /// Whether parts of the prompt are being read again.
    rereads: bool,
    /// Whether the prompt was given up because it contains too much JSON.
    given_up: bool,
}

impl BodyVisitor {
    /// Begins another body, and keeps the memory.
    pub fn reset(&mut self, api: Api, plan: &ReadPlan) {
        self.api = api;
        self.assumes = plan.assume_absent;
        self.extras.reset(&plan.key);
        let has = |field: Field| api.fields().iter().any(|(_, own)| *own == field);
        // Only chats and completions have a flattening of GIE v1.
        let own = matches!(api, Api::ChatCompletions | Api::Completions);
        self.flattening = match own {
            true => plan.flattening,
            false => Flattening::LlmD,
        };
        let llm_d = self.flattening == Flattening::LlmD;
        let salt = llm_d && has(Field::Fact(facts::FactNode::Salt));
        self.facts
            .reset(has(Field::Fact(facts::FactNode::Model)), salt);
        self.prompts.reset(plan);
        if api == Api::ImagesGenerations {
            self.prompts.close();
        }
        let prompt = !self.prompts.is_closed();
        self.prompt
            .reset((api == Api::Embeddings).then_some(embeddings::FRAME));
        self.chat.reset(self.flattening);
        self.messages.reset(self.flattening);
        self.system_text.reset();
        self.json.reset();
        self.tools.reset(prompt && llm_d && has(Field::Tools));
        self.system.reset(prompt && llm_d && has(Field::System));
        self.turns.reset(prompt);
        self.finished = false;
        self.rereads = false;
        self.given_up = false;
    }

    /// Returns the facts beside the prompt.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Returns the API of the body.
    pub fn api(&self) -> Api {
        self.api
    }

    /// Adopts the facts that were read at the body's end.
    pub fn add_facts(&mut self, facts: Facts) {
        self.facts.add(facts);
    }

    /// Returns the allocated memory in bytes.
    pub fn allocated(&self) -> usize {
        let parts = [
            self.facts.allocated(),
            self.prompts.allocated(),
            self.prompt.allocated(),
            self.chat.allocated(),
            self.messages.allocated(),
            self.system_text.allocated(),
            self.json.canon.allocated(),
        ];
        parts.into_iter().sum()
    }

    /// Returns the prompts.
    pub fn prompts(&self) -> &Prompts {
        &self.prompts
    }

    /// Ends the body.
    pub fn finish(&mut self) {
        self.facts.finish();
        self.tools.begun = true;
        self.system.begun = true;
        self.finished = true;
        self.write_json();
        self.end_prompt();
    }

    /// Ends the prompt.
    fn end_prompt(&mut self) {
        self.extras.write_behind(&mut self.prompts);
        self.prompts.close();
    }

    /// Ends the turns.
    fn end_turns(&mut self) {
        if self.assumes {
            self.prompts.close();
        }
    }

    /// Returns whether a part may still come that precedes those that were read in the prompt.
    pub fn may_precede(&self) -> bool {
        let mut sections = [&self.tools, &self.system].into_iter();
        sections.any(|section| !section.begun || section.is_open())
    }

    /// Returns whether a part came after one that it precedes, so that the prompt must restart.
    pub fn is_out_of_order(&self) -> bool {
        self.tools.late || self.system.late
    }

    /// Returns whether no further block counts, unless a part comes late.
    pub fn is_full(&self) -> bool {
        self.prompts.is_closed() || self.prompts.is_full()
    }

    /// Returns whether another prompt may follow.
    pub fn may_add_prompts(&self) -> bool {
        let prompts = self.api.fields().iter();
        let mut prompts = prompts.filter(|(_, field)| *field == Field::Prompt);
        let open = !self.prompts.is_closed() && self.turns.span.is_none();
        prompts.next().is_some() && open && !self.prompt.is_single()
    }

    /// Returns the parts that must be read again because one of them came late, in the prompt's order. Returns none as long
    /// as another part may come or the last has not ended.
    pub fn parts_to_reread(&self) -> [Option<(BodyNode, Range<usize>)>; 2] {
        let early = self.assumes && !self.may_precede() && self.turns.span.is_some();
        let over = self.finished || early;
        if !self.is_out_of_order() || !over {
            return [None, None];
        }
        let turns = turns_of(self.api);
        let system = BodyNode::System(SystemNode::Whole);
        [
            self.system.span.clone().map(|span| (system, span)),
            self.turns.span.clone().map(|span| (turns, span)),
        ]
    }

    /// Restarts the prompt, before its parts are read again.
    pub fn begin_reread(&mut self) {
        self.rereads = true;
        self.prompts.restart();
        self.extras.write_front(&mut self.prompts);
        self.prompts.text(self.json.tools());
    }

    /// Ends rereading, whether or not all parts could be read.
    pub fn end_reread(&mut self) {
        self.rereads = false;
        self.tools.late = false;
        self.system.late = false;
        self.end_prompt();
    }

    /// Returns whether the parts are not hashed now because they will be read again.
    fn awaits_reread(&self) -> bool {
        self.is_out_of_order() && !self.rereads
    }

    /// Begins a field of the outermost object.
    fn begin_field(&mut self, key: &[u8], kind: ValueKind, at: usize) -> Want<BodyNode> {
        let Some(field) = self.api.field(key) else {
            return Want::Nothing;
        };
        let llm_d = self.flattening == Flattening::LlmD;
        match field {
            Field::Fact(facts::FactNode::Salt) if !llm_d => self.begin_extra(key, kind),
            Field::Fact(place) => map_node(self.facts.begin(place, kind, at), BodyNode::Fact),
            Field::Facts(fields) if kind == ValueKind::Object => {
                Want::Inside(BodyNode::Facts(fields))
            }
            Field::Facts(_) => Want::Nothing,
            _ => match self.begin_part(field, kind, at) {
                Want::Nothing => self.begin_extra(key, kind),
                want => want,
            },
        }
    }

    /// Begins a field that may be a part of the prompt.
    fn begin_part(&mut self, field: Field, kind: ValueKind, at: usize) -> Want<BodyNode> {
        let list = kind == ValueKind::Array;
        match field {
            Field::Prompt if self.turns.begin(at) => {
                let want = self.prompt.begin_field(kind, &mut self.prompts);
                if want == Want::Nothing {
                    self.turns.end(at);
                }
                map_node(want, BodyNode::Prompt)
            }
            Field::Turns if self.turns.begin(at) && list => {
                self.turns.counts = true;
                Want::Inside(turns_of(self.api))
            }
            Field::System if self.system.begin(at) && (list || kind == ValueKind::String) => {
                self.system.counts = true;
                self.system.late = self.turns.counts;
                Want::Inside(BodyNode::System(SystemNode::Whole))
            }
            Field::Tools if self.tools.begin(at) && list => {
                self.tools.late = self.turns.counts || self.system.counts;
                let shape = (self.api == Api::Messages).then_some(messages::TOOL);
                map_node(self.json.begin(0, kind, shape), BodyNode::Json)
            }
            Field::Json(part) if !self.prompts.is_closed() => {
                let shape = (self.api == Api::Conversations).then_some(conversations::ITEM);
                map_node(self.json.begin(part.into(), kind, shape), BodyNode::Json)
            }
            _ => Want::Nothing,
        }
    }

    /// Begins a field that the flattening does not read, or that has an unexpected kind.
    fn begin_extra(&mut self, key: &[u8], kind: ValueKind) -> Want<BodyNode> {
        let over = self.prompts.is_full();
        if over || kind == ValueKind::Null {
            return Want::Nothing;
        }
        self.prompts.keep_partial();
        self.extras.is_behind = self.turns.begun || !self.json_frames().is_empty();
        let (extras, prompts) = (&mut self.extras, &mut self.prompts);
        let mut put = |bytes: &[u8]| extras.put(bytes, prompts);
        extra::mark([0; 3], &mut put);
        Want::Inside(BodyNode::Extra(extra::begin(key, kind, &mut put)))
    }

    fn end_json(&mut self, place: canon::CanonNode) {
        let whole = self.json.end(place);
        self.give_up_overflowed();
        if !whole {
            return;
        }
        if self
            .api
            .fields()
            .iter()
            .any(|(_, field)| *field == Field::Tools)
        {
            self.end_tools();
        } else if self.json.is_whole(self.json_frames().len()) {
            self.write_json();
        }
    }

    fn end_tools(&mut self) {
        // The range is not needed, since the text of the tools is stored.
        self.tools.end(self.tools.start);
        if self.json.tools().is_empty() {
            self.tools.late = false;
        } else if !self.tools.late {
            self.prompts.text(self.json.tools());
        }
    }

    /// Gives the prompt up if it contains too much JSON, since its beginning is not known then. The memory is freed
    /// immediately.
    fn give_up_overflowed(&mut self) {
        if self.json.overflowed() && !self.given_up {
            self.given_up = true;
            self.tools.late = false;
            self.system.late = false;
            self.prompts.restart();
            self.prompts.close();
        }
    }

    /// Returns the text before each part of a prompt that is JSON.
    fn json_frames(&self) -> &'static [&'static str] {
        match self.api {
            Api::Responses => responses::FRAMES,
            Api::Conversations => conversations::FRAMES,
            _ => &[],
        }
    }

    /// Writes a prompt that is JSON.
    fn write_json(&mut self) {
        let frames = self.json_frames();
        if !frames.is_empty() && self.turns.begin(0) {
            self.json.write_to(frames, &mut self.prompts);
            self.end_turns();
        }
    }
}

/// Returns the node of the turns of a conversation.
fn turns_of(api: Api) -> BodyNode {
    match api {
        Api::Messages => BodyNode::Messages(message::MessageNode::List),
        _ => BodyNode::Chat(message::MessageNode::List),
    }
}

/// Maps a node in a part of the body to a node in the body.
fn map_node<P>(want: Want<P>, name: impl Fn(P) -> BodyNode) -> Want<BodyNode> {
    match want {
        Want::Nothing => Want::Nothing,
        Want::Inside(place) => Want::Inside(name(place)),
        Want::Raw(place) => Want::Raw(name(place)),
    }
}

impl Visit for BodyVisitor {
    type Node = BodyNode;

    fn begin(
        &mut self,
        parent: BodyNode,
        key: &[u8],
        kind: ValueKind,
        at: usize,
    ) -> Want<BodyNode> {
        let waits = self.awaits_reread();
        let prompts = &mut self.prompts;
        match parent {
            BodyNode::Body => self.begin_field(key, kind, at),
            BodyNode::Facts(fields) => match fields.iter().find(|(name, _)| *name == key) {
                Some((_, Field::Fact(place))) => {
                    map_node(self.facts.begin(*place, kind, at), BodyNode::Fact)
                }
                _ => Want::Nothing,
            },
            BodyNode::Prompt(parent) => {
                let want = self.prompt.begin(parent, key, kind, prompts);
                map_node(want, BodyNode::Prompt)
            }
            BodyNode::Chat(_) | BodyNode::Messages(_) | BodyNode::System(_) if waits => {
                Want::Nothing
            }
            BodyNode::Chat(parent) => {
                map_node(self.chat.begin(parent, key, kind, prompts), BodyNode::Chat)
            }
            BodyNode::Messages(parent) => {
                let want = self.messages.begin(parent, key, kind, prompts);
                map_node(want, BodyNode::Messages)
            }
            BodyNode::System(_) if prompts.is_full() => Want::Nothing,
            BodyNode::System(parent) => {
                let want = self.system_text.begin(parent, key, kind, prompts);
                map_node(want, BodyNode::System)
            }
            BodyNode::Extra(_) if self.extras.is_over(prompts) => Want::Nothing,
            BodyNode::Extra(_) => {
                let extras = &mut self.extras;
                let place = extra::begin(key, kind, &mut |bytes| extras.put(bytes, prompts));
                Want::Inside(BodyNode::Extra(place))
            }
            BodyNode::Json(_) => {
                let want = map_node(self.json.canon.begin(key, kind), BodyNode::Json);
                self.give_up_overflowed();
                want
            }
            BodyNode::Fact(_) => Want::Nothing,
        }
    }

    fn bytes(&mut self, place: BodyNode, bytes: &[u8]) -> bool {
        let waits = self.awaits_reread();
        let prompts = &mut self.prompts;
        match place {
            BodyNode::Prompt(place) => self.prompt.bytes(place, bytes, prompts),
            BodyNode::Chat(place) => self.chat.bytes(place, bytes, prompts),
            BodyNode::Messages(place) => self.messages.bytes(place, bytes, prompts),
            BodyNode::System(_) if waits => false,
            BodyNode::System(place) => self.system_text.bytes(place, bytes, prompts),
            BodyNode::Extra(_) => self.extras.put(bytes, prompts),
            BodyNode::Json(place) => {
                let more = self.json.canon.bytes(place, bytes);
                self.give_up_overflowed();
                more
            }
            BodyNode::Fact(place) => self.facts.bytes(place, bytes),
            BodyNode::Body | BodyNode::Facts(_) => false,
        }
    }

    fn end(&mut self, place: BodyNode, at: usize) {
        let prompts = &mut self.prompts;
        match place {
            BodyNode::Prompt(place) => self.prompt.end(place, prompts),
            BodyNode::Chat(place) => self.chat.end(place, prompts),
            BodyNode::Messages(place) => self.messages.end(place, prompts),
            BodyNode::System(place) => self.system_text.end(place, prompts),
            BodyNode::Extra(_) => extra::end(&mut |bytes| self.extras.put(bytes, prompts)),
            BodyNode::Json(place) => self.end_json(place),
            BodyNode::Fact(place) => self.facts.end(place, at),
            BodyNode::Body | BodyNode::Facts(_) => {}
        }
        if self.rereads {
            return;
        }
        match place {
            BodyNode::Chat(message::MessageNode::List)
            | BodyNode::Messages(message::MessageNode::List)
            | BodyNode::Prompt(completions::PromptNode::Whole) => {
                self.turns.end(at);
                self.end_turns();
            }
            BodyNode::System(SystemNode::Whole) => self.system.end(at),
            _ => {}
        }
    }

    fn is_done(&self) -> bool {
        let known = |fact: Fact<&str>| fact != Fact::Unknown;
        let prompt = if self.awaits_reread() {
            self.assumes && self.turns.span.is_some()
        } else {
            self.is_full()
        };
        prompt && !self.may_precede() && known(self.facts.model()) && known(self.facts.salt())
    }
}
