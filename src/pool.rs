//! A plugin's pool in one VM: its configuration, its clock, and the callouts that fetch metrics.

use super::abi::{self, Buffer, Map, Status};
use super::guard;
use super::headers::Pairs;
use super::host::{Shared, Statistics};
use super::stream::Stream;
use epp_core::config::{self, Plan};
use epp_core::picker::ids::ById;
use epp_core::picker::{Effect, ExchangeId, LocalReply, Origin, PageBody, Picker, Seen};
use epp_core::prefix::key::Secret;
use epp_core::protocol::DROPPED_REASON_HEADER;
use epp_sync::Sharing;
use tested_envoys::{TESTED, TESTED_TEXT};

/// A root context stands in for the one in charge once that has not ticked for this many of its own ticks.
const ROOT_PATIENCE: u32 = 20;

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
    pub picker: Picker,
    /// What it shares with the other VMs.
    sharing: Sharing,
    /// The root context in charge: the newest. Older ones of a hot-reloaded listener tick on until they are
    /// drained.
    root: u32,
    /// Ticks of other roots since the one in charge ticked last.
    idle_ticks: u32,
    /// The answer to a request that a panic has struck, unless it goes on. Prepared with the plan, because
    /// the picker may be what is broken then.
    reply_on_defect: Option<LocalReply>,
}

impl Pool {
    /// A pool that has heard of no endpoint yet.
    pub fn new(root: u32, plugin: Plugin, plan: Plan) -> Self {
        let secret = abi::random().map(Secret::new).unwrap_or_else(|Status(status)| {
            log::error!(
                "the host gives no randomness (random_get: {status}): what keeps clients from aiming at \
                 the prefix index is made of the time, which can be guessed"
            );
            let time = abi::now_ns() ^ (u64::from(root) << 48) ^ address_entropy();
            Secret::from(time)
        });
        let meter = Box::new(Statistics);
        let sharing = Sharing::new(&plugin.name, plan.cluster(), secret.number("sharing"));
        let mut picker = Picker::new(plan, secret, meter, abi::now_ns);
        picker.set_polling(false);
        let reply_on_defect = picker.reply_on_defect();
        Self {
            plugin,
            picker,
            sharing,
            root,
            idle_ticks: 0,
            reply_on_defect,
        }
    }

    /// Puts another plan for the same cluster in force.
    pub fn install(&mut self, plan: Plan, root: u32) {
        self.root = root;
        self.picker.install(plan);
        self.reply_on_defect = self.picker.reply_on_defect();
        self.sharing.plan_changed(&mut self.picker);
        self.sharing.join(&mut self.picker, &mut Shared);
    }

    /// Whether this root context is the one whose clock counts.
    fn is_in_charge(&mut self, root: u32) -> bool {
        if root != self.root {
            self.idle_ticks += 1;
            if self.idle_ticks < ROOT_PATIENCE {
                return false;
            }
            self.root = root;
        }
        self.idle_ticks = 0;
        true
    }

    /// Whether there is something to exchange with other workers before this root's next tick.
    pub fn wants_fast_exchange(&self, root: u32) -> bool {
        root == self.root && self.sharing.wants_fast_exchange(&self.picker)
    }

    /// Exchanges what is in flight with the other workers, between two ticks.
    pub fn exchange_in_flight(&mut self, root: u32) {
        if root == self.root {
            self.sharing
                .exchange_in_flight(&mut self.picker, &mut Shared);
        }
    }

    /// Whether this is the pool that the plugin's plan is about. It is by the cluster's name, which
    /// is in the keys of shared data and in metrics: under `requests: all` a pool takes requests for
    /// other clusters, too, but is not theirs.
    pub fn is(&self, plugin: &Plugin, plan: &Plan) -> bool {
        self.plugin == *plugin && self.picker.cluster() == plan.cluster()
    }

    /// Whether a request that a panic has struck gets a local reply instead of going on.
    pub fn fails_closed(&self) -> bool {
        self.reply_on_defect.is_some()
    }

