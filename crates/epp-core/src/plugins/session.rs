//! Sessions: where a request names its session, and the endpoint that a session stays at. The filter and the scorer
//! of session affinity share it.

use std::time::Duration;

use super::build::MAX_STATES;
use super::{Build, Capability, Parity, Reference, Standing};
use crate::config::value::{Fields, Path};
use crate::scheduling::state::MAX_KEYS;
use crate::scheduling::{
    Additions, Cycle, Decision, HeaderId, Hook, Record, RequestView, Slot, StateId,
};

/// Sessions that are remembered at most, of some 100 bytes each: 200 new ones a second live through the default of
/// 300 s. With more, those that were idle for the longest go first.
const MAX_SESSIONS: usize = MAX_KEYS;

/// Sources of a session's identifier at most; documents have one or two.
const MAX_SOURCES: usize = 16;

/// The identifier of a request's session: of several headers and cookies the first counts that has one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SessionId(pub Vec<HeaderId>);

impl SessionId {
    /// Returns a session's identifier, if the request has one.
    pub fn of<'r>(&self, request: &RequestView<'r>) -> Option<&'r [u8]> {
        request.headers.first(&self.0)
    }
}

/// The plugins that give requests the identifier of their session. Sources name them by what they give.
pub const REFERENCE: Reference = Reference {
    parameter: "sessionIdConfig",
    to: Capability::SessionId,
    default: None,
};

/// The comparison of the plugins with the Endpoint Picker's.
pub const PARITY: Parity = Parity {
    plugin: Standing::Same,
    parameters: &[(
        "sessionIdConfig.sources[].producer",
        Standing::Differs(
            "an attribute is found with and without it; llm-d-router finds SessionIDDataKey only with it and \
             agent-identity only without",
        ),
    )],
};

#[derive(Debug, Clone, Copy, PartialEq)]
enum StrategyName {
    EncodedEndpointHeader,
    SessionId,
}

const STRATEGIES: [(&str, StrategyName); 2] = [
    (
        "encoded_endpoint_header",
        StrategyName::EncodedEndpointHeader,
    ),
    ("session_id", StrategyName::SessionId),
];

/// How the endpoint of a session is known.
#[derive(Debug)]
enum Strategy {
    /// The client sends back what a response gave it: the endpoint's name in base64.
    EncodedEndpointHeader { header: HeaderId, name: String },
    /// The picker remembers it.
    SessionId { id: SessionId, state: StateId },
}

/// Session affinity.
#[derive(Debug)]
pub struct SessionAffinity {
    strategy: Strategy,
    /// The profile whose pick a session stays at; empty for the primary one.
    profile: String,
}

impl SessionAffinity {
    /// Reads the parameters.
    pub fn read(build: &mut Build<'_, '_>) -> Self {
        let fields = &mut build.fields;
        let strategy = StrategyName::EncodedEndpointHeader;
        let strategy = fields.choice("strategy", strategy, &STRATEGIES);
        let profile = fields.string("profileName", "");
        let unused = match strategy {
            StrategyName::EncodedEndpointHeader => "sessionIdConfig",
            StrategyName::SessionId => "encodedEndpointHeaderConfig",
        };
        if fields.has(unused) {
            let path = fields.path().key(unused);
            let message = "has no effect: strategy selects the other one";
            fields.problems().warn(&path, message);
        }
        let (name, ids) = (header_config(fields), id_config(fields));
        let strategy = match strategy {
            StrategyName::EncodedEndpointHeader => Strategy::EncodedEndpointHeader {
                header: build.header("encodedEndpointHeaderConfig", &name),
                name,
            },
            StrategyName::SessionId => {
                // First: where there are too many, their sources are not looked for.
                let state = build.state(MAX_SESSIONS, Some(ids.ttl));
                let id = session_id(build, ids.sources);
                Strategy::SessionId { id, state }
            }
        };
        Self { strategy, profile }
    }

    /// Returns the endpoint that a request's session stays at, if it is a candidate.
    pub fn endpoint(&self, cycle: &Cycle<'_>, candidates: &[Slot]) -> Option<Slot> {
        let mut candidates = candidates.iter().copied();
        match &self.strategy {
            Strategy::EncodedEndpointHeader { header, .. } => {
                let token = cycle.request.header(*header)?;
                candidates.find(|slot| {
                    let endpoint = cycle.pool.get(*slot);
                    endpoint.is_some_and(|endpoint| is_token_of(token, &endpoint.name))
                })
            }
            Strategy::SessionId { id, state } => {
                let key = cycle.request.states.key(id.of(&cycle.request)?);
                let bound = cycle.request.state(*state)?.get(key)?;
                candidates.find(|slot| *slot == bound)
            }
        }
    }
}

impl Hook for SessionAffinity {
    fn before_request(
        &self,
        cycle: &Cycle<'_>,
        decision: &Decision<'_>,
        additions: &mut Additions,
    ) {
        let Some(ranking) = decision.ranking_of(&self.profile) else {
            return;
        };
        let Some(slot) = ranking.picks().next() else {
            return;
        };
        match &self.strategy {
            Strategy::EncodedEndpointHeader { name, .. } => {
                let token = cycle.pool.get(slot).map(|endpoint| token(&endpoint.name));
                let header = token.map(|token| (name.clone(), token));
                additions.response_headers.extend(header);
            }
            Strategy::SessionId { id, state } => {
                let Some(id) = id.of(&cycle.request) else {
                    return;
                };
                let key = cycle.request.states.key(id);
                let bound = cycle.request.state(*state).and_then(|state| state.get(key));
                // A session leaves an endpoint only if that is no candidate any more.
                let leaves = |bound| ranking.scored.iter().all(|scored| scored.slot != bound);
                if bound.is_none_or(|bound| bound == slot || leaves(bound)) {
                    let state = *state;
                    additions.records.push(Record { state, key, slot });
                }
            }
        }
    }
}

