//! Figures of runs, as columns of a table and as JSON.

use serde_json::{Map, Value};

/// A figure of a run.
#[derive(Debug, Clone)]
pub struct Figure {
    /// Its name in JSON.
    pub name: &'static str,
    /// The heading of its column.
    pub heading: &'static str,
    /// Its unit.
    pub unit: Unit,
}

impl Figure {
    /// Returns a figure.
    pub const fn new(name: &'static str, heading: &'static str, unit: Unit) -> Self {
        Self {
            name,
            heading,
            unit,
        }
    }
}

/// How a figure is shown.
#[derive(Debug, Clone, Copy)]
pub enum Unit {
    /// Milliseconds, or a count.
    Whole,
    /// A rate, with one decimal.
    Rate,
    /// A quotient.
    Ratio,
    /// A share, shown in percent.
    Share,
}

impl Unit {
    /// Returns the cell of a value.
    pub fn cell(self, value: f64) -> String {
        match self {
            Self::Whole => format!("{value:>7.0}"),
            Self::Rate => format!("{value:>7.1}"),
            Self::Ratio => format!("{value:>7.2}"),
            Self::Share => format!("{:>6.1}%", value * 100.0),
        }
    }
}

/// The figures of several runs: of each the median, the lowest and the highest.
#[derive(Debug, Default)]
pub struct Spread {
    /// The medians.
    pub median: Vec<f64>,
    /// The lowest.
    pub lowest: Vec<f64>,
    /// The highest.
    pub highest: Vec<f64>,
}

impl Spread {
    /// Returns the spread of runs, all with the same figures.
    pub fn of(runs: &[Vec<f64>]) -> Self {
        let mut spread = Self::default();
        for figure in 0..runs.first().map_or(0, Vec::len) {
            let values = runs.iter().filter_map(|run| run.get(figure).copied());
            let mut values: Vec<f64> = values.collect();
            values.sort_by(f64::total_cmp);
            spread.median.push(median(&values));
            spread.lowest.extend(values.first());
            spread.highest.extend(values.last());
        }
        spread
    }
}

/// Returns the median of values in ascending order; the lower one of the two in the middle.
pub fn median(ascending: &[f64]) -> f64 {
    let middle = ascending.len().saturating_sub(1) / 2;
    ascending.get(middle).copied().unwrap_or(0.0)
}

/// Returns the figures of a run by their names.
pub fn named(figures: &[Figure], values: &[f64]) -> Map<String, Value> {
    let named = figures.iter().zip(values);
    let named = named.map(|(figure, value)| (figure.name.to_owned(), Value::from(*value)));
    named.collect()
}

/// Returns the row of a run.
pub fn row(name: &str, width: usize, figures: &[Figure], values: &[f64]) -> String {
    let cells = figures.iter().zip(values);
    let cells = cells.map(|(figure, value)| format!(" {}", figure.unit.cell(*value)));
    format!("{name:width$}{}", cells.collect::<String>())
}

/// Returns the row of headings.
pub fn headings(name: &str, width: usize, figures: &[Figure]) -> String {
    let headings = figures
        .iter()
        .map(|figure| format!(" {:>7}", figure.heading));
    format!("{name:width$}{}", headings.collect::<String>())
}
