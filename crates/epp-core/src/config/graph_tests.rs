//! Plugins that do several things, and plugins that refer to each other.

use super::tests::{errors, llm_d};
use super::*;
use crate::plugins::{self, build_default, Capability, Dialect};
use crate::scheduling::{Cycle, HeaderValues, Metrics, ProfileId, RequestView, Scratch};
use crate::testing::pool;

fn document(plugins: &str) -> String {
    llm_d(&format!("plugins:\n{plugins}"))
}

#[test]
fn a_type_has_the_capabilities_that_it_declares() {
    const ALL: [Capability; 14] = [
        Capability::Filter,
        Capability::Scorer,
        Capability::Picker,
        Capability::ProfileHandler,
        Capability::Decider,
        Capability::HelperHeaders,
        Capability::PrefixProducer,
        Capability::InflightLoad,
        Capability::Discovery,
        Capability::MetricsSource,
        Capability::MetricsExtractor,
        Capability::Parser,
        Capability::Rewrite,
        Capability::Proxy,
    ];
    for kind in plugins::TYPES {
        let built = build_default(kind.name, Dialect::LlmD);
        let gie_v1 = build_default(kind.name, Dialect::GieV1);
        for capability in ALL {
            let says = kind.provides.contains(&capability);
            assert_eq!(built.has(capability), says, "{}: {capability:?}", kind.name);
            // Nothing refers to it under that dialect.
            let cuts =
                kind.name == "prefix-cache-scorer" && capability == Capability::PrefixProducer;
            assert_eq!(
                gie_v1.has(capability),
                says || cuts,
                "{}: {capability:?}",
                kind.name
            );
        }
        for reference in kind.references {
            let read = [Dialect::GieV1, Dialect::LlmD]
                .iter()
                .flat_map(|dialect| plugins::questions(kind, *dialect))
                .any(|question| question.path.to_string() == reference.parameter);
            assert!(read, "{} never reads {}", kind.name, reference.parameter);
        }
    }
}

#[test]
fn a_plugin_can_filter_and_score_at_once_and_read_headers() {
    let text = document(
        "- {type: test-header-affinity, parameters: {header: X-Wanted}}\n\
         - {name: other, type: test-header-affinity, parameters: {header: x-wanted}}\n",
    );
    let plan = load(&text).unwrap().plan;
    assert_eq!(
        plan.headers,
        ["x-wanted"],
        "each header once, in lower case"
    );
    let profile = plan.scheduler.profiles().get(ProfileId(0)).unwrap();
    assert_eq!((profile.filters.len(), profile.scorers.len()), (2, 2));
    let pool = pool([(); 3].map(|()| Metrics::default()));
    let picks = |value: Option<&str>| {
        let mut headers = HeaderValues::default();
        headers.set([value.map(str::as_bytes)]);
        let cycle = Cycle::new(
            &pool,
            RequestView {
                headers: &headers,
                ..RequestView::default()
            },
        );
        let mut scratch = Scratch::new(fastrand::Rng::with_seed(1));
        let decision = plan.scheduler.schedule(&cycle, 9, &mut scratch, None);
        let decision = decision.map_err(|error| error.to_string())?;
        let scores = decision.ranking.scored.iter();
        let scores = scores.map(|scored| (scored.slot.0, scored.score));
        Ok::<_, String>(scores.collect::<Vec<_>>())
    };
    assert_eq!(picks(Some("p1")).unwrap(), [(1, 0.04)]);
    assert_eq!(picks(None).unwrap().len(), 3);
    assert!(picks(Some("nothing")).is_err());
}

#[test]
fn a_plugin_of_three_kinds_is_found_by_each_and_by_its_former_name() {
    let text = document(
        "- {type: prefix-cache-scorer, parameters: {prefixMatchInfoProducerName: cutter}}\n\
         - {name: cutter, type: test-two-in-one}\n",
    );
    let loaded = load(&text).unwrap();
    let warned: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert!(
        warned[0].contains("renamed; use test-all-in-one"),
        "{warned:?}"
    );
    let plan = loaded.plan;
    let producers = plan.producers.iter();
    let producers = producers.map(|(name, producer)| (name.as_str(), producer.block));
    assert_eq!(producers.collect::<Vec<_>>(), [("cutter", 512)]);
    let profile = plan.scheduler.profiles().get(ProfileId(0)).unwrap();
    assert_eq!((profile.filters.len(), profile.scorers.len()), (1, 2));
}

