//! `eppctl top`: what a running Envoy's filter sees and does, live.

mod sample;
mod view;

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use crate::output::{Misuse, Output, Verdict};
use sample::{Sample, Seen};

/// Show the endpoints of a running Envoy as its filter sees them, and what it decides, live.
///
/// Reads /stats/prometheus of Envoy's admin interface, where the filter counts. Keys: q ends, s sorts
/// by the next column, r turns the order round.
#[derive(Args)]
#[command(after_help = "Examples:
  eppctl top
  eppctl top --once --sort queue http://127.0.0.1:9901

Exit codes: 0 ended, 1 there is no filter in this Envoy, 2 it cannot be asked.")]
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
        let interval = Duration::from_secs_f64(self.interval);
        let first = self.look()?;
        if first.is_empty() {
            return Err(Misuse::new(format!(
                "{}: this Envoy has no statistics of epp-wasm; is the filter in it, has it ticked, and \
                 are stats_tags set as in envoy/envoy.yaml?",
                self.admin
            )));
        }
        if self.once {
            std::thread::sleep(interval);
            let mut seen = Seen::between(&first, &self.look()?);
            seen.sort(self.sort, false);
            output.print(&seen)?;
            return Ok(Verdict::Fine);
        }
        let mut terminal = ratatui::try_init()?;
        let ended = self.live(&mut terminal, first, interval);
        ratatui::try_restore()?;
        ended.map(|()| Verdict::Fine)
    }

    fn live(
        &self,
        terminal: &mut ratatui::DefaultTerminal,
        mut last: Sample,
        interval: Duration,
    ) -> Result<(), Misuse> {
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
                match self.look() {
                    Ok(sample) => {
                        seen = Seen::between(&last, &sample);
                        last = sample;
                    }
                    Err(misuse) => seen.trouble = Some(misuse.to_string()),
                }
            }
        }
    }

    fn look(&self) -> Result<Sample, Misuse> {
        let told = |error: &dyn std::fmt::Display| {
            Misuse::new(format!(
                "{}: {error}; give the address of Envoy's admin interface, as http://127.0.0.1:9901",
                self.admin
            ))
        };
        let base = match self.admin.contains("://") {
            true => self.admin.clone(),
            false => format!("http://{}", self.admin),
        };
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(5)))
            .build()
            .into();
        let url = format!("{}/stats/prometheus", base.trim_end_matches('/'));
        let response = agent.get(url).call();
        let mut response = response.map_err(|error| told(&error))?;
        let page = response.body_mut().with_config().limit(256 << 20);
        let page = page.read_to_string().map_err(|error| told(&error))?;
        Ok(Sample::parse(&page, Instant::now()))
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
