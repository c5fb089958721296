//! One pass over a metrics page (Prometheus text format 0.0.4) that keeps only what the plan needs.
//!
//! Pages come from outside, every 200 ms from each endpoint. The pass therefore looks only at each line's name
//! unless the family is wanted, allocates nothing per line, and takes no doubtful value:
//!
//! - A page ends in a line break; a page that does not was cut, and is rejected (`12345` would read as `12`).
//!   Only HTTP can show that a page was cut between two lines, and Envoy checks that.
//! - A family with one damaged line is not read.
//! - A series with an impossible value (a negative count, NaN) is left out. A utilization above 1 means a full
//!   cache: some servers count a batch that is being admitted.
//! - A family without a type is untyped, and read. A histogram, a summary, or a load announced as a counter is
//!   not read, since a counter counts all of a server's life. The Endpoint Picker reads a family of another type
//!   as 0, which looks like an idle pod, and a counter as a load.
//!
//! The wanted families move little from page to page: `partial_page.rs` reads only their parts of the page.
//! `series.rs` merges the several series of a family.

use memchr::{memchr3, memchr_iter};

use super::engine::{reports_all_parts, EngineConfig, SGLANG};
use super::lora;
use super::partial_page::PageLayout;
use super::sample::{words, Sample};
use super::series::{self, IsValue, SeriesSet};
use super::spec::MetricSpec;
use crate::scheduling::{AttributeId, Metrics, Needs, MAX_MODEL_BYTES};

/// The greatest magnitude of a custom attribute. Numbers beyond are no measurement: the range between two of them
/// may be infinite, and all others would be the same to a scorer.
const MAX_CUSTOM: f64 = 1e15;

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// The quantity that a wanted family measures.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Signal {
    Waiting,
    Running,
    KvUsage,
    OldKvUsage,
    Generated,
    Lora,
    /// The names of the labels that hold the tokens per block and the number of blocks, and whether each part of
    /// a server reports the blocks of all parts.
    CacheInfo(String, String, bool),
    BlockSize,
    NumBlocks,
    /// A custom attribute.
    Custom(AttributeId),
}

/// A family to look for, and its meaning.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct WantedFamily {
    pub(super) signal: Signal,
    pub(super) spec: MetricSpec,
}

/// The families to look for on the pages of one engine.
#[derive(Debug, Clone, PartialEq)]
pub struct Extraction {
    /// The engine's name.
    pub engine: String,
    pub(super) wanted: Vec<WantedFamily>,
}

/// The values of a page.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Page {
    /// The metrics.
    pub metrics: Metrics,
    /// Whether the page has a readable LoRA family.
    pub lora_seen: bool,
}

impl Page {
    /// Returns whether the page has a value that was asked for. What the engine has generated says nothing of its load.
    fn has_any(&self) -> bool {
        let generated = self.metrics.generated;
        *self
            != Self {
                metrics: Metrics {
                    generated,
                    ..Metrics::default()
                },
                lora_seen: false,
            }
    }
}

/// The state of a wanted family on a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FamilyState {
    /// Not seen on the page so far.
    #[default]
    Absent,
    /// Readable, and without a type line.
    Untyped,
    /// Readable, with a type line.
    Typed,
    /// The family is damaged, or of a type that is not read.
    Unreadable,
}

/// A wanted family as found on a page.
#[derive(Debug, Default)]
pub struct FamilyScan<'p> {
    /// Whether the family is readable.
    pub state: FamilyState,
    /// The range of the family's lines on the page.
    pub span: (usize, usize),
    /// Number of the family's lines.
    pub lines: usize,
    /// The family's series so far.
    pub(super) series: SeriesSet<'p>,
}

impl FamilyScan<'_> {
    fn add_line(&mut self, start: usize, end: usize) {
        if self.state == FamilyState::Absent {
            self.span.0 = start;
        }
        self.span.1 = end;
        self.lines += 1;
    }
}

