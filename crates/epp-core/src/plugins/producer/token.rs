//! `token-producer`: turns prompts into tokens for the prefix producers.
//!
//! Its `estimate` form, also the default, counts four bytes of the flattened prompt as one token. The forms
//! that ask a tokenizer for each request, which a filter cannot wait for, are approximated by it.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `estimate` | `{}` | the form |
//! | `estimate.image`, `estimate.video` | none | approximated: images and videos count as by the Endpoint Picker's defaults |
//! | `vllm` | none | the server that tokenizes |
//! | `udsTokenizerConfig` | none | a tokenizer beside the Endpoint Picker; deprecated there |
//! | `modelName` | none | the model whose tokenizer counts; the forms that ask one require it |
//!
//! ```yaml
//! - type: token-producer
//!   parameters: {estimate: {}}
//! ```

use crate::plugins::{Build, Capabilities, Dialect, FormerName, Parity, PluginType, Standing};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "token-producer",
    former_names: &[FormerName {
        name: "tokenizer",
        dialect: Dialect::LlmD,
    }],
    provides: &[],
    references: &[],
    build,
    parity: Parity {
        plugin: Standing::Same,
        parameters: &[
            ("vllm", Standing::Approximated(ESTIMATED)),
            ("udsTokenizerConfig", Standing::Approximated(ESTIMATED)),
            ("estimate.image", Standing::Approximated(MEDIA)),
            ("estimate.video", Standing::Approximated(MEDIA)),
        ],
    },
};

const ESTIMATED: &str = "no tokenizer is asked; four bytes of text count as one token";
const MEDIA: &str = "images and videos count as by the Endpoint Picker's defaults";

/// The forms that call a tokenizer.
const REMOTE: [&str; 2] = ["vllm", "udsTokenizerConfig"];

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    let fields = &mut build.fields;
    let forms = ["estimate", "vllm", "udsTokenizerConfig"];
    if forms.iter().filter(|form| fields.has(form)).count() > 1 {
        let path = fields.path().clone();
        let message = "found several forms, expected one of estimate, vllm and udsTokenizerConfig";
        fields.problems().error(&path, message);
    }
    if let Some(mut estimate) = fields.section("estimate") {
        for name in ["image", "video"] {
            estimate.any(name);
            estimate.approximated(name, MEDIA);
        }
        estimate.finish();
    }
    let model = fields.string("modelName", "");
    for name in REMOTE {
        if let Some(node) = fields.any(name) {
            fields.note(name, node.clone());
            fields.approximated(name, ESTIMATED);
        }
        if fields.has(name) && model.is_empty() {
            let path = fields.path().key("modelName");
            let message = format!("found nothing, expected the model whose tokenizer {name} asks");
            fields.problems().error(&path, message);
        }
    }
    Capabilities::default()
}

#[cfg(test)]
mod tests {
    use crate::config::load;
    use crate::testing::refused;

    #[test]
    fn forms_that_ask_a_tokenizer_are_approximated_once() {
        for (parameters, approximations) in [
            ("{}", 0),
            ("{estimate: {}}", 0),
            ("{estimate: {image: {mode: dynamic}}}", 1),
            ("{modelName: m, vllm: {url: 'http://x:8000', timeout: 5s}}", 1),
            ("{modelName: m, vllm: {http: 'http://x:8000'}}", 1),
            ("{modelName: m, udsTokenizerConfig: {socketFile: /tmp/s}}", 1),
        ] {
            for kind in ["token-producer", "tokenizer"] {
                let text = format!(
                    "apiVersion: llm-d.ai/v1\nkind: EndpointPickerConfig\nplugins: [{{type: {kind}, parameters: {parameters}}}]\n"
                );
                let loaded = load(&text).unwrap();
                assert_eq!(loaded.plan.approximations.len(), approximations, "{text}");
                let renamed = usize::from(kind == "tokenizer");
                assert_eq!(loaded.warnings.len(), approximations + renamed, "{text}");
            }
        }
    }

    #[test]
    fn there_is_one_form_and_it_names_its_model() {
        let error = refused("token-producer", "{estimate: {}, modelName: m, vllm: {url: u}}");
        assert!(error.contains("several forms"), "{error}");
        let error = refused("token-producer", "{vllm: {url: u}}");
        assert!(error.contains("modelName"), "{error}");
        let error = refused("token-producer", "{estimate: {images: {}}}");
        assert!(error.contains("estimate.images"), "{error}");
    }
}
