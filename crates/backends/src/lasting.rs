//! What of a page can be told: nothing behind the place up to which replicas have everything (`docs/adr/0010-only-what-replicas-have.md`).

use campanile_broker::{
    ids::Offset,
    store::{Changes, Page, Query, Snapshot},
};

/// What of a page tells of nothing behind `place`: all of it, or a part by which whoever asked gets further. If there is no such part, the page comes back as
/// it was, and can be passed on once more lasts.
pub fn up_to(place: Offset, query: &Query, page: Page) -> Result<Page, Page> {
    if newest(&page) <= place {
        return Ok(page);
    }
    part_up_to(place, query, &page).ok_or(page)
}

/// The last place that a page tells of.
///
/// That entries are lost is told of by no place: such a page always counts as newer than what is known.
fn newest(page: &Page) -> Offset {
    let newest = match page {
        Page::Log {
            entries, read_to, ..
        } => entries.last().map(|entry| entry.offset).max(Some(*read_to)),
        Page::Entries(found) => found.iter().map(|((_, offset), _)| *offset).max(),
        Page::Inbox { entries, .. } => entries.last().map(|entry| entry.offset),
        Page::Session(session) => session
            .as_ref()
            .map(|session| Offset(session.epoch.0).max(session.push_cursor.done)),
        Page::Changes(changes) => newest_of_changes(changes),
        Page::Snapshot(snapshot) => newest_of_snapshot(snapshot),
        // Each change of a profile is among the app's changes.
        Page::Profiles { changes, .. } => Some(*changes),
    };
    newest.unwrap_or_default()
}

fn newest_of_changes(news: &Changes) -> Option<Offset> {
    let is_lost = news.changes_lost || news.notes_lost || news.logs.iter().any(|log| log.went_back);
    let logs = news.logs.iter().filter_map(|log| log.entries.last());
    let changes = news.changes.last().map(|change| change.offset);
    let notes = news.notes.last().map(|note| note.offset);
    let all = logs.map(|entry| entry.offset).chain(changes).chain(notes);
    all.chain(is_lost.then_some(Offset(u64::MAX))).max()
}

fn newest_of_snapshot(snapshot: &Snapshot) -> Option<Offset> {
    let ends = snapshot.log_ends.iter().map(|(_, end)| *end);
    ends.chain([snapshot.changes]).max()
}

/// The part of a page that tells of nothing behind `place`, if whoever asked gets further by it.
fn part_up_to(place: Offset, query: &Query, page: &Page) -> Option<Page> {
    match (query, page) {
        (
            Query::Log { after, .. } | Query::Matching { after, .. },
            Page::Log {
                entries,
                read_to,
                gap,
            },
        ) if place > *after => {
            let entries = entries.iter().filter(|entry| entry.offset <= place);
            Some(Page::Log {
                entries: entries.cloned().collect(),
                read_to: place.min(*read_to),
                gap: *gap,
            })
        }
        (Query::Inbox { .. }, Page::Inbox { entries, lanes, .. }) => {
            let entries = entries.iter().filter(|entry| entry.offset <= place);
            let entries: Vec<_> = entries.cloned().collect();
            (!entries.is_empty()).then_some(Page::Inbox {
                entries,
                more: true,
                lanes: *lanes,
            })
        }
        _ => None,
    }
}
