//! One pod: its settings, its state, and the queue and prefill of its requests.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore};

use crate::cache::Cache;
use crate::work::{Kv, Served, Work};

/// The performance of a pod. By default it responds at once, for tests.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The base model.
    pub model: String,
    /// Model names that are LoRA adapters.
    pub adapters: Vec<String>,
    /// The most adapters that are active at a time.
    pub max_lora: usize,
    /// The most requests that run at a time.
    pub max_running: usize,
    /// Blocks of the KV cache.
    pub cache_blocks: usize,
    /// Time before the first token, besides prefill.
    pub base_latency: Duration,
    /// Prompt tokens computed per second, one prompt after the other; `None`: all at once.
    pub prefill_rate: Option<f64>,
    /// Time for each further token.
    pub token_time: Duration,
    /// Whether a routing sidecar is in front of it, which has other pods compute its prompts.
    pub sidecar: bool,
    /// Tokens per second whose KV cache is fetched from another pod; `None`: all at once.
    pub transfer_rate: Option<f64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            model: "demo".to_owned(),
            adapters: Vec::new(),
            max_lora: 0,
            max_running: 256,
            cache_blocks: 10_000,
            base_latency: Duration::ZERO,
            prefill_rate: None,
            token_time: Duration::ZERO,
            sidecar: false,
            transfer_rate: None,
        }
    }
}

/// The faults of a pod.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// New connections are closed at once.
    pub refuse: bool,
    /// Requests and responses make no progress while this is set.
    pub hang: bool,
    /// The status of all responses.
    pub status: Option<u16>,
    /// If set, only requests whose bodies contain this text get [`Self::status`].
    pub only: Option<String>,
    /// Requests for a model that is neither the base model nor an adapter get status 404.
    pub strict: bool,
    /// Delay of the first token.
    pub delay_ms: u64,
    /// The fault of the metrics page.
    pub metrics: Metrics,
    /// `/v1/loads` has status 404, as of images older than it.
    pub no_loads: bool,
}

/// A fault of the metrics page.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Metrics {
    /// None.
    #[default]
    Fine,
    /// Requests for it get no response.
    Hang,
    /// It has status 500.
    Error,
    /// It is not in the format.
    Garbage,
    /// It is 2 MB long.
    Huge,
}

/// Values on the metrics page that replace those of the pod's state.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pinned {
    /// Waiting requests.
    pub waiting: Option<usize>,
    /// Running requests.
    pub running: Option<usize>,
    /// KV-cache utilization.
    pub kv_usage: Option<f64>,
    /// Active adapters.
    pub active: Option<Vec<String>>,
    /// Waiting adapters.
    pub waiting_adapters: Option<Vec<String>>,
    /// Adapters that can be active.
    pub max_lora: Option<usize>,
}

/// A request that a pod received.
#[derive(Debug, Clone, Serialize)]
pub struct ReceivedRequest {
    /// Method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Bytes of the body.
    pub body_bytes: usize,
    /// XXH64 of the body.
    pub body_xxh64: u64,
}

impl ReceivedRequest {
    /// Returns the value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name)?;
        Some(found.1.as_str())
    }
}

/// Bounds the list of received requests.
const MAX_SEEN: usize = 10_000;

/// A pod.
#[derive(Debug)]
pub struct Pod {
    /// Its name, in the header `x-served-by` of its responses.
    pub name: String,
    /// Its settings.
    pub settings: Settings,
    running: Semaphore,
    /// Held while a prompt is computed: one at a time, at [`Settings::prefill_rate`].
    computing: tokio::sync::Mutex<()>,
    waiting: AtomicUsize,
    in_flight: AtomicUsize,
    scrapes: AtomicUsize,
    loads: AtomicUsize,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    cache: Cache,
    faults: Faults,
    pinned: Pinned,
    seen: Vec<ReceivedRequest>,
    work: Work,
    /// Tokens of all responses, which [`Pod::forget`] does not forget: a real server's counter does not go back.
    generated: usize,
    active: HashMap<String, usize>,
    waiting: HashMap<String, usize>,
}

/// The values on a pod's metrics page.
#[derive(Debug, Clone, Default)]
pub struct PageValues {
    /// Waiting requests.
    pub waiting: usize,
    /// Running requests.
    pub running: usize,
    /// KV-cache utilization.
    pub kv_usage: f64,
    /// Active adapters.
    pub active: Vec<String>,
    /// Waiting adapters.
    pub waiting_adapters: Vec<String>,
    /// The most active adapters; 0 if the page has no LoRA family.
    pub max_lora: usize,
    /// Requests received, without those for metrics.
    pub received: usize,
    /// Tokens generated.
    pub generated: usize,
    /// Blocks of the KV cache.
    pub cache_blocks: usize,
}

