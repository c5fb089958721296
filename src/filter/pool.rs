//! A plugin's pool in one VM: its configuration, its clock, and the callouts that fetch metrics.

use super::abi::{self, Buffer, Map, Status};
use super::host::{Shared, Statistics};
use crate::config::{self, Plan};
use crate::director::answer::DROPPED_REASON_HEADER;
use crate::director::{Body, Director, Release, Seen};

/// What tells plugins in one VM apart.
#[derive(Debug, PartialEq, Eq)]
pub struct Plugin {
    name: String,
    root: String,
}

impl Plugin {
    /// The plugin of the context in effect.
    pub fn asking() -> Self {
        Self {
            name: text_property("plugin_name"),
            root: text_property("plugin_root_id"),
        }
    }

    /// Whether it is the status page.
    pub fn is_page(&self) -> bool {
        self.root == super::page::ROOT
    }
}

/// A pool. It outlives a root context: a hot reload makes a new root beside the old one in the same
/// VM, and what was learnt must not be lost.
pub struct Pool {
    plugin: Plugin,
    /// What decides.
    pub director: Director,
}

impl Pool {
    /// A pool that has heard of no endpoint yet.
    pub fn new(root: u32, plugin: Plugin, plan: Plan) -> Self {
        let seed = abi::now_ns() ^ (u64::from(root) << 48) ^ address_entropy();
        let meter = Box::new(Statistics);
        let director = Director::new(&plugin.name, plan, seed, meter, abi::now_ns);
        Self { plugin, director }
    }

    /// Whether this is the pool that the plugin's plan is about.
    pub fn is(&self, plugin: &Plugin, plan: &Plan) -> bool {
        self.plugin == *plugin && self.director.owns(plan.cluster().as_bytes())
    }

    /// Whether it is a pool of the plugin's.
    pub fn serves(&self, plugin: &Plugin) -> bool {
        self.plugin == *plugin
    }

    /// A root context's clock ticks. Returns the requests whose body has stopped coming and was not
    /// read as far as it came.
    pub fn tick(&mut self, root: u32) -> Vec<u32> {
        self.director.note_memory(abi::memory_bytes());
        let tick = self.director.tick(root, &mut Shared);
        for call in &tick.calls {
            let token = abi::http_call(&call.cluster, &call.headers(), call.timeout_ms);
            self.director.called(call, token.ok());
        }
        for (request, release) in &tick.releases {
            if abi::set_effective_context(*request).is_err() {
                continue;
            }
            carry_out(release, self.director.destination_header());
            if release.refusal.is_none() {
                let _: Result<(), Status> = abi::resume_request();
            }
        }
        tick.stalled
    }

    /// A callout was answered.
    pub fn called_back(&mut self, token: u32, headers: usize, size: usize) {
        // Envoy gives no headers where the stream was reset.
        let status = (headers > 0)
            .then(|| abi::header(Map::Callout, ":status").ok().flatten())
            .flatten();
        let status = status.as_deref().unwrap_or_default();
        self.director
            .called_back(token, status, &mut Answer { size });
    }
}

/// The body of the callout's answer in effect.
struct Answer {
    size: usize,
}

impl Body for Answer {
    fn size(&self) -> usize {
        self.size
    }

    fn part(&mut self, start: usize, length: usize) -> Vec<u8> {
        let part = abi::buffer(Buffer::CalloutBody, start, length);
        part.ok().flatten().unwrap_or_default()
    }
}

/// The plan in the configuration of the root in effect, if it is one; else its problems are logged.
pub fn plan() -> Option<Plan> {
    let text = abi::buffer(Buffer::Configuration, 0, usize::MAX);
    let text = text.ok().flatten().unwrap_or_default();
    let loaded = match config::load_bytes(&text) {
        Ok(loaded) => loaded,
        Err(rejected) => {
            for problem in &rejected.errors {
                log::error!("EndpointPickerConfig refused: {problem}");
            }
            return None;
        }
    };
    for problem in &loaded.warnings {
        log::warn!("EndpointPickerConfig: {problem}");
    }
    log::info!("EndpointPickerConfig in force: {}", loaded.plan.summary());
    Some(loaded.plan)
}

/// What there is to see of the answer to the request in effect.
pub fn seen() -> Seen {
    let status = abi::header(Map::Response, ":status").ok().flatten();
    let status = status
        .as_deref()
        .and_then(|status| std::str::from_utf8(status).ok());
    let status = status.and_then(|status| status.parse().ok()).unwrap_or(0);
    // A third question, where something is wrong: Envoy words its own answers otherwise.
    let details = || abi::property("response\0code_details").ok().flatten();
    let by_envoy = status >= 500 && details().is_some_and(|details| details != b"via_upstream");
    Seen {
        server: abi::property("upstream\0address")
            .ok()
            .flatten()
            .unwrap_or_default(),
        status,
        by_envoy,
    }
}

/// Does to the request in effect what was decided for it. Returns whether it was answered.
pub fn carry_out(release: &Release, header: &str) -> bool {
    if let Some(refusal) = &release.refusal {
        let headers = [(DROPPED_REASON_HEADER, refusal.reason)];
        let outcome = abi::respond(refusal.status, "epp_wasm", &headers, &refusal.body);
        if outcome.is_err() {
            log::warn!("Envoy did not take the answer to a request without an endpoint");
        }
        return outcome.is_ok();
    }
    if let Some(value) = &release.destination {
        if let Err(Status(status)) = abi::set_header(Map::Request, header, value.as_bytes()) {
            log::warn!(
                "Envoy did not take the destination header (status {status}): the request goes \
                 to the fallback policy; is allow_on_headers_stop_iteration set?"
            );
        }
    }
    false
}

fn text_property(name: &str) -> String {
    let value = abi::property(name).ok().flatten().unwrap_or_default();
    String::from_utf8_lossy(&value).into_owned()
}

/// Differs from VM to VM that starts within the same nanosecond, as far as their heaps do.
fn address_entropy() -> u64 {
    let place = Box::new(0_u8);
    std::ptr::from_ref(&*place) as u64
}
