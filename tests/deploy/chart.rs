//! The Helm chart: it is the output of `scripts/chart` for the manifests, and with its own values renders to
//! them again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_yaml::Value;

use crate::envoy::top;
use crate::istio::{parse, several};
use crate::stage::read;

/// The manifests of each control plane, and how far their EndpointPickerConfig is indented.
const CONTROL_PLANES: [(&str, &str, usize); 2] = [
    ("istio", "envoy/istio", 16),
    ("envoy-gateway", "envoy/gateway", 6),
];

fn chart() -> PathBuf {
    top().join("charts/epp-wasm")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    let files = entries.map(|entry| entry.unwrap().path());
    files.filter(|file| file.is_file()).collect()
}

/// Returns the documents that Helm renders from a template of the chart, in a release of this name. Only the
/// functions that the chart uses are implemented.
fn rendered(control_plane: &str, name: &str, release: &str, values: &Value) -> Vec<Value> {
    let indent = CONTROL_PLANES.iter().find(|one| one.0 == control_plane);
    let indent = indent.unwrap().2;
    let text = |key: &str| serde_yaml::to_string(&values[key]).unwrap();
    let text = |key: &str| text(key).trim_end().to_owned();
    let cluster = match control_plane {
        "istio" => format!("outbound|{}||{}", text("port"), text("service")),
        _ => format!("httproute/llm/{}/rule/0", text("route")),
    };
    let plain = |template: &str| {
        let filled = template
            .replace("{{ .Release.Namespace }}", "llm")
            .replace("{{ .Release.Name }}", release)
            .replace("{{ include \"epp-wasm.cluster\" . }}", &cluster)
            .replace(
                "{{ trimPrefix \"oci://\" .Values.image }}",
                text("image").trim_start_matches("oci://"),
            );
        let fill = |filled: String, name: &Value| {
            let name = name.as_str().unwrap();
            filled.replace(&format!("{{{{ .Values.{name} }}}}"), &text(name))
        };
        values.as_mapping().unwrap().keys().fold(filled, fill)
    };
    let file = chart().join("templates").join(control_plane).join(name);
    let template = fs::read_to_string(file).unwrap();
    let condition = format!("{{{{- if eq .Values.gateway \"{control_plane}\" }}}}\n");
    let template = template.strip_prefix(&condition).unwrap();
    let template = template.strip_suffix("{{- end }}\n").unwrap();
    let config = plain(values["config"].as_str().unwrap().trim_end());
    let margin = " ".repeat(indent);
    let config = format!("{margin}{}", config.replace('\n', &format!("\n{margin}")));
    let place = format!("{{{{ tpl .Values.config . | indent {indent} }}}}");
    let text = plain(&template.replace(&place, &config));
    assert!(!text.contains("{{"), "{text}");
    parse(&text)
}

#[test]
fn the_rendered_chart_equals_the_manifests() {
    let values = read(&chart().join("values.yaml"));
    for (control_plane, manifests, _) in CONTROL_PLANES {
        let mut seen = 0;
        for file in files(&chart().join("templates").join(control_plane)) {
            let name = file.file_name().unwrap().to_str().unwrap();
            let own = rendered(control_plane, name, "epp", &values);
            let manifest = fs::read_to_string(top().join(manifests).join(name)).unwrap();
            assert_eq!(own, parse(&manifest), "{control_plane}: {name}");
            seen += 1;
        }
        assert!(seen >= 3, "{control_plane}: {seen}");
    }
}

#[test]
fn a_second_release_is_a_second_service_of_istio() {
    let mut values = read(&chart().join("values.yaml"));
    values["service"] = "chat.llm.svc.cluster.local".into();
    for (name, copy) in ["cluster.yaml", "filter.yaml"]
        .iter()
        .zip(several::copies())
    {
        let own = rendered("istio", name, "epp-chat", &values);
        assert_eq!(own, parse(&copy), "{name}");
    }
}

#[test]
fn the_chart_is_the_output_of_the_script() {
    let files = || -> BTreeMap<PathBuf, String> {
        let mut folders = vec![chart(), chart().join("templates")];
        folders.extend(CONTROL_PLANES.map(|one| chart().join("templates").join(one.0)));
        let files = folders.iter().flat_map(|folder| files(folder));
        files
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
