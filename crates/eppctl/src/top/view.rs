//! The view: one line per pool, and a table of endpoints.

use std::io::{self, Write};

use clap::ValueEnum;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Paragraph, Row as Cells, Table};
use ratatui::Frame;

use super::snapshot::{Flow, Pool, Row, Snapshot};
use super::Column;
use crate::output::{styled, Report, STRONG};

const HEADS: [&str; 8] = [
    "ENDPOINT",
    "METRICS",
    "AGE",
    "QUEUE",
    "RUNNING",
    "KV",
    "IN FLIGHT",
    "PICKS/S",
];

/// Widths of the columns; the first takes the remaining space.
const WIDTHS: [u16; 8] = [24, 8, 9, 7, 8, 7, 10, 9];

fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.0}"))
}

fn share(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{:.1}%", value * 100.0))
}

fn microseconds(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("≤{value:.0} µs"))
}

fn cells(row: &Row) -> [String; 8] {
    let fresh = match row.fresh {
        Some(fresh) if fresh >= 2.0 => "fresh",
        Some(fresh) if fresh >= 1.0 => "stale",
        Some(_) => "none",
        None => "-",
    };
    let age = row
        .age
        .map_or_else(|| "-".to_owned(), |age| format!("{age:.0} ms"));
    [
        row.endpoint.clone(),
        fresh.to_owned(),
        age,
        number(row.queue),
        number(row.running),
        share(row.kv),
        number(row.in_flight),
        format!("{:.1}", row.picks),
    ]
}

fn summary(pool: &Pool) -> String {
    format!(
        "{}: {:.0} ready, {:.1} picks/s, prefix hit ratio {}, decision p50 {} p99 {}",
        pool.pool,
        pool.ready,
        pool.picks,
        share(pool.hit_ratio),
        microseconds(pool.decision_p50_us),
        microseconds(pool.decision_p99_us)
    )
}

fn flow_line(flow: &Flow) -> String {
    // The highest priority goes first.
    let waiting = flow.waiting.iter().rev();
    let waiting: Vec<String> = waiting
        .map(|(priority, requests)| format!("{requests:.0} of priority {priority}"))
        .collect();
    let waiting = match waiting.is_empty() {
        true => "none".to_owned(),
        false => waiting.join(", "),
    };
    format!(
        "  flow control: saturation {}, waiting {waiting}; {:.1} sent/s, {:.1} rejected/s, {:.1} expired/s",
        share(Some(flow.saturation)),
        flow.sent,
        flow.rejected,
        flow.expired
    )
}

/// Returns the lines of all pools.
fn pool_lines(snapshot: &Snapshot) -> Vec<String> {
    let lines = snapshot.pools.iter().flat_map(|pool| {
        let flow = pool.flow.as_ref().map(flow_line);
        std::iter::once(summary(pool)).chain(flow)
    });
    lines.collect()
}

