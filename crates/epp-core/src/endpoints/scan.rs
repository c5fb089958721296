//! One pass over a metrics page (Prometheus text format 0.0.4), keeping only what the plan needs.
//!
//! A page comes from outside, every 200 ms from each endpoint: the pass looks at each line's name
//! and no further unless it is wanted, allocates nothing for any line, and takes no value that it
//! is not sure of:
//!
//! - A page ends in a line break; one that does not was cut, and is none (`12345` would read as
//!   `12`). That a page was cut between two lines only HTTP can tell, and Envoy does.
//! - One damaged line of a wanted family, and the family is not read.
//! - A series whose value cannot be (a negative count, NaN) is left out. A utilization above 1 is a full
//!   cache: some servers count a batch that is being admitted.
//! - A family without a type is untyped, and read. A histogram, a summary, or a load that is announced
//!   as a counter is not: a counter counts all of a server's life. The Endpoint Picker reads what is not
//!   announced as 0, which is a pod without load, and a counter as a load.
//!
//! Where on the page what is wanted stands changes little from time to time: `glimpse.rs` reads those
//! places alone. What several series of a family come to is in `series.rs`.

use memchr::{memchr3, memchr_iter};

use super::engine::{is_of_all_parts, EngineConfig};
use super::glimpse::Layout;
use super::lora;
use super::sample::{words, Sample};
use super::series::{self, Collected, IsValue};
use super::spec::MetricSpec;
use crate::scheduling::{Metrics, Needs};

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// What a wanted family tells.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Signal {
    Waiting,
    Running,
    KvUsage,
    FormerKvUsage,
    Lora,
    /// Labels that hold tokens per block and number of blocks, and whether each part of a server says
    /// the blocks of all parts.
    CacheInfo(String, String, bool),
    BlockSize,
    NumBlocks,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wanted {
    pub(super) signal: Signal,
    pub(super) spec: MetricSpec,
}

/// What to look for on the pages of one engine.
#[derive(Debug, Clone, PartialEq)]
pub struct Extraction {
    /// The engine's name.
    pub engine: String,
    pub(super) wanted: Vec<Wanted>,
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
    /// Not announced, and readable.
    Untyped,
    /// Announced as something that can be read.
    Open,
    /// Of another kind, or damaged.
    Refused,
}

/// A wanted family on a page.
#[derive(Debug, Default)]
pub struct Found<'p> {
    /// Whether it can be read.
    pub family: Family,
    /// Where its lines begin on the page, and where they end.
    pub span: (usize, usize),
    /// How many they are.
    pub lines: usize,
    /// Its series so far.
    pub(super) series: Collected<'p>,
}

impl Found<'_> {
    fn note_line(&mut self, start: usize, end: usize) {
        if self.family == Family::Absent {
            self.span.0 = start;
        }
        self.span.1 = end;
        self.lines += 1;
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
            let (block_size, num_blocks) = (block_size.to_owned(), num_blocks.to_owned());
            let signal = Signal::CacheInfo(block_size, num_blocks, is_of_all_parts(&spec.name));
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
        let found = self.look(page);
        let said = self.conclude(&found);
        (said != Page::default()).then(|| (said, Layout::of(&found, page.len())))
    }

    /// What is found on a whole page.
    pub(super) fn look<'p>(&self, page: &'p [u8]) -> Vec<Found<'p>> {
        let mut found = self.nothing();
        self.read_lines(page, 0, &mut found);
        found
    }

    /// Reads parts of a page, given with where they begin; `None` unless what is wanted stands there
    /// just as the layout has it.
    pub fn glimpse(
        &self,
        layout: &Layout,
        parts: &[(usize, Vec<u8>)],
        size: usize,
    ) -> Option<Page> {
        let mut found = self.nothing();
        for (start, part) in parts {
            // The first line may have begun before.
            let skip = match start {
                0 => 0,
                _ => memchr::memchr(b'\n', part)? + 1,
            };
            let begin = start + skip;
            let read = self.read_lines(part.get(skip..)?, begin, &mut found);
            // Where a family's first line is the first that was read, more of it may stand before.
            if begin > 0 && found.iter().any(|found| found.span.0 == begin) {
                return None;
            }
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

    fn nothing<'p>(&self) -> Vec<Found<'p>> {
        self.wanted.iter().map(|_| Found::default()).collect()
    }

    /// Reads whole lines of a page that begin at `base`. Returns where the last of them ends.
    fn read_lines<'p>(&self, lines: &'p [u8], base: usize, found: &mut [Found<'p>]) -> usize {
        let mut start = match base {
            0 => lines.len() - without_mark(lines).len(),
            _ => 0,
        };
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
                found.note_line(span.0, span.1);
                found.family = match found.family {
                    Family::Refused => Family::Refused,
                    _ if wanted.signal.readable(kind) => Family::Open,
                    _ => Family::Refused,
                };
            }
        }
    }

    fn note_sample<'p>(&self, line: &'p [u8], span: (usize, usize), found: &mut [Found<'p>]) {
        let (name, rest) = split_name(line);
        for (wanted, found) in self.wanted.iter().zip(found) {
            if wanted.spec.name.as_bytes() == name {
                found.note_line(span.0, span.1);
                match (found.family, Sample::parse(rest)) {
                    (Family::Refused, _) | (_, None) => found.family = Family::Refused,
                    (family, Some(sample)) => {
                        if family == Family::Absent {
                            found.family = Family::Untyped;
                        }
                        if wanted.judge(&sample) == Judged::Read {
                            let written = wanted.signal.written(&sample);
                            let is_value = wanted.signal.values();
                            found.series.add(sample, written, is_value);
                        }
                    }
                }
            }
        }
    }

    fn conclude(&self, found: &[Found<'_>]) -> Page {
        let mut page = Page::default();
        let metrics = &mut page.metrics;
        let mut renamed = false;
        for (wanted, found) in self.wanted.iter().zip(found) {
            let none = Collected::default();
            let series = match found.family {
                Family::Open | Family::Untyped => &found.series,
                Family::Absent | Family::Refused => &none,
            };
            let requests = || series.together(|it| count(it.value), f64::max, |a, b| a + b);
            let usage = || series.together(|it| share(it.value), f64::max, f64::max);
            match &wanted.signal {
                Signal::Waiting => metrics.waiting = requests().filter(|sum| sum.is_finite()),
                Signal::Running => metrics.running = requests().filter(|sum| sum.is_finite()),
                Signal::KvUsage => {
                    metrics.kv_usage = usage();
                    renamed = found.family != Family::Absent;
                }
                Signal::FormerKvUsage if renamed => {}
                Signal::FormerKvUsage => metrics.kv_usage = usage(),
                Signal::BlockSize => {
                    let size = series.together(|it| whole(it.value), u32::max, u32::max);
                    metrics.block_size = size.or(metrics.block_size);
                }
                Signal::NumBlocks => {
                    let blocks = |it: &Sample<'_>| whole(it.value);
                    let blocks = series.together(blocks, u32::max, u32::saturating_add);
                    metrics.num_blocks = blocks.or(metrics.num_blocks);
                }
                Signal::CacheInfo(block_size, num_blocks, of_all) => {
                    let number = |it: &Sample<'_>, name| it.labels.get(name)?.parse().ok();
                    let size = |it: &Sample<'_>| number(it, block_size).filter(|size| *size > 0);
                    let blocks = |it: &Sample<'_>| number(it, num_blocks).filter(|it| *it > 0);
                    let parts = match of_all {
                        true => u32::max,
                        false => u32::saturating_add,
                    };
                    metrics.block_size = series.together(size, u32::max, u32::max);
                    metrics.num_blocks = series.together(blocks, u32::max, parts);
                }
                Signal::Lora => {
                    let lora = lora::together(series);
                    page.lora_seen = lora.is_some();
                    metrics.lora = lora.unwrap_or_default();
                }
            }
        }
        page
    }
}

