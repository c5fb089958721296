//! How full a detector finds endpoints, and which of them it keeps as a filter.

use epp_core::flow::Partition;
use epp_core::scheduling::Slot;
use serde::Deserialize;
use serde_json::Value;

use super::setting::Setting;
use super::{close, same};

/// A detector with endpoints.
#[derive(Debug, Deserialize)]
pub struct Saturation {
    detector: Value,
    #[serde(flatten)]
    setting: Setting,
    /// The saturation of all endpoints.
    saturation: Option<f64>,
    /// The endpoints that are kept.
    kept: Option<Vec<u32>>,
}

impl Saturation {
    /// Runs the case.
    pub fn run(&self) -> Result<(), String> {
        let plan = super::plan(std::slice::from_ref(&self.detector), &[])?;
        let kind = self.detector.get("type").and_then(Value::as_str);
        let instance = plan.instance(kind.unwrap_or_default());
        let does = &instance.ok_or("no detector")?.capabilities;
        self.setting.run(&plan, |cycle| {
            if let (Some(expected), Some(detector)) = (self.saturation, &does.saturation_detector) {
                let found = detector.saturation(cycle.pool, Partition::All);
                close(&[found], &[expected])?;
            }
            if let (Some(expected), Some(filter)) = (&self.kept, &does.filter) {
                let mut slots: Vec<Slot> = cycle.pool.iter().map(|(slot, _)| slot).collect();
                filter.filter(cycle, &mut slots);
                let found: Vec<u32> = slots.iter().map(|slot| slot.0).collect();
                same(&found, expected)?;
            }
            Ok(())
        })
    }
}
