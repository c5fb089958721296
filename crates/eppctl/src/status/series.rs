//! The statistics of an Envoy, as Prometheus reads them.

use std::collections::{BTreeMap, BTreeSet};

use epp_core::endpoints::sample::Sample as Line;
use epp_core::metrics::definitions::FINDINGS;

use crate::admin::statistics::series;

/// A line of the page.
pub struct Series<'p> {
    /// The metric's name, with a histogram's suffix, and without the prefix of dynamic modules.
    pub family: &'p str,
    line: Line<'p>,
}

/// The series of an Envoy.
pub struct Statistics<'p> {
    series: Vec<Series<'p>>,
    /// The filter's series by pool, by their places: a page may have any number of pools.
    pools: BTreeMap<String, Vec<usize>>,
}

impl<'p> Statistics<'p> {
    /// Parses Prometheus' text format, as Envoy writes it. Lines that are not in the format are left out.
    pub fn parse(page: &'p str) -> Self {
        let series = series(page).map(|(family, line)| Series { family, line });
        let series: Vec<Series<'p>> = series.collect();
        let mut pools = BTreeMap::<String, Vec<usize>>::new();
        for (place, of) in series.iter().enumerate().filter(|(_, of)| of.is_ours()) {
            pools.entry(of.label("pool")).or_default().push(place);
        }
        pools.remove("");
        Self { series, pools }
    }

    /// Returns whether the filter has no statistics here.
    pub fn is_empty(&self) -> bool {
        self.ours().next().is_none()
    }

    /// Returns the filter's series.
    pub fn ours(&self) -> impl Iterator<Item = &Series<'p>> {
        self.series.iter().filter(|series| series.is_ours())
    }

    /// Returns the filter's series in a pool.
    pub fn ours_of(&self, pool: &str) -> impl Iterator<Item = &Series<'p>> {
        let places = self.pools.get(pool).into_iter().flatten();
        places.filter_map(|place| self.series.get(*place))
    }

    /// Returns Envoy's own series whose names end in one of these.
    pub fn ending(&self, ends: &[&str]) -> Vec<&Series<'p>> {
        let own = self.series.iter().filter(|series| {
            series.family.starts_with("envoy_")
                && ends.iter().any(|end| series.family.ends_with(end))
        });
        own.collect()
    }

    /// Returns the series whose names begin with this.
    pub fn starting<'s>(&'s self, start: &'s str) -> impl Iterator<Item = &'s Series<'p>> {
        let series = self.series.iter();
        series.filter(move |series| series.family.starts_with(start))
    }

    /// Returns the series of a family.
    pub fn of<'s>(&'s self, family: &'s str) -> impl Iterator<Item = &'s Series<'p>> {
        let series = self.series.iter();
        series.filter(move |series| series.family == family)
    }

    /// Returns the filter's series of a family in a pool.
    pub fn of_pool<'s>(
        &'s self,
        family: &'s str,
        pool: &str,
    ) -> impl Iterator<Item = &'s Series<'p>> {
        let series = self.ours_of(pool);
        series.filter(move |series| series.family == family)
    }

    /// Returns the sum of a family in a pool; `None` if it has no series there.
    pub fn sum(&self, family: &str, pool: &str) -> Option<f64> {
        let values = self.of_pool(family, pool).map(Series::value);
        values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
    }

    /// Returns the sums of a family in a pool by one of its labels, without those that are 0.
    pub fn by(&self, family: &str, pool: &str, label: &str) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for series in self
            .of_pool(family, pool)
            .filter(|series| series.value() > 0.0)
        {
            *sums.entry(series.label(label)).or_default() += series.value();
        }
        sums
    }

    /// Returns the filter's open findings, each once, with its pool.
    ///
    /// Without its tag in `stats_tags`, a label stays in the name, with other characters replaced.
    pub fn findings(&self) -> BTreeSet<(String, String)> {
        let name = FINDINGS.name();
        let open = self.ours().filter(|series| series.value() > 0.0);
        let found = open.filter_map(|series| {
            let id = match series.family.strip_prefix(name)? {
                "" => series.label("finding"),
                untagged => untagged.strip_prefix("_finding_")?.replace('_', "-"),
            };
            Some((series.label("pool"), id))
        });
        found.collect()
    }

    /// Returns the pools, in alphabetical order.
    pub fn pools(&self) -> Vec<String> {
        self.pools.keys().cloned().collect()
    }
}

impl Series<'_> {
    /// Returns whether it is the filter's.
    fn is_ours(&self) -> bool {
        self.family.starts_with("epp_wasm_") || self.family.starts_with("llm_d_epp_")
    }

    /// Returns a label's value; empty if it has none of this name.
    pub fn label(&self, name: &str) -> String {
        let label = self.line.labels.get(name);
        label.map(std::borrow::Cow::into_owned).unwrap_or_default()
    }

    /// Returns its value.
    pub fn value(&self) -> f64 {
        self.line.value
    }
}
