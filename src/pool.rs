//! A plugin's pool in one VM: its configuration, its ticks, and the callouts that fetch metrics.

use std::time::Duration;

use super::abi::{self, Map, Status};
use super::callout::{self, CalloutBody};
use super::delivery::{Delivery, FirstByteProbes};
use super::guard::{self, Callback};
use super::headers::Pairs;
use super::host::{Shared, Statistics};
use super::stream::Stream;
use epp_core::config::settings::ReadBody;
use epp_core::config::{value::Problem, Plan};
use epp_core::picker::ById;
use epp_core::picker::{Effect, ExchangeId, Fetch, FetchId, HostState, LocalReply, Picker};
use epp_core::plugins::proxy::envoy_proxy::Requests;
use epp_core::prefix::key::Secret;
use epp_core::time::Timestamp;
use epp_envoy::fetch::{self, Call};
use epp_sync::Sharing;

/// A root context replaces the active one once that has not ticked for this many of its own ticks.
const ROOT_PATIENCE: u32 = 20;

/// The properties that distinguish plugins in one VM.
#[derive(Debug, PartialEq, Eq)]
pub struct Plugin {
    name: String,
    root: String,
}

impl Plugin {
    /// The plugin of the current context.
    pub fn asking() -> Self {
        Self {
            name: text_property("plugin_name"),
            root: text_property("plugin_root_id"),
        }
    }

    /// Returns whether it is the status page.
    pub fn is_page(&self) -> bool {
        self.root == super::page::ROOT
    }
}

/// A pool. It outlives a root context: a hot reload makes a new root beside the old one in the same
/// VM, and what was learnt must not be lost.
pub struct Pool {
    plugin: Plugin,
    /// The picker.
    pub picker: Picker,
    /// Its sharing with the other VMs.
    pub(super) sharing: Sharing,
    statistics: Statistics,
    /// The root context in charge: the newest. Older ones of a hot-reloaded listener tick on until they are
    /// drained.
    pub(super) root: u32,
    /// Ticks of other roots since the one in charge ticked last.
    idle_ticks: u32,
    /// When the clock was read last.
    pub(super) now: Timestamp,
    ticks: u64,
    /// Whether Envoy shows bodies before it routes.
    pub delivery: Delivery,
    first_byte_probes: FirstByteProbes,
    /// Envoy's version, if the module was not tested with it.
    untested_version: Option<(u8, u8, u8)>,
    /// Callouts under way by token, with what they fetch.
    fetches: ById<(FetchId, Fetch)>,
    /// The local reply to a request whose callback panicked, unless it continues. Prepared with the plan, because
    /// the picker itself may be broken then.
    reply_on_defect: Option<LocalReply>,
    /// Local replies that wait for the next tick.
    pub(super) late_replies: Vec<Effect>,
    /// Whether a callback about one of its requests has panicked since the last tick.
    has_panicked: bool,
}

impl Pool {
    /// Returns a pool that has no endpoint yet.
    pub fn new(root: u32, plugin: Plugin, plan: Plan) -> Self {
        let secret = abi::random().map(Secret::new).unwrap_or_else(|Status(status)| {
            log::error!(
                "the host gives no randomness (random_get: {status}): what keeps clients from aiming at \
                 the prefix index is made of the time, which can be guessed"
            );
            let time = abi::now_ns() ^ (u64::from(root) << 48) ^ address_entropy();
            Secret::from(time)
        });
        let sharing = Sharing::new(&plugin.name, plan.cluster(), secret.number("sharing"));
        let mut picker = Picker::new(plan, secret);
        picker.peers().set_polling(false);
        let reply_on_defect = LocalReply::on_defect(picker.plan());
        Self {
            plugin,
            picker,
            sharing,
            statistics: Statistics::default(),
            root,
            idle_ticks: 0,
            now: Timestamp::default(),
            ticks: 0,
            delivery: Delivery::default(),
            first_byte_probes: FirstByteProbes::default(),
            untested_version: super::configuration::untested_version(),
            fetches: ById::default(),
            reply_on_defect,
            late_replies: Vec::new(),
            has_panicked: false,
        }
    }

    /// The picker has got a plan, by this root context: its first one, or another one for the same cluster.
    pub fn plan_installed(&mut self, root: u32, warnings: &[Problem]) {
        self.root = root;
        // Even under the same plan: `allow_on_headers_stop_iteration` is beside the document, and a body
        // that was seen would outvote all that are withheld from now on.
        self.delivery = Delivery::default();
        self.reply_on_defect = LocalReply::on_defect(self.picker.plan());
        self.sharing.plan_changed(&mut self.picker);
        let now = self.read_clock();
        self.sharing.join(&mut self.picker, &mut Shared, now);
        super::configuration::announce(&self.sharing, self.picker.plan(), warnings);
    }