/// Reads `encodedEndpointHeaderConfig`. Returns the header's name.
fn header_config(fields: &mut Fields<'_>) -> String {
    const DEFAULT: &str = "x-session-token";
    note(fields, "encodedEndpointHeaderConfig");
    let Some(mut config) = fields.section("encodedEndpointHeaderConfig") else {
        return DEFAULT.to_owned();
    };
    let name = config.string("header", DEFAULT);
    config.finish();
    name.trim().to_ascii_lowercase()
}

/// An entry of `sources`.
enum SourceConfig {
    Header(String),
    Attribute {
        name: String,
        producer: String,
        path: Path,
    },
}

/// `sessionIdConfig`.
struct IdConfig {
    sources: Vec<SourceConfig>,
    ttl: Duration,
}

fn id_config(fields: &mut Fields<'_>) -> IdConfig {
    const DEFAULT: &str = "x-session-id";
    const SWEPT: &str = "sessions are forgotten with the tick after their time";
    /// A year: longer is a mistake, and no float that a duration cannot hold.
    const MAX_SECONDS: f64 = 31_536_000.0;
    note(fields, "sessionIdConfig");
    let mut found = IdConfig {
        sources: Vec::new(),
        ttl: Duration::from_secs(300),
    };
    if let Some(mut config) = fields.section("sessionIdConfig") {
        for (entry, path) in config.list("sources").into_iter().take(MAX_SOURCES) {
            let source = Fields::new(Some(entry), path, config.problems());
            found.sources.extend(read_source(source));
        }
        let ttl = config.number("evictionTtlSeconds", 300.0, (0.0, MAX_SECONDS));
        if ttl > 0.0 {
            found.ttl = Duration::from_secs_f64(ttl);
        }
        config.no_effect("evictionSweepSeconds", SWEPT);
        config.finish();
    }
    if found.sources.is_empty() {
        found.sources.push(SourceConfig::Header(DEFAULT.to_owned()));
    }
    found
}

fn read_source(mut source: Fields<'_>) -> Option<SourceConfig> {
    let path = source.path().clone();
    let header = source.string("header", "").trim().to_owned();
    let name = source.string("attribute", "").trim().to_owned();
    let producer = source.string("producer", "");
    if header.is_empty() == name.is_empty() {
        let message = "expected exactly one of header and attribute";
        source.problems().error(&path, message);
        return None;
    }
    source.finish();
    Some(match name.is_empty() {
        true => SourceConfig::Header(header),
        false => SourceConfig::Attribute {
            name,
            producer,
            path,
        },
    })
}

/// Asks for the headers of all sources.
fn session_id(build: &mut Build<'_, '_>, sources: Vec<SourceConfig>) -> SessionId {
    let mut id = SessionId::default();
    if build.built.states.len() > MAX_STATES {
        return id;
    }
    for source in sources {
        match source {
            SourceConfig::Header(name) => {
                let header = build.header("sessionIdConfig", &name);
                id.0.push(header);
            }
            SourceConfig::Attribute {
                name,
                producer,
                path,
            } => attach(build, (&name, &producer), &path, &mut id),
        }
    }
    id
}

/// Adds the sources of the plugin that gives requests an attribute.
fn attach(
    build: &mut Build<'_, '_>,
    (attribute, producer): (&str, &str),
    path: &Path,
    id: &mut SessionId,
) {
    let plugins = build.built.plugins.iter();
    let given = plugins.filter_map(|plugin| {
        let (known, sources) = plugin.capabilities.session_id.as_ref()?;
        let named = producer.is_empty() || producer == plugin.name;
        (*known == attribute && named).then_some(sources)
    });
    let mut found = false;
    for source in given.flat_map(|given| &given.0) {
        found = true;
        if id.0.contains(source) {
            continue;
        }
        if id.0.len() == MAX_SOURCES {
            let message =
                format!("expected at most {MAX_SOURCES} sources, with those of its producers");
            build.fields.problems().error(path, message);
            return;
        }
        id.0.push(*source);
    }
    if !found {
        let message =
            format!("has no effect: no plugin of this document gives requests {attribute}");
        build.fields.problems().warn(path, message);
    }
}

/// Keeps a section's value as it was given, for the comparison of plans.
fn note(fields: &mut Fields<'_>, name: &'static str) {
    if let Some(node) = fields.node(name) {
        fields.note(name, node.clone());
    }
}

/// Returns the token of an endpoint: its name in base64, with padding.
fn token(name: &str) -> String {
    base64(name.as_bytes()).collect()
}

/// Returns whether a token is an endpoint's.
fn is_token_of(token: &[u8], name: &str) -> bool {
    let length = name.len().div_ceil(3) * 4;
    token.len() == length && base64(name.as_bytes()).eq(token.iter().map(|byte| char::from(*byte)))
}

fn base64(bytes: &[u8]) -> impl Iterator<Item = char> + '_ {
    bytes.chunks(3).flat_map(|chunk| {
        let byte = |place: usize| chunk.get(place).copied().map_or(0, u32::from);
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        let digits = chunk.len() + 1;
        (0..4).map(move |digit: usize| match digit < digits {
            true => letter(group >> (18 - 6 * digit) & 63),
            false => '=',
        })
    })
}

fn letter(digit: u32) -> char {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    LETTERS
        .get(digit as usize)
        .map_or('=', |letter| char::from(*letter))
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
