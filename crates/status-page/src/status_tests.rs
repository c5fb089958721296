use super::*;
use epp_core::findings::Finding;
use epp_core::picker::status::{DecisionBasis, IndexFill, PlanSummary, PluginSummary};
use epp_core::scheduling::{Health, Metrics};
use epp_core::time::Timestamp;
use epp_sync::presence::{Presence, WorkerSlots};
use epp_sync::InProcess;

const NOW: u64 = 1_000_000;

/// A pool of two endpoints, one of which was scraped, and one VM with this report.
fn pool(memory: &mut InProcess, report: Report) {
    let base = report::base("epp", "a<b>");
    let mut store = EndpointStore::default();
    for (slot, address) in [(Slot(0), "10.0.0.1:80"), (Slot(1), "10.0.0.2:80")] {
        let member = epp_core::endpoints::store::Member {
            name: address.to_owned(),
            address: address.to_owned(),
            health: match slot {
                Slot(0) => Health::Healthy,
                _ => Health::Draining,
            },
            ..Default::default()
        };
        store.set_member(slot, &member);
    }
    let metrics = Metrics {
        waiting: Some(3.0),
        running: Some(7.0),
        kv_usage: Some(0.25),
        ..Metrics::default()
    };
    store.set_metrics(Slot(0), metrics, false, Timestamp::from_millis(NOW - 40));
    let members = snapshot::encode_members(&store);
    memory.set(&format!("{base}/members"), &members, None);
    let metrics = snapshot::encode_metrics(&store);
    memory.set(&format!("{base}/metrics"), &metrics, None);

    let mut traffic = Traffic::default();
    let shared = &mut Shared::new(memory, &mut traffic);
    let mut workers = WorkerSlots::new(base.clone(), 77);
    assert!(workers.register(shared));
    let presence = Presence {
        loads: vec![EndpointLoad {
            tag: store.pool.get(Slot(0)).unwrap().tag(),
            requests: 5,
            tokens: 640,
            ..EndpointLoad::default()
        }],
        ..Presence::default()
    };
    workers.publish(&presence, shared);
    report::publish(&presence::key(&base, 0), &report, shared);
    let plan = PlanReport {
        id: 9,
        summary: PlanSummary {
            summary: "rules".to_owned(),
            staleness: 2_000,
            plugins: vec![PluginSummary {
                name: "queue-scorer".to_owned(),
                ..PluginSummary::default()
            }],
            approximations: vec!["p is approximated here: as q".to_owned()],
        },
    };
    report::publish_plan(&base, &plan, shared);
    report::list_pool(&base, shared);
}

fn report() -> Report {
    let best = |slot, sum| Candidate {
        slot,
        sum,
        scores: vec![sum / 2.0],
    };
    let status = Status {
        serves: true,
        decision_basis: DecisionBasis::Metrics,
        index: IndexFill {
            bytes: 1,
            bound: 2,
            ..IndexFill::default()
        },
        picks: vec![(0, 12)],
        obstacles: vec![(1, "unhealthy, draining, for 12 s".to_owned())],
        legends: vec![Legend {
            filters: vec!["f".to_owned()],
            scorers: vec![("queue-scorer".to_owned(), 2.0)],
        }],
        decisions: vec![RecentDecision {
            model: "<b>m</b>".to_owned(),
            at: NOW - 300,
            removed: vec![2],
            candidates: 2,
            picks: 1,
            best: vec![best(Some(0), 2.0), best(None, 1.0)],
            parts: vec!["prefill: no endpoint".to_owned()],
            ..RecentDecision::default()
        }],
        ..Status::default()
    };
    Report {
        owner: 77,
        at: NOW - 100,
        plan: 9,
        status,
    }
}

#[test]
fn a_page_without_reports_says_that_data_is_being_collected() {
    let mut memory = InProcess::default();
    let text = page(&mut memory, NOW, "b");
    assert!(text.contains("Collecting data"), "{text}");
}

