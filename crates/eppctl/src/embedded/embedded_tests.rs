//! Documents inside of files, and the places of their problems there.

use epp_core::config;

use super::*;

/// A document whose seventh line has a problem, and whose last is not nested.
const BROKEN: &str = "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
# A comment with \"quotes\", 'others' and a \\ in it.
plugins:
- type: queue-scorer

- type: 'max-score-picker'
  parametres: {}
schedulingProfiles:
- name: default
  plugins: [{pluginRef: queue-scorer}]
";

fn indented(text: &str, by: usize) -> String {
    let lines = text.lines().map(|line| match line {
        "" => "\n".to_owned(),
        line => format!("{}{line}\n", " ".repeat(by)),
    });
    lines.collect()
}

/// Each document's place in a file, and its problems with theirs.
fn found(file: &str) -> Vec<(String, Vec<String>)> {
    let documents = documents(file).unwrap_or_else(|none| panic!("{file}\n{none}"));
    let documents = documents.iter().map(|document| {
        let mut errors = match config::load(&document.text) {
            Ok(_) => Vec::new(),
            Err(rejected) => rejected.errors,
        };
        document.locate(&mut errors);
        let errors = errors.iter().map(|error| {
            let (line, column) = error.location.unwrap_or_default();
            format!("{} {line}:{column}", error.path)
        });
        (document.place.clone(), errors.collect())
    });
    documents.collect()
}

/// Fails unless the file has one document, at this place, whose problem is where the file has the word.
fn told_at(file: &str, place: &str) {
    let line = file.lines().position(|line| line.contains("parametres"));
    let line = line.unwrap();
    let column = file.lines().nth(line).unwrap().find("parametres").unwrap();
    let error = format!("plugins[1].parametres {}:{}", line + 1, column + 1);
    assert_eq!(found(file), [(place.to_owned(), vec![error])], "{file}");
}

#[test]
fn a_document_is_found_in_each_kind_of_enclosing_resource() {
    told_at(BROKEN, "");
    told_at(&format!("---\n{BROKEN}"), "");
    told_at(&format!("%YAML 1.2\n---\n{BROKEN}...\n"), "");
    told_at(&format!("a: 1\n... # end\n{BROKEN}"), "document 2");
    told_at(
        &format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: epp}}\ndata:\n  note: read by hand, see plugins\n  epp.yaml: |\n{}", indented(BROKEN, 4)),
        "data.epp.yaml",
    );
    told_at(
        &format!("inferenceExtension:\n  replicas: 1\n  pluginsCustomConfig:\n    \"my file.yaml\": |-2\n{}  flags: {{v: 4}}\n", indented(BROKEN, 6)),
        "inferenceExtension.pluginsCustomConfig.my file.yaml",
    );
    for flag in ["- --config-text\n        - |", "- |-"] {
        let own = if flag.len() < 5 { "--config-text=" } else { "" };
        let mut inside = indented(BROKEN, 10);
        inside.insert_str(10, own);
        told_at(
            &format!("kind: Deployment\nspec:\n  template:\n    spec:\n      containers:\n      - args:\n        {flag}\n{inside}"),
            match own {
                "" => "spec.template.spec.containers[0].args[1]",
                _ => "spec.template.spec.containers[0].args[0]",
            },
        );
    }
    told_at(
        &format!("apiVersion: serving.kserve.io/v1alpha1\nkind: LLMInferenceService\nspec:\n  router:\n    scheduler:\n      config:\n        inline:\n{}", indented(BROKEN, 10)),
        "spec.router.scheduler.config.inline",
    );
    told_at(
        &format!(
            "kind: List\nitems:\n- kind: ConfigMap\n  data:\n    c: |\n{}",
            indented(BROKEN, 6)
        ),
        "items[0].data.c",
    );
}

#[test]
fn a_literal_of_kustomize_is_found_behind_its_files_name() {
    for name in ["config.yaml", "epp_config", "a-b.C"] {
        let inside = indented(BROKEN, 4);
        let literal = format!("    {name}={}", inside.trim_start());
        told_at(
            &format!("configMapGenerator:\n- name: epp\n  literals:\n  - |\n{literal}"),
            "configMapGenerator[0].literals[0]",
        );
    }
}

