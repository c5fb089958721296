//! Bars on everything but the CPU of a request: idle Envoys, start, memory, size, latency, decisions.

use super::Bar;
use crate::result::{Bucket, Cell, Footprint, Run, Spread};

/// The titles of the table's columns.
pub const TITLES: [&str; 4] = ["bar", "setting", "wanted", "measured"];

/// A measured value, and its most.
struct Most {
    what: &'static str,
    setting: String,
    most: f64,
    measured: f64,
    /// The unit, with a blank before it.
    unit: &'static str,
    /// What is said of the measured value besides.
    note: String,
    digits: usize,
    reason: &'static str,
    missed: &'static str,
}

/// Returns the bars that the run has values for.
pub fn measured(run: &Run) -> Vec<Bar> {
    let bars = idle(run).chain(start(run)).chain(memory(run));
    let bars = bars.chain([size(run)]).chain(latency(run));
    bars.map(judged).chain(decision(run)).collect()
}

fn judged(bar: Most) -> Bar {
    let shown = |value: f64| format!("{value:.*}{}", bar.digits, bar.unit);
    let over = bar.measured - bar.most;
    Bar {
        name: format!("{}, {}", bar.what, bar.setting),
        cells: vec![
            bar.what.to_owned(),
            bar.setting.clone(),
            format!("≤ {}", shown(bar.most)),
            shown(bar.measured) + &bar.note,
        ],
        over: (over > 0.0).then(|| shown(over)),
        reason: bar.reason,
        missed: bar.missed,
    }
}

// Of 2026-11-30.
const IDLE_MISSED: &str = "Ticks of two VMs take 0.7 %, discovery once a second 0.2 %, and a page 120 µs, two thirds of it in Envoy and the \
    kernel. Tried, in single runs of 10 s, which differ by up to a point with 1,000 endpoints: publishing unchanged pages of endpoints at \
    rest together, which is kept; ticks of 200 ms while a pool is at rest, 0.6, 1.3 and 6.9 % with 10, 100 and 1,000 endpoints instead of 0.9, 2.2 and 9.8, not kept because a VM then notices later what the others \
    do; with these, pages of the needed metrics alone, 6.0 % with 1,000, which a vLLM of several processes cannot serve, and a `maxInterval` \
    of 4 s, 4.5 %, with which traffic of other gateways is noticed later";

// Measured for commit ad69ee0, on another machine.
const START_MISSED: &str = "V8 compiles the module nearly all of that time, and it has grown: with 878 kB it took 460 ms, on another machine. \
    Compilation took 1,070 ms on one core there. Tried: optimization levels s and z, 1,019 and 967 ms, but with s requests take 58 % longer; \
    wasm-opt with O2, Os and Oz, 1,069, 1,063 and 1,045 ms; calls through a table, which V8 does not inline, and a standard library for size, \
    which are kept, 460 instead of 685 ms on two cores";

// Compared in the same turns on 2026-11-30, with commit 0b0186d: an added median of 83 µs with one request, of 14.2 ms with 100.
const ALONE_MISSED: &str = "In one comparison it was 83 µs. Tried there: reading no body, 46 less, but prompts decide; a plan of random-picker \
    alone, 48 less; no callback for response bodies, 9 less, but without token counts";
const CROWDED_MISSED: &str = "The worker is saturated, so that the median is a hundred times the CPU of a request: 138 µs beside plain Envoy \
    made 14.2 ms in one comparison. Tried there: a window of 4 KB, 2.9 ms less, but the document sets the window; reading no body, 4.8 ms \
    less, but prompts decide; no callback for response bodies, 0.1 ms less";

// In the published run of commit 8bd9994 and in the one before it, the medians of decision and look-up were between 2 and 5 and between
// 1 and 2 µs.
const DECISION_MISSED: &str = "The median among 1,000 endpoints is in the same bucket. Tried, and kept: scores from request to request, what \
    is in flight in a flat array, and a picker that looks at sixteenths, with which it stayed between 3 and 7 µs, on another machine; queues \
    in a column and no division without a match, 2 % fewer instructions of a request natively";

