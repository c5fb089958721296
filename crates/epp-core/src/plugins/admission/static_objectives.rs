//! `static-objectives`: the objectives that requests can name, each with a priority. A plugin of ours, with what
//! llm-d's `InferenceObjective` resource says, which lives in Kubernetes.
//!
//! A request names its objective in the header `x-llm-d-inference-objective`, or `x-gateway-inference-objective` where it
//! has no value in the other. Its priority is min(that of the objective, `maxPriority`). It is 0 for a request that names none, or one
//! that is not listed. With the feature gate `flowControl`, requests wait in the band of their priority, and higher
//! bands go first; without it, requests below 0 are dropped while the pool is full, and the others are always sent.
//!
//! A client chooses among the objectives as it likes. Where it must not, something in front of this Envoy has to set
//! the header, or `objectiveHeader: false` has it removed from requests.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `objectives` | required | the objectives |
//! | `objectives[].name` | required | the name |
//! | `objectives[].priority` | 0 | the priority; requests below 0 are dropped or evicted first |
//! | `objectives[].pool` | every pool | the cluster for whose requests the objective is there |
//! | `maxPriority` | – | the highest priority that a request gets |
//! | `objectiveHeader` | true | whether the header counts; else it is removed from requests |
//! | `fairnessIdHeader` | true | whether `x-llm-d-inference-fairness-id` and `x-gateway-inference-fairness-id` count; else they are removed from requests |
//!
//! ```yaml
//! - type: static-objectives
//!   parameters:
//!     objectives:
//!     - {name: interactive, priority: 10}
//!     - {name: batch, priority: -1}
//! ```

use crate::config::value::{Fields, Kind, Node};
use crate::plugins::{Build, Capabilities, Capability, Parity, PluginType, Standing};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "static-objectives",
    former_names: &[],
    provides: &[Capability::Objectives],
    references: &[],
    build,
    parity: Parity::of(Standing::Ours(
        "the priorities of the InferenceObjective resource, in the document",
    )),
};

/// An objective.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Objective {
    name: String,
    /// The cluster that it is for; `None`: every one.
    pool: Option<String>,
    priority: i32,
}

/// The objectives that requests can name.
#[derive(Debug, Clone, PartialEq)]
pub struct Objectives {
    /// By name.
    all: Vec<Objective>,
    /// Whether the header counts that names one.
    pub header: bool,
    /// Whether the header counts that names a flow.
    pub fairness_header: bool,
}

impl Default for Objectives {
    fn default() -> Self {
        Self {
            all: Vec::new(),
            header: true,
            fairness_header: true,
        }
    }
}

impl Objectives {
    /// Returns the objectives for the requests to this cluster.
    #[must_use]
    pub fn of_pool(mut self, cluster: &str) -> Self {
        let is_for = |pool: &Option<String>| pool.as_ref().is_none_or(|pool| pool == cluster);
        self.all.retain(|objective| is_for(&objective.pool));
        self
    }

    /// Returns the priority of the objective of this name, if there is one.
    pub fn priority(&self, name: &[u8]) -> Option<i32> {
        let by_name = |objective: &Objective| objective.name.as_bytes().cmp(name);
        let place = self.all.binary_search_by(by_name).ok()?;
        Some(self.all.get(place)?.priority)
    }