#[test]
fn a_secrets_data_is_found() {
    // apiVersion: llm-d.ai/v1alpha1, kind: EndpointPickerConfig, plugin: []
    let coded = "YXBpVmVyc2lvbjogbGxtLWQuYWkvdjFhbHBoYTEKa2luZDogRW5kcG9pbnRQaWNrZXJDb25maWcKcGx1Z2luOiBbXQo=";
    let secret = format!(
        "kind: Secret\nmetadata: {{name: epp}}\ndata:\n  config.yaml: {coded}\n  other: AAECAw==\n"
    );
    let expected = |place: &str, at: &str| {
        let errors = vec![format!("plugin {at}")];
        vec![(place.to_owned(), errors)]
    };
    assert_eq!(found(&secret), expected("data.config.yaml", "4:16"));
    let list = format!(
        "{{\"kind\": \"List\", \"items\": [{{\"kind\": \"Secret\", \"data\": {{\"c\":\n\"{coded}\"}}}}]}}"
    );
    assert_eq!(found(&list), expected("items[0].data.c", "2:1"));
    // Elsewhere such a text is a document.
    assert!(documents(&secret.replace("Secret", "ConfigMap")).is_err());
}

#[test]
fn locations_are_found_through_each_scalar_style() {
    // Folded, where an empty line or an indented one keeps its break.
    let folded = indented(&BROKEN.replace('\n', "\n\n"), 4);
    told_at(&format!("data:\n  c: >\n{folded}"), "data.c");
    // On one line, as kubectl and JSON write it: the problem is in that line.
    let json = serde_json::to_string(BROKEN).unwrap();
    told_at(&format!("data:\n  c: {json}\n  d: x\n"), "data.c");
    told_at(
        &format!("{{\"kind\": \"ConfigMap\",\n\t\"data\": {{\"c\": {json}}}}}"),
        "data.c",
    );
    let beyond = BROKEN.replace("A comment", "\u{1f600} é");
    let escaped = serde_json::to_string(&beyond).unwrap();
    let escaped = escaped
        .replace('\u{1f600}', "\\ud83d\\ude00")
        .replace('é', "\\u00e9");
    told_at(&format!("{{\"data\": {{\"c\": {escaped}}}}}"), "data.c");
    // In single quotes, over several lines, where indentation is lost.
    let flow = "{apiVersion: llm-d.ai/v1alpha1, kind: EndpointPickerConfig,\n    plugins: [{type: ''queue-scorer''},\n      {type: max-score-picker, parametres: {}}]}";
    told_at(&format!("data:\n  c: '{flow}'\n"), "data.c");
    told_at(
        &format!("data:\n  c: &anchor !!str |\n{}", indented(BROKEN, 4)),
        "data.c",
    );
    let windows = format!("data:\n  c: |\n{}", indented(BROKEN, 4)).replace('\n', "\r\n");
    told_at(&windows, "data.c");
}

#[test]
fn a_location_in_an_unknown_scalar_style_is_that_of_the_scalar() {
    let map = format!("a: &a |\n{}data:\n  c: *a\n", indented(BROKEN, 2));
    let found = found(&map);
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found[0].1, ["plugins[1].parametres 9:5"]);
    // The parser's mark of an alias is where its text is.
    assert!(!found[1].1.is_empty(), "{found:?}");
}

#[test]
fn a_text_within_a_text_is_found() {
    let values = format!("pluginsCustomConfig:\n  c.yaml: |\n{}", indented(BROKEN, 4));
    let application = format!(
        "kind: Application\nspec:\n  source:\n    helm:\n      values: |\n{}",
        indented(&values, 8)
    );
    told_at(
        &application,
        "spec.source.helm.values: pluginsCustomConfig.c.yaml",
    );
    // But no deeper than in real files, however often a text is quoted.
    let mut deep = BROKEN.to_owned();
    for _ in 0..6 {
        deep = format!("c: {}\n", serde_json::to_string(&deep).unwrap());
    }
    assert!(documents(&deep).is_err());
}

