//! The documents with flow control under tests/configs and examples, one for each shape that people run: the gate of each
//! shuts, and requests go in the order of its bands and policies once there is room.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use parity::replay::{Decided, Made, Replay, TICK};
use parity::scenario::{Endpoint, Expected, Exported, Refused, Scenario, Sent};
use serde_json::{json, Value};

/// More requests than the gate of any document lets through.
const MANY: usize = 1_000;

/// Objectives of the highest and the lowest band.
const HIGH: &str = "interactive";
const LOW: &str = "batch";

/// Requests that wait, in the order in which they come: the objective, the fairness id, and the milliseconds to the first
/// token.
const REQUESTS: [(&str, &str, &str); 9] = [
    ("", "a", ""),
    (LOW, "a", ""),
    ("", "a", ""),
    (HIGH, "a", ""),
    ("", "b", ""),
    (HIGH, "a", ""),
    (HIGH, "b", ""),
    (LOW, "a", "9000"),
    ("", "a", ""),
];

/// The order in which they go, by document.
const ORDERS: [(&str, [usize; 9]); 10] = [
    ("baseline-flow-control", BY_PRIORITY),
    ("flow-control", IN_TURNS),
    // Only the band that it lists has turns.
    ("flow-control-bands", [3, 6, 5, 0, 2, 4, 8, 1, 7]),
    ("flow-control-ceiling", BY_PRIORITY),
    ("flow-control-concurrency", BY_PRIORITY),
    // A session that was served goes on before another begins.
    ("flow-control-sessions", [3, 5, 6, 0, 2, 8, 4, 1, 7]),
    ("flow-control-tiers", IN_TURNS),
    ("gie-batch-deadlines", [3, 6, 5, 0, 2, 4, 8, 7, 1]),
    ("gie-flow-control", BY_PRIORITY),
    // No response has told yet what its program got.
    ("gie-program-aware", BY_PRIORITY),
];

/// Bands by priority, and each by arrival.
const BY_PRIORITY: [usize; 9] = [3, 5, 6, 0, 2, 4, 8, 1, 7];

/// Bands by priority, and in each the fairness ids in turn.
const IN_TURNS: [usize; 9] = [3, 6, 5, 0, 4, 2, 8, 1, 7];

/// Returns the documents with the gate.
fn documents() -> BTreeMap<String, Value> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folders = ["tests/configs", "examples"].map(|folder| top.join(folder));
    let entries = folders
        .iter()
        .flat_map(|folder| std::fs::read_dir(folder).unwrap());
    let paths = entries.map(|entry| entry.unwrap().path());
    let documents =
        paths.filter(|path: &PathBuf| path.extension().is_some_and(|end| end == "yaml"));
    let documents = documents.filter_map(|path| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let document: Value = serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).ok()?;
        let gates = document.get("featureGates")?.as_array()?;
        gates
            .contains(&json!("flowControl"))
            .then_some((name, document))
    });
    documents.collect()
}

/// Two endpoints, and the document with objectives for its highest and its lowest band if it has none.
fn scenario(name: &str, document: &Value) -> Scenario {
    let mut config = document.clone();
    let bands = config
        .pointer("/flowControl/priorityBands")
        .and_then(Value::as_array);
    let priorities = bands
        .into_iter()
        .flatten()
        .filter_map(|band| band.get("priority")?.as_i64());
    let priorities: Vec<i64> = priorities.chain([1, -1]).collect();
    let plugins = config["plugins"].as_array_mut().unwrap();
    if !plugins
        .iter()
        .any(|plugin| plugin["type"] == "static-objectives")
    {
        let objectives = [
            json!({"name": HIGH, "priority": priorities.iter().max()}),
            json!({"name": LOW, "priority": priorities.iter().min()}),
        ];
        plugins
            .push(json!({"type": "static-objectives", "parameters": {"objectives": objectives}}));
    }
    let endpoints = ["p0", "p1"].map(|name| Endpoint {
        name: name.to_owned(),
        address: "10.0.0.1".to_owned(),
        port: name.replace('p', "800"),
        labels: BTreeMap::new(),
    });
    Scenario {
        name: name.to_owned(),
        family: "gates".to_owned(),
        config,
        endpoints: endpoints.into(),
        steps: Vec::new(),
    }
}

fn request((objective, flow, slo): (&str, &str, &str), flow_header: &str) -> Sent {
    let headers = [
        ("x-llm-d-inference-objective", objective),
        (flow_header, flow),
        ("x-llm-d-slo-ttft-ms", slo),
    ];
    let headers = headers.iter().filter(|(_, value)| !value.is_empty());
    let headers = headers.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Sent {
        path: "/v1/completions".to_owned(),
        body: json!({"model": "m", "prompt": flow}).to_string(),
        headers: headers.collect(),
    }
}

/// Returns the order in which requests go that waited.
fn order(name: &str, document: &Value) -> Vec<usize> {
    // Nothing was recorded, so that nothing is drawn as recorded.
    let expect = Expected::Refused(Refused::default());
    let mut replay = Replay::new(&scenario(name, document)).unwrap();
    let exported = Exported {
        waiting: Some(0.0),
        running: Some(0.0),
        kv: Some(0.1),
        ..Exported::default()
    };
    let pages = ["p0", "p1"].map(|endpoint| (endpoint.to_owned(), exported.clone()));
    replay.set_metrics(&pages.into()).unwrap();
    let identifies = document.to_string().contains("agent-identity");
    let flow_header = if identifies {
        "session-id"
    } else {
        "x-llm-d-inference-fairness-id"
    };
    let mut in_flight: Vec<Decided> = Vec::new();
    let first = loop {
        let decided = replay
            .decide(&request(("", "others", ""), flow_header), &expect)
            .unwrap();
        match decided.made {
            Made::Routed(_) => in_flight.push(decided),
            Made::Waits => break decided,
            Made::Refused(_) => panic!("{name}: {decided:?}"),
        }
        assert!(in_flight.len() < MANY, "{name}: the gate does not shut");
    };
    // Its client leaves.
    replay.proceed(first, &expect);
    let waiting = REQUESTS.iter().map(|one| {
        let decided = replay.decide(&request(*one, flow_header), &expect).unwrap();
        assert!(matches!(decided.made, Made::Waits), "{name}: {decided:?}");
        replay.pass(TICK);
        decided.id
    });
    let waiting: Vec<_> = waiting.collect();
    let mut order = Vec::new();
    while let Some(ends) = in_flight.pop() {
        replay.proceed(ends, &expect);
        replay.pass(TICK);
        for (place, id) in waiting.iter().enumerate() {
            if let Some((_, made)) = replay.decision(*id).unwrap() {
                assert!(matches!(made, Made::Routed(_)), "{name}: {made:?}");
                order.push(place);
                in_flight.insert(
                    0,
                    Decided {
                        made,
                        early: false,
                        id: *id,
                    },
                );
            }
        }
    }
    order
}

#[test]
fn each_document_gates_and_sends_in_the_order_of_its_policies() {
    let documents = documents();
    let names: Vec<&str> = documents.keys().map(String::as_str).collect();
    assert_eq!(names, ORDERS.map(|(name, _)| name));
    let orders = ORDERS.map(|(name, _)| (name, order(name, &documents[name])));
    let expected = ORDERS.map(|(name, expected)| (name, expected.to_vec()));
    assert_eq!(orders, expected);
}
