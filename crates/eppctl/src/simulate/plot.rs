//! Draws the distribution of times to first token.

use std::path::Path;

use plotters::prelude::*;

/// Points on a curve: more than the picture has pixels would only make the file larger.
const CURVE_POINTS: usize = 200;

/// Readable on white, and distinguishable with colour blindness (Okabe and Ito's palette).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];

/// Draws, for each policy, the share of requests by time to first token.
pub fn draw(file: &Path, lines: &[(&str, &[f64])]) -> Result<(), String> {
    let mut svg = String::new();
    picture(&mut svg, lines).map_err(|error| error.to_string())?;
    std::fs::write(file, svg).map_err(|error| error.to_string())
}

fn picture(svg: &mut String, lines: &[(&str, &[f64])]) -> Result<(), Box<dyn std::error::Error>> {
    let all = || lines.iter().flat_map(|(_, times)| times.iter().copied());
    let shortest = all().fold(f64::INFINITY, f64::min).clamp(0.1, 1e9);
    let longest = all().fold(shortest * 10.0, f64::max);
    let root = SVGBackend::with_string(svg, (900, 520)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption("Time to first token", ("sans-serif", 22))
        .margin(14)
        .x_label_area_size(44)
        .y_label_area_size(56)
        .build_cartesian_2d((shortest..longest).log_scale(), 0.0..1.0)?;
    chart
        .configure_mesh()
        .x_desc("milliseconds")
        .y_desc("share of requests")
        .x_label_formatter(&|value| format!("{value:.0}"))
        .y_label_formatter(&|value| format!("{:.0} %", value * 100.0))
        .light_line_style(WHITE)
        .draw()?;
    for ((name, times), colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let line = LineSeries::new(curve(times), colour.stroke_width(2));
        let drawn = chart.draw_series(line)?;
        let colour = *colour;
        drawn
            .label(*name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 2), (x + 16, y + 2)], colour.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE)
        .border_style(BLACK)
        .draw()?;
    root.present()?;
    Ok(())
}

/// Returns the cumulative distribution of ascending times.
fn curve(times: &[f64]) -> Vec<(f64, f64)> {
    let last = times.len().saturating_sub(1);
    let places = (0..=CURVE_POINTS).map(|place| place as f64 / CURVE_POINTS as f64);
    let points = places.filter_map(|share| {
        let time = times.get((share * last as f64).round() as usize)?;
        Some((time.max(0.1), share))
    });
    points.collect()
}
