//! What every backend must do, as tests.
//!
//! A backend's own tests say how to open it ([`Place`]) and expand [`conformance_tests!`](crate::conformance_tests), which makes one
//! test of each behaviour of a store of a node alone, or [`shared_conformance_tests!`](crate::shared_conformance_tests), for one that nodes share.

pub mod audiences;
pub mod away;
pub mod campaigns;
pub mod changes;
pub mod cohorts;
pub mod connections;
pub mod erasure;
pub mod events;
pub mod inboxes;
pub mod lanes;
pub mod logs;
pub mod mailboxes;
pub mod pushes;
pub mod receipts;
pub mod recovery;
pub mod rows;
pub mod sessions;
pub mod voids;
pub mod wills;

use std::sync::Arc;

use bytes::Bytes;
use campanile_broker::store::{QoS, RetainHandling, SubscriptionOptions};
use campanile_broker::{
    ids::{AppId, ClientKey, Epoch, Generation, MessageId, Millis, Offset},
    lane::{Lane, LaneSet},
    message::{Kind, Message},
    store::{
        Change, Changes, ChangesQuery, Claim, Claimed, Command, Cursor, InboxEntry, InboxItem,
        LogEntry, LogKind, Notice, Outcome, Page, Progress, Publish, Query, Recovery, Release,
        SessionState, StoreError, StoredSubscription, Subscribe, Swept, Voided, Will,
    },
};
use campanile_push::{
    app::AppName,
    explanation::AtDevice,
    id::PushId,
    lanes::Priority,
    store::{self as push, Accept, Audience, Report},
};

use crate::{Backend, Committed, Config, Reply, Request};

/// Makes one `#[test]` of each behaviour of a store of a node alone. `$place` makes a new, empty [`Place`](crate::suite::Place).
#[macro_export]
macro_rules! conformance_tests {
    ($place:expr) => {
        $crate::behaviour_tests! { $crate::suite::World::new($place);
            recovery {
                sessions_are_recovered
                ends_of_logs_are_recovered
                retained_messages_are_recovered
                wills_of_the_last_run_are_recovered
                an_owed_will_is_kept_until_it_is_published
            }
        }
        $crate::common_tests! { $crate::suite::World::new($place) }
    };
}

/// Makes one `#[test]` of each behaviour of a store that nodes share. `$place` makes a new, empty [`Place`](crate::suite::Place); it is opened
/// with [`Config::shared`](crate::Config::shared).
///
/// Places and epochs need but rise, and the store's clock may be any: the tests begin at one of 1,000 seconds.
#[macro_export]
macro_rules! shared_conformance_tests {
    ($place:expr) => {
        $crate::behaviour_tests! { $crate::suite::World::shared($place);
            connections {
                a_claim_by_another_node_fences_the_first
                a_claim_names_the_connection_that_it_takes_over
                a_restamped_connection_is_that_of_the_new_generation
                a_restamp_of_an_old_epoch_is_fenced
                a_number_is_given_again_once_nobody_reports_under_it
                what_a_lost_node_reports_is_of_its_client
                a_restamped_session_is_connected_again
                a_stored_session_is_read_as_it_is
                an_inbox_notice_names_the_node_of_the_connection
                connections_outlive_the_store
            }
            voids {
                a_void_lets_sessions_begin_to_expire
                a_void_ends_what_ends_with_the_connection
                a_void_concerns_one_generation
                a_void_is_bounded_and_may_be_repeated
                a_void_gives_out_the_wills
                a_will_of_a_lost_connection_is_published_once_or_averted
                a_will_that_nobody_publishes_is_handed_out
                a_will_that_a_claim_gave_out_is_handed_out
                a_released_will_is_handed_out
                wills_are_handed_out_within_the_bound
                a_profile_is_announced_to_a_node_that_was_given_up
                a_profile_is_announced_to_a_node_that_was_given_up_without_a_session
            }
            mailboxes {
                notes_wait_for_the_node_of_a_connection
                notes_that_are_known_are_removed
                a_note_tells_the_lane
                a_claim_leaves_word_for_the_node_that_had_the_client
                a_hand_over_comes_before_the_owner_has_saved_anything
                a_full_mailbox_forgets_the_oldest
                a_void_removes_the_mailbox
            }
            changes {
                changes_are_read_in_order
                a_page_of_changes_is_bounded
                forgotten_changes_are_missed_loudly
                a_filter_is_announced_with_its_first_and_its_last_session
                members_of_shared_subscriptions_are_announced
                a_snapshot_is_what_the_changes_say
                a_commit_names_the_requests_that_wait_for_changes
                a_refused_request_announces_nothing
                news_of_logs_are_read_in_order
                an_entry_with_an_audience_names_the_change_before_it
            }
        }
        $crate::common_tests! { $crate::suite::World::shared($place) }
    };
}

