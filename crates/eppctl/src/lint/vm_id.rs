//! The VM has no `vm_id` of its own.

use super::picker::Home;
use super::{Fault, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    name: "vm-id",
    finds: "an empty `vm_id`",
    why: "plugins without a vm_id share one shared-data namespace with every other such plugin in the proxy",
    fix: "set a unique vm_id in vm_config, such as epp",
    check: |site| {
        // Control planes have no field for it.
        let filters = site.pickers.iter().filter(|picker| picker.home == Home::Filter);
        let unnamed = filters.filter(|picker| picker.vm_id().is_empty());
        unnamed
            .map(|picker| Fault::at(&picker.path.key("vm_config"), "vm_id is empty"))
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
