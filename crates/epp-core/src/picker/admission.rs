//! Admission of models to statistics of their own.

use super::dispatcher::Dispatcher;
use super::exchange::Exchange;
use super::models::{ModelEvidence, MAX_NAMES};
use super::response::Recording;
use super::statistics::ModelStatistics;
use super::{ExchangeId, Picker};
use crate::scheduling::Slot;

/// A model that is due statistics of its own, because an endpoint has served a request for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelWish {
    id: ExchangeId,
    slot: Slot,
    /// The model's name.
    pub name: String,
    /// How sure it is that the endpoint serves it.
    pub evidence: ModelEvidence,
}

/// The component that admits models to statistics of their own.
#[derive(Debug, Default)]
pub enum Admission {
    /// This picker alone.
    #[default]
    Alone,
    /// All pickers of the proxy: these models wait for their agreement.
    Agreed(Vec<ModelWish>),
}

impl Dispatcher {
    /// Returns the statistics of a request's model at its endpoint. The name is the client's: until an endpoint has
    /// served it, it is counted as "other".
    pub fn statistics_of(&mut self, exchange: &mut Exchange, slot: Slot) -> ModelStatistics {
        exchange.proposed_model.clear();
        let model = exchange.naming.model(&exchange.reader).known();
        let model = model.unwrap_or_default();
        if let Some(own) = self.statistics.model_at(slot, model) {
            return own;
        }
        // A request without a body is a success at any server, whatever model a header names.
        let served = exchange.naming.served(&exchange.reader);
        let served = served.filter(|(served, _)| *served == model);
        if let Some((_, evidence)) = served.filter(|_| exchange.response.has_body()) {
            // Its body may still be read to the end.
            let evidence = match exchange.reader.wants_more() {
                true => ModelEvidence::Read,
                false => evidence,
            };
            let best = self.listing(slot, model).unwrap_or(evidence);
            let endpoints = self.endpoints.pool().width();
            if self.statistics.models.has_room(model, best, endpoints) {
                exchange.proposed_model.push_str(model);
            }
        }
        self.statistics.other_models()
    }

    /// Returns the evidence that the page of the endpoint in this slot lists a model, if it does.
    fn listing(&self, slot: Slot, model: &str) -> Option<ModelEvidence> {
        let endpoint = self.endpoints.pool().get(slot)?;
        endpoint
            .metrics
            .lists_model(model)
            .then_some(ModelEvidence::Listed)
    }

    /// Records that an endpoint has served a request: its model gets statistics of its own, or is proposed for them.
    pub fn propose_model(&mut self, exchange: &mut Exchange, slot: Slot) {
        let name = std::mem::take(&mut exchange.proposed_model);
        if name.is_empty() || exchange.reader.repeats_model() {
            return;
        }
        let served = exchange.naming.served(&exchange.reader);
        let read = served.filter(|(served, _)| *served == name);
        // Of a body that was given back nothing is known any more.
        let read = read.map_or(ModelEvidence::Likely, |(_, evidence)| evidence);
        let wish = ModelWish {
            id: exchange.id,
            slot,
            evidence: self.listing(slot, &name).unwrap_or(read),
            name,
        };
        let endpoints = self.endpoints.pool().width();
        if !self
            .statistics
            .models
            .has_room(&wish.name, wish.evidence, endpoints)
        {
            return;
        }
        match &mut self.statistics.admission {
            // The host has not fetched them for long.
            Admission::Agreed(wishes) if wishes.len() >= MAX_NAMES => {}
            Admission::Agreed(wishes) => wishes.push(wish),
            Admission::Alone => {
                let models = &mut self.statistics.models;
                if models.admit(&wish.name, wish.evidence, endpoints) {
                    self.count_under_model(exchange, &wish);
                }
            }
        }
    }

    /// Counts a request under its model's name, which was admitted.
    fn count_under_model(&mut self, exchange: &mut Exchange, wish: &ModelWish) {
        let own = self.statistics.model_at(wish.slot, &wish.name);
        if let (Some(model), Some(recording)) = (own, exchange.response.recording) {
            exchange.response.recording = Some(Recording { model, ..recording });
        }
    }
}

impl Picker {
    /// Counts the request of a wish that was granted under its model's name.
    pub(super) fn grant_model(&mut self, wish: &ModelWish) {
        if let Some(mut exchange) = self.exchanges.get_mut(wish.id) {
            self.dispatcher.count_under_model(&mut exchange, wish);
        }
    }
}
