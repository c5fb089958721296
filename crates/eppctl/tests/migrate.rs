//! `eppctl migrate`: settings of Endpoint Pickers, in the files that people have, become a document that loads.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::migrate::{line, migrate, parameters};
use common::{eppctl, out};

const ROUTER: &str = "tests/migrate/router-values.yaml";
const GIE: &str = "tests/migrate/gie-values.yaml";
const DEPLOYMENT: &str = "tests/migrate/deployment.yaml";
const CONFIG_MAP: &str = "tests/migrate/configmap.yaml";
const LLMISVC: &str = "tests/migrate/llmisvc.yaml";
const MODEL_SERVICE: &str = "tests/migrate/modelservice-values.yaml";

/// Every way in; the second argument of each is the cluster.
const RUNS: [&[&str]; 6] = [
    &["--cluster", "pool", ROUTER],
    &["--cluster", "pool", GIE],
    &["--cluster", "pool", CONFIG_MAP, DEPLOYMENT],
    &["--cluster", "pool", "--document", "trial.yaml", CONFIG_MAP],
    &[
        "--cluster",
        "pool,llm-d.ai/role=decode",
        "--cluster",
        "b,llm-d.ai/role=prefill",
        LLMISVC,
    ],
    &["--cluster", "pool", MODEL_SERVICE],
];

#[test]
fn every_result_loads_with_its_clusters_and_not_without() {
    for run in RUNS {
        let mut all = vec!["migrate"];
        all.extend(run);
        let checked = eppctl(&["check", "-"], &out(&eppctl(&all, "")));
        assert!(checked.status.success(), "{run:?}: {}", out(&checked));

        let files: Vec<&str> = run
            .iter()
            .copied()
            .filter(|part| part.contains('/') && !part.contains('='))
            .collect();
        let mut all = vec!["migrate"];
        if run.contains(&"--document") {
            all.extend(["--document", "trial.yaml"]);
        }
        all.extend(files);
        let output = eppctl(&all, "");
        assert_eq!(output.status.code(), Some(1), "{all:?}");
        assert!(
            out(&output).contains("endpoints: name the Envoy cluster"),
            "{}",
            out(&output)
        );
        let checked = eppctl(&["check", "-"], &out(&output));
        assert_eq!(checked.status.code(), Some(1), "{all:?}");
        assert!(
            out(&checked).contains("found 0 clusters"),
            "{}",
            out(&checked)
        );
    }
}

#[test]
fn values_of_llm_d_router_are_carried_over() {
    let (status, result) = migrate(RUNS[0], "");
    assert_eq!(status, 0, "{result:#}");
    assert_eq!(parameters(&result, "envoy-proxy")["readBody"], "always");
    assert_eq!(
        parameters(&result, "metrics-data-source")["interval"],
        "100ms"
    );
    assert_eq!(
        parameters(&result, "metrics-data-source")["stalenessThreshold"],
        "3s"
    );
    assert_eq!(
        parameters(&result, "envoy-proxy")["failureMode"],
        "FailOpen"
    );
    assert_eq!(
        parameters(&result, "envoy-cluster-discovery")["clusters"][0],
        "pool"
    );
    assert_eq!(
        parameters(&result, "approx-prefix-cache-producer")["lruCapacityPerServer"],
        20000
    );
    assert!(result["source"]
        .as_str()
        .unwrap()
        .ends_with("assistant.yaml"));
    let (outcome, what) = line(&result, "router.modelServers.matchLabels");
    assert_eq!(outcome, "moved");
    assert!(
        what.contains("clusters: pool") && what.contains("labels"),
        "{what}"
    );
    for setting in [
        "--secure-serving",
        "-v",
        "router.epp.image.tag",
        "router.monitoring",
        "provider",
        "httpRoute",
    ] {
        assert_eq!(line(&result, setting).0, "not-needed", "{setting}");
    }
}

#[test]
fn without_a_document_the_charts_own_is_in_force() {
    let (status, result) = migrate(RUNS[1], "");
    assert_eq!(status, 0, "{result:#}");
    assert_eq!(line(&result, "inferenceObjectives").0, "moved");
    let objective = &parameters(&result, "static-objectives")["objectives"][0];
    assert_eq!(
        (&objective["name"], &objective["priority"]),
        (&"interactive".into(), &10.into())
    );
    assert_eq!(result["source"], "the chart's own default-plugins.yaml");
    let profile = &result["document"]["schedulingProfiles"][0]["plugins"];
    assert_eq!(profile[2]["weight"], 3);
    // The least that either polls at.
    assert_eq!(
        parameters(&result, "metrics-data-source")["interval"],
        "50ms"
    );
    let (outcome, what) = line(&result, "--kv-cache-usage-percentage-metric");
    assert!(
        outcome == "moved" && what.contains("vllm already"),
        "{what}"
    );
}

