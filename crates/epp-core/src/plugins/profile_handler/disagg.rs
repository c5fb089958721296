//! `disagg-profile-handler`: one endpoint generates the response; others may compute the prompt and encode
//! its media for it.
//!
//! The decode profile picks the endpoint that the request is sent to. If `deciders.encode` says so, the
//! picks of the encode profile encode the media of the prompt, and are named in `x-encoder-hosts-ports`,
//! separated by commas; if `deciders.prefill` says so, the first pick of the prefill profile computes the
//! prompt, and is named in `x-prefiller-host-port`. The routing sidecar beside the decode endpoint calls
//! them. A client's own headers of these names are removed.
//!
//! With `stageOrder: decode-first` the deciders know the decode endpoint. With `prefill-first` the prefill
//! profile runs first and always, so that the decode profile can suit its pick; a decider for it is an
//! error then.
//!
//! If no decode endpoint has the labels that its profile looks for, the request fails with 503. If an endpoint
//! was to compute the prompt and there is none, it fails as well (503; 429 if the endpoints are only busy),
//! unless `envoy-proxy` has `missingPrefill: decodeOnly`. If no endpoint can encode the media, the decode
//! endpoint does.
//!
//! If a plugin counts tokens and the document has no prefix producer, an `approx-prefix-cache-producer` is added.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `stageOrder` | `decode-first` | or `prefill-first`; in any case, `-` and `_` left out or not, and also as `decode` or `prefill` |
//! | `profiles` | – | the names of the profiles |
//! | `profiles.decode` | `decode` | the profile that picks where the request goes |
//! | `profiles.prefill` | `prefill` | the profile that picks who computes the prompt |
//! | `profiles.encode` | `encode` | the profile that picks who encodes media |
//! | `deciders` | – | the names of plugins that decide |
//! | `deciders.prefill` | none | decides whether the prompt is computed elsewhere; without, never |
//! | `deciders.encode` | none | decides whether media are encoded elsewhere; without, never |
//! | `decodeProfile` | – | the former name of `profiles.decode` |
//! | `prefillProfile` | – | the former name of `profiles.prefill` |
//! | `encodeProfile` | – | the former name of `profiles.encode` |
//! | `prefillDeciderPluginName` | – | the former name of `deciders.prefill` |
//! | `deciderPluginName` | – | the one before |
//! | `encodeDeciderPluginName` | – | the former name of `deciders.encode` |
//!
//! Former names and new ones in one document are an error.
//!
//! ```yaml
//! - type: prefix-based-pd-decider
//!   parameters: {nonCachedTokens: 512}
//! - type: disagg-profile-handler
//!   parameters:
//!     deciders: {prefill: prefix-based-pd-decider}
//! schedulingProfiles: [{name: prefill}, {name: decode}]
//! ```

use std::sync::Arc;

use crate::config::value::{Fields, Node, Path};
use crate::plugins::disaggregation::always_disagg_pd::Always;
use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType, Reference};
use crate::scheduling::{
    same_decision, Conclusion, Cycle, Decider, Declined, Left, Needs, ProfileHandler, ProfileId,
    ProfileSet, Profiles, Results, ScheduleError, Slot, Stage, Stages,
};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "disagg-profile-handler",
    former_names: &[],
    provides: &[Capability::ProfileHandler],
    references: &[
        decider("deciders.prefill"),
        decider("deciders.encode"),
        decider("prefillDeciderPluginName"),
        decider("deciderPluginName"),
        decider("encodeDeciderPluginName"),
    ],
    build,
    parity: Parity::SAME,
};

/// Returns the reference of a parameter that names a decider.
pub(super) const fn decider(parameter: &'static str) -> Reference {
    Reference {
        parameter,
        to: Capability::Decider,
        default: None,
    }
}

/// Former parameters, what replaced them, and the place of that in [`Names`]. Of two with the same place the first
/// counts.
const FORMER: [(&str, &str, usize); 6] = [
    ("decodeProfile", "profiles.decode", 0),
    ("prefillProfile", "profiles.prefill", 1),
    ("encodeProfile", "profiles.encode", 2),
    ("prefillDeciderPluginName", "deciders.prefill", 3),
    ("deciderPluginName", "deciders.prefill", 3),
    ("encodeDeciderPluginName", "deciders.encode", 4),
];

/// The default names of profiles.
pub(super) const DECODE: &str = "decode";
pub(super) const PREFILL: &str = "prefill";
const ENCODE: &str = "encode";

/// Runs the profiles of endpoints with different parts in a request.
#[derive(Debug)]
pub(super) struct Disaggregation {
    pub order: StageOrder,
    /// The profile whose picks the request is sent to.
    pub decode: String,
    pub prefill: Part,
    pub encode: Part,
    /// Whether a request fails that no endpoint can compute the prompt of, though one was to.
    pub requires_prefill: bool,
    pub names_helpers: bool,
    /// See [`Conclusion::port`].
    pub port: Option<u16>,
}

/// The order in which profiles run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StageOrder {
    DecodeFirst,
    PrefillFirst,
}