/// The behaviours of every store.
#[doc(hidden)]
#[macro_export]
macro_rules! common_tests {
    ($world:expr) => {
        $crate::behaviour_tests! { $world;
            erasure {
                nothing_of_an_erased_app_is_left
                an_app_of_an_erased_name_begins_anew
                an_erasure_leaves_other_apps_alone
                connections_of_an_erased_app_are_fenced
            }
            sessions {
                a_new_client_has_no_session
                a_durable_session_goes_on_where_it_was
                a_session_survives_a_restart
                a_clean_start_ends_the_session
                an_expired_session_is_absent
                an_expired_session_is_swept_once
                a_session_without_expiry_ends_with_its_connection
                a_resumed_session_may_end_with_its_connection
                every_claim_raises_the_epoch
                an_old_epoch_is_fenced
                a_refused_request_does_not_disturb_the_batch
                devices_keep_their_numbers
                connections_of_the_last_run_begin_to_expire_at_recovery
                many_subscriptions_are_changed_one_by_one
                long_client_ids_and_filters_are_kept_apart
            }
            wills {
                a_will_waits_for_its_delay
                a_will_without_a_delay_is_owed_whatever_the_clock_says
                a_will_is_owed_when_the_session_ends
                a_spent_will_is_published_once
                a_dropped_will_is_gone
            }
            logs {
                a_log_is_read_in_order
                a_log_page_is_bounded
                a_log_is_read_by_filter
                logs_are_kept_apart
                offsets_never_repeat
                an_old_entry_is_trimmed_and_leaves_a_gap
                a_log_is_bounded_in_bytes
                a_qos_2_publish_is_stored_once
                a_retained_message_is_replaced_and_removed
                a_retained_message_expires
            }
            inboxes {
                an_inbox_is_read_in_order
                an_inbox_page_is_bounded
                messages_to_nobody_are_dropped
                a_full_inbox_drops_the_oldest
                an_inbox_is_bounded_in_bytes
                pushes_survive_a_clean_start_and_publishes_do_not
                pushes_survive_an_ephemeral_session_and_publishes_do_not
                an_expired_inbox_message_is_swept
                retained_messages_come_with_the_subscription
            }
            lanes {
                a_push_waits_in_its_lane
                a_notice_names_the_entry_before_it_in_its_lane
                a_full_inbox_drops_the_least_urgent
                a_push_takes_the_place_of_one_of_the_same_key
                a_late_receipt_beats_a_collapse
                a_key_is_forgotten_with_its_entry
                a_push_for_now_replaces_nothing
                pushes_of_one_commit_replace_each_other
            }
            pushes {
                a_push_waits_for_a_device_that_was_never_seen
                a_push_to_several_devices_is_delivered_to_each
                a_push_to_all_is_one_log_entry
                a_new_device_does_not_get_old_pushes_to_all
                a_device_keeps_its_place_in_the_push_log
                pushes_and_publishes_are_in_order_of_acceptance
                a_push_without_time_to_live_is_announced_and_not_stored
                a_push_of_the_same_id_is_accepted_once
                an_idempotency_key_makes_a_retry_harmless
                what_an_app_keeps_is_counted_until_it_is_gone
                an_expired_push_is_forgotten_in_steps
                a_sweep_is_bounded
            }
            audiences {
                a_push_to_an_audience_is_one_log_entry
                devices_of_an_audience_are_counted_later
                a_receipt_from_outside_the_audience_counts
                an_audience_may_span_chunks
                a_push_to_an_audience_may_be_for_now_only
                a_push_to_an_audience_is_repeated_without_harm
                a_push_to_an_audience_is_forgotten
                a_push_to_others_has_no_devices_added
                a_stranger_has_no_profile
                a_claim_brings_the_profile
                a_profile_is_announced_while_its_device_is_connected
            }
            campaigns {
                a_campaign_is_accepted_with_its_row
                a_campaign_is_refused_with_its_rows
                all_nodes_are_told_of_campaigns
                a_device_remembers_campaigns
                a_claim_says_whether_the_device_begins
                an_exchange_of_a_campaign_is_kept
                what_a_device_will_not_get_is_counted
            }
            receipts {
                receipts_are_counted_once
                receipts_of_a_fenced_session_count
                receipts_from_strangers_do_not_count
                the_numbers_add_up_when_the_inbox_overflows
                a_late_receipt_beats_a_drop
                unacknowledged_pushes_expire
                reports_survive_a_restart
                what_a_device_tells_is_counted_once
                receipts_are_counted_over_time
                what_is_shown_was_delivered
                strangers_have_nothing_to_tell
                a_device_outside_the_audience_may_tell
                a_device_may_acknowledge_and_tell_in_one_commit
                what_nobody_understands_changes_nothing
                what_was_told_is_forgotten_with_the_push
                a_push_is_known_at_each_device
                a_push_is_known_at_a_device_without_a_session
                a_push_to_one_device_may_have_every_mark
                an_audience_is_known_at_each_device
                a_set_may_span_chunks
            }
            away {
                what_waits_for_a_device_that_is_away_is_counted
                only_a_kept_session_makes_a_device_away
                it_is_known_since_when_a_device_is_away
                what_is_behind_a_cursor_is_counted_up_to_a_bound
            }
            events {
                what_happens_is_written_down_while_somebody_listens
                a_device_tells_once_in_the_event_log_too
                events_tell_what_became_of_a_push_at_its_devices
                why_a_device_will_not_get_a_push_is_told
                strangers_make_no_events
                connections_are_told_of
                an_app_without_listeners_costs_nothing
                a_full_event_log_forgets_the_oldest_loudly
                old_events_are_swept_loudly
                who_listens_anew_is_told_of_the_gap
                a_change_tells_in_its_own_commit
                the_past_is_read_newest_first
                a_push_whose_end_is_to_be_told_is_open
                pushes_are_listed_newest_first
            }
            rows {
                a_row_is_written_if_it_is_what_was_read
                a_change_is_of_one_piece
                scopes_and_tables_are_kept_apart
                rows_are_read_by_page
                a_page_of_rows_is_bounded
                a_row_may_expire
                a_table_may_be_full
                a_registered_device_keeps_its_number
                only_a_number_that_is_kept_is_given_out
                a_removed_device_keeps_its_session
            }
            cohorts {
                cohorts_are_sets_of_registered_devices
                only_registered_devices_are_in_cohorts
                a_large_cohort_is_not_read
                a_registered_device_is_found_by_its_number
                sessions_are_counted
            }
        }
    };
}

