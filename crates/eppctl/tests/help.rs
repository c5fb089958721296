//! Help with examples, completions, and errors that say what to do.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{eppctl, out, top};
use envoy_harness::proxy::Setup;
use fake_model_server::{Settings, Sim};

/// Returns the commands that the help lists.
fn commands() -> Vec<String> {
    let help = out(&eppctl(&["--help"], ""));
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = listed.take_while(|line| !line.is_empty());
    let names = names.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next());
    names
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_command_has_help_with_examples() {
    let commands = commands();
    assert!(commands.len() >= 7, "{commands:?}");
    for command in commands {
        let help = out(&eppctl(&[&command, "--help"], ""));
        assert!(help.contains("Examples:\n  eppctl "), "{command}: {help}");
    }
}

/// Returns the lines under a command's `Examples:`, with continued lines joined.
fn examples(command: &str) -> Vec<String> {
    let help = out(&eppctl(&[command, "--help"], ""));
    let lines = help.lines().skip_while(|line| *line != "Examples:").skip(1);
    let lines = lines.take_while(|line| line.starts_with("  "));
    let mut examples: Vec<String> = Vec::new();
    for line in lines {
        assert!(line.len() < 80, "terminals would break it: {line}");
        match examples.last_mut() {
            Some(last) if last.ends_with('\\') => *last += &format!("\n{line}"),
            _ => examples.push(line.trim().to_owned()),
        }
    }
    examples
}

/// Runs until a key is pressed, so the test skips it; the example with --once is run.
const FOR_TERMINALS: &str = "eppctl top";

/// Returns a directory with the files of the examples, which also write there.
fn stage() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("examples");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(folder.join("docs")).unwrap();
    for shown in ["examples", "envoy", "tests"] {
        std::os::unix::fs::symlink(
            top().join(shown).canonicalize().unwrap(),
            folder.join(shown),
        )
        .unwrap();
    }
    for page in ["docs/parity.md", "docs/migrating.md"] {
        std::fs::copy(top().join(page), folder.join(page)).unwrap();
    }
    // The snapshot in the help.
    let help = out(&eppctl(&["explain", "--help"], ""));
    let (_, snapshot) = help.split_once("not on the endpoint's page:\n").unwrap();
    let (snapshot, _) = snapshot.split_once("\n\n").unwrap();
    std::fs::write(folder.join("pool.yaml"), snapshot).unwrap();
    let body = r#"{"model": "m", "messages": [{"role": "user", "content": "Once upon a time"}]}"#;
    std::fs::write(folder.join("body.json"), body).unwrap();
    std::fs::write(folder.join("earlier.json"), body).unwrap();
    let trace =
        r#"{"timestamp": 0, "input_length": 1500, "output_length": 9, "hash_ids": [4, 5, 6]}"#;
    std::fs::write(folder.join("mooncake_trace.jsonl"), trace).unwrap();
    let gie = std::fs::read_to_string(top().join("examples/gie.yaml")).unwrap();
    let inside = gie.lines().map(|line| format!("    {line}\n"));
    let values = format!(
        "pluginsCustomConfig:\n  epp.yaml: |\n{}",
        inside.collect::<String>()
    );
    std::fs::write(folder.join("values.yaml"), values).unwrap();
    let sglang = "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: queue-scorer}
- {type: metrics-data-source, parameters: {sglangLoads: true}}
- {type: core-metrics-extractor, parameters: {defaultEngine: sglang}}
";
    std::fs::write(folder.join("sglang.yaml"), sglang).unwrap();
    // A file with a stamp, as the module has one.
    static STAMP: build_stamp::Placeholder = build_stamp::Placeholder::new("0.0.0");
    let mut module = std::fs::read(env!("CARGO_BIN_EXE_eppctl")).unwrap();
    STAMP.stamp(&mut module, "0123456789ab").unwrap();
    std::fs::create_dir(folder.join("target")).unwrap();
    std::fs::write(folder.join("target/epp_wasm.wasm"), module).unwrap();
    folder
}

/// Replaces what an example expects on its machine: other programs, pods, an Envoy, shells' directories.
fn here(example: &str, pods: &[String], admin: &str, folder: &Path) -> String {
    let example = example
        .replace("10.0.0.1:8000", &pods[0])
        .replace("10.0.0.2:8000", &pods[1])
        .replace("http://127.0.0.1:9901", admin)
        .replace("/etc/bash_completion.d", &folder.to_string_lossy())
        .replace("${fpath[1]}", &folder.to_string_lossy())
        .replace("~/.config/fish/completions", &folder.to_string_lossy());
    let eppctl = env!("CARGO_BIN_EXE_eppctl");
    format!("kubectl() {{ cat values.yaml; }}\neppctl() {{ {eppctl} \"$@\"; }}\n{example}")
}

/// Every example in the help runs without an error.
#[test]
fn every_example_in_the_help_runs() {
    let folder = stage();
    let sim = Sim::start(2, &Settings::default()).unwrap();
    let config = std::fs::read_to_string(top().join("examples/full.yaml")).unwrap();
    let proxy = Setup::new(&sim.addresses(), &config).start();
    let admin = format!("http://127.0.0.1:{}", proxy.admin);
    let pods: Vec<String> = sim.addresses().iter().map(ToString::to_string).collect();
    let mut run = 0;
    for command in commands() {
        for example in examples(&command) {
            if example == FOR_TERMINALS || example.starts_with('#') {
                continue;
            }
            let output = Command::new("bash")
                .args([
                    "-uo",
                    "pipefail",
                    "-c",
                    &here(&example, &pods, &admin, &folder),
                ])
                .current_dir(&folder)
                .output()
                .unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            // Findings are not a failure: --dialect llm-d refuses the GIE document.
            assert!(
                matches!(output.status.code(), Some(0 | 1)),
                "{example}: {stderr}"
            );
            assert_eq!(stderr, "", "{example}");
            run += 1;
        }
    }
    assert!(run > 20, "only {run} examples");
}

/// A line break within a paragraph of the source would be one at any width, after the words that are wrapped there.
#[test]
fn paragraphs_of_help_are_wrapped_once() {
    const WIDTH: usize = 60;
    let is_text = |line: &str| line.starts_with(|first: char| first.is_alphanumeric());
    let mut wrapped = 0;
    for command in commands() {
        let help = Command::new(env!("CARGO_BIN_EXE_eppctl"))
            .args([&command, "--help"])
            .env("COLUMNS", WIDTH.to_string())
            .output()
            .unwrap();
        let help = out(&help);
        let lines: Vec<&str> = help.lines().collect();
        for pair in lines.windows(2) {
            let [line, next] = [pair[0], pair[1]];
            // Below a colon there is a list.
            if !is_text(line) || !is_text(next) || line.ends_with(':') {
                continue;
            }
            let word = next.split(' ').next().unwrap().chars().count();
            let joined = line.chars().count() + 1 + word;
            assert!(
                joined > WIDTH,
                "{command}: {next:?} begins where {line:?} has room"
            );
            wrapped += 1;
        }
    }
    assert!(wrapped > 50, "only {wrapped} lines");
}

#[test]
fn completions_name_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = eppctl(&["completions", shell], "");
        let script = out(&output);
        assert!(output.status.success());
        assert!(
            commands().iter().all(|command| script.contains(command)),
            "{shell}"
        );
    }
}

#[test]
fn invalid_arguments_exit_with_2() {
    for arguments in [
        &["chekc"][..],
        &["check"],
        &["reference", "nothing"],
        &["explain", "a"],
    ] {
        let output = eppctl(arguments, "");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty());
    }
}