/// What a series of a wanted family is worth on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judged {
    /// It is read.
    Read,
    /// It has not the labels that the spec names.
    NotNamed,
    /// Its value cannot be.
    NoValue,
}

impl Wanted {
    /// Whether a series is meant, and has a value.
    pub(super) fn judge(&self, sample: &Sample<'_>) -> Judged {
        let mut required = self.spec.labels.iter();
        if !required.all(|(name, value)| sample.labels.get(name).as_deref() == Some(value)) {
            return Judged::NotNamed;
        }
        let sound = match self.signal {
            Signal::Waiting | Signal::Running => count(sample.value).is_some(),
            Signal::KvUsage | Signal::FormerKvUsage => share(sample.value).is_some(),
            Signal::BlockSize | Signal::NumBlocks => whole(sample.value).is_some(),
            // NaN is no time, and nothing would ever be newer.
            Signal::Lora => !sample.value.is_nan(),
            Signal::CacheInfo(..) => true,
        };
        match sound {
            true => Judged::Read,
            false => Judged::NoValue,
        }
    }
}

impl Signal {
    /// Whether a family of this type can be read.
    pub(super) fn readable(&self, kind: &[u8]) -> bool {
        let is_load = matches!(
            self,
            Self::Waiting | Self::Running | Self::KvUsage | Self::FormerKvUsage
        );
        let is = |known: &[u8]| kind.eq_ignore_ascii_case(known);
        is(b"gauge") || is(b"untyped") || is(b"unknown") || (is(b"counter") && !is_load)
    }

    /// When a series was written, among others of its family.
    fn written(&self, sample: &Sample<'_>) -> f64 {
        match self {
            // The value is the time when the series was written; old series stay on the page.
            Self::Lora => sample.value,
            _ => sample.timestamp as f64,
        }
    }

    /// The labels that hold the values of a series.
    pub(super) fn values(&self) -> IsValue {
        match self {
            Self::Lora => lora::is_value,
            // An info's labels are its values; which part it is of is no value.
            Self::CacheInfo(..) => series::tells_no_part,
            _ => |_| false,
        }
    }
}

/// A page without the byte order mark that some servers begin it with, and that is not a part of its first
/// line.
pub(super) fn without_mark(page: &[u8]) -> &[u8] {
    page.strip_prefix(BYTE_ORDER_MARK).unwrap_or(page)
}

/// The name at the head of a line, and what follows it.
pub(super) fn split_name(line: &[u8]) -> (&[u8], &[u8]) {
    let end = memchr3(b'{', b' ', b'\t', line).unwrap_or(line.len());
    line.split_at_checked(end).unwrap_or_default()
}

/// A count; a fraction of a request is none, as for the Endpoint Picker.
fn count(value: f64) -> Option<f64> {
    (value >= 0.0 && value.is_finite()).then_some(value.trunc())
}

/// A part of a cache; more than all of it is all of it.
fn share(value: f64) -> Option<f64> {
    (value >= 0.0 && value.is_finite()).then_some(value.min(1.0))
}

fn whole(value: f64) -> Option<u32> {
    let fits = value >= 1.0 && value <= f64::from(u32::MAX) && value.fract() == 0.0;
    fits.then_some(value as u32)
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "scan_series_tests.rs"]
mod series_tests;

#[cfg(test)]
#[path = "scan_damage_tests.rs"]
mod damage_tests;