/// One test for each behaviour of some modules of the suite.
#[doc(hidden)]
#[macro_export]
macro_rules! behaviour_tests {
    ($world:expr; $($module:ident { $($name:ident)* })*) => {
        $(mod $module {
            #[allow(unused_imports)]
            use super::*;
            $(#[test]
            fn $name() {
                $crate::suite::$module::$name(&mut $world);
            })*
        })*
    };
}

/// Where a backend keeps its state.
pub trait Place {
    /// Opens the backend: with what the one before left, after that was closed or dropped.
    fn open(&mut self, config: Config) -> Box<dyn Backend>;
}

/// Texts as the ports have them.
pub fn texts<const N: usize>(texts: [&str; N]) -> Vec<Arc<str>> {
    texts.into_iter().map(Arc::from).collect()
}

/// The app that the tests use.
pub const APP: &str = "app";

/// A backend under test, with the words that the tests are written in.
pub struct World {
    place: Box<dyn Place>,
    backend: Option<Box<dyn Backend>>,
    /// The backend's bounds; in effect after [`restart`](World::restart).
    pub config: Config,
    /// The present time.
    pub now: Millis,
    /// The node that claims come from.
    pub node: Generation,
    /// What was announced since the last [`take_notices`](World::take_notices).
    pub notices: Vec<Notice>,
    /// Of the last commit: [`Committed::changed`].
    pub changed: Vec<(usize, AppId, Offset)>,
    /// What the last restart recovered.
    pub recovery: Recovery,
    last_id: u128,
}