    /// Returns whether no request can have a priority.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty() || !self.header
    }

    /// Returns whether requests can have a priority below 0.
    pub fn any_sheddable(&self) -> bool {
        self.header && self.all.iter().any(|objective| objective.priority < 0)
    }
}

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    let fields = &mut build.fields;
    let max = priority(fields, "maxPriority", None).unwrap_or(i32::MAX);
    if let Some(node) = fields.node(OBJECTIVES) {
        fields.note(OBJECTIVES, node.clone());
    }
    let mut all: Vec<Objective> = Vec::new();
    for (entry, path) in fields.required_list(OBJECTIVES, "objectives", 1) {
        let mut entry = Fields::new(Some(entry), path.clone(), fields.problems());
        let objective = Objective {
            name: entry.required_string("name"),
            pool: Some(entry.string("pool", "")).filter(|pool| !pool.is_empty()),
            priority: priority(&mut entry, "priority", Some(0)).unwrap_or(0).min(max),
        };
        entry.finish();
        let clashes = |other: &Objective| {
            let pools = objective.pool.is_none() || other.pool.is_none() || objective.pool == other.pool;
            objective.name == other.name && pools
        };
        if all.iter().any(clashes) {
            let message = format!("found {:?} again, expected each objective once for a pool", objective.name);
            fields.problems().error(&path.key("name"), message);
        }
        // In order, without the code of a sort.
        let place = all.partition_point(|before| before.name < objective.name);
        all.insert(place, objective);
    }
    Capabilities {
        objectives: Some(Objectives {
            all,
            header: fields.boolean("objectiveHeader", true),
            fairness_header: fields.boolean("fairnessIdHeader", true),
        }),
        ..Capabilities::default()
    }
}

const OBJECTIVES: &str = "objectives";

/// Reads a priority, if it is given or has a default.
fn priority(fields: &mut Fields<'_>, name: &'static str, default: Option<i32>) -> Option<i32> {
    const BOUNDS: (i64, i64) = (i32::MIN as i64, i32::MAX as i64);
    let given = !matches!(fields.node(name), None | Some(Node::Null));
    let Some(default) = default.or(given.then_some(0)) else {
        fields.ask(name, Kind::Integer(Some(BOUNDS.0), Some(BOUNDS.1)), None);
        return None;
    };
    let value = fields.whole(name, i64::from(default), BOUNDS);
    fields.note(name, Node::Number(value as f64));
    i32::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use crate::config::load;
    use crate::testing::refused;

    fn priorities<const N: usize>(parameters: &str, cluster: &str, names: [&str; N]) -> [Option<i32>; N] {
        let text = format!(
            "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n- {{type: static-objectives, parameters: {parameters}}}\n"
        );
        let plan = load(&text).unwrap().plan;
        let objectives = plan.instances[0].capabilities.objectives.clone().unwrap();
        let objectives = objectives.of_pool(cluster);
        names.map(|name| objectives.priority(name.as_bytes()))
    }

    #[test]
    fn an_objective_is_found_by_its_name() {
        let listed = "objectives: [{name: z, priority: -3}, {name: a, priority: 10}, {name: m}]";
        let names = ["a", "m", "z", "A", ""];
        let found = priorities(&format!("{{{listed}}}"), "pool", names);
        assert_eq!(found, [Some(10), Some(0), Some(-3), None, None]);
        let found = priorities(&format!("{{{listed}, maxPriority: -1}}"), "pool", names);
        assert_eq!(found, [Some(-1), Some(-1), Some(-3), None, None]);
    }

    #[test]
    fn an_objective_of_another_pool_is_not_there() {
        let listed = "{objectives: [{name: a, priority: 1, pool: one}, {name: a, priority: 2, pool: two}, {name: b, priority: 3}]}";
        assert_eq!(priorities(listed, "one", ["a", "b"]), [Some(1), Some(3)]);
        assert_eq!(priorities(listed, "two", ["a", "b"]), [Some(2), Some(3)]);
        assert_eq!(priorities(listed, "three", ["a", "b"]), [None, Some(3)]);
    }

    #[test]
    fn objectives_are_named_once_and_have_whole_priorities() {
        for (parameters, place) in [
            ("{}", "objectives"),
            ("{objectives: []}", "objectives"),
            ("{objectives: [{priority: 1}]}", "objectives[0].name"),
            ("{objectives: [{name: a}, {name: a}]}", "objectives[1].name"),
            ("{objectives: [{name: a, pool: p}, {name: a}]}", "objectives[1].name"),
            ("{objectives: [{name: a, priority: high}]}", "objectives[0].priority"),
            ("{objectives: [{name: a, priority: 2147483648}]}", "objectives[0].priority"),
            ("{objectives: [{name: a}], maxPriority: 0.5}", "maxPriority"),
        ] {
            let error = refused("static-objectives", parameters);
            assert!(error.contains(place), "{parameters}: {error}");
        }
    }
}
