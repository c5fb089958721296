//! Waiting for what the VMs of an Envoy do with their ticks: sharing their state, passing statistics
//! over. The ticks are counted on the status page. A busy machine makes them late, so that no fixed time is
//! right for all machines.

use std::collections::BTreeMap;

use crate::client::get;
use crate::proxy::Proxy;
use envoy_harness::host::Host;

/// Heartbeats of a VM among which one came with a tick: while requests are in flight, at most four come between
/// two ticks.
const HEARTBEATS_PER_TICK: u64 = 6;

/// Heartbeats of a VM with no request in flight among which 21 came with ticks: one more may come between them.
/// Every 20 ticks a VM looks which secret the others use, and hands its statistics over.
const HEARTBEATS_PER_SECOND: u64 = 22;

/// A VM as the status page shows it.
#[derive(Debug, Clone, Default)]
pub struct Vm {
    /// Its heartbeats so far.
    pub heartbeats: u64,
    /// Whether it serves requests; not the main thread's.
    pub serves: bool,
    /// Whether it polls the endpoints.
    pub polls: bool,
    /// Entries of its prefix index, once it has reported.
    pub entries: Option<u64>,
}

/// VMs by pool and worker slot.
type Vms = BTreeMap<(usize, String), Vm>;

/// Returns the VMs that the status page shows; it may be empty before the first reports.
pub fn vms(proxy: &Proxy) -> Vms {
    assert!(proxy.setup.status_page, "the setup has no status page");
    let page = get(proxy.status, "/").map_or(String::new(), |response| response.body);
    let tables = page.split("<table class=\"workers\">").skip(1);
    let rows = tables.enumerate().flat_map(|(pool, table)| {
        let table = table.split("</table>").next().unwrap_or_default();
        table.split("<tr").map(move |row| (pool, row))
    });
    rows.filter_map(|(pool, row)| Some(((pool, cell(row, "worker")?.to_owned()), vm(row))))
        .collect()
}

fn vm(row: &str) -> Vm {
    let number = |class| cell(row, class)?.parse().ok();
    Vm {
        heartbeats: number("heartbeats").unwrap_or(0),
        serves: cell(row, "traffic") == Some("requests"),
        polls: cell(row, "polls") == Some("yes"),
        entries: number("entries"),
    }
}

/// Returns how many requests are in flight at all endpoints, as all VMs have published them.
pub fn in_flight(proxy: &Proxy) -> u64 {
    let page = get(proxy.status, "/").map_or(String::new(), |response| response.body);
    let rows = page.split("<tr").filter_map(|row| cell(row, "in-flight"));
    rows.filter_map(|requests| requests.parse::<u64>().ok())
        .sum()
}

/// Returns the text of a cell of this class.
fn cell<'a>(row: &'a str, class: &str) -> Option<&'a str> {
    let cells = row.split("<td").skip(1);
    let mut cells = cells.filter_map(|cell| cell.split_once('>'));
    let of_class = |attributes: &str| attributes.split([' ', '"']).any(|part| part == class);
    let (_, text) = cells.find(|(attributes, _)| of_class(attributes))?;
    text.split('<').next()
}

/// Returns how many pickers the pools of an Envoy have, of which there are this many with the wasm module: one for each
/// worker and one for the main thread, which the dynamic module does without.
pub fn pickers(proxy: &Proxy, count: usize) -> usize {
    match proxy.setup.host {
        Host::Wasm => count,
        Host::Module => count * proxy.setup.workers / (proxy.setup.workers + 1),
    }
}

/// Waits until this many VMs ([`pickers`]) share and use the same secret. What is placed before that may be lost. No
/// request may be in flight.
pub fn wait_until_vms_share(proxy: &Proxy, count: usize) {
    let count = pickers(proxy, count);
    proxy.wait_until("all VMs share", || vms(proxy).len() == count);
    wait_for_heartbeats(proxy, HEARTBEATS_PER_SECOND, "all VMs use the same secret");
}

/// Waits until all VMs have handed over what they have counted so far, and set their gauges. No request may be
/// in flight, unless there is one worker only: more than one exchange their requests between ticks.
pub fn wait_for_statistics(proxy: &Proxy) {
    wait_for_heartbeats(
        proxy,
        HEARTBEATS_PER_SECOND,
        "all VMs hand their statistics over",
    );
}

/// Waits until all VMs know what each of them has placed so far: each publishes it with its next tick, and
/// reads what the others have published with the next tick after that.
pub fn wait_until_shared(proxy: &Proxy) {
    wait_for_heartbeats(proxy, HEARTBEATS_PER_TICK, "each VM publishes");
    wait_for_heartbeats(
        proxy,
        HEARTBEATS_PER_TICK,
        "each VM reads what the others published",
    );
}

/// Waits until each VM has sent this many more heartbeats.
fn wait_for_heartbeats(proxy: &Proxy, more: u64, what: &str) {
    let mut before = Vms::new();
    proxy.wait_until("the status page shows the VMs", || {
        before = vms(proxy);
        !before.is_empty()
    });
    proxy.wait_until(what, || {
        let now = vms(proxy);
        let grown = |(slot, vm): (&(usize, String), &Vm)| {
            let before = before.get(slot).map_or(0, |before| before.heartbeats);
            // A VM that is new in its slot begins from zero.
            let before = if before <= vm.heartbeats { before } else { 0 };
            vm.heartbeats - before >= more
        };
        !now.is_empty() && now.iter().all(grown)
    });
}
