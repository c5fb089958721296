//! One pass over a metrics page (Prometheus text format 0.0.4), keeping only what the plan needs.
//!
//! A page comes from outside, every 200 ms from each endpoint: the pass looks at each line's name
//! and no further unless it is wanted, allocates nothing for the others, and takes no value that it
//! is not sure of. A last line without its line break may be cut and is not read; values that
//! cannot be (a negative count, a utilization above 1) are none; families that are no gauge or
//! counter are none (the Endpoint Picker reads them as 0).

use memchr::{memchr, memchr2};

use super::engine::EngineConfig;
use super::spec::MetricSpec;
use crate::scheduling::{Lora, Metrics, Needs};

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
    /// Whether there was a LoRA family.
    pub lora_seen: bool,
}

/// The best series of a wanted family so far.
#[derive(Debug, Clone, Copy, Default)]
struct Found<'p> {
    usable: bool,
    value: Option<f64>,
    stamp: Option<f64>,
    labels: &'p [u8],
}

impl Extraction {
    /// Looks for what is needed, under the engine's names.
    pub fn new(engine: &EngineConfig, needs: &Needs) -> Self {
        let mut wanted = Vec::new();
        let mut want = |needed: bool, signal: Signal, spec: &Option<MetricSpec>| {
            if let (true, Some(spec)) = (needed, spec.clone()) {
                wanted.push(Wanted { signal, spec });
            }
        };
        want(needs.waiting, Signal::Waiting, &engine.queued);
        want(needs.running, Signal::Running, &engine.running);
        want(needs.kv_usage, Signal::KvUsage, &engine.kv_usage);
        want(
            needs.kv_usage,
            Signal::FormerKvUsage,
            &engine.kv_usage_former,
        );
        want(needs.lora, Signal::Lora, &engine.lora);
        if let Some((spec, block_size, num_blocks)) = engine.cache_info.clone() {
            let signal = Signal::CacheInfo(block_size, num_blocks);
            want(needs.cache_info, signal, &Some(spec));
        }
        want(needs.cache_info, Signal::BlockSize, &engine.block_size);
        want(needs.cache_info, Signal::NumBlocks, &engine.num_blocks);
        Self {
            engine: engine.name.clone(),
            wanted,
        }
    }

    /// Whether nothing on any page would be read.
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Reads a page; `None` where it has nothing of what is wanted, and so is no such page.
    pub fn scan(&self, page: &[u8]) -> Option<Page> {
        let mut found = vec![Found::default(); self.wanted.len()];
        let mut rest = page;
        while let Some(end) = memchr(b'\n', rest) {
            let (line, tail) = rest.split_at(end);
            rest = tail.get(1..).unwrap_or_default();
            match line.first() {
                None => {}
                Some(b'#') => self.note_type(line, &mut found),
                Some(_) => self.note_sample(line, &mut found),
            }
        }
        let any = found
            .iter()
            .any(|found| found.usable && found.value.is_some());
        any.then(|| self.conclude(&found))
    }