    /// No root context runs the pool any more, and no request of it is left.
    pub fn retire(mut self) {
        self.sharing.leave(&mut self.picker, &mut Shared);
        self.picker.retire();
        self.export_metrics();
    }

    /// Returns whether this root context is the one whose ticks count.
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

    /// Returns whether there is something to exchange with other workers before this root's next tick.
    pub fn wants_fast_exchange(&mut self, root: u32) -> bool {
        root == self.root && self.sharing.wants_fast_exchange(&mut self.picker)
    }

    /// Exchanges counts in flight with the other workers, between two ticks, and lets requests go on that wait.
    pub fn exchange_in_flight(&mut self, root: u32, streams: &mut ById<Stream>) {
        if root == self.root {
            self.sharing
                .exchange_in_flight(&mut self.picker, &mut Shared);
            self.carry_out(streams, root);
        }
    }

    /// Returns whether this is the pool that the plugin's plan is about. It is by the cluster's name, which
    /// is in the keys of shared data and in metrics: under `requests: all` a pool takes requests for
    /// other clusters, too, but is not theirs.
    pub fn is(&self, plugin: &Plugin, plan: &Plan) -> bool {
        self.plugin == *plugin && self.cluster() == plan.cluster()
    }

    /// Returns the cluster whose requests this pool serves, and whose VMs share its data.
    fn cluster(&self) -> &str {
        self.picker.plan().cluster()
    }

    /// Returns whether it matters where a request's route leads.
    pub fn asks_for_cluster(&self) -> bool {
        self.picker.plan().envoy.requests == Requests::OfCluster
    }

    /// Returns whether requests routed to this cluster are this pool's.
    pub fn owns(&self, cluster: &[u8]) -> bool {
        !self.asks_for_cluster() || self.cluster().as_bytes() == cluster
    }

    /// Returns whether it leaves all requests as they are.
    pub fn is_dry_run(&self) -> bool {
        self.picker.plan().settings.dry_run
    }

    /// Returns the header that names the endpoint to Envoy.
    pub fn destination_header(&self) -> &str {
        &self.picker.plan().settings.destination_header
    }

    /// Returns whether a request that a panic has struck gets a local reply instead of going on.
    pub fn fails_closed(&self) -> bool {
        self.reply_on_defect.is_some()
    }

    /// Handles the current request, for which nothing can be decided, by the failure mode.
    /// Returns whether it got a local reply.
    pub fn fail(&mut self) -> bool {
        if !self.is_dry_run() {
            // They may be the client's own still, or set for a decision that is not carried out.
            for name in self.picker.plan().owned_headers() {
                let _: Result<(), Status> = abi::remove_header(Map::Request, name);
            }
        }
        guard::catch(|| {
            #[cfg(test)]
            guard::inject("count");
            self.picker.recovery().count_defect();
        });
        #[cfg(test)]
        guard::inject("carry out");
        self.reply_on_defect
            .as_ref()
            .is_some_and(super::effects::reply)
    }

    /// Counts a panic that was caught, unless it panics, too.
    pub fn count_panic(&mut self, callback: Callback) {
        self.has_panicked = true;
        guard::catch(|| {
            #[cfg(test)]
            guard::inject("count");
            self.picker.recovery().count_panic(callback.name());
        });
    }

    /// Returns whether a callback has panicked since this was last asked.
    pub fn take_panicked(&mut self) -> bool {
        std::mem::take(&mut self.has_panicked)
    }

    /// Returns whether it is a pool of the plugin's.
    pub fn serves(&self, plugin: &Plugin) -> bool {
        self.plugin == *plugin
    }

    /// A root context's timer has fired for a tick.
    pub fn tick(&mut self, root: u32, streams: &mut ById<Stream>) {
        if !self.is_in_charge(root) {
            return;
        }
        let now = self.read_clock();
        self.ticks += 1;
        self.picker.set_host_state(HostState {
            memory_bytes: abi::memory_bytes(),
            shows_bodies: self.shows_bodies(),
            untested_version: self.untested_version,
        });
        self.sharing.before_tick(&mut self.picker, &mut Shared);
        self.picker.tick(now);
        // Envoy ends each callout, but nothing here may grow if one's end was lost.
        self.fetches.retain(|_, (id, _)| self.picker.awaits(*id));
        self.export_metrics();
        self.exchange_delivery();
        self.sharing.after_tick(&mut self.picker, &mut Shared, now);
        self.carry_out(streams, root);
        self.probe(streams);
        self.carry_out(streams, root);
    }

