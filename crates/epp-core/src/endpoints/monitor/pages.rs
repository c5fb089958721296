//! Reading the endpoints' metrics pages, by the engines that their labels name.

use super::Monitor;
use crate::endpoints::fetch_error::FetchError;
use crate::endpoints::partial_page::{PageBody, PageReader};
use crate::endpoints::scan::{Extraction, Page};
use crate::plugins::source::core_metrics_extractor::FORMER_ENGINE_LABEL;
use crate::scheduling::{Endpoint, Slot};

impl Monitor {
    pub(super) fn read(&mut self, slot: Slot, page: &mut dyn PageBody) -> Option<Page> {
        if self.pages.len() <= slot.index() {
            self.pages
                .resize_with(slot.index() + 1, PageReader::default);
        }
        // Taken out, since the extraction is borrowed meanwhile.
        let mut known = std::mem::take(self.pages.get_mut(slot.index())?);
        let endpoint = self.store.pool.get(slot)?;
        let found = known.read(self.extraction(endpoint)?, page);
        *self.pages.get_mut(slot.index())? = known;
        found
    }

    pub(super) fn extraction(&self, endpoint: &Endpoint) -> Option<&Extraction> {
        let label = endpoint.label(&self.settings.engine_label);
        let label = label.or_else(|| endpoint.label(FORMER_ENGINE_LABEL));
        let find = |name: &str| self.extractions.iter().find(|engine| engine.engine == name);
        label
            .and_then(find)
            .or_else(|| find(&self.settings.default_engine))
    }

    /// Returns why the last page of the endpoint in this slot could not be read, if this picker has polled it and it
    /// could not.
    pub fn poll_error(&self, slot: Slot) -> Option<FetchError> {
        self.poll_errors.get(slot.index()).copied().flatten()
    }

    pub(super) fn set_poll_error(&mut self, slot: Slot, error: Option<FetchError>) {
        if self.poll_errors.len() <= slot.index() {
            self.poll_errors.resize(slot.index() + 1, None);
        }
        if let Some(known) = self.poll_errors.get_mut(slot.index()) {
            *known = error;
        }
    }
}