/// A part of a request that an endpoint of another profile may do.
#[derive(Debug, Default)]
pub(super) struct Part {
    /// The profile's name.
    pub profile: String,
    pub decider: Option<Arc<dyn Decider>>,
}

impl Part {
    /// Returns the profile that is to do it, or why none is.
    fn due(
        &self,
        cycle: &Cycle<'_>,
        profiles: Profiles<'_>,
        primary: Option<Slot>,
    ) -> Result<ProfileId, Stage> {
        let profile = profiles.find(&self.profile).ok_or(Stage::NoProfile)?;
        let decider = self.decider.as_ref().ok_or(Declined::NoDecider);
        let said = decider.and_then(|decider| decider.decide(cycle, primary));
        said.map(|()| profile).map_err(Stage::Declined)
    }

    /// Returns what became of it.
    fn outcome(due: Result<ProfileId, Stage>, done: &Results) -> Stage {
        let profile = match due {
            Ok(profile) => profile,
            Err(stage) => return stage,
        };
        match done.get(profile) {
            Some(Ok(_)) => Stage::Picked(profile),
            Some(Err(error)) => Stage::NoEndpoint(*error),
            None => Stage::NoEndpoint(ScheduleError::NoProfileRan),
        }
    }
}

impl Disaggregation {
    /// Returns the endpoint that the deciders compare with.
    fn primary(&self, profiles: Profiles<'_>, done: &Results) -> Option<Slot> {
        match self.order {
            StageOrder::DecodeFirst => done.first(profiles.find(&self.decode)?),
            StageOrder::PrefillFirst => None,
        }
    }

    fn next_after_decode(
        &self,
        decode: ProfileId,
        (cycle, profiles, done): (&Cycle<'_>, Profiles<'_>, &Results),
        run: &mut ProfileSet,
    ) {
        if done.get(decode).is_none() {
            return run.insert(decode);
        }
        let primary = done.first(decode);
        if primary.is_none() {
            return;
        }
        if let Ok(encode) = self.encode.due(cycle, profiles, primary) {
            run.insert(encode);
        }
        if let Ok(prefill) = self.prefill.due(cycle, profiles, primary) {
            run.insert_beside(prefill, primary);
        }
    }

    fn next_before_decode(
        &self,
        decode: ProfileId,
        (cycle, profiles, done): (&Cycle<'_>, Profiles<'_>, &Results),
        run: &mut ProfileSet,
    ) {
        let parts = [&self.prefill, &self.encode];
        let due = parts.map(|part| part.due(cycle, profiles, None).ok());
        let left = |profile: &ProfileId| done.get(*profile).is_none();
        due.into_iter()
            .flatten()
            .filter(left)
            .for_each(|profile| run.insert(profile));
        if run.is_empty() {
            let [prefill, _] = due;
            let peer = prefill.and_then(|prefill| done.first(prefill));
            run.insert_beside(decode, peer);
        }
    }
}

impl ProfileHandler for Disaggregation {
    fn check(&self, profiles: Profiles<'_>) -> Result<(), String> {
        match profiles.find(&self.decode) {
            Some(_) => Ok(()),
            None => Err(format!(
                "found no profile named {:?}, expected one that picks where requests are sent to",
                self.decode
            )),
        }
    }

    fn next(
        &self,
        cycle: &Cycle<'_>,
        profiles: Profiles<'_>,
        done: &Results,
        run: &mut ProfileSet,
    ) {
        let Some(decode) = profiles.find(&self.decode) else {
            return;
        };
        let state = (cycle, profiles, done);
        match self.order {
            StageOrder::DecodeFirst => self.next_after_decode(decode, state, run),
            StageOrder::PrefillFirst => self.next_before_decode(decode, state, run),
        }
    }

    fn conclude(
        &self,
        cycle: &Cycle<'_>,
        profiles: Profiles<'_>,
        done: &Results,
    ) -> Result<Conclusion, ScheduleError> {
        let decode = profiles.find(&self.decode);
        let decode = decode.ok_or(ScheduleError::NoProfileRan)?;
        match done.get(decode) {
            Some(Ok(_)) => {}
            Some(Err(ScheduleError::NoneMatches)) | None => {
                return Err(ScheduleError::NoDecodeEndpoint)
            }
            Some(Err(error)) => return Err(*error),
        }
        let primary = self.primary(profiles, done);
        let outcome = |part: &Part| Part::outcome(part.due(cycle, profiles, primary), done);
        let prefill = outcome(&self.prefill);
        let missing = match prefill {
            Stage::NoEndpoint(ScheduleError::NoneMatches) => Some(ScheduleError::NoPrefillEndpoint),
            Stage::NoEndpoint(error) => Some(error),
            _ => None,
        };
        Ok(Conclusion {
            primary: decode,
            stages: Some(Stages {
                prefill,
                encode: outcome(&self.encode),
            }),
            port: self.port,
            missing: missing.filter(|_| self.requires_prefill),
        })
    }

