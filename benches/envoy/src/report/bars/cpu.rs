//! Bars on the CPU that the filter adds to a request.

use super::Bar;
use crate::result::{Case, Cell, Run, Spread};

/// The titles of the table's columns.
pub const TITLES: [&str; 6] = [
    "request",
    "difference",
    "bar, of plain's CPU",
    "in µs, where it was set",
    "measured, of plain's CPU",
    "in µs, here",
];

/// The most CPU that a case may take more than another one in a setting.
struct Most {
    group: &'static str,
    kilobytes: usize,
    case: &'static str,
    beside: &'static str,
    /// Microseconds on the machine on which the bar was set.
    added: f64,
    /// Plain Envoy's microseconds for the same request on that machine.
    plain: f64,
    reason: &'static str,
    missed: &'static str,
}

const WASM: Most = Most {
    group: "base",
    kilobytes: 4,
    case: "epp-wasm",
    beside: "noop",
    added: 8.0,
    plain: 34.0,
    reason: "",
    missed: "",
};

// Profiles and variants of 2026-11-30 on the machine of the published run, in turns with what they are compared with; the message
// of the commit that wrote these lines has all numbers.
const WASM_WARM: &str = "A plan of random-picker alone, which reads no body and no page, takes 47 of 77 µs in one comparison. In a profile, \
    half of the difference is the module's own code, a seventh host calls, and a third Envoy outside the VM. Tried: texts read in one loop \
    and queues in a column, which are kept, 196.0 and 201.0 µs of the whole request instead of 200.1 and 198.1; no callback for response bodies, 1.7 µs \
    less to 1.1 more; a page every 10 s instead of 200 ms, 3 to 11 µs more";
const WASM_WARM_64: &str = "Reading the body takes 37 to 41 µs of it; the rest is that of a request of 4 KB. Tried: a window of 4 KB, 26 to 28 µs \
    less, but the document sets the window; no callback for response bodies, 7 to 16 µs less, but without token counts; texts read \
    in one loop, which is kept, 2 µs less to 11 more";
const WASM_COLD: &str = "A plan of random-picker alone, which reads no body, takes 35 of 99 µs in the comparison in which it takes 47 with warm \
    prompts. The whole request costs the same with it, 164 and 168 µs; the no-op filter took 135 and 125. The rest is for the body, and to \
    hash 64 blocks and add them. Tried: an archive on the main thread instead of an index and marks that tell that a block is new, which \
    are kept, together 23 to 30 µs less; texts read in one loop, which is kept, 0 to 0.7 µs less; no callback for response bodies, 3 to \
    5 µs more";
const WASM_COLD_64: &str = "Of a worker's CPU for such a request, a third is spent in the module's code, a half in Envoy's, and a sixth in \
    the kernel. Tried, and kept: the main thread's VM archives what workers learn instead of adding it to an index, 38 µs less; marks \
    tell that a block is new, and entries are written once, 8 to 20 µs less; texts are read in one loop, 3 to 6 µs less";
const WASM_LONG: &str = "All of the body is read, hashed and looked up: with a window of 16 KB the difference is 100 µs instead of 286. Tried: \
    texts read in one loop, which is kept, 2 to 11 µs less; 32 bytes at a time and copied in a loop of their own, which is kept, 270 \
    instead of 329 µs for 512 KB in Node; no callback for response bodies, 17 to 23 µs less, but without token counts";
const WASM_MANY: &str = "Of 98 µs, polls take 15, and a plan of random-picker alone, which reads no body and no page, 62. Tried: scores kept \
    from request to request, which is kept, 15 instead of 26 µs for the callback in Node; queues in a column, no division without a \
    match, and texts in one loop, which are kept, 5 to 8 µs less; a page every 10 s, 1 to 22 µs less, but metrics would be stale";
