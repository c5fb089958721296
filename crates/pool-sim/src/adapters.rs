//! The LoRA adapters of a server: a few places, which requests of the same adapter share.

/// An adapter, by its number.
pub type Adapter = u32;

/// A place with an adapter.
#[derive(Debug, Clone, Copy)]
struct Place {
    adapter: Adapter,
    /// Running requests that use it.
    in_use: usize,
    /// When it was used last, in uses so far.
    used: u64,
}

/// The adapters of one server.
#[derive(Debug)]
pub struct Adapters {
    most: usize,
    places: Vec<Place>,
    uses: u64,
}

impl Adapters {
    /// Creates places for this many adapters, all of them empty.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            places: Vec::new(),
            uses: 0,
        }
    }

    /// Returns whether a request with this adapter can run now.
    pub fn has_room(&self, adapter: Adapter) -> bool {
        let usable = |place: &Place| place.adapter == adapter || place.in_use == 0;
        self.places.len() < self.most || self.places.iter().any(usable)
    }

    /// A request with this adapter begins. Returns whether the adapter has to be loaded, into the place that was
    /// unused for longest.
    pub fn begin(&mut self, adapter: Adapter) -> bool {
        self.uses += 1;
        let used = self.uses;
        if let Some(place) = self.places.iter_mut().find(|it| it.adapter == adapter) {
            place.in_use += 1;
            place.used = used;
            return false;
        }
        let loaded = Place {
            adapter,
            in_use: 1,
            used,
        };
        if self.places.len() < self.most {
            self.places.push(loaded);
            return true;
        }
        let unused = self.places.iter_mut().filter(|place| place.in_use == 0);
        if let Some(place) = unused.min_by_key(|place| place.used) {
            *place = loaded;
        }
        true
    }

    /// A request with this adapter has ended. The adapter stays until its place is needed.
    pub fn end(&mut self, adapter: Adapter) {
        if let Some(place) = self.places.iter_mut().find(|it| it.adapter == adapter) {
            place.in_use = place.in_use.saturating_sub(1);
        }
    }

    /// Returns the adapters of running requests, as a metrics page lists them.
    pub fn running(&self) -> impl Iterator<Item = Adapter> + '_ {
        let used = self.places.iter().filter(|place| place.in_use > 0);
        used.map(|place| place.adapter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adapter_in_use_keeps_its_place_and_the_longest_unused_one_loses_it() {
        let mut adapters = Adapters::new(2);
        assert!(adapters.begin(1) && adapters.begin(2));
        assert!(!adapters.begin(1), "it is loaded");
        assert!(adapters.has_room(2) && !adapters.has_room(3));
        adapters.end(2);
        assert!(adapters.has_room(3) && adapters.begin(3));
        adapters.end(1);
        assert!(!adapters.has_room(4), "another request still uses it");
        adapters.end(1);
        assert_eq!(adapters.running().collect::<Vec<_>>(), [3]);
        adapters.end(3);
        assert!(adapters.begin(4));
        assert!(!adapters.begin(3), "1 was unused for longer");
    }
}