impl World {
    /// A world with an empty backend of a node alone.
    pub fn new(place: impl Place + 'static) -> World {
        World::with_node(place, Generation::ALONE)
    }

    /// A world with an empty backend that nodes share.
    pub fn shared(place: impl Place + 'static) -> World {
        World::with_node(place, Generation(0x1001))
    }

    fn with_node(place: impl Place + 'static, node: Generation) -> World {
        let mut world = World {
            place: Box::new(place),
            backend: None,
            config: Config {
                shared: node != Generation::ALONE,
                ..Config::default()
            },
            now: Millis(1_000_000),
            node,
            notices: Vec::new(),
            changed: Vec::new(),
            recovery: Recovery::default(),
            last_id: 0,
        };
        world.restart();
        world
    }

    /// The node crashes: drops the backend as a crash would, opens it again, and gives the connections up.
    pub fn restart(&mut self) {
        self.reopen();
        if self.config.shared {
            assert_eq!(self.recovery, Recovery::default());
            self.void(self.node);
        }
    }

    /// Drops the backend as a crash would, and opens it again.
    pub fn reopen(&mut self) {
        self.backend = None;
        let mut backend = self.place.open(self.config.clone());
        self.recovery = backend.recover(self.now).expect("the backend recovers");
        self.backend = Some(backend);
    }

    /// Lets time pass.
    pub fn pass_seconds(&mut self, seconds: u32) {
        self.now = self.now.plus_seconds(seconds);
    }

    /// The backend.
    pub fn backend(&mut self) -> &mut dyn Backend {
        self.backend.as_deref_mut().expect("open between restarts")
    }

    /// Carries out a batch.
    pub fn commit(&mut self, batch: Vec<Request>) -> Vec<Result<Reply, StoreError>> {
        let count = batch.len();
        let Committed {
            replies,
            notices,
            changed,
            ..
        } = self.backend().commit(batch);
        assert_eq!(replies.len(), count);
        self.changed = changed;
        self.notices.extend(notices);
        replies
    }

    /// Carries out one command.
    pub fn run(&mut self, command: Command) -> Result<Outcome, StoreError> {
        match self.commit(vec![Request::Broker(command)]).remove(0)? {
            Reply::Broker(outcome) => Ok(outcome),
            Reply::Push(outcome) => panic!("an answer of the push domain: {outcome:?}"),
        }
    }

    /// Carries out one command that must succeed.
    pub fn done(&mut self, command: Command) {
        assert_eq!(self.run(command), Ok(Outcome::Done));
    }

    /// Carries out one command of the push domain.
    pub fn run_push(&mut self, command: push::Command) -> push::Outcome {
        match self.commit(vec![Request::Push(command)]).remove(0) {
            Ok(Reply::Push(outcome)) => outcome,
            other => panic!("no answer of the push domain: {other:?}"),
        }
    }

    /// What was announced since the last call.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// What changed since the last call, all of the tests' app; nothing else was announced.
    pub fn take_changes(&mut self) -> Vec<Change> {
        let change = |notice| match notice {
            Notice::Change { app, change, .. } if app.as_str() == APP => change,
            other => panic!("no change: {other:?}"),
        };
        self.take_notices().into_iter().map(change).collect()
    }

    /// A new message id.
    pub fn next_id(&mut self) -> MessageId {
        self.last_id += 1;
        MessageId(self.last_id)
    }

    /// Claims a session.
    pub fn claim(&mut self, client_id: &str, expiry_seconds: u32) -> Claimed {
        self.claim_with(client_id, |claim| claim.expiry_seconds = expiry_seconds)
    }

    /// Claims a session with a changed claim.
    pub fn claim_with(&mut self, client_id: &str, change: impl FnOnce(&mut Claim)) -> Claimed {
        let mut claim = Claim {
            client: client(client_id),
            owner: self.node,
            now: self.now,
            clean_start: false,
            expiry_seconds: 0,
            will: None,
        };
        change(&mut claim);
        match self.run(Command::Claim(claim)) {
            Ok(Outcome::Claimed(claimed)) => *claimed,
            other => panic!("no claim: {other:?}"),
        }
    }

