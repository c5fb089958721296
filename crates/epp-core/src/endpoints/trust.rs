//! Whether an endpoint's metrics can be trusted, and whether they show that its engine works.

use std::time::Duration;

use super::load_report::LoadReport;
use crate::scheduling::Freshness;
use crate::time::{Clock, Instant, Timestamp};

/// Good pages in a row, of an endpoint whose metrics were stale, before they are trusted again.
const GOOD_PAGES: u32 = 2;

/// The history that decides whether an endpoint's metrics are fresh.
#[derive(Debug, Clone, Copy, Default)]
pub struct Trust {
    /// The last page that was considered.
    page: Option<ReadPage>,
    /// Whether the metrics are stale, to be trusted after some good pages.
    stale: bool,
    /// Good pages since they are.
    pages: u32,
    /// Whether a page that shows work has come since freshness was updated.
    pub works: bool,
    /// When one last came, by the picker's own clock.
    pub worked_at: Option<Instant>,
    /// When the page was read that preceded the one which showed the latest work.
    pub read_before_work: Option<Instant>,
    /// The load report that has come since the last page, if one has.
    pub report: Option<Reported>,
}

/// A load report, whose values take the place of those of a page.
#[derive(Debug, Clone, Copy)]
pub struct Reported {
    /// The report.
    pub report: LoadReport,
    /// When it came.
    pub at: Timestamp,
    /// The waiting requests that the page says.
    pub waiting: Option<f64>,
    /// The KV-cache utilization that the page says.
    pub kv_usage: Option<f64>,
}

/// A page that was read.
#[derive(Debug, Clone, Copy)]
struct ReadPage {
    /// The page, by the time at which it was read ([`Condition::scraped`](super::store::Condition::scraped)).
    scraped: Timestamp,
    /// When the page was read, by the picker's own clock: a step of the wall clock makes no page older or newer.
    at: Instant,
}

impl Trust {
    /// Takes in the page that was read last. Returns whether its metrics can be trusted.
    pub fn update(&mut self, scraped: Timestamp, clock: &Clock, threshold: Duration) -> Freshness {
        let now = clock.now();
        if std::mem::take(&mut self.works) {
            self.worked_at = Some(clock.now());
            self.read_before_work = self.read_at();
        }
        let known = self.page.filter(|page| page.scraped == scraped);
        let is_new = known.is_none();
        let page = known.unwrap_or_else(|| {
            let read = now.before(clock.wall().since(scraped));
            // Where the clock was set after this page was read, the time from the former page to this one is right.
            let after = |former: ReadPage| former.at.after(scraped.since(former.scraped));
            let at = self
                .page
                .map_or(read, |former| read.max(after(former)).min(now));
            ReadPage { scraped, at }
        });
        self.page = Some(page);
        if page.at.after(threshold) < now {
            (self.stale, self.pages) = (true, 0);
        } else if self.stale {
            self.pages += u32::from(is_new);
            self.stale = self.pages < GOOD_PAGES;
        }
        match self.stale {
            true => Freshness::Stale,
            false => Freshness::Fresh,
        }
    }

    /// Returns when the page was read that was considered last.
    pub fn read_at(&self) -> Option<Instant> {
        Some(self.page?.at)
    }
}
