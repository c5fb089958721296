//! Pools: what the configurations of one filter for one cluster have in common, from one reload to the next.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Once, OnceLock};

use super::abi::{self, Config, ConfigScheduler};
use super::build;
use super::clock::Clock;
use super::configuration::load;
use super::fetches::Callout;
use super::guard::{catch, lock, lock_soon, Callback};
use super::seat::Seat;
use super::statistics::{Defined, Sample};
use epp_core::config::Loaded;
use epp_core::metrics::definitions::REJECTED_CONFIGURATIONS;
use epp_core::metrics::MetricKind;
use epp_envoy::logging::log_problems;
use epp_sync::InProcess;

/// All pools of this process that have a configuration.
static POOLS: Mutex<Vec<Arc<Pool>>> = Mutex::new(Vec::new());

/// Returns what the pickers of all pools of this process share.
pub fn store() -> InProcess {
    static STORE: OnceLock<InProcess> = OnceLock::new();
    STORE.get_or_init(InProcess::default).clone()
}

/// A pool.
pub struct Pool {
    /// The filter's name.
    name: String,
    /// The cluster whose requests it serves.
    cluster: String,
    /// The pickers, one for each worker.
    pub seats: Vec<Mutex<Seat>>,
    /// Its configurations in Envoy, oldest first. The newest is in force; older ones are being drained.
    configurations: Mutex<Vec<Configuration>>,
    /// Callouts under way, by the number of their configuration and Envoy's own, which it counts for each configuration.
    pub callouts: Mutex<HashMap<(u64, u64), Callout>>,
    /// Values of metrics for the main thread to export: Envoy's threads only may do that.
    samples: Mutex<Vec<Sample>>,
    clock: Mutex<Option<Clock>>,
}

/// A configuration in Envoy.
struct Configuration {
    number: u64,
    config: Config,
    scheduler: ConfigScheduler,
    metrics: Defined,
    text: Vec<u8>,
}

/// What a configuration in Envoy is for.
#[derive(Clone)]
pub enum Role {
    /// Nothing: Envoy only validates it.
    Validated,
    /// It serves the status page.
    Page,
    /// It serves requests for a pool, as its configuration of this number.
    Pool(Arc<Pool>, u64),
}

/// The name of the filter that serves the status page.
const PAGE: &str = "status";

/// Reads the document of a configuration, and puts it in force. Returns `None` if it is not valid, which is logged.
pub fn configure(config: Config, name: &str, text: &[u8]) -> Option<Role> {
    if name == PAGE {
        return Some(Role::Page);
    }
    #[cfg(any(test, feature = "fault-injection"))]
    super::fault::inject(Callback::Configure.name(), super::fault::ANYWHERE);
    let Some(Loaded { plan, warnings }) = load(text) else {
        count_refused(name);
        return None;
    };
    if abi::validates() {
        return Some(Role::Validated);
    }
    let mut pools = lock(&POOLS);
    let is_same = |pool: &&Arc<Pool>| pool.name == name && pool.cluster == plan.cluster();
    let pool = pools.iter().find(is_same).cloned();
    let pool = pool.unwrap_or_else(|| {
        let pool = Arc::new(Pool::new(name, text, plan.cluster()));
        pools.push(Arc::clone(&pool));
        pool
    });
    let number = pool.add(config, text);
    drop(pools);
    static INTRODUCED: Once = Once::new();
    INTRODUCED.call_once(|| log::info!("{}", build::text()));
    log_problems(log::Level::Warn, "", &warnings);
    log::info!("EndpointPickerConfig in force: {}", plan.summary());
    Some(Role::Pool(pool, number))
}

/// Counts a configuration that was refused, in the metrics of one that is in force: Envoy drops those of the refused one
/// with it.
fn count_refused(name: &str) {
    let pools = lock(&POOLS);
    let own = pools.iter().find(|pool| pool.name == name);
    if let Some(pool) = own.or(pools.first()) {
        let name = REJECTED_CONFIGURATIONS.name().to_owned();
        lock(&pool.samples).extend(Sample::of(name, MetricKind::Counter, 1));
        pool.export();
    }
}

/// Envoy gives a configuration up, on any thread. The last one of a pool takes that with it.
pub fn give_up(role: Role) {
    let Role::Pool(pool, number) = role else {
        return;
    };
    let mut pools = lock(&POOLS);
    if pool.remove(number) {
        pools.retain(|other| !Arc::ptr_eq(other, &pool));
    }
}

