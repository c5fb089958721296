//! Partial reads of a metrics page: only the parts in which the wanted families were found last.
//!
//! About 6 KB of vLLM's 50 KB are read, margins included; copying the rest into the VM and skipping it would be most of what
//! a page costs there. A page is read whole first, and again after every 24 partial reads, so that a family that
//! appears elsewhere is found. A page whose parts do not hold what they held at the last whole read is read
//! whole immediately. The rest of the page is not examined, not even for a cut end.

use super::scan::{Extraction, FamilyScan, FamilyState, Page};

/// Bytes read before and after a family's lines. Lines move by this much when counters elsewhere on the page
/// gain a digit or a series begins, and the line that ends a family must be seen.
const MARGIN_BYTES: usize = 512;

/// Parts that are closer than this are read as one: asking Envoy for a part costs about as much as reading this
/// many bytes.
const MERGE_GAP_BYTES: usize = 1_024;

/// Partial reads between two whole ones: five seconds at the default interval of 200 ms.
const MAX_PARTIAL_READS: u8 = 24;

/// The body of a response, of which parts can be read.
pub trait PageBody {
    /// Returns the body's length in bytes.
    fn size(&self) -> usize;
    /// Returns `length` bytes from `start` on, or as many as there are.
    fn part(&mut self, start: usize, length: usize) -> Vec<u8>;
}

impl PageBody for &[u8] {
    fn size(&self) -> usize {
        self.len()
    }

    fn part(&mut self, start: usize, length: usize) -> Vec<u8> {
        let end = start.saturating_add(length).min(self.len());
        self.get(start..end).unwrap_or_default().to_vec()
    }
}

/// The positions of the wanted families on a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageLayout {
    /// The state of each family and its number of lines, so that a series that appears, vanishes or moves
    /// is noticed.
    families: Vec<(FamilyState, usize)>,
    /// The parts to read, each from its first byte up to its end.
    parts: Vec<(usize, usize)>,
    /// The page's length in bytes.
    size: usize,
}

impl PageLayout {
    /// Returns the layout of a scanned page. Returns `None` if a family on it cannot be read, or if partial
    /// reads would save less than half of the page.
    pub fn of(found: &[FamilyScan<'_>], size: usize) -> Option<Self> {
        let families: Vec<(FamilyState, usize)> = families(found).collect();
        let present = found.iter().filter(|it| it.state != FamilyState::Absent);
        let mut spans: Vec<(usize, usize)> = present.map(|found| found.span).collect();
        spans.sort_unstable();
        let mut parts: Vec<(usize, usize)> = Vec::new();
        for (start, end) in spans {
            let start = start.saturating_sub(MARGIN_BYTES);
            let end = (end + MARGIN_BYTES).min(size);
            match parts.last_mut() {
                Some(last) if start <= last.1 + MERGE_GAP_BYTES => last.1 = last.1.max(end),
                _ => parts.push((start, end)),
            }
        }
        let sum: usize = parts.iter().map(|(start, end)| end - start).sum();
        let readable = found.iter().all(|it| it.state != FamilyState::Unreadable);
        (readable && sum <= size / 2).then_some(Self {
            families,
            parts,
            size,
        })
    }

    /// Returns whether exactly these families were found, with as many lines.
    pub fn matches(&self, found: &[FamilyScan<'_>]) -> bool {
        families(found).eq(self.families.iter().copied())
    }

    /// Returns whether a page of this size may have this layout: lines move by as much as the size changes.
    fn fits(&self, size: usize) -> bool {
        self.size.abs_diff(size) <= MARGIN_BYTES / 2
    }
}

fn families<'a>(found: &'a [FamilyScan<'_>]) -> impl Iterator<Item = (FamilyState, usize)> + 'a {
    found.iter().map(|found| (found.state, found.lines))
}

/// Reads the pages of one endpoint, one after the other.
#[derive(Debug, Default)]
pub struct PageReader {
    layout: Option<PageLayout>,
    /// The engine whose names the layout was found with.
    engine: String,
    /// Partial reads left before the next whole one.
    partial_reads_left: u8,
}

impl PageReader {
    /// Reads a page. Returns `None` if the body is not a page with any of the wanted families.
    pub fn read(&mut self, extraction: &Extraction, body: &mut dyn PageBody) -> Option<Page> {
        if let Some(page) = self.read_parts(extraction, body) {
            self.partial_reads_left -= 1;
            return Some(page);
        }
        *self = Self::default();
        let whole = body.part(0, body.size());
        let (page, layout) = extraction.scan_with_layout(&whole)?;
        self.layout = layout;
        self.engine.clone_from(&extraction.engine);
        self.partial_reads_left = MAX_PARTIAL_READS;
        Some(page)
    }

    fn read_parts(&self, extraction: &Extraction, body: &mut dyn PageBody) -> Option<Page> {
        let size = body.size();
        let layout = self.layout.as_ref();
        let allowed = self.partial_reads_left > 0 && self.engine == extraction.engine;
        let layout = layout.filter(|layout| allowed && layout.fits(size))?;
        let parts = layout.parts.iter();
        let parts = parts.map(|(start, end)| (*start, body.part(*start, end - start)));
        let parts: Vec<(usize, Vec<u8>)> = parts.collect();
        extraction.scan_parts(layout, &parts, size)
    }
}

#[cfg(test)]
#[path = "partial_page_tests.rs"]
mod tests;