const MODULE_WARM: &str = "In a profile, the module's own code takes 20 µs of a request at 4 KB, of which no function takes over 1.6, and \
    setting header and metadata 4; in a loop without Envoy such a request takes 7. Tried: optimization level 2, 47.8 instead of 44.1 µs; \
    with 64 KB, level s, 56.5 instead of 51.7, and instructions of x86-64-v3, 51.5; polling every 5 s instead of 200 ms, no difference but \
    for the 2 µs of other threads";
const MODULE_WARM_64: &str = "A request of 4 KB takes three quarters of it, so that the same stands in the way. Tried: optimization level 2, \
    52.5 instead of 51.7 µs; level s, 56.5; instructions of x86-64-v3, 51.5; texts read in one loop, which is kept, 54.0";
const MODULE_COLD_4: &str = "A warm request takes 43 of the 72 µs; the rest is to hash 64 blocks and add them. Tried: texts read in one loop, \
    which is kept, 61.0 instead of 67.7 µs; optimization level 2, 66.5; level s, 71.4; instructions of x86-64-v3, 66.5";
const MODULE_COLD: &str = "In a profile, the module's own code takes 62 µs of such a request, of which 33 add 256 blocks to the index; in a \
    loop without Envoy the request takes 40. Tried: marks that tell that a block is new and entries that are written once, which are kept, 8 to \
    20 µs less in the wasm module; optimization level 2, with 4 KB 63.0 instead of 55.8 µs in one comparison and 66.5 instead of 67.7 in \
    another; memory in huge pages, no difference in the loop";
const MODULE_MANY: &str = "In a profile, other threads take 17 µs, of which 12 are spent in Envoy on the callouts of polls; the module's own \
    code on the worker takes 26, 6 more than with 100 endpoints, for two scorers and the picker. Tried, on the worker, where one build \
    takes 40.3 to 46.0 µs in different runs: optimization level 2, 45.8; instructions of x86-64-v3, 45.5; queues in a column, no division \
    without a match, and texts in one loop, which are kept, 15 % fewer instructions natively, 47.2 to 48.4 µs";

const MODULE: Most = Most {
    case: "module",
    beside: "override-host",
    ..WASM
};

const BARS: [Most; 12] = [
    Most {
        reason: "the host calls that a decision cannot do without take 3 µs, and the decision 5",
        missed: WASM_WARM,
        ..WASM
    },
    Most {
        kilobytes: 64,
        plain: 48.0,
        reason: "the prompt window ends at 16 KB, so that a longer body adds no work",
        missed: WASM_WARM_64,
        ..WASM
    },
    Most {
        group: "cold prompts",
        added: 15.0,
        plain: 33.0,
        reason: "64 blocks are hashed and added to the index, once",
        missed: WASM_COLD,
        ..WASM
    },
    Most {
        group: "cold prompts",
        kilobytes: 64,
        added: 35.0,
        plain: 46.0,
        reason: "256 blocks are hashed and added to the index, once, and by no VM that serves no requests",
        missed: WASM_COLD_64,
        ..WASM
    },
    Most {
        group: "long prompt window",
        kilobytes: 220,
        added: 80.0,
        plain: 160.0,
        reason: "half of what commit 8bd9994 took, on the machine of that run",
        missed: WASM_LONG,
        ..WASM
    },
    Most {
        group: "1,000 endpoints",
        added: 12.0,
        plain: 42.0,
        reason: "ten times as many endpoints may cost a decision half as much again, and polls must not scale with them",
        missed: WASM_MANY,
        ..WASM
    },
    Most {
        added: 6.0,
        reason: "native code for the same decision, without entries into a VM",
        missed: MODULE_WARM,
        ..MODULE
    },
    Most {
        kilobytes: 64,
        added: 8.0,
        plain: 48.0,
        reason: "bodies are read in place, up to the prompt window",
        missed: MODULE_WARM_64,
        ..MODULE
    },
    Most {
        group: "cold prompts",
        added: 12.0,
        plain: 33.0,
        reason: "native hashing of the same 64 blocks, into the same index",
        missed: MODULE_COLD_4,
        ..MODULE
    },
    Most {
        group: "cold prompts",
        kilobytes: 64,
        added: 25.0,
        plain: 46.0,
        reason: "native hashing of the same 256 blocks, into the same index",
        missed: MODULE_COLD,
        ..MODULE
    },
    Most {
        group: "1,000 endpoints",
        added: 8.0,
        plain: 42.0,
        reason: "a third more than with 100, for a decision among ten times as many and for their polls",
        missed: MODULE_MANY,
        ..MODULE
    },
    Most {
        group: "flow control",
        case: "gate",
        beside: "epp-wasm",
        added: 3.0,
        reason: "a request that need not wait is not queued, but the pool's saturation is measured",
        ..WASM
    },
];

