//! The references of a document's sections to its plugins.

use super::Assembly;
use crate::config::document::Document;
use crate::config::plan::Instance;
use crate::document::Path;
use crate::plugins::{self, Role};

impl Assembly<'_> {
    /// What `dataLayer` and `requestHandler` refer to must be of the kind they expect.
    pub fn check_references(&mut self, document: &Document) {
        let names =
            |this: &Self, name: &str| this.instances.iter().any(|instance| instance.name == name);
        let defaults = |name: &str| {
            use plugins::source::{core_metrics_extractor, metrics_data_source};
            let kinds = [
                metrics_data_source::TYPE.name,
                core_metrics_extractor::TYPE.name,
            ];
            plugins::find(name).is_some_and(|kind| kinds.contains(&kind.name))
        };
        for (name, path) in &document.sources {
            // The default source and extractor need not be declared.
            if !names(self, name) && defaults(name) {
                continue;
            }
            if let Some(instance) = self.get(name, path, "a metrics source or extractor") {
                if !matches!(
                    instance.role,
                    Role::MetricsSource(_) | Role::MetricsExtractor(_)
                ) {
                    self.wrong_kind(name, path, &instance, "a metrics source or extractor");
                }
            }
        }
        for (name, path) in &document.parsers {
            // A parser's type may stand for itself.
            if !names(self, name) && is_parser(name) {
                continue;
            }
            if let Some(instance) = self.get(name, path, "a parser") {
                if !is_parser(instance.kind) {
                    self.wrong_kind(name, path, &instance, "a parser");
                }
            }
        }
        if let Some((name, path)) = &document.discovery {
            if let Some(instance) = self.get(name, path, "a discovery plugin") {
                if !matches!(instance.role, Role::Discovery(_)) {
                    self.wrong_kind(name, path, &instance, "a discovery plugin");
                }
            }
        }
    }

    fn wrong_kind(&mut self, name: &str, path: &Path, found: &Instance, expected: &str) {
        let message = format!("found {name:?}, a {}, expected {expected}", found.kind);
        self.problems.error(path, message);
    }
}

fn is_parser(kind: &str) -> bool {
    use plugins::parser::{anthropic, openai, passthrough, vllm_http};
    let parsers = [
        openai::TYPE,
        anthropic::TYPE,
        vllm_http::TYPE,
        passthrough::TYPE,
    ];
    parsers.iter().any(|parser| parser.name == kind)
}