    /// Hands over to Envoy what the picker has counted.
    pub fn export_metrics(&mut self) {
        while let Some(update) = self.picker.poll_metric() {
            self.statistics.apply(update);
        }
    }

    /// Reads the clock. Between readings the time is [`Self::now`]: each reading is a host call.
    pub fn read_clock(&mut self) -> Timestamp {
        self.now = Timestamp::from_nanos(abi::now_ns());
        self.now
    }

    /// Returns how many callouts are under way.
    #[cfg(test)]
    pub fn callouts(&self) -> usize {
        self.fetches.len()
    }

    /// Returns how many ticks this pool has had.
    pub fn ticks(&self) -> u64 {
        self.ticks
    }

    /// Returns the time when the clock was read last.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Hands an event to the picker that may decide a request, and reports how long that took if the picker
    /// measures it.
    pub fn hand(&mut self, event: impl FnOnce(&mut Picker, Timestamp)) {
        let timed = self.picker.wants_timing();
        if timed {
            self.read_clock();
        }
        let begun = self.now;
        event(&mut self.picker, begun);
        if timed {
            let taken = self.read_clock().since(begun);
            self.picker.observe_event(taken);
        }
    }

    /// Returns whether Envoy shows bodies before it routes, as far as that is known.
    fn shows_bodies(&self) -> bool {
        match self.picker.plan().settings.read_body {
            ReadBody::Auto => self.delivery.reads(),
            ReadBody::Always => true,
            ReadBody::Never => false,
        }
    }

    /// Returns whether it has to be found out if Envoy shows bodies.
    fn probes(&self) -> bool {
        self.picker.plan().settings.read_body == ReadBody::Auto
    }

    /// Agrees with the other workers on whether Envoy shows bodies.
    fn exchange_delivery(&mut self) {
        if self.probes() {
            let finding = self.delivery.finding();
            let found = self.sharing.exchange_delivery(finding, &mut Shared);
            if let Some(found) = found {
                self.delivery.adopt(found, self.now);
            }
        }
    }

    /// Releases held requests of whose bodies Envoy has received bytes and shown none: it will not show any
    /// before.
    fn probe(&mut self, streams: &mut ById<Stream>) {
        let now = self.now;
        let picker = &self.picker;
        let lacks = |id| {
            picker.awaits_body(ExchangeId(id))
                && streams.get(&id).is_some_and(Stream::lacks_first_byte)
        };
        for id in self.first_byte_probes.take_due(now, lacks) {
            if abi::set_effective_context(id).is_err() {
                continue;
            }
            let stream = streams.get_mut(&id);
            if let (Some(stream), Some(bytes @ 1..)) = (stream, received()) {
                stream.withhold(bytes, self.ticks);
                self.picker.body_withheld(now, ExchangeId(id));
            }
        }
    }

    /// A request is held. Returns whether its body may be waited for.
    pub(super) fn expects_body(&mut self, id: u32) -> bool {
        if !self.probes() {
            return true;
        }
        let now = self.now;
        let expects = self.delivery.expects(now);
        if expects {
            self.first_byte_probes.add(id, now);
        }
        expects
    }

    /// Makes a callout.
    pub(super) fn fetch(&mut self, id: FetchId, fetch: Fetch, timeout: Duration) {
        let timeout = timeout.as_millis() as u64;
        let call = Call::new(self.picker.plan(), &fetch);
        match call.and_then(|call| callout::begin(&call, timeout)) {
            Ok(token) => {
                self.fetches.insert(token, (id, fetch));
            }
            Err(error) => self.picker.fetched(self.now, id, Err(error)),
        }
    }

    /// A callout has ended.
    pub fn called_back(&mut self, token: u32, headers: usize, size: usize) {
        let Some((id, fetched)) = self.fetches.remove(&token) else {
            return;
        };
        let mut body = CalloutBody { size };
        let result = body.check(headers);
        let plan = self.picker.plan();
        let result = result.and_then(|()| fetch::fetched(plan, &fetched, &mut body));
        let now = self.read_clock();
        self.picker.fetched(now, id, result);
    }
}

/// Returns the bytes that Envoy has received of the current request's body, whether it has shown them or
/// not. It counts them together with the headers; `request.size` would be what the client says.
fn received() -> Option<u64> {
    let total = abi::property("request\0total_size").ok().flatten()?;
    let total = u64::from_le_bytes(*total.first_chunk()?);
    let packed = abi::header_pairs(Map::Request).ok().flatten()?;
    let headers = Pairs::new(&packed).map(|(name, value)| name.len() + value.len());
    total.checked_sub(headers.sum::<usize>() as u64)
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