impl Extraction {
    /// Selects the families that are needed, under the engine's names. Where pages are read at all, the values
    /// that people ask for are read too: queue, running requests and KV cache.
    pub fn new(engine: &EngineConfig, needs: &Needs) -> Self {
        let mut wanted = Vec::new();
        let mut want = |needed: bool, signal: Signal, spec: Option<&MetricSpec>| {
            if let (true, Some(spec)) = (needed, spec.cloned()) {
                wanted.push(WantedFamily { signal, spec });
            }
        };
        let any = needs.any_metric();
        want(any, Signal::Waiting, engine.queued.as_ref());
        want(any, Signal::Running, engine.running.as_ref());
        let (kv_usage, old_kv_usage) = (&engine.kv_usage, &engine.old_kv_usage);
        want(any, Signal::KvUsage, kv_usage.as_ref());
        want(any, Signal::OldKvUsage, old_kv_usage.as_ref());
        want(any, Signal::Generated, engine.generated().as_ref());
        want(needs.lora, Signal::Lora, engine.lora.as_ref());
        if let Some((spec, block_size, num_blocks)) = engine.cache_labels() {
            let (block_size, num_blocks) = (block_size.to_owned(), num_blocks.to_owned());
            let signal = Signal::CacheInfo(block_size, num_blocks, reports_all_parts(&spec.name));
            want(needs.cache_info, signal, Some(spec));
        }
        let (block_size, num_blocks) = (&engine.block_size, &engine.num_blocks);
        want(needs.cache_info, Signal::BlockSize, block_size.as_ref());
        want(needs.cache_info, Signal::NumBlocks, num_blocks.as_ref());
        for (name, spec) in &engine.custom {
            let signal = Signal::Custom(AttributeId::of(name));
            want(needs.attributes, signal, Some(spec));
        }
        Self {
            engine: engine.name.clone(),
            wanted,
        }
    }

    /// Returns whether SGLang's `/v1/loads` says all that is wanted of measurements.
    pub fn loads_suffice(&self) -> bool {
        let is_missing =
            |wanted: &WantedFamily| matches!(wanted.signal, Signal::Lora | Signal::Custom(_));
        self.engine == SGLANG && !self.wanted.iter().any(is_missing)
    }

    /// Returns whether no family is wanted.
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Reads a page. Returns `None` if the page was cut or has no value of a wanted family.
    pub fn scan(&self, page: &[u8]) -> Option<Page> {
        self.scan_with_layout(page).map(|(page, _)| page)
    }

    /// Reads a page as [`Self::scan`] does. Also returns the layout of the page if it is worth partial reads.
    pub fn scan_with_layout(&self, page: &[u8]) -> Option<(Page, Option<PageLayout>)> {
        if !page.ends_with(b"\n") {
            return None;
        }
        let found = self.find(page);
        let values = self.values(&found);
        values
            .has_any()
            .then(|| (values, PageLayout::of(&found, page.len())))
    }

