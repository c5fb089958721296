//! The plots, as SVG.

use plotters::prelude::*;

use crate::result::{Case, Cell, Run};
use crate::BoxError;

/// Width and height of a plot.
const PLOT_SIZE: (u32, u32) = (760, 380);

/// A line: its name and its points.
pub type Line = (String, Vec<(f64, f64)>);

/// A plot.
pub struct Plot<'a> {
    /// The title.
    pub title: &'a str,
    /// The label of the horizontal axis, which is logarithmic.
    pub across: &'a str,
    /// The label of the vertical axis, which begins at zero.
    pub up: &'a str,
    /// The lines.
    pub lines: Vec<Line>,
}

/// Returns all plots with their names.
pub fn all(run: &Run) -> Result<Vec<(&'static str, String)>, BoxError> {
    let base: Vec<&Cell> = run
        .cells
        .iter()
        .filter(|cell| cell.group == "base")
        .collect();
    let added = Plot {
        title: "CPU per request, beside plain Envoy",
        across: "body, KB",
        up: "µs",
        lines: by_size(&base, |case| Some(case.beside.get("plain")?.both.median)),
    };
    let cpu = Plot {
        title: "CPU of Envoy per request",
        across: "body, KB",
        up: "µs",
        lines: by_size(&base, |case| Some(case.cpu_us.both.median)),
    };
    let idle = Plot {
        title: "Polling while idle, Envoy included",
        across: "endpoints",
        up: "% of a core",
        lines: idle(run),
    };
    let plots = [("added", added), ("cpu", cpu), ("idle", idle)];
    plots
        .into_iter()
        .map(|(name, plot)| Ok((name, draw(&plot)?)))
        .collect()
}

fn by_size(cells: &[&Cell], value: fn(&Case) -> Option<f64>) -> Vec<Line> {
    let names = cells
        .first()
        .map(|cell| cell.cases.iter().map(|case| &case.name));
    let lines = names.into_iter().flatten().map(|name| {
        let point = |cell: &&Cell| {
            let case = cell.cases.iter().find(|case| case.name == *name)?;
            Some((cell.kilobytes as f64, value(case)?))
        };
        (name.clone(), cells.iter().filter_map(point).collect())
    });
    lines.collect()
}

fn idle(run: &Run) -> Vec<Line> {
    let mut intervals: Vec<u64> = run.idle.iter().map(|row| row.interval_ms).collect();
    intervals.sort_unstable();
    intervals.dedup();
    let lines = intervals.into_iter().map(|interval| {
        let rows = run.idle.iter().filter(|row| row.interval_ms == interval);
        let points = rows.map(|row| (row.endpoints as f64, row.cores * 100.0));
        (format!("every {interval} ms"), points.collect())
    });
    lines.collect()
}

/// Draws one plot.
fn draw(plot: &Plot<'_>) -> Result<String, BoxError> {
    row(std::slice::from_ref(plot), PLOT_SIZE)
}

/// Draws plots side by side into one file of this size. Returns an empty text if they have no points, as in
/// a run of other groups only.
pub fn row(plots: &[Plot<'_>], size: (u32, u32)) -> Result<String, BoxError> {
    let mut svg = String::new();
    let plots = plots.iter();
    let plots: Vec<_> = plots.filter(|plot| plot.top() > 0.0).collect();
    if plots.is_empty() {
        return Ok(svg);
    }
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        area.fill(&WHITE)?;
        for (part, plot) in area.split_evenly((1, plots.len())).iter().zip(plots) {
            panel(part, plot)?;
        }
        area.present()?;
    }
    Ok(svg)
}

impl Plot<'_> {
    fn points(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        self.lines.iter().flat_map(|(_, points)| points).copied()
    }

    /// Returns the top of the vertical axis, a little above the highest point.
    fn top(&self) -> f64 {
        self.points().map(|(_, y)| y).fold(0.0, f64::max) * 1.1
    }
}

fn panel(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    plot: &Plot<'_>,
) -> Result<(), BoxError> {
    let left = plot.points().map(|(x, _)| x).fold(f64::INFINITY, f64::min);
    let right = plot.points().map(|(x, _)| x).fold(0.0, f64::max);
    // The labels are at the measured points.
    let mut measured: Vec<f64> = plot.points().map(|(x, _)| x).collect();
    measured.sort_by(f64::total_cmp);
    measured.dedup();
    let across = (left..right).log_scale().with_key_points(measured);
    let mut chart = ChartBuilder::on(area)
        .caption(plot.title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(across, 0.0..plot.top())?;
    chart
        .configure_mesh()
        .x_desc(plot.across)
        .y_desc(plot.up)
        .x_label_formatter(&|x| format!("{x:.0}"))
        .light_line_style(WHITE)
        .draw()?;
    for (number, (name, points)) in plot.lines.iter().enumerate() {
        let color = Palette99::pick(number).to_rgba();
        chart
            .draw_series(LineSeries::new(
                points.iter().copied(),
                color.stroke_width(2),
            ))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}
