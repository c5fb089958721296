//! `header-label-affinity-scorer`: prefers the endpoints with the label value that the request names.
//!
//! Reads a request header and a label of each candidate.
//!
//! Score: 1 where the label has the header's value, else 0; 0 for all without the header.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `headerName` | required | the header, in any case |
//! | `labelKey` | required | the label |
//!
//! ```yaml
//! - type: header-label-affinity-scorer
//!   parameters: {headerName: x-tier, labelKey: tier}
//! ```

use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType};
use crate::scheduling::{Cycle, HeaderId, Needs, Scorer, Slot};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "header-label-affinity-scorer",
    former_names: &[],
    provides: &[Capability::Scorer],
    references: &[],
    build,
    parity: Parity::SAME,
};

const HEADER: &str = "headerName";

#[derive(Debug)]
struct HeaderLabelAffinityScorer {
    header: HeaderId,
    label: String,
}

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    let header = build.fields.required_string(HEADER);
    let label = build.fields.required_string("labelKey");
    let header = build.header(HEADER, &header);
    Capabilities::scorer(HeaderLabelAffinityScorer { header, label })
}

impl Scorer for HeaderLabelAffinityScorer {
    fn score(&self, cycle: &Cycle<'_>, candidates: &[Slot], scores: &mut [f64]) {
        let wanted = cycle.request.header(self.header);
        let wanted = wanted.filter(|value| !value.is_empty());
        for (slot, score) in candidates.iter().zip(scores) {
            let endpoint = cycle.pool.get(*slot);
            let label = endpoint.and_then(|endpoint| endpoint.label(&self.label));
            let label = label.map(str::as_bytes);
            *score = f64::from(wanted.is_some() && label == wanted);
        }
    }

    fn needs(&self) -> Needs {
        Needs {
            labels: true,
            ..Needs::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling::{HeaderValues, Metrics, RequestView};
    use crate::testing::{pool, refused, scores};

    #[test]
    fn endpoints_with_the_headers_value_get_1() {
        let mut pool = pool([(); 4].map(|()| Metrics::default()));
        for (slot, value) in [(0, "gold"), (1, "silver"), (2, "")] {
            let labels = &mut pool.get_mut(Slot(slot)).unwrap().labels;
            labels.push(("tier".to_owned(), value.to_owned()));
        }
        let scorer = HeaderLabelAffinityScorer {
            header: HeaderId(0),
            label: "tier".to_owned(),
        };
        for (value, expected) in [
            (Some("gold"), [1.0, 0.0, 0.0, 0.0]),
            (Some("silver"), [0.0, 1.0, 0.0, 0.0]),
            (Some("Gold"), [0.0; 4]),
            (Some(""), [0.0; 4]),
            (None, [0.0; 4]),
        ] {
            let mut headers = HeaderValues::default();
            headers.set([value.map(str::as_bytes)]);
            let request = RequestView {
                headers: &headers,
                ..RequestView::default()
            };
            assert_eq!(scores(&scorer, &pool, request), expected, "{value:?}");
        }
    }

    #[test]
    fn both_parameters_are_required() {
        for (parameters, place) in [
            ("{labelKey: a}", "headerName"),
            ("{headerName: a}", "labelKey"),
            ("{headerName: a, labelKey: \"\"}", "labelKey"),
        ] {
            let error = refused(TYPE.name, parameters);
            assert!(error.contains(place), "{parameters}: {error}");
        }
    }
}
