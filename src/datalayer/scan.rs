//! One pass over a metrics page (Prometheus text format 0.0.4), keeping only what the plan needs.
//!
//! A page comes from outside, every 200 ms from each endpoint: the pass looks at each line's name
//! and no further unless it is wanted, allocates nothing for any line, and takes no value that it
//! is not sure of:
//!
//! - A page ends in a line break; one that does not was cut, and is none (`12345` would read as
//!   `12`). That a page was cut between two lines only HTTP can tell, and Envoy does.
//! - One damaged line of a wanted family, or two announcements of it, and the family is not read.
//! - Values that cannot be (a negative count, a utilization above 1, NaN) are none.
//! - Families that were not announced as gauge or counter are none. The Endpoint Picker reads them
//!   as 0, which is a pod without load.
//!
//! Where on the page what is wanted stands changes little from time to time: `glimpse.rs` reads those
//! places alone.
//!
//! Among several series the Endpoint Picker's rule holds: the newest timestamp, of equal ones the
//! first on the page.

use memchr::{memchr3, memchr_iter};

use super::engine::EngineConfig;
use super::glimpse::Layout;
use super::sample::{words, Labels, Sample};
use super::spec::MetricSpec;
use crate::scheduling::{Lora, Metrics, Needs};

/// More adapters in one list, or a longer name, than any server has: such a series is not believed.
/// What is read here is kept, and shared with the other workers.
const MAX_ADAPTERS: usize = 4_096;
const MAX_ADAPTER_NAME: usize = 1_024;

/// What a wanted family tells.
#[derive(Debug, Clone, PartialEq)]
enum Signal {
    Waiting,
    Running,
    KvUsage,
    FormerKvUsage,
    Lora,
    /// Labels that hold tokens per block and number of blocks.
    CacheInfo(String, String),
    BlockSize,
    NumBlocks,
}

#[derive(Debug, Clone, PartialEq)]
struct Wanted {
    signal: Signal,
    spec: MetricSpec,
}

/// What to look for on the pages of one engine.
#[derive(Debug, Clone, PartialEq)]
pub struct Extraction {
    /// The engine's name.
    pub engine: String,
    wanted: Vec<Wanted>,
}

/// What a page said.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Page {
    /// The values.
    pub metrics: Metrics,
    /// Whether there was a LoRA family that could be read.
    pub lora_seen: bool,
}

/// Whether a wanted family can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Family {
    /// Not on the page so far.
    #[default]
    Absent,
    /// Announced as gauge or counter.
    Open,
    /// Of another kind, or damaged.
    Refused,
}

/// A wanted family on a page.
#[derive(Debug, Clone, Copy, Default)]
pub struct Found<'p> {
    /// Whether it can be read.
    pub family: Family,
    /// Where its lines begin on the page, and where they end.
    pub span: (usize, usize),
    /// Its best series so far.
    best: Option<Sample<'p>>,
}

impl Found<'_> {
    fn note_line(&mut self, start: usize, end: usize) {
        if self.family == Family::Absent {
            self.span.0 = start;
        }
        self.span.1 = end;
    }
}

impl Extraction {
    /// Looks for what is needed, under the engine's names. Where a page is read at all, what people
    /// ask for is read, too: queue, running requests and KV cache.
    pub fn new(engine: &EngineConfig, needs: &Needs) -> Self {
        let mut wanted = Vec::new();
        let mut want = |needed: bool, signal: Signal, spec: Option<&MetricSpec>| {
            if let (true, Some(spec)) = (needed, spec.cloned()) {
                wanted.push(Wanted { signal, spec });
            }
        };
        let any = needs.any_metric();
        want(any, Signal::Waiting, engine.queued.as_ref());
        want(any, Signal::Running, engine.running.as_ref());
        let (kv_usage, former) = (&engine.kv_usage, &engine.kv_usage_former);
        want(any, Signal::KvUsage, kv_usage.as_ref());
        want(any, Signal::FormerKvUsage, former.as_ref());
        want(needs.lora, Signal::Lora, engine.lora.as_ref());
        if let Some((spec, block_size, num_blocks)) = engine.cache_labels() {
            let signal = Signal::CacheInfo(block_size.to_owned(), num_blocks.to_owned());
            want(needs.cache_info, signal, Some(spec));
        }
        let (block_size, num_blocks) = (&engine.block_size, &engine.num_blocks);
        want(needs.cache_info, Signal::BlockSize, block_size.as_ref());
        want(needs.cache_info, Signal::NumBlocks, num_blocks.as_ref());
        Self {
            engine: engine.name.clone(),
            wanted,
        }
    }

