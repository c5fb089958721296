//! Filters by the values of one label, such as llm-d-router's roles in a disaggregated pool.

use super::keep::keep;
use super::Capabilities;
use crate::scheduling::role::ROLE;
use crate::scheduling::{Basis, Cycle, Endpoint, Filter, Needs, Slot};

/// Keeps the endpoints whose label has one of some values.
#[derive(Debug)]
pub struct LabelValues {
    /// The label.
    pub label: String,
    /// The values. The empty one is also that of an endpoint without the label.
    pub values: Vec<String>,
    /// Whether endpoints without the label are kept.
    pub unlabelled: bool,
}

impl LabelValues {
    fn keeps(&self, endpoint: &Endpoint) -> bool {
        let value = endpoint.label(&self.label);
        let mut values = self.values.iter();
        value.is_none() && self.unlabelled || values.any(|kept| kept == value.unwrap_or_default())
    }
}

impl Filter for LabelValues {
    fn filter(&self, cycle: &Cycle<'_>, candidates: &mut Vec<Slot>) {
        keep(cycle, candidates, false, &|_, endpoint| {
            self.keeps(endpoint)
        });
    }

    fn basis(&self) -> Basis {
        Basis::Pool
    }

    fn needs(&self) -> Needs {
        Needs {
            labels: true,
            ..Needs::default()
        }
    }
}

/// Returns a filter that keeps the endpoints with one of these roles, and those without a role if `unlabelled`.
pub fn roles(roles: &[&str], unlabelled: bool) -> Capabilities {
    Capabilities::filter(LabelValues {
        label: ROLE.to_owned(),
        values: roles.iter().map(|role| (*role).to_owned()).collect(),
        unlabelled,
    })
}

/// All values that the label may have, for the tests of the filters: endpoints p0 to p7.
#[cfg(test)]
pub const ROLES: [&[(&str, &str)]; 8] = [
    &[(ROLE, "decode")],
    &[(ROLE, "prefill")],
    &[(ROLE, "encode")],
    &[(ROLE, "prefill-decode")],
    &[(ROLE, "both")],
    &[(ROLE, "encode-prefill")],
    &[(ROLE, "encode-prefill-decode")],
    &[],
];
