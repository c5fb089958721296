//! `Debug` of plugins, for the structs that hold them.
//!
//! The traits do not require it of plugins: the formatting of each would be in the module through the trait's table,
//! whether anything formats it or not.

use std::fmt;

use super::{Decider, Filter, Hook, PickerPlugin, ProfileHandler, Scorer};

macro_rules! name_only {
    ($($plugin:ident)*) => {
        $(impl fmt::Debug for dyn $plugin {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(stringify!($plugin))
            }
        })*
    };
}

name_only! { Decider Filter Hook PickerPlugin ProfileHandler Scorer }