/// The share of a core that an Envoy without requests takes.
fn idle(run: &Run) -> impl Iterator<Item = Most> + '_ {
    let bars = [(10, 0.3), (100, 1.0), (1_000, 5.0)];
    bars.into_iter().filter_map(|(endpoints, most)| {
        let same =
            |row: &&crate::result::Idle| (row.endpoints, row.interval_ms) == (endpoints, 200);
        let row = run.idle.iter().find(same)?;
        Some(Most {
            what: "idle Envoy",
            setting: format!("{endpoints} endpoints, interval 200 ms, at rest 2 s"),
            most,
            measured: row.cores * 100.0,
            unit: " % of a core",
            note: row.plain_cores.map_or_else(String::new, |cores| {
                format!(", plain Envoy {:.1} %", cores * 100.0)
            }),
            digits: 1,
            reason: "a gateway without traffic must cost next to nothing",
            missed: IDLE_MISSED,
        })
    })
}

/// The time until Envoy listens: of the wasm module as a whole, of the dynamic module beside plain Envoy's.
fn start(run: &Run) -> impl Iterator<Item = Most> {
    let started = |row: &Footprint| row.start_on_all_ms;
    let wasm = run.footprint.iter().filter(|row| row.name == "epp-wasm");
    let wasm: Vec<f64> = wasm.filter_map(started).collect();
    let slowest = wasm.iter().copied().fold(0.0, f64::max);
    let wasm = (!wasm.is_empty()).then(|| Most {
        what: "start until Envoy listens",
        setting: "epp-wasm, all cores, median".to_owned(),
        most: 500.0,
        measured: Spread::of(wasm).median,
        unit: " ms",
        note: format!(", the slowest {slowest:.0} ms"),
        digits: 0,
        reason: "V8 compiles the module before a listener accepts connections, and a gateway that restarts is missed",
        missed: START_MISSED,
    });
    let module = beside_plain(run, |row| row.name == "module", |row| started(row));
    let module = (!module.is_empty()).then(|| Most {
        what: "start until Envoy listens",
        setting: "module beside plain, all cores, median".to_owned(),
        most: 50.0,
        measured: Spread::of(module).median,
        unit: " ms",
        note: String::new(),
        digits: 0,
        reason: "native code is mapped, not compiled",
        missed: "",
    });
    wasm.into_iter().chain(module)
}

/// Resident memory beside plain Envoy's, with 100 endpoints and one worker.
fn memory(run: &Run) -> impl Iterator<Item = Most> + '_ {
    let bars = [
        (
            "epp-wasm",
            "base",
            45.0,
            "64 prompts",
            "what commit 8bd9994 took: the VMs of a worker and of the main thread",
        ),
        (
            "epp-wasm",
            "cold prompts",
            170.0,
            "full index",
            "what commit 8bd9994 took: the index of each VM may take 64 MiB",
        ),
        (
            "module",
            "base",
            20.0,
            "64 prompts",
            "native code needs neither a VM nor compiled wasm",
        ),
        (
            "module",
            "cold prompts",
            84.0,
            "full index",
            "the same, and the worker's index of 64 MiB",
        ),
    ];
    bars.into_iter()
        .filter_map(|(name, group, most, filled, reason)| {
            let same = |row: &Footprint| row.name == name && row.group == group;
            let more = beside_plain(run, same, |row| Some(row.resident_mib));
            Some(Most {
                what: "resident memory beside plain",
                setting: format!("{name}, {filled}"),
                most,
                measured: more.first().copied()?,
                unit: " MiB",
                note: String::new(),
                digits: 0,
                reason,
                missed: "",
            })
        })
}

/// Returns how much larger a value of some rows is than plain Envoy's in the same group.
fn beside_plain(
    run: &Run,
    wanted: impl Fn(&Footprint) -> bool,
    value: impl Fn(&Footprint) -> Option<f64>,
) -> Vec<f64> {
    let rows = run.footprint.iter().filter(|row| wanted(row));
    let more = rows.filter_map(|row| {
        let same = |other: &&Footprint| other.name == "plain" && other.group == row.group;
        let plain = run.footprint.iter().find(same)?;
        Some(value(row)? - value(plain)?)
    });
    more.collect()
}

fn size(run: &Run) -> Most {
    Most {
        what: "size",
        setting: "epp_wasm.wasm".to_owned(),
        most: 1_150.0,
        measured: run.machine.module_bytes as f64 / 1e3,
        unit: " kB",
        note: String::new(),
        digits: 1,
        reason: "Envoy loads and compiles the module at each start, so that its size is time",
        missed: "",
    }
}

