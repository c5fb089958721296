//! The effect of an attack on other clients: how long they wait, and whether repeated prompts still reach
//! the pod that has them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::{sleep, spawn, JoinHandle};
use std::time::{Duration, Instant};

use envoy_harness::client::{self, get};
use envoy_harness::proxy::Proxy;
use serde_json::json;

use crate::load::{Kind, Load, Mix};

/// Clients that send small requests and measure how long they take, and one that asks the admin interface.
pub struct Others {
    loads: Vec<Load>,
    stop: Arc<AtomicBool>,
    admin: JoinHandle<Duration>,
}

/// The response times of the clients.
pub struct Waits {
    /// The 99th percentile, failed requests included.
    pub p99: Duration,
    /// The longest response time of the admin interface.
    pub admin: Duration,
}

impl Others {
    /// Starts the clients.
    pub fn start(proxy: &Proxy) -> Self {
        let mix = Mix {
            rate: 50,
            streams: 0,
            // One token, so that generation adds nothing to the time.
            tokens: 5,
            ..Mix::default()
        };
        let models = Mix {
            kind: Kind::Models,
            ..mix
        };
        let loads = [mix, models].map(|mix| Load::start(proxy.port, mix).unwrap());
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, admin) = (stop.clone(), proxy.admin);
        let admin = spawn(move || {
            let mut longest = Duration::ZERO;
            while !stopped.load(Ordering::Relaxed) {
                let since = Instant::now();
                // A request that times out counts as long as its timeout.
                let _ = get(admin, "/ready");
                longest = longest.max(since.elapsed());
                sleep(Duration::from_millis(50));
            }
            longest
        });
        Self {
            loads: loads.into(),
            stop,
            admin,
        }
    }

    /// Stops the clients. Returns how long they waited.
    pub fn stop(self) -> Waits {
        let loads = self.loads.into_iter();
        let mut waits: Vec<Duration> = loads
            .flat_map(|load| load.stop().into_iter().map(|sent| sent.took))
            .collect();
        self.stop.store(true, Ordering::Relaxed);
        waits.sort();
        Waits {
            p99: waits[waits.len() * 99 / 100],
            admin: self.admin.join().unwrap(),
        }
    }
}

/// Sends prompts that have nothing in common, and then each again with another end. Returns how many
/// reached the same pod again, and how many there are.
pub fn affinity(proxy: &Proxy) -> (usize, usize) {
    const PROMPTS: usize = 30;
    let stamp = Instant::now();
    let send = |number: usize, end: &str| {
        let prompt = format!("{number} of {stamp:?} begins. ").repeat(60) + end;
        let body = json!({"model": "demo", "prompt": prompt, "max_tokens": 1}).to_string();
        let json = [("content-type", "application/json")];
        let response = client::send(
            proxy.port,
            "POST",
            "/v1/completions",
            &json,
            body.as_bytes(),
        );
        let succeeded = response.ok().filter(|response| response.status == 200);
        succeeded.map(|response| response.pod().to_owned())
    };
    let first: Vec<_> = (0..PROMPTS).map(|number| send(number, "")).collect();
    // Workers exchange what they have learnt every 50 ms.
    sleep(Duration::from_millis(300));
    let again = (0..PROMPTS).map(|number| send(number, "And on."));
    let kept = first
        .iter()
        .zip(again)
        .filter(|(first, again)| first.is_some() && *first == again);
    (kept.count(), PROMPTS)
}