impl Pod {
    /// Creates an idle pod.
    pub fn new(name: String, settings: Settings) -> Self {
        Self {
            name,
            running: Semaphore::new(settings.max_running),
            computing: tokio::sync::Mutex::new(()),
            waiting: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            scrapes: AtomicUsize::new(0),
            loads: AtomicUsize::new(0),
            state: Mutex::new(State {
                cache: Cache::new(settings.cache_blocks),
                faults: Faults::default(),
                pinned: Pinned::default(),
                seen: Vec::new(),
                work: Work::default(),
                generated: 0,
                active: HashMap::new(),
                waiting: HashMap::new(),
            }),
            changed: Notify::new(),
            settings,
        }
    }

    /// Sets the faults.
    pub fn set_faults(&self, faults: Faults) {
        self.state().faults = faults;
        self.changed.notify_waiters();
    }

    /// Returns the faults.
    pub fn faults(&self) -> Faults {
        self.state().faults.clone()
    }

    /// Waits until the pod does not hang.
    pub async fn wait_while_hung(&self) {
        loop {
            // Subscribes before it checks, so that a change in between is not missed.
            let changed = self.changed.notified();
            if !self.state().faults.hang {
                return;
            }
            changed.await;
        }
    }

    /// Sets values of the metrics page.
    pub fn pin(&self, pinned: Pinned) {
        self.state().pinned = pinned;
    }

    /// Returns the requests so far, without those for metrics.
    pub fn seen(&self) -> Vec<ReceivedRequest> {
        self.state().seen.clone()
    }

    /// Returns what it has computed so far, and fetched.
    pub fn work(&self) -> Work {
        self.state().work
    }

    /// Empties [`Self::seen`] and [`Self::work`].
    pub fn forget(&self) {
        let mut state = self.state();
        state.seen.clear();
        state.work = Work::default();
    }

    pub(crate) fn count(&self, add: impl FnOnce(&mut Work)) {
        let mut state = self.state();
        let before = state.work.generated_tokens;
        add(&mut state.work);
        state.generated += state.work.generated_tokens - before;
    }

    /// Returns the number of requests for the metrics page.
    pub fn scrapes(&self) -> usize {
        self.scrapes.load(Ordering::Relaxed)
    }

