//! Pools for unit tests.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Instance;
use crate::flow::SaturationDetector;
use crate::picker::Explanation;
use crate::plugins::{build_default, Dialect};
use crate::prefix::key::Secret;
use crate::request::Media;
use crate::scheduling::{
    Additions, Basis, Cycle, Endpoint, Filter, Freshness, HeaderValues, Health, Lora, Metrics,
    Needs, PickerPlugin, Pool, PrefixMatch, ProfileHandler, RequestView, Scorer, Scratch, Slot,
    States, UnreadPrompt,
};
use crate::time::Instant;
use crate::Plan;

/// A scorer with its defaults.
pub fn scorer(name: &str) -> Arc<dyn Scorer> {
    build_default(name, Dialect::GieV1).scorer.unwrap()
}

/// A picker with its defaults.
pub fn picker(name: &str) -> Arc<dyn PickerPlugin> {
    build_default(name, Dialect::GieV1).picker.unwrap()
}

/// A profile handler with its defaults.
pub fn handler(name: &str) -> Arc<dyn ProfileHandler> {
    build_default(name, Dialect::GieV1).profile_handler.unwrap()
}

const HEAD: &str = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n";

/// A document of one plugin with these parameters.
fn document(kind: &str, parameters: &str) -> String {
    format!("{HEAD}plugins:\n- type: {kind}\n  parameters: {parameters}\n")
}

/// The endpoints `p0`, `p1`… with these labels that a filter keeps, by number.
pub fn filtered(kind: &str, parameters: &str, labels: &[&[(&str, &str)]]) -> Vec<u32> {
    let mut pool = pool(labels.iter().map(|_| Metrics::default()));
    for (slot, labels) in (0..).map(Slot).zip(labels) {
        let own = labels.iter();
        let own = own.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        pool.get_mut(slot).unwrap().labels = own.collect();
    }
    kept(kind, parameters, &pool)
}

/// The endpoints of a pool that a filter keeps, by number.
pub fn kept(kind: &str, parameters: &str, pool: &Pool) -> Vec<u32> {
    let plan = crate::config::load(&document(kind, parameters))
        .unwrap()
        .plan;
    let filter = plan.instances[0].capabilities.filter.clone().unwrap();
    let mut candidates: Vec<Slot> = pool.iter().map(|(slot, _)| slot).collect();
    let request = RequestView::default();
    let cycle = Cycle::new(pool, request);
    filter.filter(&cycle, &mut candidates);
    candidates.iter().map(|slot| slot.0).collect()
}

/// A plugin with these parameters.
pub fn loaded(kind: &str, parameters: &str) -> Arc<Instance> {
    let loaded = crate::config::load(&document(kind, parameters)).unwrap();
    loaded.plan.instances[0].clone()
}

/// The one error that a plugin with these parameters is refused with.
pub fn refused(kind: &str, parameters: &str) -> String {
    refused_document(&document(kind, parameters))
}

/// The one error that a document with these plugins is refused with.
pub fn refused_of(plugins: &str) -> String {
    refused_document(&format!("{HEAD}plugins:\n{plugins}"))
}

fn refused_document(text: &str) -> String {
    let rejected = crate::config::load(text).unwrap_err();
    let [error] = rejected.errors.as_slice() else {
        panic!("{text}: {:?}", rejected.errors);
    };
    error.to_string()
}

/// The saturation detector of this name among these plugins.
pub fn detector(plugins: &str, name: &str) -> Arc<dyn SaturationDetector> {
    let loaded = crate::config::load(&format!("{HEAD}plugins:\n{plugins}")).unwrap();
    let instance = loaded.plan.instance(name).unwrap();
    instance.capabilities.saturation_detector.clone().unwrap()
}

/// Filters of each basis, as a random plan may have them.
#[derive(Debug, Clone, Copy)]
pub enum TestFilter {
    /// Keeps slots by their remainder.
    Remainder(u32, u32),
    /// Keeps endpoints that have no adapter of the model's name waiting.
    Adapter,
    /// Keeps slots below the length of the prompt in blocks.
    Length,
    /// Keeps endpoints with fewer requests in flight.
    Busy(u32),
}