/// Returns the bars of the settings that the run has.
pub fn measured(run: &Run) -> Vec<Bar> {
    let bars = BARS.iter().filter_map(|bar| {
        let same = |cell: &&Cell| cell.group == bar.group && cell.kilobytes == bar.kilobytes;
        judged(bar, run.cells.iter().find(same)?)
    });
    bars.collect()
}

fn judged(bar: &Most, cell: &Cell) -> Option<Bar> {
    let of = |name: &str| cell.cases.iter().find(|case: &&Case| case.name == name);
    let plain = of("plain")?.cpu_us.both.median;
    let Spread { median, low, high } = of(bar.case)?.beside.get(bar.beside)?.both;
    let wanted = bar.added / bar.plain;
    let over = median / plain - wanted;
    let mut request = format!("{} KB, {}", bar.kilobytes, cell.prompts);
    if !["base", "cold prompts"].contains(&bar.group) {
        request = format!("{request}, {}", bar.group);
    }
    Some(Bar {
        name: format!("{request}, {} beside {}", bar.case, bar.beside),
        cells: vec![
            request,
            format!("{} beside {}", bar.case, bar.beside),
            format!("≤ {wanted:.2}"),
            format!("{:.0} of {:.0}", bar.added, bar.plain),
            format!(
                "{:.2} ({:.2} to {:.2})",
                median / plain,
                low / plain,
                high / plain
            ),
            format!("{median:.1} of {plain:.1}"),
        ],
        over: (over > 0.0).then(|| format!("{over:.2}, {:.1} µs here", over * plain)),
        reason: bar.reason,
        missed: bar.missed,
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::cases::tests::{case, cell, cpu};
    use super::*;

    fn base(plain: f64, added: f64) -> Bar {
        let cases = vec![
            case("plain", cpu(plain, 0.0), &[]),
            case(
                "epp-wasm",
                cpu(90.0, 2.0),
                &[("noop", cpu(added - 1.0, 1.0))],
            ),
        ];
        judged(&BARS[0], &cell("base", 4, cases)).unwrap()
    }

    #[test]
    fn a_bar_is_judged_by_the_multiple_of_plain_envoy() {
        // 8 of 34 µs: on a machine three times as slow 24 µs hold it.
        let held = base(102.0, 23.9);
        assert_eq!((held.over, held.cells[2].as_str()), (None, "≤ 0.24"));
        assert_eq!(held.cells[5], "23.9 of 102.0");
        // On a faster one 8 µs miss it.
        let missed = base(20.0, 8.0);
        assert_eq!(missed.cells[4], "0.40 (0.35 to 0.45)");
        assert_eq!(missed.over.as_deref(), Some("0.16, 3.3 µs here"));
    }

    #[test]
    fn each_bar_has_a_reason_and_its_setting_in_the_published_run() {
        for bar in &BARS {
            assert!(
                !bar.reason.is_empty() && !bar.reason.ends_with('.'),
                "{}",
                bar.reason
            );
            assert!(!bar.missed.ends_with('.'), "{}", bar.missed);
            let names = [bar.case, bar.beside, "plain"];
            let measured = crate::suite::measures(bar.group, bar.kilobytes, &names);
            assert!(measured, "{} {} {}", bar.group, bar.kilobytes, bar.case);
        }
    }
}
