//! What users see first: help with examples, completions, and errors that say what to do.

#![allow(clippy::unwrap_used)]

mod common;

use common::{eppctl, out, top};

/// The commands, as the help lists them.
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
fn misuse_is_exit_code_2() {
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

/// CONTRIBUTING shows a plugin's file whole: it must be the file.
#[test]
fn the_worked_example_of_contributing_is_the_file() {
    let text = std::fs::read_to_string(top().join("CONTRIBUTING.md")).unwrap();
    let file = "src/plugins/scorer/running_requests_size.rs";
    assert!(text.contains(file));
    let shown = text.split("```rust\n").nth(1).unwrap();
    let shown = shown
        .split("```\n\n<!-- end of the file -->")
        .next()
        .unwrap();
    let source = std::fs::read_to_string(top().join(file)).unwrap();
    assert_eq!(
        shown, source,
        "CONTRIBUTING.md no longer shows {file}; copy the file into it"
    );
}