    /// Whether nothing on any page would be read.
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Reads a page; `None` where it was cut or has nothing of what is wanted, and so is no such
    /// page.
    pub fn scan(&self, page: &[u8]) -> Option<Page> {
        self.survey(page).map(|(page, _)| page)
    }

    /// The same, and where on the page what is wanted stands, if that is worth knowing.
    pub fn survey(&self, page: &[u8]) -> Option<(Page, Option<Layout>)> {
        if !page.ends_with(b"\n") {
            return None;
        }
        let mut found = vec![Found::default(); self.wanted.len()];
        self.read_lines(page, 0, &mut found);
        let said = self.conclude(&found);
        (said != Page::default()).then(|| (said, Layout::of(&found, page.len())))
    }

    /// Reads parts of a page, given with where they begin; `None` unless what is wanted stands there
    /// just as the layout has it.
    pub fn glimpse(
        &self,
        layout: &Layout,
        parts: &[(usize, Vec<u8>)],
        size: usize,
    ) -> Option<Page> {
        let mut found = vec![Found::default(); self.wanted.len()];
        for (start, part) in parts {
            // The first line may have begun before.
            let skip = match start {
                0 => 0,
                _ => memchr::memchr(b'\n', part)? + 1,
            };
            let read = self.read_lines(part.get(skip..)?, start + skip, &mut found);
            // Where a family's last line is the last that was read, more of it may follow; what follows
            // the last line of a whole page was cut.
            let cut = start + part.len() >= size && read < size;
            let open = read < size && found.iter().any(|found| found.span.1 == read);
            if cut || open {
                return None;
            }
        }
        let said = self.conclude(&found);
        (layout.is_of(&found) && said != Page::default()).then_some(said)
    }

    /// Reads whole lines of a page that begin at `base`. Returns where the last of them ends.
    fn read_lines<'p>(&self, lines: &'p [u8], base: usize, found: &mut [Found<'p>]) -> usize {
        let mut start = 0;
        for end in memchr_iter(b'\n', lines) {
            let line = lines.get(start..end).unwrap_or_default().trim_ascii();
            let span = (base + start, base + end + 1);
            start = end + 1;
            match line.split_first() {
                None => {}
                Some((b'#', comment)) => self.note_type(comment, span, found),
                Some(_) => self.note_sample(line, span, found),
            }
        }
        base + start
    }