    fn settled(
        &self,
        shortest: &Cycle<'_>,
        longest: &Cycle<'_>,
        profiles: Profiles<'_>,
        left: &mut Left<'_>,
    ) -> bool {
        let decode = profiles.find(&self.decode);
        let first = self.order == StageOrder::DecodeFirst;
        let decoding = decode.filter(|_| first).map(|decode| left.by(decode));
        let parts = [&self.prefill, &self.encode].into_iter();
        let mut deciders = parts
            .filter(|part| profiles.find(&part.profile).is_some())
            .filter_map(|part| part.decider.as_deref());
        deciders.all(|decider| match decoding {
            Some(slots) => {
                let slots = slots.iter().copied().map(Some);
                same_decision(decider, (shortest, longest), slots)
            }
            None => same_decision(decider, (shortest, longest), std::iter::once(None)),
        })
    }

    fn needs(&self) -> Needs {
        let deciders = [&self.prefill, &self.encode].map(|part| part.decider.as_deref());
        let needs = deciders.into_iter().flatten().map(Decider::needs);
        needs.fold(Needs::default(), Needs::union)
    }

    fn names_helpers(&self) -> bool {
        self.names_helpers
    }
}

/// A name that the document gives.
struct Given {
    name: String,
    path: Path,
}

/// The names that the document gives: of the profiles for decode, prefill and encode, of the deciders for prefill and
/// encode.
type Names = [Option<Given>; 5];

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    let fields = &mut build.fields;
    let order = read_order(fields);
    let mut names = Names::default();
    read_nested(fields, &mut names);
    read_former(fields, &mut names);
    let [decode, prefill, encode, prefill_decider, encode_decider] = names;
    let named = |given: Option<Given>, default: &str| match given {
        Some(given) => given.name,
        None => default.to_owned(),
    };
    let prefill_decider = match (order, prefill_decider) {
        (StageOrder::DecodeFirst, given) => given.and_then(|given| decider_of(build, &given)),
        (StageOrder::PrefillFirst, given) => {
            if let Some(given) = given {
                let message = "found a decider, expected none with stageOrder: prefill-first, where the prefill \
                               profile always runs";
                build.fields.problems().error(&given.path, message);
            }
            Some(Arc::new(Always) as Arc<dyn Decider>)
        }
    };
    Capabilities::profile_handler(Disaggregation {
        order,
        decode: named(decode, DECODE),
        prefill: Part {
            profile: named(prefill, PREFILL),
            decider: prefill_decider,
        },
        encode: Part {
            profile: named(encode, ENCODE),
            decider: encode_decider.and_then(|given| decider_of(build, &given)),
        },
        requires_prefill: true,
        names_helpers: true,
        port: None,
    })
}

fn decider_of(build: &mut Build<'_, '_>, given: &Given) -> Option<Arc<dyn Decider>> {
    let plugin = build.resolve(Capability::Decider, &given.name, &given.path)?;
    plugin.capabilities.decider.clone()
}

fn read_order(fields: &mut Fields<'_>) -> StageOrder {
    let given = fields.string("stageOrder", "decode-first");
    let letters = given.chars().filter(|letter| !matches!(letter, '-' | '_'));
    let letters: String = letters.collect();
    match letters.to_lowercase().as_str() {
        "" | "decodefirst" | "decode" => StageOrder::DecodeFirst,
        "prefillfirst" | "prefill" => StageOrder::PrefillFirst,
        _ => {
            let expected = "decode-first or prefill-first";
            fields.refuse("stageOrder", &Node::String(given), expected);
            StageOrder::DecodeFirst
        }
    }
}

fn read_nested(fields: &mut Fields<'_>, names: &mut Names) {
    let (profiles, deciders) = names.split_at_mut(3);
    let defaults = [(DECODE, DECODE), (PREFILL, PREFILL), (ENCODE, ENCODE)];
    read_section(fields, "profiles", &defaults, profiles);
    read_section(fields, "deciders", &[(PREFILL, ""), (ENCODE, "")], deciders);
}

fn read_section(
    fields: &mut Fields<'_>,
    name: &'static str,
    members: &[(&'static str, &str)],
    names: &mut [Option<Given>],
) {
    if let Some(node) = fields.node(name) {
        fields.note(name, node.clone());
    }
    let Some(mut section) = fields.section(name) else {
        return;
    };
    for ((member, default), given) in members.iter().zip(names) {
        let name = section.string(member, default);
        let path = section.path().key(member);
        let is_given = section.has(member) && !name.is_empty();
        *given = is_given.then_some(Given { name, path });
    }
    section.finish();
}

fn read_former(fields: &mut Fields<'_>, names: &mut Names) {
    let nested = names.iter().any(Option::is_some);
    for (former, now, place) in FORMER {
        if !fields.deprecated(former, now) {
            continue;
        }
        let name = fields.string(former, "");
        let path = fields.path().key(former);
        if name.is_empty() {
            continue;
        }
        if nested {
            let message = format!("found {former} beside profiles or deciders, expected {now} instead");
            fields.problems().error(&path, message);
        }
        if let Some(given) = names.get_mut(place) {
            given.get_or_insert(Given { name, path });
        }
    }
}

#[cfg(test)]
#[path = "disagg_tests.rs"]
mod tests;