    /// Finds the wanted families on a whole page.
    pub(super) fn find<'p>(&self, page: &'p [u8]) -> Vec<FamilyScan<'p>> {
        let mut found = self.no_families();
        self.read_lines(page, 0, &mut found);
        found
    }

    /// Reads parts of a page, each given with its offset. Returns `None` unless the wanted families stand there
    /// as in the layout.
    pub fn scan_parts(
        &self,
        layout: &PageLayout,
        parts: &[(usize, Vec<u8>)],
        size: usize,
    ) -> Option<Page> {
        let mut found = self.no_families();
        for (start, part) in parts {
            // The part may begin in the middle of a line.
            let skip = match start {
                0 => 0,
                _ => memchr::memchr(b'\n', part)? + 1,
            };
            let begin = start + skip;
            let read = self.read_lines(part.get(skip..)?, begin, &mut found);
            // If a family begins with the first line of the part, more of it may stand before.
            if begin > 0 && found.iter().any(|found| found.span.0 == begin) {
                return None;
            }
            // If a family ends with the last line of the part, more of it may follow. Bytes after the last line
            // of the page mean that the page was cut.
            let cut = start + part.len() >= size && read < size;
            let open = read < size && found.iter().any(|found| found.span.1 == read);
            if cut || open {
                return None;
            }
        }
        let page = self.values(&found);
        (layout.matches(&found) && page.has_any()).then_some(page)
    }

    fn no_families<'p>(&self) -> Vec<FamilyScan<'p>> {
        self.wanted.iter().map(|_| FamilyScan::default()).collect()
    }

    /// Reads whole lines of a page from offset `base` on. Returns where the last of them ends.
    fn read_lines<'p>(&self, lines: &'p [u8], base: usize, found: &mut [FamilyScan<'p>]) -> usize {
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
                Some((b'#', comment)) => self.read_type(comment, span, found),
                Some(_) => self.read_sample(line, span, found),
            }
        }
        base + start
    }

    /// Reads `# TYPE name gauge`, which decides whether the family is readable.
    fn read_type(&self, comment: &[u8], span: (usize, usize), found: &mut [FamilyScan<'_>]) {
        let Some(rest) = comment.trim_ascii_start().strip_prefix(b"TYPE") else {
            return;
        };
        let mut words = words(rest);
        let (name, kind) = (words.next(), words.next().unwrap_or_default());
        for (wanted, found) in self.wanted.iter().zip(found) {
            if name == Some(wanted.spec.name.as_bytes()) {
                found.add_line(span.0, span.1);
                found.state = match found.state {
                    FamilyState::Unreadable => FamilyState::Unreadable,
                    _ if wanted.signal.is_readable(kind) => FamilyState::Typed,
                    _ => FamilyState::Unreadable,
                };
            }
        }
    }

    fn read_sample<'p>(&self, line: &'p [u8], span: (usize, usize), found: &mut [FamilyScan<'p>]) {
        let (name, rest) = split_name(line);
        for (wanted, found) in self.wanted.iter().zip(found) {
            if wanted.spec.name.as_bytes() == name {
                found.add_line(span.0, span.1);
                match (found.state, Sample::parse(rest)) {
                    (FamilyState::Unreadable, _) | (_, None) => {
                        found.state = FamilyState::Unreadable
                    }
                    (family, Some(sample)) => {
                        if family == FamilyState::Absent {
                            found.state = FamilyState::Untyped;
                        }
                        if wanted.verdict(&sample) == SeriesVerdict::Read {
                            let written = wanted.signal.written_at(&sample);
                            let is_value = wanted.signal.value_labels();
                            found.series.add(sample, written, is_value);
                        }
                    }
                }
            }
        }
    }

    /// Merges the series of each family into the values of the page.
    fn values(&self, found: &[FamilyScan<'_>]) -> Page {
        let mut page = Page::default();
        let metrics = &mut page.metrics;
        let mut has_new_name = false;
        for (wanted, found) in self.wanted.iter().zip(found) {
            let none = SeriesSet::default();
            let series = match found.state {
                FamilyState::Typed | FamilyState::Untyped => &found.series,
                FamilyState::Absent | FamilyState::Unreadable => &none,
            };
            let requests = || series.merge(|it| count(it.value), f64::max, |a, b| a + b);
            let usage = || series.merge(|it| share(it.value), f64::max, f64::max);
            match &wanted.signal {
                Signal::Waiting => {
                    metrics.waiting = requests().filter(|sum| sum.is_finite());
                    metrics.several_series = metrics.waiting.is_some() && series.has_several();
                    let model = series.merge(model, |one, _| one, |one, _| one);
                    metrics.model = model.filter(|_| metrics.waiting.is_some());
                }
                Signal::Running => metrics.running = requests().filter(|sum| sum.is_finite()),
                Signal::Generated => metrics.generated = requests().filter(|sum| sum.is_finite()),
                Signal::KvUsage => {
                    metrics.kv_usage = usage();
                    has_new_name = found.state != FamilyState::Absent;
                }
                Signal::OldKvUsage if has_new_name => {}
                Signal::OldKvUsage => metrics.kv_usage = usage(),
                Signal::BlockSize => {
                    let size = series.merge(|it| whole(it.value), u32::max, u32::max);
                    metrics.block_size = size.or(metrics.block_size);
                }
                Signal::NumBlocks => {
                    let blocks = |it: &Sample<'_>| whole(it.value);
                    let blocks = series.merge(blocks, u32::max, u32::saturating_add);
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
                    metrics.block_size = series.merge(size, u32::max, u32::max);
                    metrics.num_blocks = series.merge(blocks, u32::max, parts);
                }
                Signal::Custom(id) => {
                    // Whether it adds up is not known.
                    let number =
                        |it: &Sample<'_>| Some(it.value).filter(|it| it.abs() <= MAX_CUSTOM);
                    let value = series.merge(number, f64::max, f64::max);
                    metrics.attributes.extend(value.map(|value| (*id, value)));
                }
                Signal::Lora => {
                    let lora = lora::merge_parts(series);
                    page.lora_seen = lora.is_some();
                    metrics.lora = lora.unwrap_or_default();
                }
            }
        }
        page
    }
}

/// The verdict on a series of a wanted family, regardless of other series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SeriesVerdict {
    /// The series is read.
    Read,
    /// The series lacks labels that the spec names.
    OtherLabels,
    /// The value is impossible.
    InvalidValue,
}

