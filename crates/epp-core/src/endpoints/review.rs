//! A page as `eppctl metrics` shows it: what each series of the wanted families is, whether it counts, and
//! why not. Reading itself is `scan.rs`; nothing here is a part of the filter's work.

use super::sample::{words, Sample};
use super::scan::{split_name, without_mark, Extraction, Found, Judged, Page, Signal, Wanted};
use super::series::Passed;

/// A page, family by family.
#[derive(Debug, Clone, PartialEq)]
pub struct Review {
    /// What is read of it; `None` where it does not count as a page of this engine.
    pub page: Option<Page>,
    /// Whether it ends where a line ends; a page that does not was cut.
    pub whole: bool,
    /// The families that are looked for.
    pub families: Vec<Family>,
}

/// A family that is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Family {
    /// What it tells: `waiting`, `running`, `kvUsage`, `lora`, `cacheInfo`, `blockSize` or `numBlocks`.
    pub tells: &'static str,
    /// Its name, with the labels that are asked for.
    pub name: String,
    /// Why none of it is read.
    pub unread: Option<String>,
    /// Its series, in the page's order.
    pub series: Vec<Series>,
}

/// A series on a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Series {
    /// The number of its line, from 1.
    pub line: usize,
    /// Its labels and its value, as they stand there.
    pub text: String,
    /// Why it is left out.
    pub left_out: Option<&'static str>,
}

impl Extraction {
    /// Looks at a page series by series.
    pub fn review(&self, page: &[u8]) -> Review {
        let found = self.look(page);
        let mut families: Vec<Family> = Vec::new();
        let mut renamed = None;
        for (wanted, found) in self.wanted.iter().zip(&found) {
            let mut family = wanted.review(found, page);
            match wanted.signal {
                Signal::KvUsage if found.lines > 0 => renamed = Some(&wanted.spec.name),
                Signal::FormerKvUsage if found.lines > 0 && family.unread.is_none() => {
                    family.unread = renamed.map(|name| format!("{name} is on the page"));
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

impl Wanted {
    fn review(&self, found: &Found<'_>, page: &[u8]) -> Family {
        let mut family = Family {
            tells: self.signal.name(),
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
                let told = self.series(found, line, rest);
                let damaged = told.is_none();
                family.series.extend(told);
                damaged.then(|| format!("line {line} is damaged"))
            } else {
                let kind = self.kind(text).filter(|kind| !self.signal.readable(kind));
                kind.map(|kind| {
                    let kind = String::from_utf8_lossy(kind);
                    format!("line {line} announces it as {kind:?}, which is not read here")
                })
            };
            // The first reason is enough.
            family.unread = family.unread.or(unread);
        }
        family
    }

    /// A family that a relay has renamed: Ray and OpenTelemetry write `_` for `:`, and put words before it.
    fn namesake(&self, page: &[u8]) -> Option<String> {
        let renamed = self.spec.name.replace(':', "_");
        let mut names = page
            .split(|byte| *byte == b'\n')
            .map(|line| split_name(line).0);
        let found = names.find(|name| name.ends_with(renamed.as_bytes()))?;
        Some(String::from_utf8_lossy(found).into_owned())
    }

    /// What a line announces the family as.
    fn kind<'p>(&self, line: &'p [u8]) -> Option<&'p [u8]> {
        let comment = line.strip_prefix(b"#")?.trim_ascii_start();
        let mut words = words(comment.strip_prefix(b"TYPE")?);
        let name = words.next()?;
        (name == self.spec.name.as_bytes()).then(|| words.next().unwrap_or_default())
    }

    fn series(&self, found: &Found<'_>, line: usize, rest: &[u8]) -> Option<Series> {
        let sample = Sample::parse(rest)?;
        let left_out = match self.judge(&sample) {
            Judged::NotNamed => Some("not the labels that are asked for"),
            Judged::NoValue => Some("its value cannot be"),
            Judged::Read => {
                let passed = found.series.passed(&sample, self.signal.values());
                passed.map(|passed| self.why(passed))
            }
        };
        Some(Series {
            line,
            text: String::from_utf8_lossy(rest.trim_ascii()).into_owned(),
            left_out,
        })
    }

    fn why(&self, passed: Passed) -> &'static str {
        match passed {
            Passed::Again if matches!(self.signal, Signal::Lora) => {
                "another series of the same engine was written later"
            }
            Passed::Again => "says again what another line says",
            Passed::OtherMeaning => {
                "differs from the series that is read in a label that does not tell engines, ranks or \
                 processes apart"
            }
            Passed::TooMany => "more series than any server has",
        }
    }
}

impl Signal {
    fn name(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::KvUsage | Self::FormerKvUsage => "kvUsage",
            Self::Lora => "lora",
            Self::CacheInfo(..) => "cacheInfo",
            Self::BlockSize => "blockSize",
            Self::NumBlocks => "numBlocks",
        }
    }
}
