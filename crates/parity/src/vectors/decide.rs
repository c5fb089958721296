//! Decisions over several profiles: filters, profile handlers and deciders.

use epp_core::config;
use epp_core::scheduling::Scratch;
use serde::Deserialize;
use serde_json::{json, Value};

use super::same;
use super::setting::Setting;

/// A decision.
#[derive(Debug, Deserialize)]
pub struct Decide {
    plugins: Vec<Value>,
    /// The plugins of each profile, by name.
    profiles: serde_json::Map<String, Value>,
    #[serde(flatten)]
    setting: Setting,
    expect: Expected,
}

/// What it comes to. Only what is given is compared.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    /// The endpoints that the filters of the primary profile leave, or those of the only profile.
    candidates: Option<Vec<u32>>,
    /// The weighted sum of each of these.
    scores: Option<Vec<f64>>,
    primary: Option<u32>,
    /// The endpoint that computes the prompt. Without it, none does.
    prefill: Option<u32>,
    /// Those that encode media.
    #[serde(default)]
    encode: Vec<u32>,
    /// The error instead of all that.
    error: Option<String>,
}

impl Decide {
    /// Runs the case.
    pub fn run(&self) -> Result<(), String> {
        let profiles = self.profiles.iter();
        let profiles = profiles.map(|(name, plugins)| json!({"name": name, "plugins": plugins}));
        let document = json!({
            "apiVersion": "llm-d.ai/v1alpha1", "kind": "EndpointPickerConfig", "plugins": self.plugins,
            "schedulingProfiles": profiles.collect::<Vec<Value>>(),
        });
        let loaded = config::load(&document.to_string()).map_err(|rejected| {
            let errors: Vec<String> = rejected.errors.iter().map(ToString::to_string).collect();
            errors.join("; ")
        })?;
        let plan = &loaded.plan;
        self.setting.run(plan, |cycle| {
            let mut scratch = Scratch::new(fastrand::Rng::with_seed(1));
            let decision = plan.scheduler.schedule(cycle, 0, &mut scratch, None);
            let decision = match (decision, &self.expect.error) {
                (Ok(decision), None) => decision,
                (Err(error), expected) => {
                    return same(&Some(error.to_string()), expected);
                }
                (Ok(decision), Some(error)) => {
                    return Err(format!("{}, expected {error}", decision.primary.0));
                }
            };
            let mut scored = decision.ranking.scored.clone();
            scored.sort_by_key(|scored| scored.slot);
            let candidates: Vec<u32> = scored.iter().map(|scored| scored.slot.0).collect();
            if let Some(expected) = &self.expect.candidates {
                same(&candidates, expected)?;
            }
            if let Some(expected) = &self.expect.scores {
                let sums: Vec<f64> = scored.iter().map(|scored| scored.score).collect();
                super::close(&sums, expected)?;
            }
            let by_role = decision.by_role();
            if let Some(primary) = self.expect.primary {
                same(&by_role.primary.0, &primary)?;
            }
            same(&by_role.prefill.map(|slot| slot.0), &self.expect.prefill)?;
            let encode: Vec<u32> = by_role.encode.iter().map(|slot| slot.0).collect();
            same(&encode, &self.expect.encode)
        })
    }
}