    /// Claims a session through a node.
    pub fn claim_by(&mut self, node: Generation, client_id: &str, expiry_seconds: u32) -> Claimed {
        self.claim_with(client_id, |claim| {
            (claim.owner, claim.expiry_seconds) = (node, expiry_seconds);
        })
    }

    /// A node has another generation now.
    pub fn restamp(
        &mut self,
        client_id: &str,
        claimed: &Claimed,
        generation: Generation,
    ) -> Result<Outcome, StoreError> {
        self.run(Command::Restamp {
            client: client(client_id),
            epoch: claimed.epoch,
            generation,
        })
    }

    /// Gives all connections of a node up.
    pub fn void(&mut self, generation: Generation) -> Voided {
        self.void_some(generation, 10_000)
    }

    /// Gives some connections of a node up.
    pub fn void_some(&mut self, generation: Generation, limit: u32) -> Voided {
        match self.run(Command::Void {
            generation,
            now: self.now,
            limit,
        }) {
            Ok(Outcome::Voided(voided)) => voided,
            other => panic!("nothing voided: {other:?}"),
        }
    }

    /// Subscribes to filters.
    pub fn subscribe(&mut self, client_id: &str, epoch: Epoch, filters: &[&str]) {
        let add = filters.iter().map(|filter| subscription(filter)).collect();
        let client = client(client_id);
        self.done(Command::Subscribe(Subscribe {
            client,
            epoch,
            add,
            remove: vec![],
            inbox: vec![],
        }));
    }

    /// Saves progress.
    pub fn progress(
        &mut self,
        client_id: &str,
        claimed: &Claimed,
        change: impl FnOnce(&mut Progress),
    ) -> Result<Outcome, StoreError> {
        let mut progress = progress(client_id, claimed);
        change(&mut progress);
        self.run(Command::Progress(progress))
    }

    /// Releases a session that then expires after `expiry_seconds`; 0 ends it, `u32::MAX` is never.
    pub fn release(&mut self, client_id: &str, claimed: &Claimed, expiry_seconds: u32) {
        let expires_at =
            (expiry_seconds != u32::MAX).then(|| self.now.plus_seconds(expiry_seconds));
        let release = Release {
            progress: progress(client_id, claimed),
            expires_at,
            now: self.now,
            will_at: None,
        };
        self.done(Command::Release(release));
    }

    /// Removes what has expired, in one go.
    pub fn sweep(&mut self) -> Swept {
        self.sweep_some(u32::MAX)
    }

    /// Removes some of what has expired.
    pub fn sweep_some(&mut self, limit: u32) -> Swept {
        match self.run(Command::Sweep {
            now: self.now,
            limit,
        }) {
            Ok(Outcome::Swept(swept)) => swept,
            other => panic!("no sweep: {other:?}"),
        }
    }

    /// A message of a new id.
    pub fn message(&mut self, topic: &str, payload: &str) -> Message {
        let id = self.next_id();
        let mut message = Message::new(
            id,
            Kind::Publish,
            topic,
            &[3, 0, 1, b't'],
            payload.as_bytes(),
        );
        message.qos = QoS::AtLeastOnce;
        message.publisher = Some("publisher".into());
        message
    }

    /// Appends a message to a log of the app. Returns it.
    pub fn append(&mut self, log: LogKind, payload: &str) -> Arc<Message> {
        let message = Arc::new(self.message("t", payload));
        self.done(Command::Publish(Publish {
            log: Some(log),
            ..publish(&message)
        }));
        message
    }

    /// Appends a message to a client's inbox.
    pub fn send(&mut self, client_id: &str, payload: &str) -> Arc<Message> {
        let message = Arc::new(self.message("t", payload));
        let inboxes = vec![(client_id.into(), item(&message))];
        self.done(Command::Publish(Publish {
            inboxes,
            ..publish(&message)
        }));
        message
    }

