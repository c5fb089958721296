//! Admission of models to statistics of their own.

use super::dispatcher::Dispatcher;
use super::exchange::Exchange;
use super::statistics::ModelStatistics;
use super::{Effect, ExchangeId, Picker};
use crate::scheduling::Slot;

/// A model that asks for statistics of its own, because an endpoint has served a request for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelWish {
    /// The request that was served.
    pub id: ExchangeId,
    slot: Slot,
    /// The model's name.
    pub name: String,
}

impl Dispatcher {
    /// Returns the statistics of a request's model at its endpoint. The name is the client's: until an endpoint has
    /// served it, it is counted as "other".
    pub fn statistics_of(&mut self, exchange: &mut Exchange, slot: Slot) -> ModelStatistics {
        exchange.candidate.clear();
        let model = exchange.naming.model(&exchange.reader).known();
        let model = model.unwrap_or_default();
        if let Some(own) = self.statistics.model_at(slot, model) {
            return own;
        }
        // A request without a body is a success at any server, whatever model a header names.
        let endpoints = self.pool.pool().width();
        if exchange.response.has_body() && self.statistics.models.has_room(model, endpoints) {
            exchange.candidate.push_str(model);
        }
        self.statistics.other_models()
    }

    /// An endpoint has served a request: its model asks for statistics of its own.
    pub fn ask_for_model(&mut self, exchange: &mut Exchange, slot: Slot) {
        let name = std::mem::take(&mut exchange.candidate);
        if !name.is_empty() {
            let id = exchange.id;
            let wish = ModelWish { id, slot, name };
            self.effects.push_back(Effect::AdmitModel(wish));
        }
    }
}

impl Picker {
    /// Gives a model statistics of its own, if there is room. Returns whether it has them now.
    pub fn admit_model(&mut self, wish: &ModelWish) -> bool {
        let endpoints = self.pool().width();
        let statistics = &mut self.dispatcher.statistics;
        let admitted = statistics.models.admit(&wish.name, endpoints);
        if admitted {
            // Its request is counted under its name.
            let own = statistics.model_at(wish.slot, &wish.name);
            let exchange = self.exchanges.get_mut(wish.id);
            let counted = exchange
                .as_ref()
                .and_then(|exchange| exchange.response.counted);
            if let (Some(model), Some(mut exchange), Some(counted)) = (own, exchange, counted) {
                exchange.response.counted = Some(super::response::Counted { model, ..counted });
            }
        }
        admitted
    }
}
