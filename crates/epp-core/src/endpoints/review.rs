//! Reviews of metrics pages for `eppctl metrics`: each series of the wanted families, and why it does not count if
//! it does not. Pages are read by `scan.rs`; the filter does not use this file.

use super::sample::{words, Sample};
use super::scan::{
    split_name, without_mark, Extraction, FamilyScan, Page, SeriesVerdict, Signal, WantedFamily,
};
use super::series::Exclusion;

/// A page and its wanted families.
#[derive(Debug, Clone, PartialEq)]
pub struct Review {
    /// The values of the page; `None` if it is not a page of this engine.
    pub page: Option<Page>,
    /// Whether the page ends with a line break; a page that does not was cut.
    pub whole: bool,
    /// The wanted families.
    pub families: Vec<FamilyReview>,
}

/// A wanted family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FamilyReview {
    /// The quantity that the family measures: `waiting`, `running`, `kvUsage`, `generated`, `lora`, `cacheInfo`, `blockSize`, `numBlocks` or `custom`.
    pub measures: &'static str,
    /// The family's name and the required labels.
    pub name: String,
    /// Why the whole family is not read.
    pub unread: Option<String>,
    /// The family's series, in the page's order.
    pub series: Vec<SeriesReview>,
}

/// A series on a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeriesReview {
    /// The number of the line, from 1.
    pub line: usize,
    /// The labels and the value as on the page.
    pub text: String,
    /// Why the series is left out.
    pub left_out: Option<&'static str>,
}

impl Extraction {
    /// Explains a page series by series.
    pub fn review(&self, page: &[u8]) -> Review {
        let found = self.find(page);
        let mut families: Vec<FamilyReview> = Vec::new();
        let mut current = None;
        for (wanted, found) in self.wanted.iter().zip(&found) {
            let mut family = wanted.review(found, page);
            match wanted.signal {
                Signal::KvUsage if found.lines > 0 => current = Some(&wanted.spec.name),
                Signal::OldKvUsage if found.lines > 0 && family.unread.is_none() => {
                    family.unread = current.map(|name| format!("{name} is on the page"));
                }
                _ => {}
            }
            families.push(family);
        }
        Review {
            page: self.scan(page),
            whole: page.ends_with(b"\n"),
            families,
        }
    }
}

impl WantedFamily {
    fn review(&self, found: &FamilyScan<'_>, page: &[u8]) -> FamilyReview {
        let mut family = FamilyReview {
            measures: self.signal.name(),
            name: self.spec.to_string(),
            unread: None,
            series: Vec::new(),
        };
        if found.lines == 0 {
            family.unread = Some(match self.namesake(page) {
                Some(name) => {
                    format!("not on the page, which has {name}: engineConfigs can name it")
                }
                None => "not on the page".to_owned(),
            });
        }
        for (line, text) in (1..).zip(without_mark(page).split(|byte| *byte == b'\n')) {
            let text = text.trim_ascii();
            let (name, rest) = split_name(text);
            let unread = if name == self.spec.name.as_bytes() {
                let series = self.series(found, line, rest);
                let damaged = series.is_none();
                family.series.extend(series);
                damaged.then(|| format!("line {line} is damaged"))
            } else {
                let kind = self
                    .kind(text)
                    .filter(|kind| !self.signal.is_readable(kind));
                kind.map(|kind| {
                    let kind = String::from_utf8_lossy(kind);
                    format!("line {line} declares the type {kind:?}, which is not read")
                })
            };
            // The first reason is enough.
            family.unread = family.unread.or(unread);
        }
        family
    }

    /// Returns the family's name on the page if a relay has renamed it: Ray and OpenTelemetry write `_` for `:` and
    /// put words before the name.
    fn namesake(&self, page: &[u8]) -> Option<String> {
        let renamed = self.spec.name.replace(':', "_");
        let mut names = page
            .split(|byte| *byte == b'\n')
            .map(|line| split_name(line).0);
        let found = names.find(|name| name.ends_with(renamed.as_bytes()))?;
        Some(String::from_utf8_lossy(found).into_owned())
    }

    /// Returns the type of the family if this is its type line.
    fn kind<'p>(&self, line: &'p [u8]) -> Option<&'p [u8]> {
        let comment = line.strip_prefix(b"#")?.trim_ascii_start();
        let mut words = words(comment.strip_prefix(b"TYPE")?);
        let name = words.next()?;
        (name == self.spec.name.as_bytes()).then(|| words.next().unwrap_or_default())
    }

    fn series(&self, found: &FamilyScan<'_>, line: usize, rest: &[u8]) -> Option<SeriesReview> {
        let sample = Sample::parse(rest)?;
        let left_out = match self.verdict(&sample) {
            SeriesVerdict::OtherLabels => Some("lacks the required labels"),
            SeriesVerdict::InvalidValue => Some("impossible value"),
            SeriesVerdict::Read => {
                let exclusion = found.series.exclusion(&sample, self.signal.value_labels());
                exclusion.map(|exclusion| self.describe(exclusion))
            }
        };
        Some(SeriesReview {
            line,
            text: String::from_utf8_lossy(rest.trim_ascii()).into_owned(),
            left_out,
        })
    }

    fn describe(&self, exclusion: Exclusion) -> &'static str {
        match exclusion {
            Exclusion::Repeated if matches!(self.signal, Signal::Lora) => {
                "another series of the same engine was written later"
            }
            Exclusion::Repeated => "repeats another line",
            Exclusion::OtherMeaning => {
                "differs from the series that is read in a label that does not identify an engine, rank or \
                 process"
            }
            Exclusion::TooMany => "more series than any server has",
        }
    }
}

impl Signal {
    fn name(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::KvUsage | Self::OldKvUsage => "kvUsage",
            Self::Generated => "generated",
            Self::Lora => "lora",
            Self::CacheInfo(..) => "cacheInfo",
            Self::BlockSize => "blockSize",
            Self::NumBlocks => "numBlocks",
            Self::Custom(_) => "custom",
        }
    }
}
