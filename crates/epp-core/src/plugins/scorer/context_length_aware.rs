//! `context-length-aware`: sends prompts to endpoints that are there for prompts of their length. A filter and
//! a scorer in one.
//!
//! Reads the tokens of the prompt (four bytes count as one, up to the prefix window), and a label of each
//! candidate with the range it is there for: `min-max`, both included.
//!
//! Filter, where it is on: keeps endpoints whose range has the prompt's length, and those without the label;
//! endpoints whose label is not a range are removed.
//!
//! Score: 0.5 without the label, 0 where it is not a range. Within the range
//! 0.3 + 0.7 · (0.7 / (1 + width / 10000) + 0.3 · (max − length) / width), or 1 where the width is 0; else
//! 0.3 / (1 + distance / 1000).
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `label` | `llm-d.ai/context-length-range` | the label |
//! | `enableFiltering` | false | whether it also filters |
//!
//! ```yaml
//! - type: context-length-aware
//!   parameters: {enableFiltering: true}
//! ```

use std::sync::Arc;

use crate::config::value::Node;
use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType, Standing};
use crate::scheduling::{Basis, Cycle, Filter, Needs, Scored, Scorer, Slot, UnreadPrompt};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "context-length-aware",
    former_names: &[],
    provides: &[Capability::Filter, Capability::Scorer],
    references: &[],
    build,
    parity: Parity::of(Standing::Differs(
        "a prompt counts up to the prefix window",
    )),
};

#[derive(Debug)]
struct ContextLengthAware {
    label: String,
    filters: bool,
}

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    const LABEL: &str = "label";
    let fields = &mut build.fields;
    let label = fields.string(LABEL, "llm-d.ai/context-length-range");
    if label.is_empty() {
        fields.refuse(LABEL, &Node::String(String::new()), "a label");
    }
    let plugin = Arc::new(ContextLengthAware {
        label,
        filters: fields.boolean("enableFiltering", false),
    });
    Capabilities {
        filter: Some(plugin.clone()),
        scorer: Some(plugin),
        ..Capabilities::default()
    }
}

/// What an endpoint says of the prompts it is there for.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Range {
    /// Nothing.
    Absent,
    /// A text that is not a range.
    Malformed,
    /// The shortest and the longest.
    Of(f64, f64),
}

impl Range {
    fn parse(text: &str) -> Self {
        let number = |text: &str| text.trim().parse::<i64>().ok();
        let bounds = text.split_once('-');
        let bounds = bounds.and_then(|(min, max)| Some((number(min)?, number(max)?)));
        match bounds {
            Some((min, max)) if min <= max => Self::Of(min as f64, max as f64),
            _ => Self::Malformed,
        }
    }

    fn keeps(self, length: f64) -> bool {
        match self {
            Self::Absent => true,
            Self::Malformed => false,
            Self::Of(min, max) => length >= min && length <= max,
        }
    }

    fn score(self, length: f64) -> f64 {
        match self {
            Self::Absent => 0.5,
            Self::Malformed => 0.0,
            Self::Of(min, _) if length < min => outside(min - length),
            Self::Of(_, max) if length > max => outside(length - max),
            Self::Of(min, max) if min == max => 1.0,
            Self::Of(min, max) => {
                let width = max - min;
                let tight = 1.0 / (1.0 + width / 10_000.0);
                let room = (max - length) / width;
                0.3 + 0.7 * (0.7 * tight + 0.3 * room)
            }
        }
    }
}

/// The score of an endpoint that is there for prompts longer or shorter by this much.
fn outside(distance: f64) -> f64 {
    0.3 / (1.0 + distance / 1_000.0)
}

impl ContextLengthAware {
    fn range(&self, cycle: &Cycle<'_>, slot: Slot) -> Range {
        let endpoint = cycle.pool.get(slot);
        let label = endpoint.and_then(|endpoint| endpoint.label(&self.label));
        label.map_or(Range::Absent, Range::parse)
    }

    fn reads(&self, length: bool) -> Needs {
        Needs {
            prompt: length,
            tokens: length,
            unread: match length {
                true => UnreadPrompt::Length,
                false => UnreadPrompt::Irrelevant,
            },
            labels: true,
            ..Needs::default()
        }
    }
}

impl Filter for ContextLengthAware {
    fn filter(&self, cycle: &Cycle<'_>, candidates: &mut Vec<Slot>) {
        if self.filters {
            let length = cycle.request.cost.prompt;
            candidates.retain(|slot| self.range(cycle, *slot).keeps(length));
        }
    }

    /// Where it does not filter, the candidates and their scores are kept from request to request.
    fn basis(&self) -> Basis {
        match self.filters {
            true => Basis::Request,
            false => Basis::Pool,
        }
    }

    /// A range may lie between the two lengths.
    fn moves_evenly(&self, shortest: &Cycle<'_>, longest: &Cycle<'_>, candidates: &[Slot]) -> bool {
        let ends = [shortest, longest].map(|cycle| cycle.request.cost.prompt);
        let mut ranges = candidates.iter().map(|slot| self.range(shortest, *slot));
        !self.filters || !ranges.any(|range| matches!(range, Range::Of(min, max) if ends[0] < min && ends[1] > max))
    }

    fn needs(&self) -> Needs {
        self.reads(self.filters)
    }
}

impl Scorer for ContextLengthAware {
    fn score(&self, cycle: &Cycle<'_>, candidates: &[Slot], scores: &mut [f64]) {
        let length = cycle.request.cost.prompt;
        for (slot, score) in candidates.iter().zip(scores) {
            *score = self.range(cycle, *slot).score(length);
        }
    }

