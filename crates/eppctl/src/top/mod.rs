//! `eppctl top`: what a running Envoy's filter sees and does, live.

mod seen;
mod view;

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use crate::admin::statistics::Sample;
use crate::admin::Admin;
use crate::output::{Misuse, Output, Verdict};
use seen::Seen;

/// Show the endpoints of a running Envoy as its filter sees them, and what it decides, live.
///
/// Reads /stats/prometheus of Envoy's admin interface, or of a listener that passes this on. A dash
/// stands for what no plugin of the plan reads. Keys: q ends, s sorts by the next column, r turns the
/// order round.
#[derive(Args)]
#[command(after_help = "Examples:
  eppctl top
  eppctl top --once --sort queue http://127.0.0.1:9901

Exit codes: 0 ended, 2 it cannot be asked, or has no filter.")]
pub struct Top {
    /// Envoy's admin interface.
    #[arg(default_value = "http://127.0.0.1:9901", value_name = "ADMIN-URL")]
    admin: String,
    /// Print one table and end; rates are those of one interval.
    #[arg(long)]
    once: bool,
    /// Seconds between two looks. The filter sets its gauges once a second.
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    interval: f64,
    /// By which column endpoints are sorted.
    #[arg(long, value_enum, default_value_t = Column::Endpoint)]
    sort: Column,
}

/// What endpoints can be sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Column {
    /// The address.
    Endpoint,
    /// Whether its metrics can be trusted.
    Fresh,
    /// How old they are.
    Age,
    /// Waiting requests.
    Queue,
    /// Running requests.
    Running,
    /// KV-cache utilization.
    Kv,
    /// Requests that this Envoy sent and that are not answered.
    InFlight,
    /// Picks per second.
    Picks,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected 0.1 to 3600".to_owned()),
    }
}

impl Top {
    /// Prints once, or until the user has seen enough.
    pub fn run(&self, output: &mut Output) -> Result<Verdict, Misuse> {
        let admin = Admin::at(&self.admin);
        let first = admin.statistics()?;
        if self.once {
            std::thread::sleep(Duration::from_secs_f64(self.interval));
            let mut seen = Seen::between(&first, &admin.statistics()?);
            seen.sort(self.sort, false);
            output.print(&seen)?;
            return Ok(Verdict::Fine);
        }
        let mut terminal = ratatui::try_init()?;
        let ended = self.live(&mut terminal, &admin, first);
        ratatui::try_restore()?;
        ended.map(|()| Verdict::Fine)
    }

    fn live(
        &self,
        terminal: &mut ratatui::DefaultTerminal,
        admin: &Admin,
        mut last: Sample,
    ) -> Result<(), Misuse> {
        let interval = Duration::from_secs_f64(self.interval);
        let (mut sort, mut reverse) = (self.sort, false);
        let mut seen = Seen::between(&last, &last);
        let mut due = Instant::now() + interval;
        loop {
            seen.sort(sort, reverse);
            terminal.draw(|frame| view::draw(frame, &self.admin, &seen, sort))?;
            if event::poll(due.saturating_duration_since(Instant::now()))? {
                match event::read()? {
                    Event::Key(key) if key.kind == KeyEventKind::Press => match key.code {
                        KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                            return Ok(())
                        }
                        KeyCode::Char('s') => sort = sort.next(),
                        KeyCode::Char('r') => reverse = !reverse,
                        _ => {}
                    },
                    _ => {}
                }
            }
            if Instant::now() >= due {
                due = Instant::now() + interval;
                match admin.statistics() {
                    Ok(sample) => {
                        seen = Seen::between(&last, &sample);
                        last = sample;
                    }
                    Err(misuse) => seen.trouble = Some(misuse.to_string()),
                }
            }
        }
    }
}

impl Column {
    fn next(self) -> Self {
        let all = Self::value_variants();
        let place = all.iter().position(|column| *column == self);
        let next = place.and_then(|place| all.get(place + 1));
        next.copied().unwrap_or(Self::Endpoint)
    }
}