#[test]
fn every_document_of_a_file_is_named() {
    let map = |name: &str| {
        format!(
            "kind: ConfigMap\ndata:\n  {name}: |\n{}",
            indented(BROKEN, 4)
        )
    };
    let file = format!(
        "# Everything.\n---  # first\n{}---\n{}---\n\n---\n{}--- # last\n{BROKEN}",
        map("a"),
        map("b"),
        map("c")
    );
    let found = found(&file);
    let places: Vec<&str> = found.iter().map(|(place, _)| place.as_str()).collect();
    assert_eq!(
        places,
        [
            "document 1: data.a",
            "document 2: data.b",
            "document 3: data.c",
            "document 4"
        ]
    );
    let lines = file
        .lines()
        .enumerate()
        .filter(|(_, line)| line.contains("parametres"));
    for ((line, _), (_, errors)) in lines.zip(&found) {
        let line = format!(" {}:", line + 1);
        assert!(
            errors.len() == 1 && errors[0].contains(&line),
            "{errors:?} {line}"
        );
    }
}

#[test]
fn the_copy_of_an_object_in_kubectls_annotation_is_not_another_document() {
    let object = serde_json::json!({"kind": "ConfigMap", "data": {"c": BROKEN}}).to_string();
    let kept = serde_json::to_string(&object).unwrap();
    let file = format!(
        "metadata:\n  annotations:\n    {LAST_APPLIED}: {kept}\ndata:\n  c: |\n{}",
        indented(BROKEN, 4)
    );
    let line = file
        .lines()
        .position(|line| line.starts_with("      parametres"))
        .unwrap()
        + 1;
    assert_eq!(
        found(&file),
        [(
            "data.c".to_owned(),
            vec![format!("plugins[1].parametres {line}:7")]
        )]
    );
}

#[test]
fn a_text_that_does_not_parse_is_reported_with_its_location() {
    let file = "data:\n  c: |\n    kind: EndpointPickerConfig\n    plugins: [\n    - {{ .Values.plugin }}\n  d: x\n";
    let found = found(file);
    assert_eq!(found.len(), 1);
    let (place, errors) = &found[0];
    assert_eq!(place, "data.c");
    assert!(
        errors.len() == 1 && errors[0].starts_with(" 5:"),
        "{errors:?}"
    );
    for file in [
        "{\"data\": {\"c\": \"kind: EndpointPickerConfig\"}",
        "data:\n  c: \"{\\\"kind\\\": \\\"EndpointPickerConfig\\\"\n",
        "a: b\n---\nc: [\nkind: 'EndpointPickerConfig'\n",
    ] {
        let found = documents(file).unwrap_or_else(|none| panic!("{file}\n{none}"));
        assert!(config::load(&found[0].text).is_err(), "{file}");
    }
    // A template around it cannot be looked into, and is recognised by its first line that is not YAML.
    let template = "{{- if .Values.epp }}\nkind: ConfigMap\ndata:\n  c: |\n    kind: EndpointPickerConfig\n{{- end }}\n";
    assert!(matches!(documents(template), Ok(found) if found.len() == 1));
}

#[test]
fn texts_that_only_mention_a_document_are_not_documents() {
    for file in [
        "kind: ConfigMap\ndata:\n  note: an EndpointPickerConfig has plugins and schedulingProfiles\n",
        "kind: Service\nspec: {ports: [{port: 80}]}\n",
        "replicas: 1\nplugins: [a, b]\n",
        "kind: A\n---\nkind: B\n",
    ] {
        let Err(none) = documents(file) else {
            panic!("{file}");
        };
        for word in ["no EndpointPickerConfig", "ConfigMap", "Helm values", "LLMInferenceService", "arguments"] {
            assert!(none.contains(word), "{none}");
        }
    }
}

#[test]
fn errors_in_an_intended_document_are_left_to_the_loader() {
    for file in [
        "",
        "\n",
        "{}",
        "- a\n",
        "a: [\n",
        "apiVersion: llm-d.ai/v1alpha1\n",
        "plugins: [{type: queue-scorer}]\n",
        "kind: EndpointPickerConfg\nplugins: []\n",
    ] {
        let found = documents(file).unwrap_or_else(|none| panic!("{file}\n{none}"));
        assert!(
            found.len() == 1 && found[0].place.is_empty() && found[0].text == file,
            "{file}"
        );
    }
    // In a map of texts one without its kind is one, too.
    let found = found("data:\n  c: |\n    schedulingProfiles: []\n");
    assert_eq!(found.len(), 1);
}
