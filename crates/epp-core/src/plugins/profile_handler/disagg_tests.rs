//! The handlers of disaggregated profiles, with whole plans.

use std::sync::Arc;

use crate::config::{self, Plan};
use crate::scheduling::{
    Cost, Cycle, Declined, Filter, HeaderValues, NamedFilter, Pool, PrefixMatch, RequestView, ScheduleError,
    Scratch, Slot, Stage, Stages,
};
use crate::testing::{pool, waiting};

/// Profiles by label, with these plugins beside.
fn document(plugins: &str) -> String {
    let of = |role: &str| {
        format!("- {{name: {role}s, type: label-selector-filter, parameters: {{matchLabels: {{role: {role}}}}}}}\n")
    };
    let profile =
        |role: &str| format!("- {{name: {role}, plugins: [{{pluginRef: {role}s}}, {{pluginRef: queue-scorer}}]}}\n");
    let roles = ["decode", "prefill", "encode"];
    format!(
        "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n- {{type: queue-scorer}}\n{}{plugins}\
         schedulingProfiles:\n{}",
        roles.map(of).concat(),
        roles.map(profile).concat()
    )
}

fn plan(plugins: &str) -> Plan {
    config::load(&document(plugins)).unwrap().plan
}

/// A handler with the deciders that its parameters name.
fn handler(parameters: &str) -> Plan {
    plan(&format!(
        "- {{type: always-disagg-pd-decider}}\n- {{type: always-disagg-multimodal-decider}}\n\
         - {{type: prefix-based-pd-decider, parameters: {{nonCachedTokens: 100}}}}\n\
         - {{type: disagg-profile-handler, parameters: {parameters}}}\n"
    ))
}

/// Endpoints with these roles, the first one idle, each with one waiting request more than the one before.
fn with_roles(roles: &[&str]) -> Pool {
    let mut pool = pool((0..roles.len()).map(|place| waiting(place as f64)));
    for (slot, role) in (0..).map(Slot).zip(roles) {
        pool.get_mut(slot).unwrap().labels = vec![("role".to_owned(), (*role).to_owned())];
    }
    pool
}

const ALL: [&str; 6] = ["encode", "prefill", "decode", "encode", "prefill", "decode"];

/// A request with a prompt of 500 tokens.
fn text() -> RequestView<'static> {
    RequestView {
        model: "m",
        cost: tokens(500.0),
        ..RequestView::default()
    }
}

fn tokens(prompt: f64) -> Cost {
    Cost {
        prompt,
        ..Cost::default()
    }
}

/// The slots of the primary endpoint, of the one that computes the prompt, and of the first that encodes media, with
/// what became of these parts.
type Decided = (u32, Option<u32>, Option<u32>, Option<Stages>);

fn decide(plan: &Plan, pool: &Pool, request: RequestView<'_>) -> Result<Decided, ScheduleError> {
    let mut scratch = Scratch::new(fastrand::Rng::with_seed(1));
    let cycle = Cycle::new(pool, request);
    let decision = plan.scheduler.schedule(&cycle, 2, &mut scratch, None)?;
    if let Some(missing) = decision.conclusion.missing {
        return Err(missing);
    }
    let slots = decision.by_role();
    let encode = slots.encode.first().map(|slot| slot.0);
    let prefill = slots.prefill.map(|slot| slot.0);
    let stages = decision.conclusion.stages;
    Ok((slots.primary.0, prefill, encode, stages))
}

#[test]
fn other_endpoints_do_the_parts_that_deciders_give_them() {
    let media = RequestView {
        media: true,
        ..text()
    };
    let both = "{deciders: {prefill: always-disagg-pd-decider, encode: always-disagg-multimodal-decider}}";
    let first = "{stageOrder: PREFILL_FIRST, deciders: {encode: always-disagg-multimodal-decider}}";
    for parameters in [both, first] {
        let plan = handler(parameters);
        let pool = with_roles(&ALL);
        let (decode, prefill, encode, _) = decide(&plan, &pool, media).unwrap();
        assert_eq!((decode, prefill, encode), (2, Some(1), Some(0)));
        let (decode, prefill, encode, stages) = decide(&plan, &pool, text()).unwrap();
        assert_eq!((decode, prefill, encode), (2, Some(1), None));
        let encode = stages.unwrap().encode;
        assert_eq!(encode, Stage::Declined(Declined::NoMedia));
    }
    // Without deciders the decode endpoint does everything.
    let (decode, prefill, encode, stages) =
        decide(&handler("{}"), &with_roles(&ALL), media).unwrap();
    assert_eq!((decode, prefill, encode), (2, None, None));
    let stages = stages.unwrap();
    assert_eq!(stages.prefill, Stage::Declined(Declined::NoDecider));
}