    /// Lets the request in effect, for which nothing can be decided, go on under the failure mode.
    /// Returns whether it got a local reply.
    pub fn fail(&mut self) -> bool {
        // It may be the client's own still.
        let header = self.picker.destination_header();
        let _: Result<(), Status> = abi::remove_header(Map::Request, header);
        guard::catch(|| self.picker.count_defect());
        #[cfg(test)]
        guard::strike("carry out");
        self.reply_on_defect.as_ref().is_some_and(reply)
    }

    /// Whether it is a pool of the plugin's.
    pub fn serves(&self, plugin: &Plugin) -> bool {
        self.plugin == *plugin
    }

    /// A root context's clock ticks.
    pub fn tick(&mut self, root: u32, streams: &mut ById<Stream>) {
        if !self.is_in_charge(root) {
            return;
        }
        self.picker.note_memory(abi::memory_bytes());
        self.sharing.before_tick(&mut self.picker, &mut Shared);
        let tick = self.picker.tick();
        self.exchange_delivery();
        self.sharing
            .after_tick(&mut self.picker, &mut Shared, abi::now_ns() / 1_000_000);
        for call in &tick.calls {
            let token = abi::http_call(&call.cluster, &call.headers(), call.timeout_ms);
            self.picker.called(call, token.ok());
        }
        self.carry_out(streams, root);
        for id in tick.silent {
            if abi::set_effective_context(id.0).is_err() {
                continue;
            }
            if let Some(bytes) = received() {
                self.picker.received(id, bytes);
            }
        }
        self.carry_out(streams, root);
    }

    /// Agrees with the other workers on whether Envoy delivers bodies.
    fn exchange_delivery(&mut self) {
        if let Some(finding) = self.picker.delivery_finding() {
            let found = self.sharing.exchange_delivery(finding, &mut Shared);
            if let Some(found) = found {
                self.picker.adopt_delivery(found);
            }
        }
    }

    /// Carries out what the picker wants done. `current` is the context whose callback runs. Returns whether
    /// that was answered.
    pub fn carry_out(&mut self, streams: &mut ById<Stream>, current: u32) -> bool {
        let (mut answered, mut strayed) = (false, false);
        while let Some(effect) = self.picker.poll_effect() {
            if let Effect::AdmitModel(wish) = &effect {
                self.sharing
                    .admit_model(wish, &mut self.picker, &mut Shared);
                continue;
            }
            let ExchangeId(id) = effect.id();
            let Some(stream) = streams.get_mut(&id) else {
                continue;
            };
            if id == current {
                answered |= stream.carry_out(&effect, &mut self.picker);
                continue;
            }
            strayed = true;
            let reached = abi::set_effective_context(id).is_ok();
            if reached && stream.carry_out_late(&effect, &mut self.picker) {
                let _: Result<(), Status> = abi::resume_request();
            }
        }
        if strayed {
            let _: Result<(), Status> = abi::set_effective_context(current);
        }
        answered
    }

    /// A callout was answered.
    pub fn called_back(&mut self, token: u32, headers: usize, size: usize) {
        // Envoy gives no headers where the stream was reset.
        let status = (headers > 0)
            .then(|| abi::header(Map::Callout, ":status").ok().flatten())
            .flatten();
        let status = status.as_deref().unwrap_or_default();
        self.picker.called_back(token, status, &mut Answer { size });
    }
}

/// The body of the callout's answer in effect.
struct Answer {
    size: usize,
}

impl PageBody for Answer {
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
    log::info!(
        "EndpointPickerConfig in force: {}; {}",
        loaded.plan.summary(),
        host_version()
    );
    Some(loaded.plan)
}

