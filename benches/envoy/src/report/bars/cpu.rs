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

// Profiles and variants of 2026-11-30, of commit c15f2ec where no other is named.
const MODULE_WARM: &str = "In a profile, the module's own code takes 20 µs of a request at 4 KB, of which no function takes over 1.6, and \
    setting header and metadata 4; in a loop without Envoy such a request takes 7. Tried in the same turns, and no difference: optimization \
    levels 2 and s, instructions of x86-64-v3";
const MODULE_COLD: &str = "In a profile, the module's own code takes 62 µs of such a request, of which 33 add 256 blocks to the index; in a \
    loop without Envoy the request takes 40. Tried, and no difference: memory in huge pages (in that loop), optimization level 2, \
    instructions of x86-64-v3";
const MODULE_MANY: &str = "In a profile, other threads take 17 µs, of which 12 are spent in Envoy on the callouts of polls; the module's own \
    code on the worker takes 26, 6 more than with 100 endpoints, for two scorers and the picker";

const MODULE: Most = Most {
    case: "module",
    beside: "override-host",
    ..WASM
};

const BARS: [Most; 12] = [
    Most {
        reason: "the host calls that a decision cannot do without take 3 µs, and the decision 5",
        missed: "Of the difference, two fifths are the module's own code, of which no function takes over 2 %, a sixth are host calls, and two fifths are spent in Envoy outside the VM",
        ..WASM
    },
    Most {
        kilobytes: 64,
        plain: 48.0,
        reason: "the prompt window ends at 16 KB, so that a longer body adds no work",
        ..WASM
    },
    Most {
        group: "cold prompts",
        added: 15.0,
        plain: 33.0,
        reason: "64 blocks are hashed and added to the index, once",
        ..WASM
    },
    Most {
        group: "cold prompts",
        kilobytes: 64,
        added: 35.0,
        plain: 46.0,
        reason: "256 blocks are hashed and added to the index, once, and by no VM that serves no requests",
        missed: "Of a worker's CPU for such a request, a third is spent in the module's code, a half in Envoy's, and a sixth in the \
            kernel. Tried: the main thread's VM archives what workers learn instead of adding it to an index, 38 µs less; marks tell that \
            a block is new, and entries are written once, 8 to 20 µs less; blocks are handed on in runs, 2 % fewer instructions",
        ..WASM
    },
    Most {
        group: "long prompt window",
        kilobytes: 220,
        added: 80.0,
        plain: 160.0,
        reason: "half of what commit 8bd9994 took, on the machine of that run",
        ..WASM
    },
    Most {
        group: "1,000 endpoints",
        added: 12.0,
        plain: 42.0,
        reason: "ten times as many endpoints may cost a decision half as much again, and polls must not scale with them",
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
        ..MODULE
    },
    Most {
        group: "cold prompts",
        added: 12.0,
        plain: 33.0,
        reason: "native hashing of the same 64 blocks, into the same index",
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