impl Filter for TestFilter {
    fn filter(&self, cycle: &Cycle<'_>, candidates: &mut Vec<Slot>) {
        let request = cycle.request;
        candidates.retain(|slot| match *self {
            Self::Remainder(divisor, rest) => slot.0 % divisor == rest,
            Self::Adapter => {
                let lora = cycle.pool.get(*slot).map(|endpoint| &endpoint.metrics.lora);
                lora.is_some_and(|lora| lora.waiting.iter().all(|name| name != request.model))
            }
            Self::Length => {
                let total = request.prefix.first().map_or(0.0, |prefix| prefix.total);
                f64::from(slot.0) <= total
            }
            Self::Busy(most) => cycle.pool.load(*slot).requests <= most,
        });
    }

    fn basis(&self) -> Basis {
        match self {
            Self::Remainder(..) => Basis::Pool,
            Self::Adapter => Basis::Model,
            Self::Length | Self::Busy(_) => Basis::Request,
        }
    }

    fn needs(&self) -> Needs {
        Needs {
            unread: match self {
                Self::Length => UnreadPrompt::Length,
                _ => UnreadPrompt::Irrelevant,
            },
            ..Needs::default()
        }
    }
}

/// The one warning that a plugin with these parameters loads with.
pub fn warned(kind: &str, parameters: &str) -> String {
    let loaded = crate::config::load(&document(kind, parameters)).unwrap();
    let [warning] = loaded.warnings.as_slice() else {
        panic!("{parameters}: {:?}", loaded.warnings);
    };
    warning.to_string()
}

/// A fresh, available endpoint with these metrics.
pub fn endpoint(name: &str, metrics: Metrics) -> Endpoint {
    Endpoint {
        name: name.to_owned(),
        address: format!("{name}:8000").into(),
        health: Health::Healthy,
        metrics,
        freshness: Freshness::Fresh,
        ..Endpoint::default()
    }
}

/// A pool of fresh endpoints `p0`, `p1`… with these metrics.
pub fn pool(metrics: impl IntoIterator<Item = Metrics>) -> Pool {
    let mut pool = Pool::default();
    for (index, metrics) in metrics.into_iter().enumerate() {
        pool.set(Slot(index as u32), endpoint(&format!("p{index}"), metrics));
    }
    pool
}

/// A pool of endpoints with these waiting counts and KV-cache utilizations.
pub fn pool_with_loads(loads: &[(f64, f64)]) -> Pool {
    pool(loads.iter().map(|(waiting, kv_usage)| Metrics {
        waiting: Some(*waiting),
        kv_usage: Some(*kv_usage),
        ..Metrics::default()
    }))
}

/// Metrics with a waiting count.
pub fn waiting(waiting: f64) -> Metrics {
    Metrics {
        waiting: Some(waiting),
        ..Metrics::default()
    }
}

/// LoRA adapters, active and waiting ones separated by spaces.
pub fn lora(active: &str, waiting: &str, max: u32) -> Lora {
    let split = |text: &str| text.split_whitespace().map(str::to_owned).collect();
    Lora {
        active: split(active),
        waiting: split(waiting),
        max,
    }
}

/// The scores that a scorer gives the pool's endpoints, in slot order.
pub fn scores(scorer: &dyn Scorer, pool: &Pool, request: RequestView<'_>) -> Vec<f64> {
    let candidates: Vec<Slot> = pool.iter().map(|(slot, _)| slot).collect();
    let mut scores = vec![0.0; candidates.len()];
    let cycle = Cycle::new(pool, request);
    scorer.score(&cycle, &candidates, &mut scores);
    scores
}

/// Returns whether two lists of numbers are equal to nine places.
pub fn close(found: &[f64], expected: &[f64]) -> bool {
    found.len() == expected.len()
        && std::iter::zip(found, expected).all(|(found, expected)| (found - expected).abs() < 1e-9)
}

/// A plan of one profile with its pool and its plugins' state, without a picker.
pub struct Scheduling {
    pub plan: Plan,
    pub pool: Pool,
    pub states: States,
    /// The media of the requests that follow.
    pub media: Vec<Media>,
    scratch: Scratch,
    now: Instant,
}