#[test]
fn a_part_without_an_endpoint_is_the_requests_error_if_it_was_required() {
    let plan = handler(
        "{deciders: {prefill: always-disagg-pd-decider, encode: always-disagg-multimodal-decider}}",
    );
    let error = |roles: &[&str]| decide(&plan, &with_roles(roles), text()).unwrap_err();
    assert_eq!(
        error(&["prefill", "encode"]),
        ScheduleError::NoDecodeEndpoint
    );
    assert_eq!(error(&[]), ScheduleError::NoCandidates);
    assert_eq!(
        error(&["decode", "encode"]),
        ScheduleError::NoPrefillEndpoint
    );
    let media = RequestView {
        media: true,
        ..text()
    };
    let (.., encode, stages) = decide(&plan, &with_roles(&["decode", "prefill"]), media).unwrap();
    assert_eq!(encode, None);
    assert!(matches!(stages.unwrap().encode, Stage::NoEndpoint(_)));
    // A declined part is not missed.
    let plan = handler("{deciders: {prefill: prefix-based-pd-decider}}");
    let short = RequestView {
        cost: Cost {
            prompt: 99.0,
            ..Cost::default()
        },
        ..text()
    };
    let (.., stages) = decide(&plan, &with_roles(&["decode"]), short).unwrap();
    let short = Declined::Short {
        tokens: 99.0,
        least: 100,
    };
    assert_eq!(stages.unwrap().prefill, Stage::Declined(short));
}

#[test]
fn a_handler_of_old_documents_leaves_the_prompt_to_the_decode_endpoint_and_names_no_other() {
    let decider = "- {type: always-disagg-pd-decider}\n";
    let handler =
        "- {type: pd-profile-handler, parameters: {deciderPluginName: always-disagg-pd-decider, primaryPort: 8000}}\n";
    let old = plan(&format!("{decider}{handler}"));
    assert!(!old.names_helpers);
    let (decode, prefill, encode, _) = decide(&old, &with_roles(&ALL), text()).unwrap();
    assert_eq!((decode, prefill, encode), (2, Some(1), None));
    assert_eq!(
        decide(&old, &with_roles(&["decode"]), text()).unwrap().1,
        None
    );
    for kind in ["disagg-headers-handler", "prefill-header-handler"] {
        let plan = plan(&format!("{decider}{handler}- {{type: {kind}}}\n"));
        assert!(plan.names_helpers, "{kind}");
        assert!(plan != old);
    }
}

#[test]
fn a_decision_is_open_while_the_length_of_the_prompt_can_change_it() {
    let plan = handler("{deciders: {prefill: prefix-based-pd-decider}}");
    let pool = with_roles(&["decode", "prefill"]);
    let settled = |cached: [u32; 2], shortest: f64, longest: f64| {
        let prefix = [PrefixMatch {
            matched: &cached,
            total: 9.0,
            block_tokens: Some(64),
        }];
        let cycle = |prompt| {
            let cost = Cost {
                prompt,
                ..Cost::default()
            };
            let request = RequestView {
                prefix: &prefix,
                cost,
                ..text()
            };
            Cycle::new(&pool, request)
        };
        let mut scratch = Scratch::new(fastrand::Rng::with_seed(1));
        plan.scheduler
            .same_choice(&cycle(shortest), &cycle(longest), &mut scratch)
    };
    assert!(!settled([0, 0], 99.0, 100.0));
    assert!(settled([0, 0], 100.0, 9e9));
    assert!(settled([0, 0], 10.0, 99.0));
    assert!(!settled([1, 0], 100.0, 9e9));
    assert!(settled([1, 0], 164.0, 9e9));
    // What the other endpoint holds does not count.
    assert!(settled([0, 9], 100.0, 9e9));
}

