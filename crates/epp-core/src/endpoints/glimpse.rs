//! Reading a metrics page where what is wanted stood last, instead of all of it.
//!
//! Of vLLM's 50 KB some 3 are read; copying the others into the VM and passing over them is nine tenths of
//! what a page costs there. Each page is read whole first, and each 25th time again, so that a family
//! that appears elsewhere is found. Between those, a page that has not in these places what it had there
//! is read whole, too; what lies elsewhere on it, a cut end included, is not looked at.

use super::scan::{Extraction, Family, Found, Page};

/// Read before and behind a family's lines, in bytes: as far as they move when counters elsewhere on
/// the page gain a digit or a series begins, and room for the line that shows where a family ends.
const SLACK: usize = 512;

/// Places that are less apart are read in one go: asking Envoy for a part costs about as much as reading
/// so many bytes.
const NEAR: usize = 1_024;

/// Pages read in part before one is read whole again: after five seconds at the default 200 ms.
const GLIMPSES: u8 = 24;

/// An answer's body, of which parts can be had.
pub trait Body {
    /// Its bytes.
    fn size(&self) -> usize;
    /// So many of them from there on, or as many as there are.
    fn part(&mut self, start: usize, length: usize) -> Vec<u8>;
}

impl Body for &[u8] {
    fn size(&self) -> usize {
        self.len()
    }

    fn part(&mut self, start: usize, length: usize) -> Vec<u8> {
        let end = start.saturating_add(length).min(self.len());
        self.get(start..end).unwrap_or_default().to_vec()
    }
}

/// Where on a page what is wanted stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// How each family was found, and how many lines it had: a series that appears, vanishes or moves
    /// elsewhere is not passed over.
    families: Vec<(Family, usize)>,
    /// What to read: from where, and up to where.
    stretches: Vec<(usize, usize)>,
    size: usize,
}

impl Layout {
    /// That of a page of so many bytes; none where something on it cannot be read, or where reading it
    /// in parts would spare less than half.
    pub fn of(found: &[Found<'_>], size: usize) -> Option<Self> {
        let families: Vec<(Family, usize)> = families(found).collect();
        let there = found.iter().filter(|found| found.family != Family::Absent);
        let mut spans: Vec<(usize, usize)> = there.map(|found| found.span).collect();
        spans.sort_unstable();
        let mut stretches: Vec<(usize, usize)> = Vec::new();
        for (start, end) in spans {
            let (start, end) = (start.saturating_sub(SLACK), (end + SLACK).min(size));
            match stretches.last_mut() {
                Some(last) if start <= last.1 + NEAR => last.1 = last.1.max(end),
                _ => stretches.push((start, end)),
            }
        }
        let sum: usize = stretches.iter().map(|(start, end)| end - start).sum();
        let plain = found.iter().all(|found| found.family != Family::Refused);
        (plain && sum <= size / 2).then_some(Self {
            families,
            stretches,
            size,
        })
    }

    /// Whether just these families were found, with as many lines.
    pub fn is_of(&self, found: &[Found<'_>]) -> bool {
        families(found).eq(self.families.iter().copied())
    }

    /// Whether a page of so many bytes may be laid out alike: the lines move by what the size changes.
    fn suits(&self, size: usize) -> bool {
        self.size.abs_diff(size) <= SLACK / 2
    }
}

fn families<'a>(found: &'a [Found<'_>]) -> impl Iterator<Item = (Family, usize)> + 'a {
    found.iter().map(|found| (found.family, found.lines))
}

/// What is known of one endpoint's page.
#[derive(Debug, Default)]
pub struct Known {
    layout: Option<Layout>,
    /// By which engine's names it was read.
    engine: String,
    /// Pages to be read in part.
    left: u8,
}

impl Known {
    /// Reads a page; `None` where it is none.
    pub fn read(&mut self, extraction: &Extraction, body: &mut dyn Body) -> Option<Page> {
        if let Some(page) = self.glimpse(extraction, body) {
            self.left -= 1;
            return Some(page);
        }
        *self = Self::default();
        let whole = body.part(0, body.size());
        let (page, layout) = extraction.survey(&whole)?;
        self.layout = layout;
        self.engine.clone_from(&extraction.engine);
        self.left = GLIMPSES;
        Some(page)
    }

    fn glimpse(&self, extraction: &Extraction, body: &mut dyn Body) -> Option<Page> {
        let size = body.size();
        let layout = self.layout.as_ref();
        let same = self.left > 0 && self.engine == extraction.engine;
        let layout = layout.filter(|layout| same && layout.suits(size))?;
        let stretches = layout.stretches.iter();
        let parts = stretches.map(|(start, end)| (*start, body.part(*start, end - start)));
        let parts: Vec<(usize, Vec<u8>)> = parts.collect();
        extraction.glimpse(layout, &parts, size)
    }
}

#[cfg(test)]
#[path = "glimpse_tests.rs"]
mod tests;