/// What came of one request.
pub struct Scheduled {
    /// The scores of the plan's first scorer.
    pub scores: Vec<f64>,
    /// The endpoint that got the request.
    pub pick: u32,
    pub response_headers: Vec<(String, String)>,
}

impl Scheduling {
    /// Returns the plan of these plugins in one profile, in that order, with the endpoints `p0`, `p1`….
    pub fn new(plugins: &str, endpoints: usize) -> Self {
        Self::of_sections(&format!("plugins: [{plugins}]"), endpoints)
    }

    /// Returns the plan of these plugins in the profiles `decode`, `prefill` and `encode`, each with a scorer, and
    /// one endpoint for each of these roles.
    pub fn disaggregated(plugins: &str, scorers: [&str; 3], roles: &[&str]) -> Self {
        let names = ["decode", "prefill", "encode"];
        let filter = |role: &str| {
            format!(
                "{{name: {role}s, type: label-selector-filter, parameters: {{matchLabels: {{role: {role}}}}}}}, "
            )
        };
        let profile = |(role, scorer): (&str, &str)| {
            format!(
                "- {{name: {role}, plugins: [{{pluginRef: {role}s}}, {{pluginRef: {scorer}}}]}}\n"
            )
        };
        let filters = names.map(filter).concat();
        let profiles: String = std::iter::zip(names, scorers).map(profile).collect();
        let deciders =
            "prefill: always-disagg-pd-decider, encode: always-disagg-multimodal-decider";
        let mut plan = Self::of_sections(
            &format!(
                "plugins: [{filters}{{type: always-disagg-pd-decider}}, {{type: always-disagg-multimodal-decider}}, \
                 {{type: disagg-profile-handler, parameters: {{deciders: {{{deciders}}}}}}}, {plugins}]\n\
                 schedulingProfiles:\n{profiles}"
            ),
            roles.len(),
        );
        for (slot, role) in (0..).map(Slot).zip(roles) {
            let endpoint = plan.pool.get_mut(slot).unwrap();
            endpoint.labels = vec![("role".to_owned(), (*role).to_owned())];
        }
        plan
    }

    fn of_sections(sections: &str, endpoints: usize) -> Self {
        let plan = crate::config::load(&format!("{HEAD}{sections}\n"))
            .unwrap()
            .plan;
        let secret = Secret::from(1);
        Self {
            pool: pool((0..endpoints).map(|_| Metrics::default())),
            states: States::new(&plan.states, &secret),
            media: Vec::new(),
            scratch: Scratch::new(fastrand::Rng::with_seed(1)),
            now: Instant::default(),
            plan,
        }
    }

    /// Some time passes.
    pub fn wait(&mut self, time: Duration) {
        self.now = self.now.after(time);
        self.states.expire(self.now);
    }

    /// Decides a request with these headers, in the order of the plan's, and this number of matched blocks, by slot. The
    /// state is changed as a picker changes it.
    pub fn schedule(&mut self, headers: &[Option<&[u8]>], matched: &[u32]) -> Scheduled {
        let mut values = HeaderValues::default();
        values.set(headers.iter().copied());
        let prefix = [PrefixMatch {
            matched,
            total: 10.0,
            block_tokens: Some(16),
        }];
        let request = RequestView {
            headers: &values,
            prefix: &prefix,
            states: &self.states,
            media: !self.media.is_empty(),
            distinct_media: &self.media,
            ..RequestView::default()
        };
        let cycle = Cycle::new(&self.pool, request);
        let mut explanation = Explanation::default();
        let (scheduler, observer) = (&self.plan.scheduler, Some(&mut explanation as _));
        let decision = scheduler.schedule(&cycle, 0, &mut self.scratch, observer);
        let decision = decision.unwrap();
        let mut additions = Additions::default();
        for hook in &self.plan.hooks {
            hook.before_request(&cycle, &decision, &mut additions);
        }
        let pick = decision.primary.0;
        for record in additions.records {
            let state = self.states.get_mut(record.state).unwrap();
            state.bind(record.key, record.slot, self.now);
        }
        let scores = explanation.scorers.first();
        let scores = scores.map(|own| own.scores.iter().map(|scored| scored.score).collect());
        Scheduled {
            scores: scores.unwrap_or_default(),
            pick,
            response_headers: additions.response_headers,
        }
    }
}