#[test]
fn the_page_shows_what_was_reported() {
    let mut memory = InProcess::default();
    pool(&mut memory, report());
    let text = page(&mut memory, NOW, "b");
    for shown in [
        "Updated 00:16:40 UTC. Refreshes every 2 s.",
        "Pool a&lt;b&gt;",
        "<td>40 ms</td><td>3</td><td>7</td><td>25.0 %</td><td>–</td><td class=\"in-flight\">5</td><td>640</td><td>12</td>",
        "<td class=\"picked bad\">no: unhealthy, draining, for 12 s</td><td class=\"bad\">never scraped</td>",
        "10.0.0.1:80: 5",
        "&lt;b&gt;m&lt;/b&gt;",
        "f: 2",
        "<th>queue-scorer × 2</th>",
        "<tr class=\"pick\"><td rowspan=\"2\">0.3 s ago</td>",
        "<td class=\"l\">(gone)</td><td>1.000</td><td>0.500</td>",
        "<td>50.0 %</td>",
        "<td class=\"entries\">0</td>",
        "<li>p is approximated here: as q</li>",
    ] {
        assert!(text.contains(shown), "no {shown}: {text}");
    }
}

#[test]
fn an_endpoint_whose_loads_are_read_is_shown_as_such() {
    let shown = |from_loads| {
        let mut memory = InProcess::default();
        pool(&mut memory, report());
        let base = report::base("epp", "a<b>");
        let read = memory.get(&format!("{base}/metrics")).unwrap().0;
        let mut store = EndpointStore::default();
        let members = memory.get(&format!("{base}/members")).unwrap().0;
        store.adopt_members(snapshot::decode_members(&members).unwrap());
        store.adopt_metrics(snapshot::decode_metrics(&read).unwrap());
        let metrics = &mut store.pool.get_mut(Slot(0)).unwrap().metrics;
        metrics.from_loads = from_loads;
        let written = snapshot::encode_metrics(&store);
        memory.set(&format!("{base}/metrics"), &written, None);
        page(&mut memory, NOW, "b")
    };
    let text = shown(true);
    assert!(
        text.contains("<td class=\"\">fresh, /v1/loads</td>"),
        "{text}"
    );
    assert!(shown(false).contains("<td class=\"\">fresh</td>"));
}

#[test]
fn an_endpoint_at_rest_is_shown_as_such_while_its_page_comes() {
    let shown = |rest, failures| {
        let mut memory = InProcess::default();
        pool(&mut memory, report());
        let base = report::base("epp", "a<b>");
        let mut store = EndpointStore::default();
        let members = memory.get(&format!("{base}/members")).unwrap().0;
        store.adopt_members(snapshot::decode_members(&members).unwrap());
        let scraped = Some(Timestamp::from_millis(NOW - 40));
        let condition = epp_core::endpoints::store::Condition {
            scraped,
            failures,
            rest,
        };
        store.set_condition(Slot(0), condition);
        memory.set(
            &format!("{base}/metrics"),
            &snapshot::encode_metrics(&store),
            None,
        );
        page(&mut memory, NOW, "b")
    };
    let text = shown(1_800, 0);
    assert!(
        text.contains("<td class=\"\">fresh, at rest</td>"),
        "{text}"
    );
    assert!(shown(0, 0).contains("<td class=\"\">fresh</td>"));
    assert!(shown(1_800, 1).contains("<td class=\"\">fresh, 1 failed</td>"));
    // Requests may be in flight there where the plan needs only constants.
    assert!(shown(0, 0).contains("At rest: its page is not needed now, and is read more rarely."));
}

#[test]
fn flow_control_says_of_each_worker_what_waits_and_why() {
    let mut memory = InProcess::default();
    let mut first = report();
    first.status.flow = vec![
        "<why>".to_owned(),
        "priority 1".to_owned(),
        "priority 0".to_owned(),
    ];
    pool(&mut memory, first);
    let base = report::base("epp", "a<b>");
    let mut traffic = Traffic::default();
    let shared = &mut Shared::new(&mut memory, &mut traffic);
    let record = Record {
        owner: 78,
        ..Record::default()
    };
    shared.put(&presence::key(&base, 1), &record, None);
    let mut second = Report {
        owner: 78,
        ..report()
    };
    second.status.flow = vec!["open".to_owned()];
    report::publish(&presence::key(&base, 1), &second, shared);
    let text = page(&mut memory, NOW, "b");
    let shown = "<h3>Flow control</h3><p class=\"flow\">Worker 0: &lt;why&gt;<br>priority 1<br>priority 0</p>\
                 <p class=\"flow\">Worker 1: open</p>";
    assert!(text.contains(shown), "{text}");
}

