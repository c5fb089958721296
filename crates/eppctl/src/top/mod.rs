//! `eppctl top`: a live view of a running Envoy's filter.

mod snapshot;
mod view;

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use crate::admin::statistics::Sample;
use crate::admin::{self, Admin};
use crate::output::{Error, ExitStatus, Output};
use snapshot::Snapshot;

/// Show the endpoints and decisions of a running Envoy's filter, live.
///
/// Reads /stats/prometheus of Envoy's admin interface, or of a listener that exposes it. A dash marks
/// an unknown value, such as the queue of an endpoint of which no metrics page was read. Keys: q quits,
/// s sorts by the next column, r reverses the order.
#[derive(Args)]
#[command(after_help = "Examples:
  eppctl top
  eppctl top --once --sort queue http://127.0.0.1:9901

Exit status: 0 quit, 2 Envoy cannot be reached or has no filter.")]
pub struct Top {
    /// Envoy's admin interface: http://HOST:PORT, HOST:PORT, unix:PATH, or the path of a socket.
    #[arg(default_value = admin::DEFAULT, value_name = "ADMIN-URL")]
    admin: Admin,
    /// Print one table and exit; rates are measured over one interval.
    #[arg(long)]
    once: bool,
    /// Seconds between refreshes. The filter updates its gauges once a second.
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    interval: f64,
    /// The column to sort endpoints by.
    #[arg(long, value_enum, default_value_t = Column::Endpoint)]
    sort: Column,
}

/// A column to sort endpoints by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Column {
    /// The address.
    Endpoint,
    /// Freshness of its metrics.
    Fresh,
    /// Age of its metrics.
    Age,
    /// Waiting requests.
    Queue,
    /// Running requests.
    Running,
    /// KV-cache utilization.
    Kv,
    /// Requests from this Envoy that are still in flight.
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
    /// Prints once, or refreshes until the user quits.
    pub fn run(&self, output: &mut Output) -> Result<ExitStatus, Error> {
        if !self.once && !std::io::stdout().is_terminal() {
            return Err(Error::new(
                "the live view needs a terminal: --once prints it once",
            ));
        }
        let first = self.admin.statistics()?;
        if self.once {
            std::thread::sleep(Duration::from_secs_f64(self.interval));
            let mut snapshot = Snapshot::between(&first, &self.admin.statistics()?);
            snapshot.sort(self.sort, false);
            output.print(&snapshot)?;
            return Ok(ExitStatus::Ok);
        }
        let mut terminal = ratatui::try_init()?;
        let ended = self.live(&mut terminal, first);
        ratatui::try_restore()?;
        ended.map(|()| ExitStatus::Ok)
    }

    fn live(&self, terminal: &mut ratatui::DefaultTerminal, mut last: Sample) -> Result<(), Error> {
        let interval = Duration::from_secs_f64(self.interval);
        let (mut sort, mut reverse) = (self.sort, false);
        let mut snapshot = Snapshot::between(&last, &last);
        let mut due = Instant::now() + interval;
        let address = self.admin.to_string();
        loop {
            snapshot.sort(sort, reverse);
            terminal.draw(|frame| view::draw(frame, &address, &snapshot, sort))?;
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
                match self.admin.statistics() {
                    Ok(sample) => {
                        snapshot = Snapshot::between(&last, &sample);
                        last = sample;
                    }
                    Err(error) => snapshot.error = Some(error.to_string()),
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