/// Draws a snapshot.
pub fn draw(frame: &mut Frame<'_>, admin: &str, snapshot: &Snapshot, sort: Column) {
    let pools = pool_lines(snapshot);
    let [head, body, foot] = Layout::vertical([
        Constraint::Length(pools.len() as u16 + 1),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let pools = pools.into_iter().map(|line| Line::styled(line, bold));
    frame.render_widget(Paragraph::new(pools.collect::<Vec<Line<'_>>>()), head);
    let rows = snapshot.endpoints.iter().map(|row| {
        let colour = match row.fresh {
            Some(fresh) if fresh >= 2.0 => Style::new(),
            Some(fresh) if fresh >= 1.0 => Style::new().fg(Color::Yellow),
            _ => Style::new().fg(Color::Red),
        };
        Cells::new(cells(row).map(Cell::from)).style(colour)
    });
    let sorted = Column::value_variants()
        .iter()
        .position(|column| *column == sort);
    let heads = HEADS.iter().enumerate().map(|(place, head)| {
        let style = if Some(place) == sorted {
            bold.add_modifier(Modifier::REVERSED)
        } else {
            bold
        };
        Cell::from(*head).style(style)
    });
    let widths = WIDTHS.iter().enumerate().map(|(place, width)| match place {
        0 => Constraint::Min(*width),
        _ => Constraint::Length(*width),
    });
    let table = Table::new(rows, widths).header(Cells::new(heads));
    frame.render_widget(table, body);
    let line = match &snapshot.error {
        Some(error) => Line::styled(error.clone(), Style::new().fg(Color::Red)),
        None => Line::from(format!(
            "{admin}   q quit   s sort by the next column   r reverse"
        )),
    };
    frame.render_widget(line, foot);
}

impl Report for Snapshot {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        for line in pool_lines(self) {
            writeln!(out, "{line}")?;
        }
        let line = |cells: [String; 8]| {
            let mut line = String::new();
            for (cell, width) in cells.iter().zip(WIDTHS) {
                line += &format!("{cell:width$} ", width = usize::from(width));
            }
            line.trim_end().to_owned()
        };
        writeln!(out, "{}", styled(STRONG, line(HEADS.map(str::to_owned))))?;
        for row in &self.endpoints {
            writeln!(out, "{}", line(cells(row)))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ratatui::backend::TestBackend;
    use ratatui::Terminal;

    use super::*;

    fn snapshot() -> Snapshot {
        Snapshot {
            pools: vec![Pool {
                pool: "llm".to_owned(),
                ready: 2.0,
                picks: 12.5,
                hit_ratio: Some(0.5),
                ..Pool::default()
            }],
            endpoints: vec![
                Row {
                    endpoint: "10.0.0.1:8000".to_owned(),
                    fresh: Some(2.0),
                    age: Some(120.0),
                    queue: Some(3.0),
                    kv: Some(0.25),
                    picks: 12.5,
                    ..Row::default()
                },
                Row {
                    endpoint: "10.0.0.2:8000".to_owned(),
                    fresh: Some(1.0),
                    ..Row::default()
                },
            ],
            error: None,
        }
    }

    #[test]
    fn the_terminal_shows_pools_endpoints_and_keys() {
        let mut terminal = Terminal::new(TestBackend::new(100, 8)).unwrap();
        let snapshot = snapshot();
        terminal
            .draw(|frame| draw(frame, "http://admin", &snapshot, Column::Queue))
            .unwrap();
        let shown = terminal.backend().to_string();
        let lines: Vec<&str> = shown.lines().collect();
        assert!(
            lines[0].contains("llm: 2 ready, 12.5 picks/s, prefix hit ratio 50.0%"),
            "{shown}"
        );
        assert!(
            lines[2].contains("ENDPOINT") && lines[2].contains("IN FLIGHT"),
            "{shown}"
        );
        let words: Vec<&str> = lines[3].trim_matches('"').split_whitespace().collect();
        assert_eq!(
            words,
            [
                "10.0.0.1:8000",
                "fresh",
                "120",
                "ms",
                "3",
                "-",
                "25.0%",
                "-",
                "12.5"
            ]
        );
        assert!(
            lines[4].contains("10.0.0.2:8000") && lines[4].contains("stale"),
            "{shown}"
        );
        assert!(lines[7].contains("q quit"), "{shown}");
        let buffer = terminal.backend().buffer();
        assert_eq!(buffer[(0, 4)].fg, Color::Yellow);
    }

    #[test]
    fn flow_control_has_a_line_below_its_pool() {
        let mut snapshot = snapshot();
        snapshot.pools[0].flow = Some(Flow {
            saturation: 1.25,
            waiting: [(10, 2.0), (-1, 30.0)].into(),
            sent: 4.0,
            expired: 0.5,
            ..Flow::default()
        });
        let mut terminal = Terminal::new(TestBackend::new(140, 9)).unwrap();
        terminal
            .draw(|frame| draw(frame, "a", &snapshot, Column::Endpoint))
            .unwrap();
        let shown = terminal.backend().to_string();
        let line = "flow control: saturation 125.0%, waiting 2 of priority 10, 30 of priority -1; 4.0 sent/s, 0.0 rejected/s, 0.5 expired/s";
        assert!(shown.contains(line), "{shown}");
        assert!(shown.contains("10.0.0.2:8000"), "{shown}");
        let mut text = Vec::new();
        snapshot.text(&mut text).unwrap();
        assert!(String::from_utf8(text).unwrap().contains(line));
    }

    #[test]
    fn the_last_line_says_why_the_refresh_failed() {
        let mut terminal = Terminal::new(TestBackend::new(60, 6)).unwrap();
        let snapshot = Snapshot {
            error: Some("connection refused".to_owned()),
            ..snapshot()
        };
        terminal
            .draw(|frame| draw(frame, "a", &snapshot, Column::Endpoint))
            .unwrap();
        assert!(terminal
            .backend()
            .to_string()
            .contains("connection refused"));
    }
}
