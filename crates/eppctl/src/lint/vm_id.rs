//! The VM has no name of its own.

use super::picker::Home;
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "vm-id",
    why: "plugins with a blank vm_id share one namespace of shared data with every other such plugin in the proxy",
    fix: "give vm_config a vm_id of its own, such as epp",
    check: |site| {
        // Control planes have no field for it.
        let filters = site.pickers.iter().filter(|picker| picker.home == Home::Filter);
        let nameless = filters.filter(|picker| picker.vm_id().is_empty());
        nameless
            .map(|picker| Fault::at(&picker.path.key("vm_config"), "vm_id is blank"))
            .collect()
    },
};

#[cfg(test)]
mod tests {
    #[test]
    fn finds_a_blank_one() {
        crate::lint::finds(&super::RULE, "vm_id: epp", "vm_id: ''");
    }
}
