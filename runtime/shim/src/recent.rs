//! The last messages of the log, kept for operators who ask.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Bytes of messages that are kept.
const KEPT: usize = 64 << 10;
/// Warnings and errors that are kept apart, so that chatter does not push them out.
const KEPT_ERRORS: usize = 16;
/// The levels of those, as slog-json writes them. Inside a value the quotes would have backslashes.
const ERROR_LEVELS: [&str; 3] = ["\"level\":\"WARN\"", "\"level\":\"ERRO\"", "\"level\":\"CRIT\""];

/// The last lines of JSON. Clones share them.
#[derive(Debug, Clone)]
pub struct Recent {
    /// Held for a copy only.
    lines: Arc<Mutex<Lines>>,
    /// The number of the next line.
    next: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Lines {
    kept: VecDeque<String>,
    bytes: usize,
    /// The number of the first line that is kept.
    first: u64,
    errors: VecDeque<String>,
}

impl Default for Recent {
    fn default() -> Self {
        Self { lines: Arc::default(), next: watch::Sender::new(0) }
    }
}

impl Recent {
    /// Adds a line.
    pub fn add(&self, line: &str) {
        let mut lines = self.lock();
        if ERROR_LEVELS.iter().any(|level| line.contains(level)) {
            if lines.errors.len() == KEPT_ERRORS {
                lines.errors.pop_front();
            }
            lines.errors.push_back(line.to_owned());
        }
        lines.bytes += line.len();
        lines.kept.push_back(line.to_owned());
        while lines.bytes > KEPT
            && let Some(oldest) = lines.kept.pop_front()
        {
            lines.bytes -= oldest.len();
            lines.first += 1;
        }
        drop(lines);
        self.next.send_modify(|next| *next += 1);
    }

    /// What is kept of the lines from a number on, and the number of the next one.
    pub fn from(&self, number: u64) -> (String, u64) {
        let lines = self.lock();
        let skipped = usize::try_from(number.saturating_sub(lines.first)).unwrap_or(usize::MAX);
        let next = lines.first.saturating_add(lines.kept.len().try_into().unwrap_or(u64::MAX));
        (lines.kept.iter().skip(skipped).map(String::as_str).collect(), next)
    }

    /// Returns when there is a line with this number.
    pub async fn reached(&self, number: u64) {
        let _ = self.next.subscribe().wait_for(|next| *next > number).await;
    }

    /// The last warnings and errors.
    pub fn errors(&self) -> Vec<String> {
        self.lock().errors.iter().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_lines_go_and_errors_stay_longer() {
        let recent = Recent::default();
        recent.add("{\"msg\":\"bad\",\"level\":\"WARN\"}\n");
        recent.add("{\"msg\":\"\\\"level\\\":\\\"WARN\\\"\",\"level\":\"INFO\"}\n");
        let line = format!("{}\n", "x".repeat(1023));
        for _ in 0..100 {
            recent.add(&line);
        }
        let (text, next) = recent.from(0);
        assert_eq!((text.len(), next), (KEPT, 102));
        assert_eq!(recent.from(101), (line, 102));
        assert_eq!(recent.from(102), (String::new(), 102));
        assert_eq!(recent.errors(), ["{\"msg\":\"bad\",\"level\":\"WARN\"}\n"]);
    }

    #[tokio::test]
    async fn who_waits_for_a_line_is_woken() {
        let recent = Recent::default();
        let waiting = tokio::spawn({
            let recent = recent.clone();
            async move { recent.reached(0).await }
        });
        tokio::task::yield_now().await;
        recent.add("line\n");
        waiting.await.unwrap();
    }
}
