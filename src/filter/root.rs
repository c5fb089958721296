//! The plugin in one VM: its configuration, its clock, and the callouts that fetch metrics.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use hashbrown::HashMap;
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType};

use super::abi::{self, Buffer, Map, Status};
use super::host::{Shared, Statistics};
use super::request::Request;
use crate::config;
use crate::director::answer::DROPPED_REASON_HEADER;
use crate::director::{Call, Director, Release};

/// What one tick is: a peer's placement and a new scrape are known to all within this time.
const TICK_MS: u32 = 50;

thread_local! {
    /// The directors of this VM by plugin and pool. They outlive a root context: a hot reload makes
    /// a new root beside the old one in the same VM, and what was learnt must not be lost.
    static DIRECTORS: RefCell<HashMap<String, Rc<RefCell<Director>>>> = RefCell::default();
}

/// The root context of a plugin.
pub struct Root {
    id: u32,
    director: Option<Rc<RefCell<Director>>>,
}

impl Root {
    /// A root context that has not been configured yet.
    pub fn new(id: u32) -> Self {
        Self { id, director: None }
    }

    fn configure(&mut self) -> Result<(), ()> {
        let text = abi::buffer(Buffer::Configuration, 0, usize::MAX);
        let text = text.ok().flatten().unwrap_or_default();
        let loaded = config::load_bytes(&text).map_err(|rejected| {
            for problem in &rejected.errors {
                log::error!("EndpointPickerConfig refused: {problem}");
            }
        })?;
        for problem in &loaded.warnings {
            log::warn!("EndpointPickerConfig: {problem}");
        }
        log::info!("EndpointPickerConfig in force: {}", loaded.plan.summary());
        self.install(loaded.plan);
        Ok(())
    }

    /// Hands the plan to this plugin's director, a new one where there is none.
    fn install(&mut self, plan: config::Plan) {
        let name = text_property("plugin_name");
        let key = format!(
            "{name}|{}|{}",
            text_property("plugin_root_id"),
            plan.cluster()
        );
        let director = DIRECTORS.with_borrow_mut(|directors| {
            let fresh = || {
                let seed = abi::now_ns() ^ (u64::from(self.id) << 48) ^ address_entropy();
                let meter = Box::new(Statistics);
                Rc::new(RefCell::new(Director::new(
                    &name,
                    plan.clone(),
                    seed,
                    meter,
                    abi::now_ns,
                )))
            };
            directors.entry(key).or_insert_with(fresh).clone()
        });
        if let Ok(mut director) = director.try_borrow_mut() {
            director.install(plan, self.id);
        }
        self.director = Some(director);
    }

    fn dispatch(&self, call: &Call) -> Result<u32, Status> {
        let headers = call.headers();
        let timeout = Duration::from_millis(call.timeout_ms);
        hostcalls::dispatch_http_call(&call.cluster, headers, None, Vec::new(), timeout)
            .map_err(|status| Status(status as u32))
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

impl Context for Root {
    fn on_http_call_response(&mut self, token: u32, headers: usize, size: usize, _: usize) {
        let Some(director) = &self.director else {
            return;
        };
        // Envoy gives no headers where the stream was reset.
        let status = (headers > 0)
            .then(|| abi::header(Map::Callout, ":status").ok().flatten())
            .flatten();
        let body = abi::buffer(Buffer::CalloutBody, 0, size).ok().flatten();
        let Ok(mut director) = director.try_borrow_mut() else {
            return;
        };
        let status = status.as_deref().unwrap_or_default();
        let body = body.unwrap_or_default();
        director.called_back(token, status, &body);
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        if self.configure().is_err() {
            return false;
        }
        abi::set_tick_period(TICK_MS).is_ok()
    }

    fn on_tick(&mut self) {
        let Some(director) = self.director.clone() else {
            return;
        };
        let Ok(mut director) = director.try_borrow_mut() else {
            return;
        };
        let tick = director.tick(self.id, &mut Shared);
        for call in &tick.calls {
            let token = self.dispatch(call);
            director.called(call, token.ok());
        }
        drop(director);
        for (request, release) in &tick.releases {
            if abi::set_effective_context(*request).is_err() {
                continue;
            }
            carry_out(release);
            if release.refusal.is_none() {
                let _: Result<(), Status> = abi::resume_request();
            }
        }
        let _: Result<(), Status> = abi::set_effective_context(self.id);
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        match &self.director {
            Some(director) => Some(Box::new(Request::new(id, director.clone()))),
            None => Some(Box::new(Unconfigured)),
        }
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

/// Does to the request in effect what was decided for it.
pub fn carry_out(release: &Release) {
    if let Some(refusal) = &release.refusal {
        let headers = [(DROPPED_REASON_HEADER, refusal.reason)];
        let outcome = abi::respond(refusal.status, "epp_wasm", &headers, &refusal.body);
        if outcome.is_err() {
            log::warn!("Envoy did not take the answer to a request without an endpoint");
        }
        return;
    }
    if let Some((header, value)) = &release.destination {
        if let Err(Status(status)) = abi::set_header(Map::Request, header, value.as_bytes()) {
            log::warn!(
                "Envoy did not take the destination header (status {status}): the request goes \
                 to the fallback policy; is allow_on_headers_stop_iteration set?"
            );
        }
    }
}

/// Stands in where a root was never configured, which Envoy does not let happen.
struct Unconfigured;

impl Context for Unconfigured {}

impl HttpContext for Unconfigured {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        Action::Continue
    }
}