#[test]
fn without_flow_control_the_page_does_not_mention_it() {
    let mut memory = InProcess::default();
    pool(&mut memory, report());
    assert!(!page(&mut memory, NOW, "b").contains("Flow control"));
}

#[test]
fn the_verdict_comes_first_with_causes_and_remedies() {
    let mut memory = InProcess::default();
    pool(&mut memory, report());
    let text = page(&mut memory, NOW, "b");
    assert!(
        text.contains("<p class=\"verdict bad\">Not healthy: 1 broken.</p>"),
        "nobody polls: {text}"
    );

    let mut polls = report();
    polls.status.polls = true;
    let mut memory = InProcess::default();
    pool(&mut memory, polls);
    let text = page(&mut memory, NOW, "b");
    assert!(text.contains("<p class=\"verdict\">Healthy.</p>"), "{text}");

    let verdict = findings::Verdict {
        open: vec![Condition {
            since: NOW - 61_000,
            ..Condition::new(Finding::EndpointsEjected, "1 of 2 endpoints: <a>")
        }],
    };
    let base = report::base("epp", "a<b>");
    Shared::new(&mut memory, &mut Traffic::default()).put(
        &format!("{base}/findings"),
        &verdict,
        None,
    );
    let text = page(&mut memory, NOW, "b");
    let cause = Finding::EndpointsEjected.cause();
    let listed =
        format!("<li><span class=\"bad\">degraded: {cause}</span> [1 of 2 endpoints: &lt;a&gt;] ");
    assert!(text.contains(&listed), "{text}");
    assert!(
        text.contains("<code>endpoints-ejected</code> for 61.0 s</li>"),
        "{text}"
    );
    let place = |what: &str| text.find(what).unwrap();
    assert!(
        place("Not healthy: 1 degraded.") < place("Filter <code>"),
        "{text}"
    );
}

#[test]
fn a_page_of_another_build_than_the_pickers_says_so() {
    let mut memory = InProcess::default();
    pool(&mut memory, report());
    let mut told = |pickers: &[u8]| {
        memory.set(BUILD, pickers, None);
        page(&mut memory, NOW, "epp-wasm 0.1.0").contains("give it the same module")
    };
    assert!(!told(b"epp-wasm 0.1.0"));
    assert!(told(b"epp-wasm 0.2.0"));
    let forged = page(&mut memory, NOW, "b");
    assert!(forged.contains("The pickers run epp-wasm 0.2.0, and this listener b: "));
    memory.set(
        BUILD,
        &[b"<\n\x1b".as_slice(), &[b'x'; 1_000]].concat(),
        None,
    );
    let forged = page(&mut memory, NOW, "b");
    assert!(forged.contains("The pickers run &lt;??xxx") && !forged.contains(&"x".repeat(300)));
}

#[test]
fn every_column_says_what_it_means() {
    let mut memory = InProcess::default();
    pool(&mut memory, report());
    let text = page(&mut memory, NOW, "b");
    assert_eq!(
        text.matches("<abbr title=\"").count(),
        text.matches("<dt>").count()
    );
    assert!(text.matches("<dt>").count() > 40, "{text}");
}

#[test]
fn reports_of_an_earlier_visit_or_owner_are_not_shown() {
    for stale in [
        Report {
            at: NOW - REPORT_EXPIRES,
            ..report()
        },
        Report {
            owner: 78,
            ..report()
        },
    ] {
        let mut memory = InProcess::default();
        pool(&mut memory, stale);
        assert!(page(&mut memory, NOW, "b").contains("Collecting data"));
    }
}

#[test]
fn the_last_decisions_are_shown_first_up_to_the_limit() {
    let mut memory = InProcess::default();
    let many = (0..60).map(|number| RecentDecision {
        number,
        at: NOW - 1_000,
        model: format!("m{number}"),
        ..RecentDecision::default()
    });
    let mut report = report();
    report.status.decisions = many.collect();
    pool(&mut memory, report);
    let text = page(&mut memory, NOW, "b");
    assert_eq!(text.matches("<tbody class=\"one\">").count(), DECISIONS);
    let (last, first) = (text.find("m59<"), text.find("m10<"));
    assert!(last.unwrap() < first.unwrap());
    assert!(!text.contains("m9<"));
}
