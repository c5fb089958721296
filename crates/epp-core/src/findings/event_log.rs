//! The log of what happens to a pool: a bounded number of lines per minute.

use std::time::Duration;

use crate::time::Instant;

/// Lines are counted over this time.
const WINDOW: Duration = Duration::from_secs(60);

/// Lines of one window: as many as an operator can read meanwhile.
const MAX_LINES: u32 = 30;

/// Lines of one window about a single endpoint. The rest is left to findings: a hundred endpoints that fail together
/// must not keep out the line that says why.
const MAX_ENDPOINT_LINES: u32 = 15;

/// The level of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Something does not work.
    Error,
    /// Something works worse than it could.
    Warning,
    /// Anything else that an operator should know.
    Info,
}

/// What a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The whole pool.
    Pool,
    /// One of its endpoints.
    Endpoint,
}

/// Counts the lines of the current window.
#[derive(Debug, Default)]
pub struct EventLog {
    /// When the window began; none before its first line.
    begun: Option<Instant>,
    written: u32,
    of_endpoints: u32,
    suppressed: u32,
}

impl EventLog {
    /// Returns whether one more line may be written now, and counts it.
    pub fn admits(&mut self, subject: Subject, now: Instant) -> bool {
        self.begun.get_or_insert(now);
        let full = match subject {
            Subject::Pool => self.written >= MAX_LINES,
            Subject::Endpoint => {
                self.written >= MAX_LINES || self.of_endpoints >= MAX_ENDPOINT_LINES
            }
        };
        if full {
            self.suppressed = self.suppressed.saturating_add(1);
            return false;
        }
        self.written += 1;
        self.of_endpoints += u32::from(subject == Subject::Endpoint);
        true
    }

    /// Ends the window if it is over. Returns how many lines it suppressed, if it did: a line of the next window says
    /// so.
    pub fn end_window(&mut self, now: Instant) -> Option<u32> {
        let over = self.begun.is_some_and(|begun| now.since(begun) >= WINDOW);
        let ended = over.then(|| std::mem::take(self))?;
        (ended.suppressed > 0).then_some(ended.suppressed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_holds_so_many_lines_and_keeps_room_for_the_pool() {
        let mut log = EventLog::default();
        let begun = Instant::default();
        let written = |log: &mut EventLog, subject, now| {
            (0..100).filter(|_| log.admits(subject, now)).count()
        };
        assert_eq!(written(&mut log, Subject::Endpoint, begun), 15);
        let later = begun.after(WINDOW / 2);
        assert_eq!(log.end_window(later), None);
        assert_eq!(written(&mut log, Subject::Pool, later), 15);
        let over = begun.after(WINDOW);
        assert_eq!(log.end_window(over), Some(170));
        assert_eq!(
            log.end_window(over.after(WINDOW)),
            None,
            "nothing was suppressed since"
        );
        assert_eq!(written(&mut log, Subject::Pool, over), 30);
    }
}
