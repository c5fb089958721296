//! The references of a document's sections to its plugins.

use super::Assembly;
use crate::config::document::Document;
use crate::config::known::elsewhere;
use crate::config::sections::Named;
use crate::plugins::{self, Capability};

/// The capabilities of plugins that `dataLayer.sources` may refer to. Producers that remember endpoints are
/// notified of endpoints that come and go; here plugins always are.
const SOURCES: &[Capability] = &[
    Capability::MetricsSource,
    Capability::MetricsExtractor,
    Capability::PrefixProducer,
    Capability::MediaCache,
    Capability::InflightLoad,
    Capability::Topology,
];

/// Returns whether a type does not run here, and its name says that it could do what is wanted.
fn is_named_like(kind: &str, wanted: &[Capability]) -> bool {
    let ends: &[&str] = match wanted {
        [Capability::Discovery] => &["-discovery"],
        [Capability::Parser] => &[],
        _ => &["-source", "-extractor"],
    };
    elsewhere(kind).is_some() && ends.iter().any(|end| kind.ends_with(end))
}

impl Assembly<'_> {
    /// Checks that what `dataLayer` and `requestHandler` refer to can do what they expect.
    pub fn check_references(&mut self, document: &Document) {
        for named in &document.sources {
            self.check_reference(named, SOURCES, "a metrics source or extractor", true);
        }
        for named in &document.parsers {
            self.check_reference(named, &[Capability::Parser], "a parser", true);
        }
        if let Some(named) = &document.discovery {
            self.check_reference(named, &[Capability::Discovery], "a discovery plugin", false);
        }
    }

    /// Checks one reference. Where `undeclared`, a type that can do it may stand for itself: it is there
    /// whether it is declared or not.
    fn check_reference(
        &mut self,
        (name, path): &Named,
        wanted: &[Capability],
        expected: &str,
        undeclared: bool,
    ) {
        let declared = self.instances.iter().any(|instance| instance.name == *name);
        let provides = |kind: &plugins::PluginType| {
            let mut provides = kind.provides.iter();
            provides.any(|capability| wanted.contains(capability))
        };
        if undeclared && !declared && plugins::find(name).is_some_and(provides) {
            return;
        }
        let Some(found) = self.get(name, path, expected) else {
            return;
        };
        let able = wanted.iter().any(|wanted| found.capabilities.has(*wanted));
        if !able && !is_named_like(found.kind, wanted) {
            let message = format!("found {name:?}, a {}, expected {expected}", found.kind);
            self.problems.error(path, message);
        }
    }
}
