//! The role of an endpoint in a disaggregated pool, by its label.

/// The label whose value is an endpoint's role.
pub const ROLE: &str = "llm-d.ai/role";

/// The roles of endpoints that compute prompts.
pub const PREFILL: &[&str] = &[
    "prefill",
    "encode-prefill",
    "prefill-decode",
    "both",
    "encode-prefill-decode",
];

/// The roles of endpoints that generate tokens, beside those without a role.
pub const DECODE: &[&str] = &["decode", "prefill-decode", "both", "encode-prefill-decode"];

/// The stages of a request that an endpoint does. One that only encodes does neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoleStages {
    /// Whether it computes prompts.
    pub prefill: bool,
    /// Whether it generates tokens.
    pub decode: bool,
}

impl RoleStages {
    /// Returns the stages of an endpoint with these labels.
    pub fn of(labels: &[(String, String)]) -> Self {
        let mut labels = labels.iter();
        let role = labels.find(|(name, role)| name == ROLE && !role.is_empty());
        role.map_or_else(Self::default, |(_, role)| Self {
            prefill: PREFILL.contains(&role.as_str()),
            decode: DECODE.contains(&role.as_str()),
        })
    }
}

/// Those of an endpoint without a role.
impl Default for RoleStages {
    fn default() -> Self {
        Self {
            prefill: false,
            decode: true,
        }
    }
}
