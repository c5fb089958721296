//! How Envoy reaches what the picker asks its host to fetch.

use std::fmt::Write;

use super::Plan;
use crate::plugins::Discovery;

/// The clusters and paths of a plan's callouts, for a host in Envoy and for tools that look for mistakes in
/// Envoy's configuration. The picker itself asks for members and metrics without them.
///
/// Returned by [`Plan::callouts`].
#[derive(Debug, Clone, Copy)]
pub struct Callouts<'a>(&'a Plan);

impl Plan {
    /// Returns how Envoy reaches members and metrics pages.
    pub fn callouts(&self) -> Callouts<'_> {
        Callouts(self)
    }
}

impl<'a> Callouts<'a> {
    /// Returns the cluster that leads to the admin interface; an empty name where endpoints are listed.
    pub fn admin_cluster(&self) -> &'a str {
        match &self.0.discovery {
            Discovery::EnvoyCluster(discovery) => &discovery.admin_cluster,
            Discovery::Static(_) => "",
        }
    }

    /// Returns the admin interface's path to the members of the plan's clusters, and of no others where there is
    /// only one.
    pub fn members_path(&self) -> String {
        match &self.0.discovery {
            Discovery::EnvoyCluster(discovery) => match discovery.clusters.as_slice() {
                [one] => format!("/clusters?filter={}", anchored(one)),
                _ => "/clusters".to_owned(),
            },
            Discovery::Static(_) => String::new(),
        }
    }

    /// Returns the cluster through which metrics pages are fetched.
    pub fn metrics_cluster(&self) -> &'a str {
        match self.0.source.cluster.as_str() {
            "" => self.0.cluster(),
            cluster => cluster,
        }
    }

    /// Returns the host and port of an endpoint's metrics page.
    pub fn metrics_address(&self, address: &str) -> String {
        match (self.0.source.port, address.rsplit_once(':')) {
            (Some(port), Some((host, _))) => format!("{host}:{port}"),
            _ => address.to_owned(),
        }
    }
}

/// Returns a regular expression that matches the name alone, as a query parameter.
fn anchored(name: &str) -> String {
    let mut text = "%5E".to_owned();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            text.push(char::from(byte));
        } else {
            // Writing to a String cannot fail. The backslash keeps dots and bars literal.
            let _ = write!(text, "%5C%{byte:02X}");
        }
    }
    text.push_str("%24");
    text
}
