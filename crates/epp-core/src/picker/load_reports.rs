//! Load reports: which model servers are asked for one with a response, and what becomes of it.
//!
//! A report counts in the picker that gets it, until the next page of the endpoint comes. It is not sent to the other pickers:
//! that would take as long as that page.

use super::dispatcher::Dispatcher;
use super::exchange::Exchange;
use super::{Effect, ExchangeId, Head, Picker, Upstream};
use crate::config::Plan;
use crate::endpoints::load_report::LoadReport;
use crate::metrics::definitions::LOAD_REPORTS;
use crate::metrics::labels::ReportStatus;
use crate::protocol::{LOAD_FORMAT_HEADER, LOAD_HEADER};
use crate::scheduling::Endpoint;

/// Who has asked the model server of a request to report its load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LoadAsked {
    /// It was not asked, or no plugin reads what a report says.
    #[default]
    No,
    /// It was asked by the client, or by another proxy before this one: the report is passed on.
    ByClient,
    /// It was asked by this picker: the report is not for the client.
    ByPicker,
}

impl LoadAsked {
    /// Returns what is known of a request when its headers have come.
    pub fn new(head: &Head<'_>, plan: &Plan) -> Self {
        match head.asks_load && plan.needs.reported_load() {
            true => Self::ByClient,
            false => Self::No,
        }
    }
}

impl Picker {
    /// Returns whether the host is to look for a load report in the response to this request.
    pub fn wants_load_report(&self, id: ExchangeId) -> bool {
        let exchange = self.exchanges.get(id);
        exchange.is_some_and(|exchange| exchange.load_asked != LoadAsked::No)
    }
}

impl Dispatcher {
    /// Returns the header that asks a request's model server for a load report, if it is to be asked.
    pub fn load_header(&self, exchange: &mut Exchange) -> Option<(&'static str, String)> {
        let plan = &self.plan;
        let asks = plan.settings.request_load_metrics
            && plan.needs.reported_load()
            // Other requests reach no engine.
            && exchange.response.takes_engine()
            && exchange.load_asked == LoadAsked::No;
        asks.then(|| {
            exchange.load_asked = LoadAsked::ByPicker;
            (LOAD_FORMAT_HEADER, "text".to_owned())
        })
    }

    /// Takes the load report of a response: the value of its header.
    #[cold]
    pub fn take_load_report(&mut self, exchange: &Exchange, seen: &Upstream, value: &[u8]) {
        // After a retry it is not the endpoint that was picked. The port of one rank is no endpoint's address.
        let server = seen.server.as_deref();
        let from = |endpoint: &Endpoint| Some(endpoint.address.as_bytes()) == server;
        let slot = self.endpoints.pool().find_by(from);
        let now = self.clock.wall();
        let status = match (slot, LoadReport::read(value)) {
            (Some(slot), Some(report)) if self.endpoints.take_report(slot, report, now) => {
                ReportStatus::Used
            }
            _ => ReportStatus::Unused,
        };
        self.statistics.registry.add(LOAD_REPORTS, status, 1);
        if exchange.load_asked == LoadAsked::ByPicker {
            let (id, name) = (exchange.id, LOAD_HEADER);
            let effect = Effect::RemoveResponseHeader { id, name };
            self.effects.push_back(effect);
        }
    }
}

#[cfg(test)]
#[path = "load_reports_tests.rs"]
mod tests;
