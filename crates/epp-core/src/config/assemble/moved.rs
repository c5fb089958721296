//! Parameters that moved from a scorer to a producer of its own: the document is read as if the producer
//! had them.

use super::Assembly;
use crate::config::document::{Document, PluginEntry};
use crate::config::value::Node;
use crate::plugins::producer::approx_prefix_cache;
use crate::plugins::scorer::prefix_cache::{self, CUTTING};
use crate::plugins::{self, Capability, Dialect, TOKEN_BYTES};

impl Assembly<'_> {
    /// Moves the parameters by which a scorer cut prompts itself to a producer, where one scorer has such
    /// and no producer is declared. Everywhere else the scorer says what becomes of them.
    pub fn move_block_settings(&mut self, document: &mut Document) {
        let provides = |entry: &PluginEntry| {
            let kind = plugins::find(&entry.kind);
            kind.is_some_and(|kind| kind.provides.contains(&Capability::PrefixProducer))
        };
        if document.dialect != Dialect::LlmD || document.plugins.iter().any(provides) {
            return;
        }
        let mut scorers = document.plugins.iter_mut().filter(|entry| cuts(entry));
        let (Some(scorer), None) = (scorers.next(), scorers.next()) else {
            return;
        };
        let Some(Node::Map(given)) = &mut scorer.parameters else {
            return;
        };
        let (moved, kept): (Vec<_>, Vec<_>) = std::mem::take(given)
            .into_iter()
            .partition(|(name, _)| CUTTING.contains(&name.as_str()));
        *given = kept;
        let path = scorer.path.clone();
        if let Some((name, _)) = moved.first() {
            let place = path.key("parameters").key(name);
            let message = "moved; use the parameters of approx-prefix-cache-producer, to which `eppctl convert` moves them";
            self.problems.warn(&place, message);
        }
        document.plugins.push(PluginEntry {
            name: approx_prefix_cache::TYPE.name.to_owned(),
            kind: approx_prefix_cache::TYPE.name.to_owned(),
            parameters: Some(Node::Map(moved_block_settings(moved))),
            path,
        });
    }
}

/// Returns whether a plugin is a scorer with parameters by which it would cut prompts itself.
fn cuts(entry: &PluginEntry) -> bool {
    let given = entry.parameters.as_ref();
    let has = |name: &&str| given.is_some_and(|given| given.get(name).is_some());
    entry.kind == prefix_cache::TYPE.name && CUTTING.iter().any(has)
}

/// Returns a scorer's parameters under the producer's names: it counts in tokens what was bytes.
pub fn moved_block_settings(mut given: Vec<(String, Node)>) -> Vec<(String, Node)> {
    let has = |given: &[(String, Node)], name: &str| given.iter().any(|(known, _)| known == name);
    for former in ["blockSize", "hashBlockSize"] {
        let newer = has(&given, "blockSizeTokens");
        let Some(place) = given.iter().position(|(name, _)| name == former) else {
            continue;
        };
        let (_, mut size) = given.swap_remove(place);
        if let Node::Number(bytes) = &mut size {
            *bytes = (*bytes / f64::from(TOKEN_BYTES)).ceil();
        }
        if !newer {
            given.push(("blockSizeTokens".to_owned(), size));
        }
    }
    // A producer counts blocks only where it does not count tokens.
    let blocks = has(&given, "maxPrefixBlocksToMatch");
    if blocks && !has(&given, "maxPrefixTokensToMatch") {
        given.push(("maxPrefixTokensToMatch".to_owned(), Node::Number(0.0)));
    }
    given
}
