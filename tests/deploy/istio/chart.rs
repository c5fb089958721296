//! The Helm chart: it is the output of `scripts/chart` for the manifests, and with its own values renders to
//! them again.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_yaml::Value;

use super::pilot::parse;
use super::{manifest, several};
use crate::envoy::top;
use crate::stage::read;

fn chart() -> PathBuf {
    top().join("charts/epp-wasm")
}

/// Returns the documents that Helm renders from a template of the chart, in a release of this name. Only the
/// functions that the chart uses are implemented.
fn rendered(name: &str, release: &str, values: &Value) -> Vec<Value> {
    let template = fs::read_to_string(chart().join("templates").join(name)).unwrap();
    let plain = |text: &str| {
        let text = text
            .replace("{{ .Release.Namespace }}", "llm")
            .replace("{{ .Release.Name }}", release);
        let fill = |text: String, (name, value): (&Value, &Value)| {
            let value = serde_yaml::to_string(value).unwrap();
            let name = format!("{{{{ .Values.{} }}}}", name.as_str().unwrap());
            text.replace(&name, value.trim_end())
        };
        values.as_mapping().unwrap().iter().fold(text, fill)
    };
    let config = values["config"].as_str().unwrap().trim_end();
    let config = plain(config).replace('\n', &format!("\n{}", " ".repeat(16)));
    let config = format!("{}{config}", " ".repeat(16));
    let text = template.replace("{{ tpl .Values.config . | indent 16 }}", &config);
    let text = plain(&text);
    assert!(!text.contains("{{"), "{text}");
    parse(&text)
}

#[test]
fn the_rendered_chart_equals_the_manifests() {
    let values = read(&chart().join("values.yaml"));
    let mut seen = 0;
    for entry in fs::read_dir(chart().join("templates")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name == "image.yaml" {
            // Renders to nothing, or to an error: `make chart-check` has Helm say so.
            continue;
        }
        let mine = rendered(&name, "epp", &values);
        assert_eq!(mine, parse(&manifest(&name)), "{name}");
        seen += 1;
    }
    assert_eq!(seen, 3);
}

#[test]
fn a_second_release_is_a_second_service() {
    let mut values = read(&chart().join("values.yaml"));
    values["service"] = "chat.llm.svc.cluster.local".into();
    for (name, copy) in ["cluster.yaml", "filter.yaml"]
        .iter()
        .zip(several::copies())
    {
        assert_eq!(rendered(name, "epp-chat", &values), parse(&copy), "{name}");
    }
}

#[test]
fn the_chart_is_the_output_of_the_script() {
    let files = || -> BTreeMap<PathBuf, String> {
        let folders = [chart(), chart().join("templates")];
        let entries = folders
            .iter()
            .flat_map(|folder| fs::read_dir(folder).unwrap());
        let files = entries.map(|entry| entry.unwrap().path());
        files
            .filter(|file| file.is_file())
            .map(|file| (file.clone(), fs::read_to_string(file).unwrap()))
            .collect()
    };
    let before = files();
    let made = Command::new(top().join("scripts/chart")).status().unwrap();
    assert!(made.success());
    assert_eq!(
        files(),
        before,
        "call scripts/chart and commit what it writes"
    );
}
