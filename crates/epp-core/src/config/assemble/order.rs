//! The order in which the plugins of a document are built: after those that they refer to.

use super::types::Known;
use super::Assembly;
use crate::config::document::PluginEntry;
use crate::config::value::Node;
use crate::plugins::Reference;

/// A plugin that is to be built.
#[derive(Clone, Copy)]
pub struct Planned<'d> {
    /// Its place in the document.
    pub position: usize,
    pub entry: &'d PluginEntry,
    pub known: Known,
}

/// The state of a plugin in the search.
#[derive(Clone, Copy)]
enum Mark {
    New,
    /// The plugins that it refers to are being visited: reaching it again means that references form a cycle.
    Open,
    /// It can be built once this many plugins that refer to one another have been.
    Depth(usize),
}

impl Planned<'_> {
    fn references(&self) -> &'static [Reference] {
        match self.known {
            Known::Type(kind) => kind.references,
            Known::Idle(_) => &[],
        }
    }

    /// Returns what a reference's parameter holds: a name or a list of names, where it is given.
    fn given(&self, reference: &Reference) -> Option<&Node> {
        let mut names = reference.parameter.split('.');
        let given = self.entry.parameters.as_ref()?;
        names.try_fold(given, |given, name| given.get(name))
    }

    /// Returns whether a reference names plugins.
    fn names_any(&self, reference: &Reference) -> bool {
        match self.given(reference) {
            Some(Node::String(name)) => !name.is_empty(),
            Some(Node::List(_)) => true,
            _ => false,
        }
    }

    /// Returns whether another plugin is one that a reference may mean.
    fn may_mean(&self, reference: &Reference, other: &Planned<'_>) -> bool {
        let Known::Type(kind) = other.known else {
            return false;
        };
        let is_other =
            |node: &Node| matches!(node, Node::String(name) if *name == other.entry.name);
        let named = match self.given(reference) {
            Some(Node::List(names)) => names.iter().any(is_other),
            Some(node) => is_other(node),
            None => false,
        };
        kind.provides.contains(&reference.to)
            && self.position != other.position
            && (named || !self.names_any(reference))
    }
}

impl Assembly<'_> {
    /// Returns the plugins in order: those that refer to none first, then those that refer to these, and
    /// so on; else as in the document.
    pub fn in_order<'d>(&mut self, planned: Vec<Planned<'d>>) -> Vec<Planned<'d>> {
        let mut marks = vec![Mark::New; planned.len()];
        let depths = (0..planned.len()).map(|place| self.depth(place, &planned, &mut marks));
        let depths: Vec<usize> = depths.collect();
        let mut ordered: Vec<(usize, Planned<'d>)> = depths.into_iter().zip(planned).collect();
        ordered.sort_by_key(|(depth, _)| *depth);
        ordered.into_iter().map(|(_, plugin)| plugin).collect()
    }

    fn depth(&mut self, place: usize, planned: &[Planned<'_>], marks: &mut [Mark]) -> usize {
        let (Some(plugin), Some(mark)) = (planned.get(place), marks.get_mut(place)) else {
            return 0;
        };
        if let Mark::Depth(depth) = *mark {
            return depth;
        }
        *mark = Mark::Open;
        let mut depth = 0;
        for reference in plugin.references() {
            for (target, other) in planned.iter().enumerate() {
                if !plugin.may_mean(reference, other) {
                    continue;
                }
                if let Some(Mark::Open) = marks.get(target) {
                    self.refuse_circle(plugin, reference, other);
                    continue;
                }
                depth = depth.max(self.depth(target, planned, marks) + 1);
            }
        }
        if let Some(mark) = marks.get_mut(place) {
            *mark = Mark::Depth(depth);
        }
        depth
    }

    fn refuse_circle(&mut self, plugin: &Planned<'_>, reference: &Reference, other: &Planned<'_>) {
        let path = plugin.entry.path.key("parameters");
        let (parameter, name) = (reference.parameter, &other.entry.name);
        let message = match plugin.names_any(reference) {
            false => format!(
                "{parameter} is absent and may mean {name:?} at {}, which refers to this plugin in turn; name another",
                other.entry.path
            ),
            true => format!(
                "found {parameter} {name:?}, which refers to this plugin in turn, expected plugins not to refer to each other in a circle"
            ),
        };
        self.problems.error(&path, message);
    }
}