    /// Pushes to devices, or to all, with a time to live.
    pub fn push(&mut self, devices: Option<&[&str]>, ttl_seconds: u32) -> PushId {
        let accept = self.accept(devices, ttl_seconds);
        let id = accept.id;
        match self.run_push(push::Command::Accept(Box::new(accept))) {
            push::Outcome::Accepted { .. } => id,
            other => panic!("not accepted: {other:?}"),
        }
    }

    /// A push with a new id.
    pub fn accept(&mut self, devices: Option<&[&str]>, ttl_seconds: u32) -> Accept {
        let id = PushId(self.next_id().0);
        Accept {
            app: AppName::new(APP).expect("a good name"),
            id,
            accepted_ms: self.now.0,
            expires_ms: self.now.plus_seconds(ttl_seconds).0,
            audience: match devices {
                Some(devices) => {
                    Audience::Devices(devices.iter().map(|device| (*device).into()).collect())
                }
                None => Audience::All,
            },
            payload: Bytes::from(format!("push {id}")),
            priority: Priority::Normal,
            collapse_key: None,
            idempotency: None,
            rows: None,
            channel: Default::default(),
            info: Bytes::new(),
            watched: false,
        }
    }

    /// The figures of a push that is known.
    pub fn report(&mut self, id: PushId) -> Report {
        self.try_report(id).expect("the push is known")
    }

    /// The figures of a push.
    pub fn try_report(&mut self, id: PushId) -> Option<Report> {
        let now = self.now.0;
        let app = AppName::new(APP).expect("a good name");
        let report = self
            .backend()
            .reader()
            .report(&app, id, now)
            .expect("the backend reads");
        if let Some(report) = &report {
            assert_eq!(report.funnel().check(report.targeted), Ok(()), "{report:?}");
            let seen = [report.clicked, report.dismissed];
            assert!(
                seen.iter().all(|seen| *seen <= report.displayed)
                    && report.displayed <= report.delivered,
                "{report:?}"
            );
        }
        report
    }

    /// What a request with this push's idempotency key was answered.
    pub fn answered(&mut self, accept: &Accept) -> Option<push::Outcome> {
        let key = accept.idempotency.as_ref().expect("the push has a key");
        let now = self.now.0;
        let reader = self.backend().reader();
        reader
            .answered(&accept.app, key, now)
            .expect("the backend reads")
    }

    /// What the app keeps.
    pub fn stored(&mut self) -> push::Stored {
        let app = AppName::new(APP).expect("a good name");
        let reader = self.backend().reader();
        reader.stored(&app).expect("the backend reads")
    }

    /// What is known of a push at a device.
    pub fn at_device(&mut self, id: PushId, device: &str) -> AtDevice {
        let app = AppName::new(APP).expect("a good name");
        let reader = self.backend().reader();
        reader
            .at_device(&app, id, device)
            .expect("the backend reads")
    }

    /// What waits for a device that is away.
    pub fn away(&mut self, device: &str) -> Option<push::Away> {
        let app = AppName::new(APP).expect("a good name");
        let now = self.now.0;
        let reader = self.backend().reader();
        reader.away(&app, device, now).expect("the backend reads")
    }

    /// Answers a query.
    pub fn read(&mut self, query: &Query) -> Page {
        self.backend()
            .reader()
            .read(query)
            .expect("the backend reads")
    }

    /// A stored session.
    pub fn session(&mut self, client_id: &str) -> Option<SessionState> {
        let client = client(client_id);
        match self.read(&Query::Session { client }) {
            Page::Session(session) => session.map(|session| *session),
            other => panic!("no session: {other:?}"),
        }
    }

    /// What is new.
    pub fn changes(&mut self, query: ChangesQuery) -> Changes {
        match self.read(&Query::Changes(query)) {
            Page::Changes(changes) => *changes,
            other => panic!("no changes: {other:?}"),
        }
    }

    /// A page of a log.
    pub fn read_log(
        &mut self,
        log: LogKind,
        after: Offset,
        limit: u32,
    ) -> (Vec<LogEntry>, Offset, bool) {
        match self.read(&Query::Log {
            app: AppId::new(APP),
            log,
            after,
            limit,
        }) {
            Page::Log {
                entries,
                read_to,
                gap,
            } => (entries, read_to, gap),
            other => panic!("no log: {other:?}"),
        }
    }