#[test]
fn flags_of_a_deployment_are_carried_over() {
    let (status, result) = migrate(RUNS[2], "");
    assert_eq!(status, 0, "{result:#}");
    let other = format!("the document {CONFIG_MAP}: data.trial.yaml");
    assert!(line(&result, &other).1.contains("not the one in force"));
    let extractor = parameters(&result, "core-metrics-extractor");
    assert_eq!(extractor["defaultEngine"], "custom");
    let engine = &extractor["engineConfigs"][0];
    assert_eq!(
        engine["queuedRequestsSpec"],
        "engine_requests{state=waiting}"
    );
    assert_eq!(engine["kvUsageSpec"], "engine_cache_usage");
    assert_eq!(engine["runningRequestsSpec"], "vllm:num_requests_running");
    assert!(engine.get("loraSpec").is_none());
    assert_eq!(
        parameters(&result, "metrics-data-source")["interval"],
        "250ms"
    );
    assert_eq!(
        parameters(&result, "prefix-cache-scorer")["hashBlockSize"],
        64
    );
    // The other container's.
    let settings = result["settings"].as_array().unwrap();
    assert!(settings.iter().all(|line| line["setting"] != "--port"));
}

#[test]
fn an_llm_inference_service_is_carried_over_with_roles_and_tls() {
    let (status, result) = migrate(RUNS[4], "");
    assert_eq!(status, 0, "{result:#}");
    let clusters = &parameters(&result, "envoy-cluster-discovery")["clusters"];
    assert_eq!(clusters[1]["labels"]["llm-d.ai/role"], "prefill");
    let source = parameters(&result, "metrics-data-source");
    assert_eq!(
        (&source["scheme"], &source["cluster"]),
        (&"https".into(), &"pool".into())
    );

    let (status, result) = migrate(&["--cluster", "pool", LLMISVC], "");
    assert_eq!((status, line(&result, "labels").0), (1, "to-do"));
    // A role that no cluster has.
    let (status, result) = migrate(&["--cluster", "pool,llm-d.ai/role=decode", LLMISVC], "");
    let (outcome, what) = line(&result, "labels");
    assert_eq!((status, outcome), (1, "to-do"));
    assert!(
        what.starts_with("profile prefill: no endpoint has the labels that prefill-filter keeps"),
        "{what}"
    );
}

#[test]
fn metrics_of_another_port_need_a_cluster() {
    let text = "args: [--pool-name=a, --model-server-metrics-port=9100]";
    let (status, result) = migrate(&["--cluster", "pool", "-"], text);
    assert_eq!(
        (status, line(&result, "--model-server-metrics-port").0),
        (1, "to-do")
    );
    assert!(!result["errors"].as_array().unwrap().is_empty());
    let (status, result) = migrate(
        &["--cluster", "pool", "--metrics-cluster", "ports", "-"],
        text,
    );
    assert_eq!(status, 0, "{result:#}");
    let source = parameters(&result, "metrics-data-source");
    assert_eq!(
        (&source["port"], &source["cluster"]),
        (&9100.into(), &"ports".into())
    );
}

#[test]
fn a_cluster_for_metrics_is_used_whatever_else_is_given() {
    let options = ["--cluster", "pool", "--metrics-cluster", "pages", "-"];
    let (status, result) = migrate(&options, "args: [--pool-name=a]");
    assert_eq!(status, 0, "{result:#}");
    assert_eq!(
        parameters(&result, "metrics-data-source")["cluster"],
        "pages"
    );
}

#[test]
fn what_is_not_understood_is_said() {
    for (argument, words) in [
        ("--refresh-metrics-interval=soon", "expected a duration"),
        ("--model-server-metrics-port=$(PORT)", "expected a port"),
        ("--total-queued-requests-metric=a{b", "expected name"),
        ("--brand-new", "unknown to every release"),
        ("--emit-endpoint-scores", "explain: true"),
    ] {
        let text = format!("args: ['--pool-name=a', '{argument}']");
        let (status, result) = migrate(&["--cluster", "pool", "-"], &text);
        let name = argument.split('=').next().unwrap();
        let (outcome, what) = line(&result, name);
        assert!(
            status == 1 && outcome == "to-do" && what.contains(words),
            "{argument}: {what}"
        );
    }
}

#[test]
fn the_documents_own_settings_win() {
    let text = "
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: queue-scorer}
- {type: metrics-data-source, parameters: {interval: 1s}}
- type: static-discovery
  parameters: {endpoints: [{name: a, address: 10.0.0.1, port: 80}]}
---
args: [--pool-name, a, --refresh-metrics-interval, 100ms]
";
    let (status, result) = migrate(&["-"], text);
    assert_eq!(status, 0, "{result:#}");
    assert_eq!(parameters(&result, "metrics-data-source")["interval"], "1s");
    assert!(line(&result, "--refresh-metrics-interval")
        .1
        .contains("already"));
    assert!(line(&result, "--pool-name").1.contains("static-discovery"));
}

