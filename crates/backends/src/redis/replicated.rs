//! What the replicas are known to have.
//!
//! One number per app says it, since all places of an app come from one sequence, and replicas have what they have in the order in which it was written.
//! It holds for one run of a server and all that become primaries after it, and not for one that was cut off: hence the name of the run beside it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use campanile_broker::ids::Offset;

/// What replicas were seen to have, by tag.
#[derive(Debug, Default)]
pub struct Replicated(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    tags: HashMap<Arc<str>, Known>,
    /// How often a tag has changed its primary.
    moves: u64,
    followers: HashMap<Arc<str>, Followers>,
}

/// How many replicas follow a run of a server.
#[derive(Debug)]
struct Followers {
    count: u32,
    /// When it was last asked whether there are more.
    looked: Instant,
}

/// How often a server is asked whether more replicas follow it.
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Known {
    /// The run of the server that replicas followed when they were last waited for; `None`: nobody can say which of two was the later.
    run: Option<Arc<str>>,
    place: Offset,
    /// [`State::moves`] when that run was first seen.
    since: u64,
}

/// Before a question to a server: what is answered is no news if another server has answered since.
#[derive(Clone, Copy, Debug)]
pub struct Moment(u64);

impl Replicated {
    /// To be taken before servers are asked.
    pub fn moment(&self) -> Moment {
        Moment(self.state().moves)
    }

    /// Replicas have all of a tag up to a place that a run of a server held.
    pub fn note(&self, tag: &Arc<str>, run: &Arc<str>, place: Offset, asked: Moment) {
        let mut state = self.state();
        let moves = state.moves + 1;
        let known = state.tags.entry(tag.clone()).or_default();
        if known.run.as_ref() == Some(run) {
            known.place = known.place.max(place);
            return;
        }
        let is_news = known.since <= asked.0;
        *known = Known {
            run: is_news.then(|| run.clone()),
            place: if is_news { place } else { Offset(0) },
            since: moves,
        };
        state.moves = moves;
    }

    /// Up to where replicas have what this run of a server holds of a tag. `None`: not known, or it was another one that replicas followed last.
    pub fn place(&self, tag: &str, run: &str) -> Option<Offset> {
        let state = self.state();
        let known = state.tags.get(tag)?;
        (known.run.as_deref() == Some(run)).then_some(known.place)
    }

    /// How many replicas were seen to follow a run of a server; `None`: it is new.
    pub fn followers(&self, run: &str) -> Option<u32> {
        Some(self.state().followers.get(run)?.count)
    }

    /// So many replicas follow a run of a server now.
    pub fn set_followers(&self, run: &Arc<str>, count: u32) {
        let mut state = self.state();
        let new = || Followers {
            count,
            looked: Instant::now(),
        };
        state.followers.entry(run.clone()).or_insert_with(new).count = count;
    }

    /// Whether it is time to ask a run of a server if there are more, which it then is not for a while.
    pub fn is_to_look(&self, run: &str) -> bool {
        let mut state = self.state();
        let Some(followers) = state.followers.get_mut(run) else {
            return false;
        };
        let is_due = followers.looked.elapsed() >= LOOK_EVERY;
        if is_due {
            followers.looked = Instant::now();
        }
        is_due
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> (Replicated, Arc<str>, [Arc<str>; 3]) {
        let runs = ["one", "two", "three"].map(Arc::from);
        (Replicated::default(), "app".into(), runs)
    }

    #[test]
    fn a_place_is_of_the_run_that_was_noted_last() {
        let (replicated, app, [one, two, _]) = known();
        assert_eq!(replicated.place(&app, &one), None);
        replicated.note(&app, &one, Offset(7), replicated.moment());
        replicated.note(&app, &one, Offset(5), replicated.moment());
        assert_eq!(replicated.place(&app, &one), Some(Offset(7)));
        assert_eq!(replicated.place("other", &one), None);
        replicated.note(&app, &two, Offset(6), replicated.moment());
        assert_eq!(replicated.place(&app, &one), None);
        assert_eq!(replicated.place(&app, &two), Some(Offset(6)));
    }

    #[test]
    fn an_answer_that_another_has_overtaken_leaves_nothing_known() {
        let (replicated, app, [one, two, three]) = known();
        replicated.note(&app, &one, Offset(7), replicated.moment());
        let asked = replicated.moment();
        replicated.note(&app, &two, Offset(8), replicated.moment());
        replicated.note(&app, &one, Offset(9), asked);
        for run in [&one, &two] {
            assert_eq!(replicated.place(&app, run), None);
        }
        // Of another tag it is none of that.
        replicated.note(&"other".into(), &one, Offset(1), asked);
        assert_eq!(replicated.place("other", &one), Some(Offset(1)));
        replicated.note(&app, &three, Offset(10), replicated.moment());
        assert_eq!(replicated.place(&app, &three), Some(Offset(10)));
    }
}