    /// `# TYPE name gauge`: the samples that follow count, or do not.
    fn note_type(&self, comment: &[u8], span: (usize, usize), found: &mut [Found<'_>]) {
        let Some(rest) = comment.trim_ascii_start().strip_prefix(b"TYPE") else {
            return;
        };
        let mut words = words(rest);
        let (name, kind) = (words.next(), words.next().unwrap_or_default());
        for (wanted, found) in self.wanted.iter().zip(found) {
            if name == Some(wanted.spec.name.as_bytes()) {
                let mut readable = [b"gauge".as_slice(), b"counter"].into_iter();
                let readable = readable.any(|known| kind.eq_ignore_ascii_case(known));
                found.note_line(span.0, span.1);
                found.family = match found.family {
                    Family::Absent if readable => Family::Open,
                    _ => Family::Refused,
                };
            }
        }
    }

    fn note_sample<'p>(&self, line: &'p [u8], span: (usize, usize), found: &mut [Found<'p>]) {
        let end = memchr3(b'{', b' ', b'\t', line).unwrap_or(line.len());
        let (name, rest) = line.split_at_checked(end).unwrap_or_default();
        for (wanted, found) in self.wanted.iter().zip(found) {
            if wanted.spec.name.as_bytes() == name {
                found.note_line(span.0, span.1);
                match (found.family, Sample::parse(rest)) {
                    (Family::Open, Some(sample)) => wanted.consider(sample, found),
                    _ => found.family = Family::Refused,
                }
            }
        }
    }

    fn conclude(&self, found: &[Found<'_>]) -> Page {
        let mut page = Page::default();
        let metrics = &mut page.metrics;
        let mut renamed = false;
        for (wanted, found) in self.wanted.iter().zip(found) {
            let sample = found.best.filter(|_| found.family == Family::Open);
            let value = sample.map(|sample| sample.value);
            match &wanted.signal {
                Signal::Waiting => metrics.waiting = value.and_then(count),
                Signal::Running => metrics.running = value.and_then(count),
                Signal::KvUsage => {
                    metrics.kv_usage = value.and_then(share);
                    renamed = found.family != Family::Absent;
                }
                Signal::FormerKvUsage if renamed => {}
                Signal::FormerKvUsage => metrics.kv_usage = value.and_then(share),
                Signal::BlockSize => {
                    metrics.block_size = value.and_then(whole).or(metrics.block_size);
                }
                Signal::NumBlocks => {
                    metrics.num_blocks = value.and_then(whole).or(metrics.num_blocks);
                }
                Signal::CacheInfo(block_size, num_blocks) => {
                    let number = |name| sample?.labels.get(name)?.parse().ok();
                    metrics.block_size = number(block_size).filter(|size| *size > 0);
                    metrics.num_blocks = number(num_blocks).filter(|blocks| *blocks > 0);
                }
                Signal::Lora => {
                    let lora = sample.and_then(|sample| lora(&sample.labels));
                    page.lora_seen = lora.is_some();
                    metrics.lora = lora.unwrap_or_default();
                }
            }
        }
        page
    }
}

impl Wanted {
    /// Takes a series over if it is meant and better than the best so far.
    fn consider<'p>(&self, sample: Sample<'p>, found: &mut Found<'p>) {
        let mut required = self.spec.labels.iter();
        if !required.all(|(name, value)| sample.labels.get(name).as_deref() == Some(value)) {
            return;
        }
        let better = found.best.is_none_or(|best| match self.signal {
            // The value is the time when the series was written; old series stay on the page.
            Signal::Lora => sample.value > best.value,
            _ => sample.timestamp > best.timestamp,
        });
        // NaN is no time, and nothing would ever be better.
        if better && !(self.signal == Signal::Lora && sample.value.is_nan()) {
            found.best = Some(sample);
        }
    }
}

fn lora(labels: &Labels<'_>) -> Option<Lora> {
    let max = labels.get("max_lora");
    Some(Lora {
        active: adapters(labels, "running_lora_adapters")?,
        waiting: adapters(labels, "waiting_lora_adapters")?,
        max: max.and_then(|max| max.trim().parse().ok()).unwrap_or(0),
    })
}

/// The set of adapters in a label, sorted; `None` where there are more than can be.
fn adapters(labels: &Labels<'_>, name: &str) -> Option<Vec<String>> {
    let text = labels.get(name).unwrap_or_default();
    let names = text.split(',').map(str::trim);
    let mut adapters = Vec::new();
    for name in names.filter(|name| !name.is_empty()) {
        if name.len() > MAX_ADAPTER_NAME || adapters.len() == MAX_ADAPTERS {
            return None;
        }
        adapters.push(name.to_owned());
    }
    adapters.sort_unstable();
    adapters.dedup();
    Some(adapters)
}

/// A count; a fraction of a request is none, as for the Endpoint Picker.
fn count(value: f64) -> Option<f64> {
    (value >= 0.0 && value.is_finite()).then_some(value.trunc())
}

fn share(value: f64) -> Option<f64> {
    (0.0..=1.0).contains(&value).then_some(value)
}

fn whole(value: f64) -> Option<u32> {
    let fits = value >= 1.0 && value <= f64::from(u32::MAX) && value.fract() == 0.0;
    fits.then_some(value as u32)
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "scan_damage_tests.rs"]
mod damage_tests;
