//! The comparison of plugins and their parameters with the Endpoint Picker's.

/// The comparison of a part of the document with the Endpoint Picker's.
///
/// A document with an approximation or with something that has no effect loads with a warning of it, which a
/// declared plugin gets from its type's declaration, and a parameter from the function that reads it
/// ([`crate::config::value::Fields::approximated`], [`crate::config::value::Fields::no_effect`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Works as there.
    Same,
    /// Decides by the same data and formula, but differs on purpose, and how: no warning.
    Differs(&'static str),
    /// Cannot be had here, so that decisions may differ from the Endpoint Picker's: what is done instead.
    /// `strict` documents and checks refuse it.
    Approximated(&'static str),
    /// Is known there and changes nothing here, and no decision differs for that: why.
    NoEffect(&'static str),
    /// The Endpoint Picker does not know it: what it is there for.
    Ours(&'static str),
}

/// The comparison of a plugin type and its parameters with the Endpoint Picker's.
#[derive(Debug, Clone, Copy)]
pub struct Parity {
    /// The plugin as a whole.
    pub plugin: Standing,
    /// The parameters whose standing differs from the plugin's, by name.
    pub parameters: &'static [(&'static str, Standing)],
}

impl Parity {
    /// Everything as in the Endpoint Picker.
    pub const SAME: Self = Self::of(Standing::Same);

    /// The plugin and all its parameters alike.
    pub const fn of(plugin: Standing) -> Self {
        Self {
            plugin,
            parameters: &[],
        }
    }

    /// Returns the standing of a parameter.
    pub fn of_parameter(&self, name: &str) -> Standing {
        let found = self.parameters.iter().find(|(known, _)| *known == name);
        found.map_or(self.plugin, |(_, standing)| *standing)
    }
}