/// Returns whether a pool serves the requests for a cluster. Not to be called with the lock of a seat.
pub fn owns(cluster: &[u8]) -> bool {
    let pools = lock(&POOLS);
    let mut clusters = pools.iter().map(|pool| pool.cluster.as_bytes());
    clusters.any(|own| own == cluster)
}

impl Pool {
    /// Returns a pool whose pickers have the plan of this document.
    fn new(name: &str, text: &[u8], cluster: &str) -> Self {
        let seat = |_| {
            let Loaded { plan, .. } = load(text)?;
            Some(Mutex::new(Seat::new(plan, name, store())))
        };
        Self {
            name: name.to_owned(),
            cluster: cluster.to_owned(),
            seats: (0..abi::workers()).filter_map(seat).collect(),
            configurations: Mutex::default(),
            callouts: Mutex::default(),
            samples: Mutex::default(),
            clock: Mutex::default(),
        }
    }

    /// Puts another configuration in force. Returns its number.
    fn add(self: &Arc<Self>, config: Config, text: &[u8]) -> u64 {
        let mut configurations = lock(&self.configurations);
        let newest = configurations.last();
        let number = newest.map_or(1, |newest| newest.number + 1);
        let added = Configuration {
            number,
            metrics: Defined::new(&config),
            scheduler: config.scheduler(),
            config,
            text: text.to_owned(),
        };
        added
            .metrics
            .export(&added.config, build::metric().as_slice());
        configurations.push(added);
        drop(configurations);
        if number > 1 {
            self.install(text);
        }
        let mut clock = lock(&self.clock);
        if clock.is_none() {
            *clock = Clock::start(Arc::clone(self));
        }
        number
    }

    /// Removes a configuration. If it was in force, the one before it is again: Envoy has not accepted it after all.
    /// Returns whether it was the last one, with which the pool ends.
    fn remove(&self, number: u64) -> bool {
        let mut configurations = lock(&self.configurations);
        let was_newest = configurations
            .last()
            .is_some_and(|last| last.number == number);
        let before = match configurations.len() {
            0 | 1 => None,
            count => configurations.get(count - 2),
        };
        let text = before.map(|before| before.text.clone());
        if text.is_some() {
            configurations.retain(|configuration| configuration.number != number);
        }
        drop(configurations);
        // Envoy drops them with the configuration.
        self.fail_callouts(number);
        let Some(text) = text else {
            self.retire();
            return true;
        };
        if was_newest {
            self.install(&text);
        }
        false
    }

    fn install(&self, text: &[u8]) {
        for seat in &self.seats {
            if let Some(Loaded { plan, .. }) = load(text) {
                lock(seat).install(plan);
            }
        }
    }

    /// Ends the pool: its gauges become zero. Its last configuration still exists.
    fn retire(&self) {
        if let Some(clock) = lock(&self.clock).take() {
            clock.stop();
        }
        for seat in &self.seats {
            let mut seat = lock(seat);
            seat.retire();
            lock(&self.samples).extend(seat.samples());
        }
        self.export();
        lock(&self.configurations).clear();
    }

    /// One tick of all pickers. Returns whether there is something to exchange before the next one.
    pub fn tick(&self) -> bool {
        let (mut exchanges, mut wakes) = (false, false);
        for seat in &self.seats {
            // Others do not wait for a worker that is stuck.
            let Some(mut seat) = lock_soon(seat) else {
                continue;
            };
            seat.tick();
            // This runs the picker, too: a panic must not end the thread.
            let ended = catch(|| {
                exchanges |= seat.wants_fast_exchange();
                wakes |= seat.has_orders();
                lock(&self.samples).extend(seat.samples());
            });
            if ended.is_none() {
                seat.count_panic(Callback::Tick);
            }
        }
        wakes |= !lock(&self.samples).is_empty();
        let configurations = lock(&self.configurations);
        if let (true, Some(newest)) = (wakes, configurations.last()) {
            newest.scheduler.wake();
        }
        exchanges
    }

    /// Exchanges counts in flight between the workers, between two ticks.
    pub fn exchange(&self) {
        for mut seat in self.seats.iter().filter_map(lock_soon) {
            seat.exchange();
        }
    }

    /// Hands over to Envoy what the pickers have counted. On one of Envoy's threads.
    pub fn export(&self) {
        let samples = std::mem::take(&mut *lock(&self.samples));
        let configurations = lock(&self.configurations);
        if let Some(newest) = configurations.last() {
            newest.metrics.export(&newest.config, &samples);
        }
    }
}