    /// Payloads of a log after a place.
    pub fn log_payloads(&mut self, log: LogKind, after: Offset) -> Vec<String> {
        self.read_log(log, after, 1000)
            .0
            .iter()
            .map(|entry| text(&entry.message))
            .collect()
    }

    /// A page of the normal lane of an inbox.
    pub fn read_inbox(
        &mut self,
        client_id: &str,
        after: Offset,
        limit: u32,
    ) -> (Vec<InboxEntry>, bool) {
        let (entries, more, _) = self.read_lane(client_id, Lane::Normal, after, limit);
        (entries, more)
    }

    /// A page of a lane of an inbox, and the lanes that hold anything.
    pub fn read_lane(
        &mut self,
        client_id: &str,
        lane: Lane,
        after: Offset,
        limit: u32,
    ) -> (Vec<InboxEntry>, bool, LaneSet) {
        match self.read(&Query::Inbox {
            client: client(client_id),
            lane,
            after,
            limit,
        }) {
            Page::Inbox {
                entries,
                more,
                lanes,
            } => {
                assert!(entries.iter().all(|entry| entry.item.lane == lane));
                assert!(entries.is_empty() || lanes.contains(lane));
                (entries, more, lanes)
            }
            other => panic!("no inbox: {other:?}"),
        }
    }

    /// Everything in an inbox, lane by lane.
    pub fn inbox(&mut self, client_id: &str) -> Vec<InboxEntry> {
        let lane = |lane| {
            let (entries, more, _) = self.read_lane(client_id, lane, Offset(0), 10_000);
            assert!(!more);
            entries
        };
        Lane::ALL.into_iter().flat_map(lane).collect()
    }

    /// Payloads of everything in an inbox.
    pub fn inbox_payloads(&mut self, client_id: &str) -> Vec<String> {
        self.inbox(client_id)
            .iter()
            .map(|entry| text(&entry.item.message))
            .collect()
    }
}

/// A client of the app.
pub fn client(client_id: &str) -> ClientKey {
    ClientKey::new(&AppId::new(APP), client_id)
}

/// A subscription with unusual options.
pub fn subscription(filter: &str) -> StoredSubscription {
    StoredSubscription {
        filter: filter.into(),
        options: SubscriptionOptions {
            qos: QoS::ExactlyOnce,
            no_local: true,
            retain_as_published: true,
            retain_handling: RetainHandling::SendIfNew,
        },
        id: Some(268_435_455),
        since: MessageId(u128::MAX - 1),
    }
}

/// Progress that changes nothing.
pub fn progress(client_id: &str, claimed: &Claimed) -> Progress {
    Progress {
        client: client(client_id),
        epoch: claimed.epoch,
        ordinal: claimed.ordinal,
        cursors: None,
        unfinished: None,
        inbox_done: vec![],
        receipts: vec![],
        settled: vec![],
        memory: None,
    }
}

/// A publish that keeps the message nowhere.
pub fn publish(message: &Arc<Message>) -> Publish {
    Publish {
        app: AppId::new(APP),
        message: message.clone(),
        log: None,
        filters: vec![],
        inboxes: vec![],
        retain: false,
        received: None,
        spends_will: None,
        sender: None,
    }
}

/// A message as an inbox takes it.
pub fn item(message: &Arc<Message>) -> InboxItem {
    InboxItem {
        message: message.clone(),
        qos: QoS::AtLeastOnce,
        retain: true,
        lane: Lane::Normal,
        subscription_ids: [7, 8].into_iter().collect(),
    }
}

/// A will.
pub fn will(message: Message, delay_seconds: u32) -> Will {
    Will {
        message: Arc::new(message),
        delay_seconds,
        expiry_seconds: Some(60),
    }
}

/// A cursor without gaps.
pub fn cursor(log: LogKind, done: Offset) -> Cursor {
    Cursor {
        log,
        done,
        done_above: vec![],
    }
}

/// The payload as text.
pub fn text(message: &Message) -> String {
    String::from_utf8_lossy(message.payload()).into_owned()
}

/// The id of a push's message.
pub fn message_id(push: PushId) -> MessageId {
    MessageId(push.0)
}
