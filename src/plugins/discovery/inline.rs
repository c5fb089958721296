//! `static-discovery`: endpoints listed in the document, in the schema of the Endpoint Picker's
//! `file-discovery`. A plugin of ours.
//!
//! | name | default | meaning |
//! |---|---|---|
//! | `endpoints` | required | the endpoints |
//! | `endpoints[].name` | required | identity, together with the namespace |
//! | `endpoints[].namespace` | `default` | |
//! | `endpoints[].address` | required | a literal IP address, v4 or v6 |
//! | `endpoints[].port` | required | 1 to 65535, as a string or a number |
//! | `endpoints[].labels` | none | strings by name |
//!
//! The addresses must be members of the cluster that requests are routed to.
//!
//! ```yaml
//! - name: pods
//!   type: static-discovery
//!   parameters:
//!     endpoints:
//!     - {name: vllm-0, address: 10.0.0.1, port: "8000", labels: {llm-d.ai/engine-type: vllm}}
//! ```

use std::net::{IpAddr, SocketAddr};

use crate::datalayer::store::Member;
use crate::document::{Fields, Node, Path, Problems};
use crate::plugins::role::{Build, Discovery, PluginType, Role};

/// The plugin type.
pub const TYPE: PluginType = PluginType {
    name: "static-discovery",
    build,
};

/// The settings.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StaticDiscovery {
    /// The endpoints.
    pub members: Vec<Member>,
}

fn build(build: &mut Build<'_, '_>) -> Role {
    let fields = &mut build.fields;
    let path = fields.path().key("endpoints");
    let mut members: Vec<Member> = Vec::new();
    match fields.node("endpoints") {
        Some(Node::List(entries)) => {
            fields.note("endpoints", Node::List(entries.clone()));
            for (index, entry) in entries.iter().enumerate() {
                let path = path.index(index);
                let problems = fields.problems();
                let Some(member) = read_entry(entry, path.clone(), problems) else {
                    continue;
                };
                let twice =
                    |known: &Member| known.name == member.name || known.address == member.address;
                if let Some(known) = members.iter().find(|known| twice(known)) {
                    let message = format!(
                        "found {} at {}, expected names and addresses to be unique ({} at {} came first)",
                        member.name, member.address, known.name, known.address
                    );
                    problems.error(&path, message);
                    continue;
                }
                members.push(member);
            }
        }
        Some(other) => fields.refuse("endpoints", other, "a list of endpoints"),
        None => fields
            .problems()
            .error(&path, "found nothing, expected a list of endpoints"),
    }
    Role::Discovery(Discovery::Static(StaticDiscovery { members }))
}

fn read_entry(entry: &Node, path: Path, problems: &mut Problems) -> Option<Member> {
    let before = problems.errors.len();
    let mut fields = Fields::new(Some(entry), path, problems);
    let name = fields.required_string("name");
    let namespace = fields.string("namespace", "default");
    let address = fields.required_string("address");
    let ip: Option<IpAddr> = address.parse().ok();
    if ip.is_none() && !address.is_empty() {
        fields.refuse("address", &Node::String(address), "a literal IP address");
    }
    let port = read_port(&mut fields);
    let labels = read_labels(&mut fields);
    fields.finish();
    if problems.errors.len() > before {
        return None;
    }
    Some(Member {
        name: format!("{namespace}/{name}"),
        address: SocketAddr::new(ip?, port?).to_string(),
        labels,
        available: true,
    })
}

fn read_port(fields: &mut Fields<'_>) -> Option<u16> {
    let node = fields.node("port");
    let port = match node {
        Some(Node::String(text)) => text.parse().ok(),
        Some(Node::Number(number)) if number.fract() == 0.0 => Some(*number),
        _ => None,
    };
    let port = port.filter(|port| (1.0..=65_535.0).contains(port));
    if port.is_none() {
        fields.refuse(
            "port",
            node.unwrap_or(&Node::Null),
            "a port from 1 to 65535",
        );
    }
    port.map(|port: f64| port as u16)
}

fn read_labels(fields: &mut Fields<'_>) -> Vec<(String, String)> {
    let mut labels = Vec::new();
    match fields.node("labels") {
        None | Some(Node::Null) => {}
        Some(Node::Map(entries)) => {
            for (key, value) in entries {
                match value {
                    Node::String(value) => labels.push((key.clone(), value.clone())),
                    other => {
                        let path = fields.path().key("labels").key(key);
                        let message = format!("found {}, expected a string", other.found());
                        fields.problems().error(&path, message);
                    }
                }
            }
        }
        Some(other) => fields.refuse("labels", other, "a mapping of strings"),
    }
    labels
}