/// Returns the version of the Envoy that runs the module, and which ones were tested if it is not among
/// them. Nothing else depends on the version.
fn host_version() -> String {
    let version = abi::property("xds\0node\0user_agent_build_version\0version");
    // A message of three numbers, in Protocol Buffers' encoding.
    let version = match *version.ok().flatten().unwrap_or_default() {
        [8, major, 16, minor] => (major, minor, 0),
        [8, major, 16, minor, 24, patch] => (major, minor, patch),
        _ => return "a host of unknown version".to_owned(),
    };
    let (major, minor, patch) = version;
    let (but, tested) = match TESTED.contains(&version) {
        true => ("", ""),
        false => ("; tested with ", TESTED_TEXT),
    };
    format!("Envoy {major}.{minor}.{patch}{but}{tested}")
}

/// Returns the status of the answer to the request in effect; 0 where there is none to see.
fn status() -> u16 {
    let status = abi::header(Map::Response, ":status").ok().flatten();
    let status = status
        .as_deref()
        .and_then(|status| std::str::from_utf8(status).ok());
    status.and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// What there is to see of the answer to the request in effect.
pub fn seen() -> Seen {
    let status = status();
    // A third question, where something is wrong.
    let details = || abi::property("response\0code_details").ok().flatten();
    let origin = match status {
        500.. => details().map_or(Origin::Endpoint, |details| Origin::of(&details)),
        _ => Origin::Endpoint,
    };
    Seen {
        server: abi::property("upstream\0address")
            .ok()
            .flatten()
            .unwrap_or_default(),
        status,
        origin,
    }
}

/// The property of a request whose destination header was set by this filter; its value is the
/// header's name.
const MARK: &str = "epp_wasm_destination";

/// Removes a destination header from the request in effect, which is not for any of our pools: it
/// came from the client, unless a filter of ours earlier in the chain set it, which may run in
/// another VM. Without the header this is one host call that returns no bytes.
pub fn strip(header: &str) {
    if !abi::has_header(Map::Request, header) {
        return;
    }
    let mark = abi::property(MARK).ok().flatten();
    if mark.as_deref() != Some(header.as_bytes()) {
        let _: Result<(), Status> = abi::remove_header(Map::Request, header);
    }
}

/// Bytes that Envoy has received of the body of the request in effect, whether it has shown them or
/// not. It counts them together with the headers; `request.size` would be what the client says.
fn received() -> Option<u64> {
    let total = abi::property("request\0total_size").ok().flatten()?;
    let total = u64::from_le_bytes(*total.first_chunk()?);
    let packed = abi::header_pairs(Map::Request).ok().flatten()?;
    let headers = Pairs::new(&packed).map(|(name, value)| name.len() + value.len());
    total.checked_sub(headers.sum::<usize>() as u64)
}

/// Does to the headers of the request in effect what was decided for it, or answers it.
pub fn carry_out(effect: &Effect, picker: &Picker) {
    #[cfg(test)]
    guard::strike("carry out");
    match effect {
        Effect::Forward { route, .. } => {
            set_destination(&route.destination, picker);
            for (name, value) in &route.headers {
                let _: Result<(), Status> = abi::set_header(Map::Request, name, value.as_bytes());
            }
        }
        Effect::Reply { reply: answer, .. } => {
            reply(answer);
        }
        _ => {}
    }
}

/// Answers the request in effect. Returns whether Envoy has taken the answer.
fn reply(reply: &LocalReply) -> bool {
    let headers = [(DROPPED_REASON_HEADER, reply.reason)];
    let outcome = abi::respond(reply.status, "epp_wasm", &headers, &reply.body);
    if outcome.is_err() {
        log::warn!(
            "failed to send a local reply with status {}: Envoy refused it",
            reply.status
        );
    }
    outcome.is_ok()
}

/// Names the endpoints of the request in effect.
fn set_destination(destination: &str, picker: &Picker) {
    let header = picker.destination_header();
    if let Err(Status(status)) = abi::set_header(Map::Request, header, destination.as_bytes()) {
        log::warn!(
            "failed to set the destination header (status {status}): the request goes to the fallback \
             policy; is allow_on_headers_stop_iteration set?"
        );
    } else if picker.asks_for_cluster() {
        // Where all requests are this pool's, no other filter of ours is behind this one.
        let _: Result<(), Status> = abi::set_property(MARK, header.as_bytes());
    }
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