    pub(crate) fn count_scrape(&self) {
        self.scrapes.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of requests for `/v1/loads`.
    pub fn loads(&self) -> usize {
        self.loads.load(Ordering::Relaxed)
    }

    pub(crate) fn count_loads(&self) {
        self.loads.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn record(&self, seen: ReceivedRequest) {
        let mut state = self.state();
        if state.seen.len() < MAX_SEEN {
            state.seen.push(seen);
        }
    }

    /// Returns the values that the metrics page shows now.
    pub fn shown(&self) -> PageValues {
        let state = self.state();
        let pinned = state.pinned.clone();
        let names = |adapters: &HashMap<String, usize>| adapters.keys().cloned().collect();
        let waiting = self.waiting.load(Ordering::Relaxed);
        let running = self
            .in_flight
            .load(Ordering::Relaxed)
            .saturating_sub(waiting);
        PageValues {
            waiting: pinned.waiting.unwrap_or(waiting),
            running: pinned.running.unwrap_or(running),
            kv_usage: pinned.kv_usage.unwrap_or_else(|| state.cache.usage()),
            active: pinned.active.unwrap_or_else(|| names(&state.active)),
            waiting_adapters: pinned
                .waiting_adapters
                .unwrap_or_else(|| names(&state.waiting)),
            max_lora: pinned.max_lora.unwrap_or(self.settings.max_lora),
            received: state.seen.len(),
            generated: state.generated,
            cache_blocks: self.settings.cache_blocks,
        }
    }

    /// Waits for the request's turn, computes its prompt or fetches the prompt's KV cache, and returns at the
    /// first token. The request runs until the guard is dropped.
    pub async fn prefill(&self, model: &str, prompt: &str, kv: Kv) -> (Served, Running<'_>) {
        let running = self.admit(model).await;
        let served = match kv {
            Kv::Fetched => self.fetch(model, prompt).await,
            Kv::Own | Kv::HandedOver => self.compute(model, prompt, kv).await,
        };
        let delay = Duration::from_millis(self.state().faults.delay_ms);
        let wait = self.settings.base_latency + delay;
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        (served, running)
    }

    /// Computes the part of the prompt that is not cached, and caches it.
    async fn compute(&self, model: &str, prompt: &str, kv: Kv) -> Served {
        let turn = match self.settings.prefill_rate {
            Some(rate) => Some((rate, self.computing.lock().await)),
            None => None,
        };
        let served = self.cache(model, prompt);
        self.count(|work| {
            work.computed_tokens += served.missing();
            work.handed_over += usize::from(kv == Kv::HandedOver);
        });
        if let Some((rate, _computing)) = turn {
            sleep_for(served.missing(), rate).await;
        }
        served
    }

    /// Fetches the KV cache of the part of the prompt that is not cached, and caches it. Transfers overlap with
    /// each other and with computing.
    async fn fetch(&self, model: &str, prompt: &str) -> Served {
        let served = self.cache(model, prompt);
        self.count(|work| work.fetched_tokens += served.missing());
        if let Some(rate) = self.settings.transfer_rate {
            sleep_for(served.missing(), rate).await;
        }
        served
    }

    fn cache(&self, model: &str, prompt: &str) -> Served {
        let mut state = self.state();
        let served = Served {
            cached_tokens: state.cache.insert(model, prompt),
            ..Served::uncached(prompt)
        };
        state.work.cached_tokens += served.cached_tokens;
        served
    }

    /// Returns whether the pod serves a model of this name.
    pub fn serves(&self, model: &str) -> bool {
        let adapters = &self.settings.adapters;
        model == self.settings.model || adapters.iter().any(|known| known == model)
    }

    /// Waits for the adapter, and for a place in the running set.
    async fn admit(&self, model: &str) -> Running<'_> {
        let adapter = self.settings.adapters.iter().any(|known| known == model);
        let adapter = adapter.then(|| model.to_owned());
        let mut running = Running {
            pod: self,
            adapter: None,
            waits: true,
            permit: None,
        };
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.waiting.fetch_add(1, Ordering::Relaxed);
        if let Some(name) = &adapter {
            *self.state().waiting.entry(name.clone()).or_default() += 1;
            let waiting = WaitingForAdapter { pod: self, name };
            loop {
                let changed = self.changed.notified();
                if self.activate(name) {
                    break;
                }
                changed.await;
            }
            drop(waiting);
            running.adapter = Some(name.clone());
        }
        running.permit = self.running.acquire().await.ok();
        running.start();
        running
    }

    fn activate(&self, name: &str) -> bool {
        let mut state = self.state();
        let room = state.active.len() < self.settings.max_lora.max(1);
        if !room && !state.active.contains_key(name) {
            return false;
        }
        *state.active.entry(name.to_owned()).or_default() += 1;
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Counters and maps are consistent wherever a thread could have panicked with the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn sleep_for(tokens: usize, rate: f64) {
    tokio::time::sleep(Duration::from_secs_f64(tokens as f64 / rate)).await;
}

fn count_down(adapters: &mut HashMap<String, usize>, name: &str) {
    if let Some(count) = adapters.get_mut(name) {
        *count -= 1;
        if *count == 0 {
            adapters.remove(name);
        }
    }
}

/// A request that waits for its adapter. Dropping it, also because its client has disconnected, removes it
/// from the count.
struct WaitingForAdapter<'p> {
    pod: &'p Pod,
    name: &'p str,
}

impl Drop for WaitingForAdapter<'_> {
    fn drop(&mut self) {
        count_down(&mut self.pod.state().waiting, self.name);
    }
}

/// A request that waits or runs in a pod. Dropping it ends the request.
#[derive(Debug)]
pub struct Running<'p> {
    pod: &'p Pod,
    adapter: Option<String>,
    waits: bool,
    permit: Option<tokio::sync::SemaphorePermit<'p>>,
}

impl Running<'_> {
    fn start(&mut self) {
        if std::mem::take(&mut self.waits) {
            self.pod.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.start();
        self.permit = None;
        self.pod.in_flight.fetch_sub(1, Ordering::Relaxed);
        if let Some(name) = self.adapter.take() {
            count_down(&mut self.pod.state().active, &name);
        }
        self.pod.changed.notify_waiters();
    }
}
