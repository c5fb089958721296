//! Much of everything: endpoints, streams, time.

use std::time::{Duration, Instant};

use super::{Form, Row};
use crate::stage::{document, Plan};
use crate::verdict::{Bar, Measured};

/// The row that needs an hour.
pub const SOAK: &str = "soak";

/// In the table's order.
pub const ROWS: &[Row] = &[Row {
    name: SOAK,
    what: "50 requests/s for an hour, nothing breaks, and Envoy's memory is flat after its first sixth",
    epp: "not measured",
    play: soak,
}];

fn soak(form: &Form) -> Measured {
    /// What the allocator may keep of a peak.
    const SLACK: u64 = 8 << 20;
    let mut plan = Plan::new(4);
    plan.mix.rate = 50;
    // Full within minutes: an index that still fills would look like a leak, and hide one.
    let small = "{type: approx-prefix-cache-producer, parameters: {autoTune: false, lruCapacityPerServer: 500}}\n- {type: envoy-proxy";
    let document = document("").replace("{type: envoy-proxy", small);
    plan.setup.configs = vec![document];
    let stage = plan.start();
    let (since, length) = (Instant::now(), form.soak.unwrap_or_default());
    let mut warm = 0;
    let mut peak = 0;
    while since.elapsed() < length {
        stage.run(Duration::from_secs(5));
        let memory = stage.proxy.memory();
        if since.elapsed() < length / 6 {
            warm = memory.max(warm);
        } else {
            peak = memory.max(peak);
        }
        eprintln!(
            "   {:5.0} s: {} KiB",
            since.elapsed().as_secs_f64(),
            memory >> 10
        );
    }
    let mut measured = stage.end(Bar::nobody(Duration::ZERO));
    measured.require(peak <= warm + SLACK, || {
        format!("memory grew from {} to {} MiB", warm >> 20, peak >> 20)
    });
    measured.note(format!(
        "{} min, at most {:.1} MiB in the first sixth, {:.1} after it",
        length.as_secs() / 60,
        warm as f64 / f64::from(1 << 20),
        peak as f64 / f64::from(1 << 20)
    ));
    measured
}
