//! `static-discovery`: endpoints listed in the document, in the schema of the Endpoint Picker's
//! `file-discovery`. A plugin of ours.
//!
//! It takes the place of a `file-discovery`, of which a document loads with the file's endpoints in it:
//! `eppctl convert` writes them there.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `endpoints` | required | the endpoints |
//! | `endpoints[].name` | required | identity, together with the namespace |
//! | `endpoints[].namespace` | `default` | the other part of the identity |
//! | `endpoints[].address` | required | a literal IP address, v4 or v6 |
//! | `endpoints[].port` | required | 1 to 65535, as a string or a number |
//! | `endpoints[].labels` | none | strings by name |
//! | `path`, `watchFile` | none | no effect: the file of a `file-discovery`, which is not read |
//!
//! The addresses must be members of the cluster that requests are routed to. A server that is reachable on several ports,
//! such as one with data-parallel ranks, is several endpoints, each under its own name.
//!
//! ```yaml
//! - name: pods
//!   type: static-discovery
//!   parameters:
//!     endpoints:
//!     - {name: vllm-0, address: 10.0.0.1, port: "8000", labels: {llm-d.ai/engine-type: vllm}}
//! ```

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use crate::scheduling::Health;
use crate::config::value::{Fields, Node, Path, Problems};
use crate::endpoints::store::Member;
use crate::plugins::{
    Build, Capabilities, Capability, Dialect, Discovery, FormerName, Parity, PluginType, Standing,
};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "static-discovery",
    former_names: &[FormerName {
        name: FILE_DISCOVERY,
        dialect: Dialect::LlmD,
    }],
    provides: &[Capability::Discovery],
    references: &[],
    build,
    parity: Parity {
        plugin: Standing::Ours(
            "the endpoints that file-discovery reads from a file, in the document",
        ),
        parameters: &[
            ("path", Standing::NoEffect(NOT_READ)),
            ("watchFile", Standing::NoEffect(NOT_READ)),
        ],
    },
};

/// The Endpoint Picker's type with the same endpoints in a file.
const FILE_DISCOVERY: &str = "file-discovery";
const NOT_READ: &str = "the file is not read; the endpoints are those of `endpoints`";

/// The settings.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StaticDiscovery {
    /// The endpoints.
    pub members: Vec<Member>,
}

fn build(build: &mut Build<'_, '_>) -> Capabilities {
    let fields = &mut build.fields;
    if build.kind == FILE_DISCOVERY && !fields.has("endpoints") {
        let message = "found nothing, and a filter reads no files: give the endpoints of the file here, which `eppctl convert` does";
        let path = fields.path().key("endpoints");
        fields.problems().error(&path, message);
        fields.node("path");
        fields.node("watchFile");
        return Capabilities::default();
    }
    for name in ["path", "watchFile"] {
        fields.no_effect(name, NOT_READ);
    }
    if let Some(node) = fields.node("endpoints") {
        fields.note("endpoints", node.clone());
    }
    let mut members: Vec<Member> = Vec::new();
    // Their places: lists of thousands are sensible, and a search of the list for each takes seconds.
    let mut names = BTreeMap::new();
    let mut addresses = BTreeMap::new();
    for (entry, path) in fields.required_list("endpoints", "endpoints", 0) {
        let problems = fields.problems();
        let Some(member) = read_entry(entry, path.clone(), problems) else {
            continue;
        };
        let of_name = names.get(&member.name).copied();
        let of_address = addresses.get(&member.address).copied();
        // The one that came first, as the list would be searched.
        let known = of_name.into_iter().chain(of_address).min();
        if let Some(known) = known.and_then(|place: usize| members.get(place)) {
            let message = format!(
                "found {} at {}, expected names and addresses to be unique ({} at {} came first)",
                member.name, member.address, known.name, known.address
            );
            problems.error(&path, message);
            continue;
        }
        names.insert(member.name.clone(), members.len());
        addresses.insert(member.address.clone(), members.len());
        members.push(member);
    }
    Capabilities {
        discovery: Some(Discovery::Static(StaticDiscovery { members })),
        ..Capabilities::default()
    }
}

fn read_entry(entry: &Node, path: Path, problems: &mut Problems) -> Option<Member> {
    let before = problems.count();
    let mut fields = Fields::new(Some(entry), path, problems);
    let name = fields.required_string("name");
    let namespace = fields.string("namespace", "default");
    let address = fields.required_string("address");
    let ip: Option<IpAddr> = address.parse().ok();
    if ip.is_none() && !address.is_empty() {
        fields.refuse("address", &Node::String(address), "a literal IP address");
    }
    let port = fields.required_port("port");
    let labels = fields.string_map("labels");
    fields.finish();
    if problems.count() > before {
        return None;
    }
    Some(Member {
        name: format!("{namespace}/{name}"),
        address: SocketAddr::new(ip?, port?).to_string(),
        labels,
        health: Health::Healthy,
    })
}

#[cfg(test)]
mod tests {
    use crate::config::load;
    use crate::plugins::Discovery;

    fn document(endpoints: &str) -> String {
        format!(
            "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n\
             - {{name: pods, type: static-discovery, parameters: {{endpoints: [{endpoints}]}}}}\n\
             dataLayer: {{discovery: {{pluginRef: pods}}}}\n"
        )
    }

    #[test]
    fn an_address_with_several_ports_is_several_endpoints() {
        let rank = |number: u16| {
            let port = 8000 + number;
            format!("{{name: vllm-0-rank-{number}, address: 10.0.0.1, port: {port}, labels: {{rank: '{number}'}}}}")
        };
        let plan = load(&document(&[rank(0), rank(1)].join(", "))).unwrap().plan;
        let Discovery::Static(discovery) = plan.discovery else {
            panic!("listed");
        };
        let addresses: Vec<&str> = discovery.members.iter().map(|it| it.address.as_str()).collect();
        assert_eq!(addresses, ["10.0.0.1:8000", "10.0.0.1:8001"]);
        // The same name twice, and the same address.
        let twice = [rank(0), rank(1).replace("rank-1", "rank-0")].join(", ");
        assert!(load(&document(&twice)).is_err());
        let twice = [rank(0), rank(1).replace("8001", "8000")].join(", ");
        assert!(load(&document(&twice)).is_err());
    }

    #[test]
    fn labels_that_workers_could_not_share_are_refused() {
        let of = |bytes: usize| {
            let value = "v".repeat(bytes);
            document(&format!("{{name: a, address: 10.0.0.1, port: 80, labels: {{l: {value}}}}}"))
        };
        assert!(load(&of(1_024)).is_ok());
        let error = load(&of(1_025)).unwrap_err().errors[0].to_string();
        assert!(error.contains("labels.l") && error.contains("1024 bytes"), "{error}");
    }
}