#[test]
fn a_document_that_is_elsewhere_is_asked_for() {
    for (text, words) in [
        (
            "args: [--pool-name=a, --config-file=/etc/epp.yaml]",
            "the document is in epp.yaml",
        ),
        (
            "spec: {router: {scheduler: {config: {ref: {name: tuned}}}}}",
            "the ConfigMap tuned",
        ),
        ("kind: Service", "found no EndpointPickerConfig"),
    ] {
        let output = eppctl(&["migrate", "-"], text);
        assert_eq!(output.status.code(), Some(2), "{text}");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains(words), "{text}: {error}");
    }
    let output = eppctl(&["migrate", CONFIG_MAP], "");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("--document"), "{error}");
}

#[test]
fn values_of_an_argo_application_are_found() {
    let values = std::fs::read_to_string(common::top().join(ROUTER)).unwrap();
    let inside: String = values
        .lines()
        .map(|line| format!("        {line}\n"))
        .collect();
    let text = format!("kind: Application\nspec:\n  source:\n    helm:\n      values: |\n{inside}");
    let (status, result) = migrate(&["--cluster", "pool", "-"], &text);
    assert_eq!(status, 0, "{result:#}");
    assert_eq!(
        parameters(&result, "metrics-data-source")["interval"],
        "100ms"
    );
}

#[test]
fn the_result_is_written_to_a_folder() {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("migrated");
    let output = eppctl(
        &[
            "migrate",
            "--cluster",
            "pool",
            "--write",
            folder.to_str().unwrap(),
            ROUTER,
        ],
        "",
    );
    assert!(output.status.success(), "{output:?}");
    assert!(!out(&output).contains("apiVersion"));
    let file = folder.join("endpoint-picker-config.yaml");
    assert!(eppctl(&["check", file.to_str().unwrap()], "")
        .status
        .success());
    // What is there may have been edited since.
    std::fs::write(&file, "mine").unwrap();
    let again = eppctl(
        &[
            "migrate",
            "--cluster",
            "pool",
            "--write",
            folder.to_str().unwrap(),
            ROUTER,
        ],
        "",
    );
    assert_eq!(again.status.code(), Some(2));
    let error = String::from_utf8_lossy(&again.stderr);
    assert!(error.contains("exists, and is not replaced"), "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    std::fs::remove_dir_all(&folder).unwrap();
}

/// Its flags would be lost without a word.
#[test]
fn a_part_that_does_not_parse_is_an_error() {
    let read = |file: &str| std::fs::read_to_string(common::top().join(file)).unwrap();
    for (part, expected) in [
        ("spec:\n  args: ['--v=1'\n  name: epp\n", "-:"),
        (
            "spec:\n  args: {{ .Values.flags }}\n",
            "must be rendered first",
        ),
    ] {
        let files = format!("{}\n---\n{part}", read(CONFIG_MAP));
        let output = eppctl(&["migrate", "--cluster", "pool", "-"], &files);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{part}: {error}");
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_raised_interval_says_why() {
    let text = "args: ['--pool-name=a', '--refresh-metrics-interval=10ms']";
    let (_, result) = migrate(&["--cluster", "pool", "-"], text);
    let (outcome, what) = line(&result, "--refresh-metrics-interval");
    assert_eq!(outcome, "moved");
    assert!(
        what.ends_with("50ms, the shortest that the filter accepts"),
        "{what}"
    );
}

/// A value may hold anything; comments stay comments.
#[test]
fn values_cannot_leave_the_comments() {
    let text =
        "args: ['--pool-name=a', \"--brand\\nnew=x\\n- type: evil\", \"--v=\\u2028\\nkind: x\"]";
    let output = eppctl(&["migrate", "--cluster", "pool", "-"], text);
    let text = out(&output);
    let (comments, _) = text.split_once("apiVersion").unwrap();
    assert!(
        comments.lines().all(|line| line.starts_with('#')),
        "{comments}"
    );
}

/// docs/migrating.md shows values and their result.
#[test]
fn the_page_shows_the_values_and_their_result() {
    let read = |file: &str| std::fs::read_to_string(common::top().join(file)).unwrap();
    let page = read("docs/migrating.md");
    let block = |behind: &str| {
        let (_, rest) = page.split_once(behind).unwrap();
        let (_, rest) = rest.split_once("```yaml\n").unwrap();
        rest.split_once("```\n").unwrap().0.to_owned()
    };
    assert_eq!(block("Save this as `values.yaml`:"), read(ROUTER));
    let cluster = "outbound|8000||assistant.llm.svc.cluster.local";
    let made = out(&eppctl(
        &["migrate", "--cluster", cluster, "-"],
        &read(ROUTER),
    ));
    let shown = block("<!-- the result of eppctl migrate -->").replace(ROUTER, "-");
    assert_eq!(shown.replace("From values.yaml", "From -"), made);
}