#[test]
fn parameters_of_all_releases_are_read_and_not_mixed() {
    let prefills = |parameters: &str| {
        let (_, prefill, ..) = decide(&handler(parameters), &with_roles(&ALL), text()).unwrap();
        prefill.is_some()
    };
    for parameters in [
        "{profiles: {decode: decode, prefill: prefill}, deciders: {prefill: always-disagg-pd-decider}}",
        "{prefillDeciderPluginName: always-disagg-pd-decider, decodeProfile: decode}",
        "{deciderPluginName: always-disagg-pd-decider, prefillProfile: prefill}",
        "{stageOrder: Prefill}",
        "{stageOrder: decode_First, deciders: {prefill: always-disagg-pd-decider}}",
    ] {
        assert!(prefills(parameters), "{parameters}");
    }
    assert!(!prefills(
        "{profiles: {prefill: other}, deciders: {prefill: always-disagg-pd-decider}}"
    ));
    assert!(!prefills("{profiles: {}, deciders: {prefill: ''}}"));
    let other = "found no profile named \"main\"";
    for (parameters, expected) in [
        (
            "{profiles: {decode: d}, deciderPluginName: always-disagg-pd-decider}",
            "beside",
        ),
        (
            "{stageOrder: prefill-first, deciders: {prefill: always-disagg-pd-decider}}",
            "prefill-first",
        ),
        ("{stageOrder: encode-first}", "decode-first or prefill-first"),
        ("{deciders: {encode: missing}}", "deciders.encode"),
        ("{profiles: {decode: main}}", other),
        ("{deciders: {decode: missing}}", "unknown field"),
    ] {
        let text = document(&format!(
            "- {{type: always-disagg-pd-decider}}\n- {{type: disagg-profile-handler, parameters: {parameters}}}\n"
        ));
        let rejected = config::load(&text).unwrap_err();
        let errors: Vec<String> = rejected.errors.iter().map(ToString::to_string).collect();
        assert!(errors.iter().any(|error| error.contains(expected)), "{errors:?}");
    }
}

#[test]
fn a_cached_prompt_costs_less_with_every_decider() {
    let always = "- {type: always-disagg-pd-decider}\n";
    for handler in [
        "- {type: disagg-profile-handler, parameters: {deciders: {prefill: always-disagg-pd-decider}}}\n",
        "- {type: pd-profile-handler, parameters: {deciderPluginName: always-disagg-pd-decider}}\n",
    ] {
        let text = document(&format!("{always}{handler}"));
        let plan = config::load(&text).unwrap().plan;
        assert!(!plan.needs.prompt && plan.producers.is_empty());
        let plan = config::load(&text.replace("queue-scorer", "token-load-scorer")).unwrap().plan;
        assert!(plan.discounts.is_some());
        assert_eq!(plan.producers.len(), 1);
    }
}

#[test]
fn a_header_names_the_profile_that_runs() {
    let by_header = |kind: &str, parameters: &str, value: Option<&str>| {
        let plan = plan(&format!("- {{type: {kind}, parameters: {parameters}}}\n"));
        let mut headers = HeaderValues::default();
        headers.set([value.map(str::as_bytes)]);
        let request = RequestView {
            headers: &headers,
            ..text()
        };
        let name = plan.headers.concat();
        (name, decide(&plan, &with_roles(&ALL), request).map(|(primary, ..)| primary))
    };
    let name = "header-profile-handler";
    for (value, expected) in [
        (Some(" encode "), Ok(0)),
        (Some("prefill"), Ok(1)),
        (None, Ok(2)),
        (Some("  "), Ok(2)),
        (Some("Decode"), Err(ScheduleError::NoProfileRan)),
    ] {
        let found = by_header(name, "{}", value);
        assert_eq!(found, ("epp-profile".to_owned(), expected), "{value:?}");
    }
    let found = by_header("header-phase-profile-handler", "{defaultProfile: encode}", None);
    assert_eq!(found, ("epp-phase".to_owned(), Ok(0)));
    let (header, _) = by_header(name, "{headerName: ' X-Phase '}", None);
    assert_eq!(header, "x-phase");
}

/// Keeps the endpoint that is this many slots behind the one that another profile has picked.
#[derive(Debug)]
struct Behind(u32);

impl Filter for Behind {
    fn filter(&self, cycle: &Cycle<'_>, candidates: &mut Vec<Slot>) {
        candidates.retain(|slot| cycle.peer.is_some_and(|peer| slot.0 == peer.0 + self.0));
    }
}

#[test]
fn the_pick_of_the_first_profile_is_the_peer_of_the_other_one() {
    for (parameters, profile, behind, expected) in [
        ("{deciders: {prefill: always-disagg-pd-decider}}", 1, 2, (2, Some(4))),
        ("{stageOrder: prefill-first}", 0, 4, (5, Some(1))),
    ] {
        let mut plan = handler(parameters);
        let filter = NamedFilter {
            name: "behind".to_owned(),
            filter: Arc::new(Behind(behind)),
        };
        plan.scheduler.profiles_mut()[profile].filters = [filter].into();
        let (decode, prefill, ..) = decide(&plan, &with_roles(&ALL), text()).unwrap();
        assert_eq!((decode, prefill), expected, "{parameters}");
    }
}
