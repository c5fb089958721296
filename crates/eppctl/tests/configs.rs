//! The documents under tests/configs, one for each shape that people run: each loads, decides, and is in the
//! table of docs/migrating.md.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::path::PathBuf;

use common::{eppctl, out, top};
use epp_core::config;
use parity::replay::{Made, Replay, Routed};
use parity::scenario::{Endpoint, Expected, Exported, Refused, Scenario, Sent};

/// Returns the documents of a folder with their names.
fn documents(folder: &str) -> Vec<(String, String)> {
    let entries = std::fs::read_dir(top().join(folder)).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "yaml"));
    paths.sort();
    let named = paths.iter().map(|path| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        (name, std::fs::read_to_string(path).unwrap())
    });
    named.collect()
}

/// A pool with every role, and with the labels that documents of their own select by.
fn endpoints() -> Vec<Endpoint> {
    let roles = ["encode", "prefill", "decode", "decode"];
    let endpoint = |(place, role): (usize, &&str)| {
        let labels = [
            ("llm-d.ai/role", *role),
            ("role", role),
            ("example.com/worker-index", "0"),
            ("example.com/context-range", "0-100000"),
            ("topology.kubernetes.io/zone", "a"),
        ];
        let labels = labels.map(|(label, value)| (label.to_owned(), value.to_owned()));
        Endpoint {
            name: format!("default/{role}-{place}"),
            address: format!("10.0.0.{place}"),
            port: "8000".to_owned(),
            labels: labels.into(),
        }
    };
    roles.iter().enumerate().map(endpoint).collect()
}

/// Returns requests with a short, a long and a repeated prompt, and one with an image.
fn requests() -> Vec<Sent> {
    let chat = |content: String| Sent {
        path: "/v1/chat/completions".to_owned(),
        body: format!(
            r#"{{"model":"m","messages":[{{"role":"user","content":{content}}}],"max_tokens":9}}"#
        ),
        headers: BTreeMap::new(),
    };
    let long = format!("\"{}\"", "How long is a piece of string? ".repeat(60));
    let image = r#"[{"type":"text","text":"What is this?"},{"type":"image_url","image_url":{"url":"https://example.com/a.png"}}]"#;
    vec![
        chat("\"hello\"".to_owned()),
        chat(long.clone()),
        chat(long),
        chat(image.to_owned()),
    ]
}

/// Decides on all requests.
fn decide(name: &str, text: &str) -> Vec<Routed> {
    let scenario = Scenario {
        name: name.to_owned(),
        family: "configs".to_owned(),
        config: serde_yaml::from_str(text).unwrap(),
        endpoints: endpoints(),
        steps: Vec::new(),
    };
    let mut replay = Replay::new(&scenario).unwrap();
    let exported = Exported {
        waiting: Some(1.0),
        running: Some(2.0),
        kv: Some(0.25),
        ..Exported::default()
    };
    let exported = endpoints()
        .into_iter()
        .map(|endpoint| (endpoint.name, exported.clone()));
    replay.set_metrics(&exported.collect()).unwrap();
    // Nothing was recorded, so that nothing is drawn as recorded.
    let expect = Expected::Refused(Refused {
        status: 0,
        body: String::new(),
        ..Refused::default()
    });
    let decided = requests().into_iter().map(|request| {
        let decided = replay.decide(&request, &expect).unwrap();
        let routed = match &decided.made {
            Made::Routed(routed) => Routed {
                destinations: routed.destinations.clone(),
                headers: routed.headers.clone(),
                ..Routed::default()
            },
            Made::Refused(_) | Made::Waits => panic!("{name}: {:?}", decided.made),
        };
        replay.proceed(decided, &expect);
        routed
    });
    decided.collect()
}

#[test]
fn every_document_loads_and_decides() {
    let documents = documents("tests/configs");
    assert!(documents.len() >= 50, "only {}", documents.len());
    for (name, text) in documents {
        if let Err(rejected) = config::load(&text) {
            panic!("{name}: {:#?}", rejected.errors);
        }
        let decided = decide(&name, &text);
        for routed in &decided {
            assert!(!routed.destinations.is_empty(), "{name}");
        }
        let (text, image) = (&decided[0], decided.last().unwrap());
        let has = |routed: &Routed, header: &str| routed.headers.contains_key(header);
        // Prompts without anything cached, and images.
        let prefills = name.starts_with("pd-") || name.starts_with("epd-");
        assert_eq!(
            has(&decided[1], "x-prefiller-host-port"),
            prefills,
            "{name}"
        );
        let encodes = name.starts_with("epd-") || name.starts_with("ed-");
        assert_eq!(has(image, "x-encoder-hosts-ports"), encodes, "{name}");
        assert!(!has(text, "x-encoder-hosts-ports"), "{name}");
    }
}

#[test]
fn grpc_documents_are_refused_with_what_to_do() {
    let documents = documents("tests/configs/refused");
    assert_eq!(documents.len(), 2);
    for (name, text) in documents {
        let rejected = config::load(&text).unwrap_err();
        let errors: Vec<String> = rejected.errors.iter().map(ToString::to_string).collect();
        assert_eq!(errors.len(), 1, "{name}: {errors:#?}");
        assert!(
            errors[0].contains("gRPC bodies are not read here"),
            "{name}"
        );
    }
}

#[test]
fn the_newest_version_of_each_decides_the_same() {
    for (name, text) in documents("tests/configs") {
        let loaded = config::load(&text).unwrap();
        let converted = out(&eppctl(&["convert", "--to", "llm-d", "-"], &text));
        let after = config::load(&converted);
        let after = after.unwrap_or_else(|it| panic!("{name}: {:#?}\n{converted}", it.errors));
        assert!(converted.contains("apiVersion: llm-d.ai/v1\n"), "{name}");
        let plan = after.plan;
        if loaded.plan.dialect == plan.dialect {
            let profiles = |plan: &config::Plan| {
                let profiles = plan.profiles.iter();
                let names = profiles.map(|profile| (profile.name.clone(), profile.plugins.len()));
                names.collect::<Vec<_>>()
            };
            assert_eq!(profiles(&plan), profiles(&loaded.plan), "{name}");
            assert_eq!(plan.needs, loaded.plan.needs, "{name}");
        }
    }
}
