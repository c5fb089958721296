//! The loads: a trace that is read, or one that is generated for each seed.

use pool_sim::Trace;

use super::Simulate;
use crate::input::read_text;
use crate::output::Error;

/// Requests that one call simulates at most, in all runs together: some minutes of a release build on two cores.
const MAX_REQUESTS: usize = 10_000_000;

/// Requests of a generated trace, unless given.
const REQUESTS: usize = 10_000;

/// Requests per second of a generated trace, unless given.
const RATE: f64 = 10.0;

/// Documents of a shared-prefix trace, unless given.
const DOCUMENTS: u64 = 100;

/// Traces by seed.
pub type Traces = Vec<(u64, Trace)>;

/// What traces come from.
pub struct Source<'a> {
    settings: &'a Simulate,
    form: Form,
    /// Requests of a trace.
    requests: usize,
}

/// The names of the traces that are generated.
const MULTI_TURN: &str = "multi-turn";
const SHARED_PREFIX: &str = "shared-prefix";

enum Form {
    MultiTurn,
    SharedPrefix,
    /// A file, which is the same for all seeds.
    Read(Trace),
}

impl<'a> Source<'a> {
    /// Reads the trace, if it is to be read.
    pub fn new(settings: &'a Simulate) -> Result<Self, Error> {
        check_options(settings)?;
        let form = match settings.trace.as_str() {
            MULTI_TURN => Form::MultiTurn,
            SHARED_PREFIX => Form::SharedPrefix,
            file => Form::Read(read(file, settings.requests)?),
        };
        let requests = match &form {
            Form::Read(trace) => trace.requests.len(),
            _ => settings.requests.unwrap_or(REQUESTS),
        };
        Ok(Self {
            settings,
            form,
            requests,
        })
    }

    /// Refuses to play all traces this many times if that is too much.
    pub fn check(&self, policies: usize, runs: f64) -> Result<(), Error> {
        let (requests, seeds) = (self.requests, self.settings.seeds);
        let all = requests as f64 * runs * seeds as f64;
        if all <= MAX_REQUESTS as f64 {
            return Ok(());
        }
        Err(Error::new(format!(
            "{requests} requests, {policies} policies and {seeds} seeds are {all:.0} simulated requests; at most \
             {MAX_REQUESTS} are: set --requests, --seeds or fewer variants"
        )))
    }

    /// Returns the trace of each seed.
    pub fn traces(&self) -> Traces {
        let mut traces = self.generate(self.requests, self.settings.rate.unwrap_or(RATE));
        for (_, trace) in &mut traces {
            trace.speed_up(self.settings.speed);
        }
        traces
    }

    /// Returns the trace of each seed with so many requests per second: a generated one has this multiple of the number
    /// of requests, so that all multiples take as long.
    pub fn at_rate(&self, rate: f64, load: f64) -> Traces {
        let requests = (self.requests as f64 * load) as usize;
        // The last turns of generated conversations come ever more rarely: none of them are played.
        let mut traces = self.generate(2 * requests.max(1), rate);
        for (_, trace) in &mut traces {
            match self.form {
                Form::MultiTurn | Form::SharedPrefix => trace.requests.truncate(requests.max(1)),
                Form::Read(_) => {}
            }
            trace.speed_up(rate / trace.rate());
        }
        traces
    }

    fn generate(&self, requests: usize, rate: f64) -> Traces {
        let Simulate {
            documents,
            adapters,
            seed,
            ..
        } = *self.settings;
        let documents = documents.unwrap_or(DOCUMENTS);
        let seeds = (0..self.settings.seeds).map(|number| seed.wrapping_add(number));
        let trace = |seed| {
            let mut trace = match &self.form {
                Form::MultiTurn => Trace::multi_turn(requests, rate, seed),
                Form::SharedPrefix => Trace::shared_prefix(requests, rate, documents, seed),
                Form::Read(trace) => trace.clone(),
            };
            if adapters > 0 {
                trace.use_adapters(adapters);
            }
            (seed, trace)
        };
        seeds.map(trace).collect()
    }
}

/// Refuses options that the trace would ignore.
fn check_options(settings: &Simulate) -> Result<(), Error> {
    const GENERATED: &[&str] = &[MULTI_TURN, SHARED_PREFIX];
    let trace = settings.trace.as_str();
    let options = [
        ("--rate", settings.rate.is_some(), GENERATED),
        ("--adapters", settings.adapters > 0, GENERATED),
        (
            "--documents",
            settings.documents.is_some(),
            &[SHARED_PREFIX],
        ),
    ];
    for (option, is_given, traces) in options {
        if is_given && !traces.contains(&trace) {
            let expected = traces.join(" or ");
            let text = format!("{option}: expected --trace {expected}, found --trace {trace}");
            return Err(Error::new(text));
        }
    }
    Ok(())
}

fn read(file: &str, requests: Option<usize>) -> Result<Trace, Error> {
    let invalid = |error| Error::new(format!("{file}: {error}"));
    let text = read_text(file).map_err(|error| {
        Error::new(format!(
            "{error}; or generate a trace: {MULTI_TURN}, {SHARED_PREFIX}"
        ))
    })?;
    let mut trace = Trace::parse(&text).map_err(invalid)?;
    trace.requests.truncate(requests.unwrap_or(usize::MAX));
    Ok(trace)
}