    /// `# TYPE name gauge`: from here on the family's samples count, or do not.
    fn note_type(&self, line: &[u8], found: &mut [Found<'_>]) {
        let Some(rest) = line.strip_prefix(b"# TYPE ") else {
            return;
        };
        let Some(space) = memchr(b' ', rest) else {
            return;
        };
        let (name, kind) = rest.split_at(space);
        let kind = kind.trim_ascii();
        for (wanted, found) in self.wanted.iter().zip(found) {
            if wanted.spec.name.as_bytes() == name {
                found.usable = kind == b"gauge" || kind == b"counter";
            }
        }
    }

    fn note_sample<'p>(&self, line: &'p [u8], found: &mut [Found<'p>]) {
        let Some(end) = memchr2(b'{', b' ', line) else {
            return;
        };
        let (name, rest) = line.split_at(end);
        for (wanted, found) in self.wanted.iter().zip(found) {
            if found.usable && wanted.spec.name.as_bytes() == name {
                note_series(wanted, rest, found);
            }
        }
    }

    fn conclude(&self, found: &[Found<'_>]) -> Page {
        let mut page = Page::default();
        let metrics = &mut page.metrics;
        let mut former = None;
        for (wanted, found) in self.wanted.iter().zip(found) {
            let value = found.value;
            match &wanted.signal {
                Signal::Waiting => metrics.waiting = value.filter(|count| is_count(*count)),
                Signal::Running => metrics.running = value.filter(|count| is_count(*count)),
                Signal::KvUsage => metrics.kv_usage = value.filter(|usage| is_share(*usage)),
                Signal::FormerKvUsage => former = value.filter(|usage| is_share(*usage)),
                Signal::BlockSize => metrics.block_size = value.and_then(whole),
                Signal::NumBlocks => metrics.num_blocks = value.and_then(whole),
                Signal::CacheInfo(block_size, num_blocks) => {
                    let number = |name| label(found.labels, name)?.parse().ok();
                    metrics.block_size = number(block_size).filter(|size| *size > 0);
                    metrics.num_blocks = number(num_blocks).filter(|blocks| *blocks > 0);
                }
                Signal::Lora => {
                    page.lora_seen = value.is_some();
                    metrics.lora = lora(found.labels);
                }
            }
        }
        metrics.kv_usage = metrics.kv_usage.or(former);
        page
    }
}

/// Takes a series over if it is the better one: the newest sample of a family, the first of equal
/// ones; of LoRA series the one with the largest value, which is the time it was written.
fn note_series<'p>(wanted: &Wanted, rest: &'p [u8], found: &mut Found<'p>) {
    let Some((labels, rest)) = split_labels(rest) else {
        return;
    };
    let mut words = rest
        .split(|byte| *byte == b' ')
        .filter(|word| !word.is_empty());
    let Some(value) = words.next().and_then(number) else {
        return;
    };
    let stamp = match words.next() {
        None => None,
        Some(word) => match number(word) {
            Some(stamp) => Some(stamp),
            None => return,
        },
    };
    let mut required = wanted.spec.labels.iter();
    if !required.all(|(name, value)| label(labels, name).as_deref() == Some(value)) {
        return;
    }
    let better = match (&wanted.signal, found.value) {
        (_, None) => true,
        (Signal::Lora, Some(best)) => value > best,
        (_, Some(_)) => stamp > found.stamp,
    };
    if better {
        found.value = Some(value);
        found.stamp = stamp;
        found.labels = labels;
    }
}

/// Splits `{labels} value` into the text between the braces and what follows.
fn split_labels(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let Some(inside) = rest.strip_prefix(b"{") else {
        return Some((b"", rest));
    };
    let mut position = 0;
    let mut quoted = false;
    loop {
        match inside.get(position)? {
            b'\\' if quoted => position += 1,
            b'"' => quoted = !quoted,
            b'}' if !quoted => {
                let (labels, rest) = inside.split_at(position);
                return Some((labels, rest.get(1..)?));
            }
            _ => {}
        }
        position += 1;
    }
}

/// The value of a label, unescaped.
fn label(labels: &[u8], name: &str) -> Option<String> {
    let mut rest = labels;
    loop {
        let equals = memchr(b'=', rest)?;
        let (key, tail) = rest.split_at(equals);
        let mut value = tail.strip_prefix(b"=\"")?;
        let own = key.trim_ascii() == name.as_bytes();
        let mut text = Vec::new();
        loop {
            let (byte, tail) = value.split_first()?;
            value = tail;
            match byte {
                b'"' => break,
                b'\\' => {
                    let (escaped, tail) = value.split_first()?;
                    value = tail;
                    text.push(if *escaped == b'n' { b'\n' } else { *escaped });
                }
                byte => text.push(*byte),
            }
        }
        if own {
            return String::from_utf8(text).ok();
        }
        rest = value.strip_prefix(b",").unwrap_or(value);
    }
}

fn lora(labels: &[u8]) -> Lora {
    let adapters = |name| {
        let text = label(labels, name).unwrap_or_default();
        let names = text
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty());
        names.map(str::to_owned).collect()
    };
    let max = label(labels, "max_lora").and_then(|max| max.trim().parse().ok());
    Lora {
        active: adapters("running_lora_adapters"),
        waiting: adapters("waiting_lora_adapters"),
        max: max.unwrap_or(0),
    }
}

fn number(word: &[u8]) -> Option<f64> {
    std::str::from_utf8(word.trim_ascii()).ok()?.parse().ok()
}

fn is_count(value: f64) -> bool {
    value >= 0.0 && value.is_finite()
}

fn is_share(value: f64) -> bool {
    (0.0..=1.0).contains(&value)
}

fn whole(value: f64) -> Option<u32> {
    let fits = value >= 1.0 && value <= f64::from(u32::MAX) && value.fract() == 0.0;
    fits.then_some(value as u32)
}
