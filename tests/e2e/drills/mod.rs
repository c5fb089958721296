//! Drills: something is wrong, and each of the operator's three sources says what and what to do about it: a line of
//! the log, the metric `epp_wasm_finding`, and the status page.

mod alerts;
mod engines;
mod misconfigured;
mod transitions;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};

use epp_core::findings::Finding;

use crate::client;
use crate::document;
use crate::proxy::Proxy;

/// A configuration for a cluster: further parameters of discovery, and further plugins.
fn pool(cluster: &str, discovery: &str, plugins: &str) -> String {
    let plugins = format!(
        "{{type: queue-scorer}}, {{type: random-picker}}, {plugins} {{name: members, type: envoy-cluster-discovery, \
         parameters: {{clusters: [{cluster}], interval: 100ms{discovery}}}}}"
    );
    document(
        &plugins,
        "{pluginRef: queue-scorer}, {pluginRef: random-picker}",
    ) + "dataLayer: {discovery: {pluginRef: members}}\n"
}

/// Starts a server that sends these bytes in response to any request, and closes the connection.
fn responding(bytes: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request);
                let _ = stream.write_all(bytes);
            });
        }
    });
    address
}

/// Waits until all three sources tell a finding of the pool of this cluster, with this detail.
fn is_told(proxy: &Proxy, cluster: &str, finding: Finding, detail: &str) {
    let id = finding.id();
    proxy.wait_until(&format!("{cluster}: {id} is a metric"), || {
        open(proxy, cluster, finding) == Some(1)
    });
    let log = proxy.logged();
    let about = format!("pool {cluster}: {id} ({}): ", finding.severity().name());
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(&about)).collect();
    let is_whole = |line: &&str| {
        [finding.cause(), detail, finding.remedy()]
            .iter()
            .all(|text| line.contains(text))
    };
    assert_eq!(
        lines.len(),
        1,
        "{cluster}, {id}: a line for each transition: {lines:?}"
    );
    assert!(is_whole(&lines[0]), "{detail}: {lines:?}");
    proxy.wait_until(&format!("{cluster}: {id} is on the page"), || {
        let page = section(proxy, cluster);
        [finding.cause(), detail, finding.remedy()]
            .iter()
            .all(|text| page.contains(text))
    });
}

/// Waits until all three sources tell that a finding is over.
fn is_over(proxy: &Proxy, cluster: &str, finding: Finding) {
    let id = finding.id();
    proxy.wait_until(&format!("{cluster}: {id} is over"), || {
        open(proxy, cluster, finding) == Some(0)
    });
    let line = format!("pool {cluster}: {id}: over after ");
    assert_eq!(proxy.logged().matches(&line).count(), 1, "{line}");
    proxy.wait_until(&format!("{cluster}: {id} is off the page"), || {
        !section(proxy, cluster).contains(finding.cause())
    });
}

/// Returns the metric of a finding: whether it is open; none if it never was.
fn open(proxy: &Proxy, cluster: &str, finding: Finding) -> Option<u64> {
    let page = proxy.prometheus();
    let mut samples = envoy_harness::statistics::samples(&page, "epp_wasm_finding");
    let labels = format!("{{pool=\"{cluster}\",finding=\"{}\"}}", finding.id());
    let (_, value) = samples.find(|(found, _)| *found == labels)?;
    Some(value as u64)
}

/// Returns the part of the status page that is about this pool, as text.
fn section(proxy: &Proxy, cluster: &str) -> String {
    let page = client::get(proxy.status, "/").map_or_else(|_| String::new(), |page| page.body);
    let mut sections = page.split("<section");
    let title = format!("Pool {cluster}<");
    let section = sections.find(|section| section.contains(&title));
    let section = section.unwrap_or_default();
    [
        ("&quot;", "\""),
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&amp;", "&"),
    ]
    .iter()
    .fold(section.to_owned(), |text, (escaped, letter)| {
        text.replace(escaped, letter)
    })
}
