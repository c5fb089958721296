//! The log of what happens to a pool: a bounded number of lines per minute.

use std::time::Duration;

use crate::time::Instant;

/// Lines are counted over this time.
const WINDOW: Duration = Duration::from_secs(60);

/// Lines of one window for each [`Subject`]: together, as many as an operator can read meanwhile.
const MAX_LINES: [u32; 4] = [10, 8, 6, 6];

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

/// What a line is about. Each subject has lines of its own: what clients bring about does not keep out what an operator
/// has to know of the configuration, and a hundred endpoints that fail together do not keep out why they do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The whole pool: its configuration, its members, the worker that polls.
    Pool,
    /// The health or the metrics of one of its endpoints.
    Endpoint,
    /// What requests show, and what clients can bring about with them.
    Requests,
    /// The ejection of an endpoint, which requests can bring about.
    Ejection,
}

/// Counts the lines of the current window.
#[derive(Debug, Default)]
pub struct EventLog {
    /// When the window began; none before its first line.
    begun: Option<Instant>,
    /// Lines by subject.
    written: [u32; 4],
    suppressed: u32,
}

impl EventLog {
    /// Returns whether one more line may be written now, and counts it.
    pub fn admits(&mut self, subject: Subject, now: Instant) -> bool {
        self.begun.get_or_insert(now);
        let subject = subject as usize;
        let lines = self.written.get_mut(subject).zip(MAX_LINES.get(subject));
        let admitted = lines.filter(|(written, most)| **written < **most);
        match admitted {
            Some((written, _)) => *written += 1,
            None => {
                self.suppressed = self.suppressed.saturating_add(1);
                return false;
            }
        }
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
    fn each_subject_has_lines_of_its_own_in_a_window() {
        let mut log = EventLog::default();
        let begun = Instant::default();
        let written = |log: &mut EventLog, subject, now| {
            (0..100).filter(|_| log.admits(subject, now)).count()
        };
        assert_eq!(written(&mut log, Subject::Requests, begun), 6);
        assert_eq!(written(&mut log, Subject::Ejection, begun), 6);
        assert_eq!(written(&mut log, Subject::Endpoint, begun), 8);
        let later = begun.after(WINDOW / 2);
        assert_eq!(log.end_window(later), None);
        assert_eq!(written(&mut log, Subject::Pool, later), 10);
        let over = begun.after(WINDOW);
        assert_eq!(log.end_window(over), Some(370));
        assert_eq!(
            log.end_window(over.after(WINDOW)),
            None,
            "nothing was suppressed since"
        );
        assert_eq!(written(&mut log, Subject::Pool, over), 10);
    }
}
