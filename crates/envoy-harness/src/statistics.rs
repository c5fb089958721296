//! Envoy's statistics, as its admin interface writes them.

/// Returns the labels, in braces as they are written, and the value of each sample of a metric on a page
/// in Prometheus' text format.
pub fn samples<'p>(page: &'p str, name: &'p str) -> impl Iterator<Item = (&'p str, f64)> {
    page.lines().filter_map(move |line| {
        let (labels, value) = line.strip_prefix(name)?.rsplit_once(' ')?;
        let whole_name = labels.is_empty() || labels.starts_with('{');
        Some((labels, value.parse().ok().filter(|_| whole_name)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_samples_of_that_name_count() {
        let page =
            "# TYPE a counter\na{b=\"x y\"} 1\na 2.5\na_more{b=\"x\"} 3\nba{} 4\na{b=\"z\"} ?\n";
        let found: Vec<_> = samples(page, "a").collect();
        assert_eq!(found, [("{b=\"x y\"}", 1.0), ("", 2.5)]);
    }
}
