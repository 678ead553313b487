//! Lines that a child process prints.

use std::{
    io::{BufRead, BufReader, Read},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::Instant,
};

use super::PATIENCE;

struct Line {
    text: String,
    taken: bool,
}

#[derive(Default)]
struct State {
    lines: Vec<Line>,
    /// All lines before this one are taken.
    first: usize,
    ended: bool,
}

/// Collects the lines of a stream as they come.
#[derive(Clone, Default)]
pub struct Lines {
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl Lines {
    /// Reads a stream to its end, on a thread of its own.
    pub fn of(stream: impl Read + Send + 'static) -> Lines {
        let lines = Lines::default();
        let shared = Arc::clone(&lines.shared);
        thread::spawn(move || {
            let (state, grown) = &*shared;
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                let line = Line {
                    text: line,
                    taken: false,
                };
                state
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .lines
                    .push(line);
                grown.notify_all();
            }
            state.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
            grown.notify_all();
        });
        lines
    }

    /// Takes the first line for which `wanted` has an answer; lines that it has none for stay. `None` when it does not come.
    pub fn take<T>(&self, mut wanted: impl FnMut(&str) -> Option<T>) -> Option<T> {
        self.take_until(Instant::now() + PATIENCE, &mut wanted)
    }

    /// As [`Lines::take`], but waits only until a time.
    pub fn take_until<T>(
        &self,
        deadline: Instant,
        wanted: &mut impl FnMut(&str) -> Option<T>,
    ) -> Option<T> {
        let (state, grown) = &*self.shared;
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut seen = state.first;
        loop {
            while let Some(line) = state.lines.get_mut(seen) {
                if !line.taken
                    && let Some(answer) = wanted(&line.text)
                {
                    line.taken = true;
                    let first = state.first;
                    state.first += state.lines[first..]
                        .iter()
                        .take_while(|line| line.taken)
                        .count();
                    return Some(answer);
                }
                seen += 1;
            }
            let left = deadline
                .checked_duration_since(Instant::now())
                .filter(|_| !state.ended)?;
            state = grown
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Everything so far, taken or not.
    pub fn all(&self) -> Vec<String> {
        let state = self.shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.lines.iter().map(|line| line.text.clone()).collect()
    }
}
