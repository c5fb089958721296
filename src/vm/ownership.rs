//! Whose a request is: that of a pool to whose cluster its route leads, or none of ours.

use super::Vm;
use crate::abi;
use crate::effects;
#[cfg(test)]
use crate::guard;
use crate::pool::{Plugin, Pool};

impl Vm {
    /// Returns the pool whose filter the request is passing, if its route leads to that pool's cluster. A request that
    /// leads elsewhere is counted.
    pub(super) fn pool_of_request(&mut self) -> Option<(usize, &mut Pool)> {
        match self.place_of_request() {
            Ok(place) => Some((place, self.pools.get_mut(place)?.as_mut()?)),
            Err(elsewhere) => {
                self.strip_destination();
                self.count_left_alone(&elsewhere);
                None
            }
        }
    }

    /// Returns the place of the pool of [`Self::pool_of_request`], or the cluster to which the request goes instead.
    pub(super) fn place_of_request(&self) -> Result<usize, Elsewhere> {
        #[cfg(test)]
        guard::inject("place of request");
        let pools = self.pools.iter().enumerate();
        let mut pools = pools.filter_map(|(place, pool)| Some((place, pool.as_ref()?)));
        let mut others = pools.clone().skip(1);
        // Nearly always there is one.
        let plugin = others.next().map(|_| Plugin::asking());
        let serves = |pool: &Pool| plugin.as_ref().is_none_or(|plugin| pool.serves(plugin));
        let elsewhere = |cluster, plugin| Elsewhere { cluster, plugin };
        if plugin.is_none() && pools.clone().all(|(_, pool)| !pool.asks_for_cluster()) {
            let only = pools.next().map(|(place, _)| place);
            return only.ok_or(elsewhere(None, None));
        }
        let Ok(cluster) = abi::property("xds\0cluster_name") else {
            // Without memory for the name it counts as ours: its client may not choose.
            let found = pools.find(|(_, pool)| serves(pool));
            let found = found.map(|(place, _)| place).or_else(|| self.strictest());
            return found.ok_or(elsewhere(None, None));
        };
        let Some(cluster) = cluster else {
            return Err(elsewhere(None, plugin));
        };
        let found = pools.find(|(_, pool)| serves(pool) && pool.owns(&cluster));
        let place = found.map(|(place, _)| place);
        place.ok_or_else(|| elsewhere(Some(cluster), plugin))
    }

    /// Removes what a client says of the destination from a request that is not for any pool: its
    /// cluster may obey the header all the same, and a route may still change to one that does.
    pub(super) fn strip_destination(&self) {
        let pools = self.pools.iter().flatten();
        let pools = pools.filter(|pool| !pool.is_dry_run());
        let mut headers: Vec<&str> = pools.map(Pool::destination_header).collect();
        // Nearly always there is one.
        headers.dedup();
        headers.into_iter().for_each(effects::strip);
    }

    /// Counts a request that passes the filters of pools to another cluster.
    fn count_left_alone(&mut self, elsewhere: &Elsewhere) {
        let Some(cluster) = &elsewhere.cluster else {
            return;
        };
        // Another filter of ours takes those.
        let mut pools = self.pools.iter().flatten();
        if pools.any(|pool| pool.owns(cluster)) {
            return;
        }
        for pool in self.pools.iter_mut().flatten() {
            let plugin = elsewhere.plugin.as_ref();
            if plugin.is_none_or(|plugin| pool.serves(plugin)) {
                pool.picker.left_alone(cluster);
            }
        }
    }
}

/// The way of a request that is for none of our pools.
#[derive(Debug)]
pub(super) struct Elsewhere {
    /// The cluster to which its route leads, if to one.
    cluster: Option<Vec<u8>>,
    /// The plugin whose filter it passes, where there are several.
    plugin: Option<Plugin>,
}