/// The most that the filter may add to the median latency.
fn latency(run: &Run) -> impl Iterator<Item = Most> + '_ {
    const QUIET: &str =
        "less than a hundredth of the time to a first token, which is tens of milliseconds";
    let bars = [
        ("concurrency 1", 4, 100.0, QUIET, ALONE_MISSED),
        ("concurrency 1", 220, 150.0, QUIET, ""),
        (
            "concurrency 100",
            220,
            6_750.0,
            "less than a hundredth of the mean time to the first byte that llm-d-router#1109 reports of an Endpoint \
             Picker under such a load, 724 ms",
            CROWDED_MISSED,
        ),
    ];
    bars.into_iter()
        .filter_map(|(group, kilobytes, most, reason, missed)| {
            let same = |cell: &&Cell| cell.group == group && cell.kilobytes == kilobytes;
            let cell = run.cells.iter().find(same)?;
            let median = |name: &str| {
                let case = cell.cases.iter().find(|case| case.name == name)?;
                Some(case.p50_us.median)
            };
            Some(Most {
                what: "median latency beside plain",
                setting: format!("epp-wasm, {kilobytes} KB, {group}"),
                most,
                measured: median("epp-wasm")? - median("plain")?,
                unit: " µs",
                note: String::new(),
                digits: 0,
                reason,
                missed,
            })
        })
}

/// The most that the median decision may take, in µs, with few endpoints and with many: bounds of its histogram, so that a
/// bucket is on one side.
const DECISIONS: [(&str, f64); 2] = [("base", 5.0), ("1,000 endpoints", 50.0)];

/// The median decision by the module's own clock: look-up and schedule.
fn decision(run: &Run) -> impl Iterator<Item = Bar> + '_ {
    DECISIONS.into_iter().filter_map(|(group, most)| {
        let row = run.inside.iter().find(|row| row.group == group)?;
        // A look-up in the event that decides is part of it; one before is not.
        let mut measured = Bucket::of(row.schedule?.p50_us);
        if let Some(look_up) = row.look_up {
            let look_up = Bucket::of(look_up.p50_us);
            measured.low += look_up.low;
            measured.high += look_up.high;
        }
        let setting = format!(
            "epp-wasm, look-up and schedule, {} endpoints",
            row.endpoints
        );
        Some(Bar {
            name: format!("median decision, {setting}"),
            cells: vec![
                "median decision".to_owned(),
                setting,
                format!("≤ {most} µs"),
                format!("{measured} µs"),
            ],
            over: over(measured, most),
            reason: "0.05 µs for each endpoint, which is small beside the request itself",
            missed: DECISION_MISSED,
        })
    })
}

/// Returns by how much a value in this bucket misses a bar, unless it holds it wherever in the bucket it is.
fn over(measured: Bucket, most: f64) -> Option<String> {
    let over = Bucket {
        low: measured.low - most,
        high: measured.high - most,
    };
    match over {
        Bucket { high, .. } if high <= 0.0 => None,
        Bucket { low, high } if low < 0.0 => Some(format!("up to {high} µs")),
        _ => Some(format!("{over} µs")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_bar_says_by_how_much() {
        let bar = |measured| {
            judged(Most {
                what: "idle Envoy",
                setting: "100 endpoints".to_owned(),
                most: 1.0,
                measured,
                unit: " % of a core",
                note: String::new(),
                digits: 1,
                reason: "",
                missed: "",
            })
        };
        assert_eq!(bar(7.4).over.as_deref(), Some("6.4 % of a core"));
        assert_eq!(
            bar(7.4).cells[2..],
            ["≤ 1.0 % of a core", "7.4 % of a core"]
        );
        assert_eq!(bar(1.0).over, None);
    }

    #[test]
    fn a_bar_is_held_where_the_whole_bucket_holds_it() {
        let bucket = |low, high| Bucket { low, high };
        assert_eq!(over(bucket(20.0, 50.0), 50.0), None);
        let missed = |low, high, most| over(bucket(low, high), most).unwrap();
        assert_eq!(missed(20.0, 50.0, 5.0), "15 to 45 µs");
        assert_eq!(missed(5.0, 10.0, 5.0), "0 to 5 µs");
        assert_eq!(missed(20.0, 50.0, 30.0), "up to 20 µs");
    }

    #[test]
    fn the_bucket_of_a_decision_is_on_one_side_of_its_bar() {
        for (_, most) in DECISIONS {
            assert_eq!(Bucket::of(most).high, most);
        }
    }
}
