//! The metrics of live pods, read as the filter reads them.

use epp_core::endpoints::loads;
use epp_core::picker::Picker;
use epp_core::scheduling::{Freshness, Slot};
use epp_envoy::callouts::metrics_address;

use super::now;
use super::source::{EndpointState, PoolState};
use crate::admin;

/// Reads the metrics pages of live pods, and their `/v1/loads` where the plan reads it.
pub fn read_live(picker: &mut Picker, state: &mut PoolState) {
    for (slot, known) in (0..).map(Slot).zip(&mut state.endpoints) {
        if known.is_live {
            let notes = read(picker, slot, known);
            state.notes.extend(notes);
        }
    }
}

/// Reads one pod's. Returns notes on what could not be read.
fn read(picker: &mut Picker, slot: Slot, known: &mut EndpointState) -> Vec<String> {
    let pod = &known.member.address;
    let address = metrics_address(picker.plan(), pod);
    let page = read_page(picker, slot, &address);
    let loads = picker.fixture().may_serve_loads(slot);
    let loads = loads.then(|| read_loads(picker, slot, &address));
    let has_loads = loads == Some(Ok(()));
    if page.is_ok() || has_loads {
        let endpoint = picker.pool().get(slot);
        known.metrics = endpoint.map(|it| it.metrics.clone()).unwrap_or_default();
        known.freshness = Freshness::Fresh;
    }
    let without_page = match has_loads {
        true => "only its load is known, from /v1/loads",
        false => "it counts as never scraped",
    };
    let without_loads = match page.is_ok() {
        true => "; the load on its page counts",
        false => "",
    };
    let page = page.err();
    let page = page.map(|(what, hint)| format!("{pod}: {what}; {without_page} ({hint})"));
    let loads = loads.and_then(Result::err);
    let loads = loads.map(|what| format!("{pod}: {what}{without_loads}"));
    page.into_iter().chain(loads).collect()
}

/// Reads a metrics page. If it cannot be read, returns what is wrong, and what to look at.
fn read_page(picker: &mut Picker, slot: Slot, address: &str) -> Result<(), (String, &'static str)> {
    let url = format!("http://{address}{}", picker.plan().source.path);
    let page = admin::get(&url).map_err(|error| {
        let hint = "is it up, and are path and port of metrics-data-source right?";
        (format!("{url}: {error}"), hint)
    })?;
    let is_read = picker.fixture().read_page(now(), slot, &page);
    is_read.then_some(()).ok_or_else(|| {
        let what = "its page has none of the engine's metrics".to_owned();
        (
            what,
            "see core-metrics-extractor, defaultEngine and engineConfigs",
        )
    })
}

/// Reads SGLang's `/v1/loads`. If it cannot be read, returns what is wrong.
fn read_loads(picker: &mut Picker, slot: Slot, address: &str) -> Result<(), String> {
    let url = format!("http://{address}{}", loads::PATH);
    let answer = admin::get(&url).map_err(|error| format!("{url}: {error}"))?;
    let is_read = picker.fixture().read_loads(now(), slot, &answer);
    is_read
        .then_some(())
        .ok_or_else(|| format!("{url}: not the load of each rank"))
}