impl WantedFamily {
    /// Returns whether a series is read.
    pub(super) fn verdict(&self, sample: &Sample<'_>) -> SeriesVerdict {
        let mut required = self.spec.labels.iter();
        if !required.all(|(name, value)| sample.labels.get(name).as_deref() == Some(value)) {
            return SeriesVerdict::OtherLabels;
        }
        let sound = match self.signal {
            Signal::Waiting | Signal::Running | Signal::Generated => count(sample.value).is_some(),
            Signal::KvUsage | Signal::OldKvUsage => share(sample.value).is_some(),
            Signal::BlockSize | Signal::NumBlocks => whole(sample.value).is_some(),
            // Nothing would be newer than the time NaN.
            Signal::Lora => !sample.value.is_nan(),
            Signal::Custom(_) => sample.value.is_finite(),
            Signal::CacheInfo(..) => true,
        };
        match sound {
            true => SeriesVerdict::Read,
            false => SeriesVerdict::InvalidValue,
        }
    }
}

impl Signal {
    /// Returns whether a family of this type is readable.
    pub(super) fn is_readable(&self, kind: &[u8]) -> bool {
        let is_load = matches!(
            self,
            Self::Waiting | Self::Running | Self::KvUsage | Self::OldKvUsage
        );
        let is = |known: &[u8]| kind.eq_ignore_ascii_case(known);
        is(b"gauge") || is(b"untyped") || is(b"unknown") || (is(b"counter") && !is_load)
    }

    /// Returns when a series was written, in a unit that all series of the family share.
    fn written_at(&self, sample: &Sample<'_>) -> f64 {
        match self {
            // The value is the time when the series was written; old series stay on the page.
            Self::Lora => sample.value,
            _ => sample.timestamp.unwrap_or(0) as f64,
        }
    }

    /// Returns which labels hold the values of a series and so do not identify it.
    pub(super) fn value_labels(&self) -> IsValue {
        match self {
            Self::Lora => lora::is_value,
            // The labels of an info series are its values, except those that identify the part of the server.
            Self::CacheInfo(..) => series::is_meaning,
            _ => |_| false,
        }
    }
}

/// Returns a page without the byte order mark with which some servers begin it.
pub(super) fn without_mark(page: &[u8]) -> &[u8] {
    page.strip_prefix(BYTE_ORDER_MARK).unwrap_or(page)
}

/// Splits a line behind the name with which it begins.
pub(super) fn split_name(line: &[u8]) -> (&[u8], &[u8]) {
    let end = memchr3(b'{', b' ', b'\t', line).unwrap_or(line.len());
    line.split_at_checked(end).unwrap_or_default()
}

/// Returns the model that a series is about, as vLLM and SGLang write it, if it may get statistics of its own.
fn model(sample: &Sample<'_>) -> Option<String> {
    let model = sample.labels.get("model_name")?;
    (model.len() <= MAX_MODEL_BYTES).then(|| model.into_owned())
}

/// Returns a value as a count, if it can be one. Fractions are cut off, as in the Endpoint Picker.
pub(super) fn count(value: f64) -> Option<f64> {
    (value >= 0.0 && value.is_finite()).then_some(value.trunc())
}

/// Returns a value as a share of a cache, if it can be one. More than all of it counts as all.
pub(super) fn share(value: f64) -> Option<f64> {
    (value >= 0.0 && value.is_finite()).then_some(value.min(1.0))
}

/// Returns a value as a positive whole number, if it is one.
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
