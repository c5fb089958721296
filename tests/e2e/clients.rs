//! The clients that people use, unchanged: the official OpenAI and Anthropic packages for Python.

use std::process::Command;

use fake_model_server::{Settings, Sim};

use crate::client::complete;
use crate::proxy::Setup;
use envoy_harness::path_of;

/// A document of the llm-d dialect with all that reads a body.
fn llm_d() -> String {
    "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: prefix-cache-scorer}
- {type: queue-scorer}
- {type: lora-affinity-scorer}
schedulingProfiles:
- name: default
  plugins: [{pluginRef: prefix-cache-scorer, weight: 3}, {pluginRef: queue-scorer}, {pluginRef: lora-affinity-scorer}]
"
    .to_owned()
}

/// The document in the GIE v1 dialect.
fn gie() -> String {
    llm_d().replace("llm-d.ai/", "inference.networking.x-k8s.io/")
}

/// Runs all cases of `clients.py` but these through an Envoy with this configuration. What fails is
/// named.
fn all_cases_pass(config: &str, but: &[&str]) {
    let sim = Sim::start(4, &Settings::default()).unwrap();
    let proxy = Setup::new(&sim.addresses(), config).start();
    let picked = || proxy.counted("llm_d_epp_scheduler_attempts_total");
    // Requests that come before the members are known are placed by Envoy's own load balancing.
    proxy.wait_until("the members are known", || {
        complete(proxy.port, "m", "x");
        picked() > 0
    });
    let errors = || proxy.stat("http.e2e.downstream_rq_5xx");
    let before = errors();
    let seen = || {
        (0..4)
            .map(|number| sim.pod(number).seen().len())
            .sum::<usize>() as u64
    };
    let others = seen() - picked();
    let output = Command::new("python3")
        .arg("tests/e2e/clients.py")
        .arg(format!("http://127.0.0.1:{}", proxy.port))
        .args(but)
        .env("PYTHONPATH", path_of("CLIENTS"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let output_text = String::from_utf8_lossy(&output.stdout);
    let wrong = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{output_text}{wrong}");
    assert!(output_text.contains("failed: none"), "{output_text}{wrong}");
    assert_eq!(errors(), before);
    // Each was picked for.
    proxy.wait_until("all are counted", || picked() + others >= seen());
}

#[test]
fn the_official_python_packages_work_with_the_llm_d_dialect() {
    all_cases_pass(&llm_d(), &[]);
}

#[test]
fn the_official_python_packages_work_with_the_gie_dialect() {
    // It reads no prompt in Anthropic's bodies.
    all_cases_pass(&gie(), &["anthropic_conversations_stay_where_they_are"]);
}
