//! The Helm chart: it is what `scripts/chart` makes of the manifests, and with its own values comes to
//! them again.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_yaml::Value;

use super::folder;
use super::pilot::documents;
use crate::envoy::top;
use crate::stage::read;

fn chart() -> PathBuf {
    top().join("charts/epp-wasm")
}

/// What Helm makes of a template, as far as this chart goes.
fn rendered(template: &str, values: &Value) -> Value {
    let plain = |text: &str| {
        let text = text.replace("{{ .Release.Namespace }}", "llm");
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
    serde_yaml::from_str(&text).unwrap()
}

#[test]
fn the_chart_comes_to_the_manifests() {
    let values = read(&chart().join("values.yaml"));
    let mut seen = 0;
    for entry in fs::read_dir(chart().join("templates")).unwrap() {
        let file = entry.unwrap().path();
        if file.ends_with("image.yaml") {
            // Renders to nothing, or to an error: `make chart-check` has Helm say so.
            continue;
        }
        let template = fs::read_to_string(&file).unwrap();
        let manifest = documents(&folder().join(file.file_name().unwrap())).remove(0);
        // A block of text ends in one line end or in none.
        let trimmed = |value: &Value| serde_yaml::to_string(value).unwrap();
        let (mine, theirs) = (rendered(&template, &values), manifest);
        assert_eq!(trimmed(&mine), trimmed(&theirs), "{}", file.display());
        seen += 1;
    }
    assert_eq!(seen, 3);
}

#[test]
fn the_chart_is_what_the_script_makes() {
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