    /// The scores of equal ranges move alike, those of others in curves of their own.
    fn moves_evenly(&self, longest: &Cycle<'_>, candidates: &[Scored]) -> bool {
        let mut ranges = candidates.iter().map(|one| self.range(longest, one.slot));
        let first = ranges.next();
        ranges.all(|range| Some(range) == first)
    }

    fn needs(&self) -> Needs {
        self.reads(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling::{Cost, Metrics, Pool, RequestView};
    use crate::testing::{close, pool, refused, scores};

    fn plugin(filters: bool) -> ContextLengthAware {
        ContextLengthAware {
            label: "range".to_owned(),
            filters,
        }
    }

    /// Endpoints with these ranges; an empty one stands for no label.
    fn endpoints(ranges: &[&str]) -> Pool {
        let mut pool = pool(ranges.iter().map(|_| Metrics::default()));
        for (slot, range) in (0..).zip(ranges).filter(|(_, range)| !range.is_empty()) {
            let labels = &mut pool.get_mut(Slot(slot)).unwrap().labels;
            labels.push(("range".to_owned(), (*range).to_owned()));
        }
        pool
    }

    fn of_length(prompt: f64) -> RequestView<'static> {
        RequestView {
            cost: Cost {
                prompt,
                ..Cost::default()
            },
            ..RequestView::default()
        }
    }

    fn all(pool: &Pool) -> Vec<Slot> {
        pool.iter().map(|(slot, _)| slot).collect()
    }

    #[test]
    fn the_reference_vectors_hold() {
        let pool = endpoints(&["0-20", "0-10000", "500-1000", "", "abc-100", "7-7"]);
        let expected = [
            0.3 + 0.7 * (0.7 / 1.002 + 0.3),
            0.3 + 0.7 * (0.35 + 0.3),
            0.3 / 1.5,
            0.5,
            0.0,
            0.3 / 1.007,
        ];
        let found = scores(&plugin(false), &pool, of_length(0.0));
        assert!(close(&found, &expected), "{found:?}");
        assert!(found[0] > found[1] && found[1] > 0.3 && found[2] < 0.3);
        let found = scores(&plugin(false), &pool, of_length(1_020.0));
        let expected = [
            0.15,
            0.3 + 0.7 * (0.35 + 0.3 * 0.898),
            0.3 / 1.02,
            0.5,
            0.0,
            0.3 / 2.013,
        ];
        assert!(close(&found, &expected), "{found:?}");
        let found = scores(&plugin(false), &pool, of_length(7.0));
        assert!(close(&found[5..], &[1.0]), "{found:?}");
    }

    #[test]
    fn what_is_no_range_is_not_taken_for_one() {
        for text in ["", "-", "100", "0-100-200", "100-50", "abc-100", "0-1e3", "-5-10"] {
            assert_eq!(Range::parse(text), Range::Malformed, "{text}");
        }
        assert_eq!(Range::parse(" 0 - 2048 "), Range::Of(0.0, 2048.0));
    }

    #[test]
    fn where_it_filters_it_keeps_those_that_are_there_for_the_length() {
        let pool = endpoints(&["0-100", "101-200", "", "no range"]);
        for (filters, length, expected) in [
            (true, 100.0, [0, 2].as_slice()),
            (true, 101.0, &[1, 2]),
            (true, 900.0, &[2]),
            (false, 900.0, &[0, 1, 2, 3]),
        ] {
            let mut kept = all(&pool);
            let cycle = Cycle::new(&pool, of_length(length));
            plugin(filters).filter(&cycle, &mut kept);
            let kept: Vec<u32> = kept.iter().map(|slot| slot.0).collect();
            assert_eq!(kept, expected, "{length}");
        }
        assert_eq!(Filter::basis(&plugin(true)), Basis::Request);
        assert_eq!(Filter::basis(&plugin(false)), Basis::Pool);
    }

    #[test]
    fn a_range_between_the_shortest_and_the_longest_prompt_is_waited_for() {
        let pool = endpoints(&["0-100", "101-200", ""]);
        let cycle = |length| Cycle::new(&pool, of_length(length));
        let evenly = |filters: bool, ends: [f64; 2]| {
            let [shortest, longest] = ends.map(cycle);
            Filter::moves_evenly(&plugin(filters), &shortest, &longest, &all(&pool))
        };
        assert!(evenly(true, [0.0, 150.0]));
        assert!(evenly(true, [150.0, f64::INFINITY]));
        assert!(!evenly(true, [50.0, f64::INFINITY]));
        assert!(evenly(false, [50.0, f64::INFINITY]));
    }

    #[test]
    fn scores_of_equal_ranges_move_alike() {
        let evenly = |ranges: &[&str]| {
            let pool = endpoints(ranges);
            let scored = all(&pool).into_iter();
            let scored: Vec<Scored> = scored.map(|slot| Scored { slot, score: 0.0 }).collect();
            let cycle = Cycle::new(&pool, of_length(9.0));
            Scorer::moves_evenly(&plugin(false), &cycle, &scored)
        };
        assert!(evenly(&["", ""]));
        assert!(evenly(&["0-5", " 0-5"]));
        assert!(!evenly(&["0-5", "0-6"]));
        assert!(!evenly(&["0-5", ""]));
    }

    #[test]
    fn the_label_has_a_name() {
        let error = refused(TYPE.name, "{label: \"\"}");
        assert!(error.contains("label"), "{error}");
    }
}