#[test]
fn a_plugin_that_is_needed_and_missing_is_added_once_with_its_defaults() {
    let scorer = |name: &str, producer: &str| {
        format!("- {{name: {name}, type: prefix-cache-scorer, parameters: {{{producer}}}}}\n")
    };
    let named = "prefixMatchInfoProducerName: approx-prefix-cache-producer";
    for (first, second) in [("", ""), (named, ""), ("", named), (named, named)] {
        let text = document(&(scorer("a", first) + &scorer("b", second)));
        let plan = load(&text).unwrap().plan;
        let kinds = plan.instances.iter().map(|instance| instance.kind);
        let added = kinds.filter(|kind| *kind == "approx-prefix-cache-producer");
        assert_eq!(
            (plan.producers.len(), added.count()),
            (1, 1),
            "{first}, {second}"
        );
        assert_eq!(plan.producers[0].1.block, 16);
    }
    // Sections refer to plugins of the document only.
    let text = llm_d(
        "plugins: [{type: prefix-cache-scorer}]\n\
         schedulingProfiles: [{name: p, plugins: [{pluginRef: approx-prefix-cache-producer}]}]\n",
    );
    assert!(
        errors(&text)[0].contains("expected the name of a plugin"),
        "{:?}",
        errors(&text)
    );
}

#[test]
fn a_producer_that_is_named_like_its_type_is_not_another_one() {
    let producers = |parameters: &str| {
        let text = document(&format!(
            "- {{name: cutter, type: approx-prefix-cache-producer}}\n\
             - {{type: inflight-load-producer{parameters}}}\n\
             - {{type: token-load-scorer}}\n"
        ));
        let plan = load(&text).unwrap().plan;
        let discounts = plan
            .discounts
            .map(|producer| plan.producers[producer.0].0.clone());
        (discounts, plan.producers.len())
    };
    let named = ", parameters: {prefixMatchInfoProducerName: approx-prefix-cache-producer}";
    let added = Some("approx-prefix-cache-producer".to_owned());
    assert_eq!(producers(named), (added, 2));
    assert_eq!(producers(""), (Some("cutter".to_owned()), 1));
}

#[test]
fn a_plan_reads_a_bounded_number_of_headers() {
    let entry = |number: usize| {
        format!("- {{name: h{number}, type: test-header-affinity, parameters: {{header: h{number}}}}}\n")
    };
    let all = |count: usize| document(&(0..count).map(entry).collect::<String>());
    assert!(load(&all(32)).is_ok());
    let errors = errors(&all(33));
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(
        errors[0].contains("plugins[32].parameters.header"),
        "{errors:?}"
    );
}

#[test]
fn plugins_are_built_after_those_that_they_refer_to_whatever_their_order() {
    let text = document(
        "- {name: a, type: test-follower, parameters: {follows: b}}\n\
         - {name: b, type: test-follower, parameters: {follows: c}}\n\
         - {name: c, type: queue-scorer}\n",
    );
    let plan = load(&text).unwrap().plan;
    let names = plan.instances.iter().take(3);
    let names: Vec<&str> = names.map(|instance| instance.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"], "in the document's order");
}

#[test]
fn an_undefined_reference_and_a_cycle_are_reported_with_their_locations() {
    let missing = errors(&document(
        "- {name: a, type: test-follower, parameters: {follows: bb}}\n\
         - {name: b, type: queue-scorer}\n",
    ));
    assert_eq!(missing.len(), 1, "{missing:?}");
    assert!(missing[0].starts_with("plugins[0].parameters.follows (line "));
    assert!(
        missing[0].contains("expected the name of a scorer"),
        "{missing:?}"
    );
    let circle = errors(&document(
        "- {name: a, type: test-follower, parameters: {follows: b}}\n\
         - {name: b, type: test-follower, parameters: {follows: a}}\n",
    ));
    assert!(
        circle.iter().any(
            |error| error.starts_with("plugins[1].parameters") && error.contains("in a circle")
        ),
        "{circle:?}"
    );
    let unnamed = errors(&document(
        "- {name: a, type: test-follower}\n- {name: b, type: test-follower}\n",
    ));
    assert!(
        unnamed.iter().any(|error| error.contains("name another")),
        "{unnamed:?}"
    );
}

#[test]
fn a_second_plugin_of_a_single_kind_is_reported_with_both_locations() {
    for kind in [
        "metrics-data-source",
        "core-metrics-extractor",
        "envoy-proxy",
        "envoy-cluster-discovery",
        "inflight-load-producer",
        "single-profile-handler",
    ] {
        let found = errors(&document(&format!(
            "- {{type: queue-scorer}}\n- {{name: a, type: {kind}}}\n- {{name: b, type: {kind}}}\n"
        )));
        assert_eq!(found.len(), 1, "{kind}: {found:?}");
        assert!(found[0].starts_with("plugins[2] (line "), "{found:?}");
        assert!(
            found[0].contains("\"a\" at plugins[1] came first"),
            "{found:?}"
        );
    }
}
