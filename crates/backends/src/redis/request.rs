//! Requests as the scripts take them: `[rule, parameter...]`.
//!
//! Messages and records travel as the bytes that are stored; what the rules look at stands beside them.

use std::sync::Arc;

use campanile_broker::{
    ids::{Generation, MessageId, Millis},
    message::Kind,
    store::{
        Claim, Command, Cursor, InboxItem, LogKind, MAX_POSTED_FILTERS, Progress, Publish, Release,
        StoredSubscription, Subscribe, Tell, Will,
    },
};
use campanile_push::{
    receipt::{DropReason, FailReason, Mark},
    rows::{Change, Scope},
    store::{self as push, Accept, Audience, Channel, Target},
};
use prost::Message as _;

use super::pack::Pack;
use crate::{
    Request,
    engine::{
        keys::log_number,
        pushes::{push_item, push_message},
        records::{InboxRecord, MessageRecord, SubscriptionRecord, UnfinishedRecord, WillRecord},
        told::{marks_told, told_event},
    },
};

/// Whose keys a request touches.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Those of an app.
    App(Arc<str>),
    /// The list of apps and API keys.
    Apps,
    /// Those of every app, one after another; or those that are found by looking.
    Everywhere,
}

/// Whose keys a request touches.
pub fn place(request: &Request) -> Place {
    let app = match request {
        Request::Broker(command) => match command {
            Command::Claim(claim) => &claim.client.app,
            Command::Subscribe(subscribe) => &subscribe.client.app,
            Command::Progress(progress) | Command::HandOver(progress) => &progress.client.app,
            Command::Release(release) => &release.progress.client.app,
            Command::Publish(publish) => &publish.app,
            Command::Tell(tell) => &tell.client.app,
            Command::ForgetReceived { client, .. }
            | Command::DropWill { client }
            | Command::Restamp { client, .. } => &client.app,
            Command::Sweep { .. } | Command::Void { .. } | Command::Erase { .. } => {
                return Place::Everywhere;
            }
        },
        Request::Push(push::Command::Accept(accept)) => {
            return Place::App(accept.app.as_str().into());
        }
        Request::Push(push::Command::Target(Target { app, .. }))
        | Request::Push(push::Command::Counted { app, .. }) => {
            return Place::App(app.as_str().into());
        }
        Request::Push(push::Command::Change(change)) => {
            return match &change.scope {
                Scope::System => Place::Apps,
                Scope::App(app) => Place::App(app.as_str().into()),
            };
        }
    };
    Place::App(app.as_str().into())
}

/// The time that a request brings.
pub fn time_of(request: &Request) -> Option<Millis> {
    match request {
        Request::Broker(Command::Claim(claim)) => Some(claim.now),
        Request::Broker(Command::Release(release)) => Some(release.now),
        Request::Broker(
            Command::Sweep { now, .. } | Command::Void { now, .. } | Command::Erase { now, .. },
        ) => Some(*now),
        Request::Push(push::Command::Accept(accept)) => Some(Millis(accept.accepted_ms)),
        Request::Push(push::Command::Change(change)) => Some(Millis(change.now_ms)),
        _ => None,
    }
}

/// Packs a request. `clock`: the latest time that a command brought. Sweeps and voids: [`sweep`] and [`void`]; erasures are made of what is found.
pub fn pack(request: &Request, clock: Millis) -> Vec<u8> {
    let mut pack = Pack::default();
    match request {
        Request::Broker(Command::Claim(claim)) => pack_claim(&mut pack, claim),
        Request::Broker(Command::Subscribe(subscribe)) => pack_subscribe(&mut pack, subscribe),
        Request::Broker(Command::Progress(progress)) => {
            pack.array(10).text("progress");
            pack_progress(&mut pack, progress);
        }
        Request::Broker(Command::HandOver(progress)) => {
            pack.array(10).text("hand_over");
            pack_progress(&mut pack, progress);
        }
        Request::Broker(Command::Release(release)) => pack_release(&mut pack, release),
        Request::Broker(Command::Publish(publish)) => pack_publish(&mut pack, publish, clock),
        Request::Broker(Command::ForgetReceived {
            client,
            epoch,
            packet_id,
        }) => {
            pack.array(4)
                .text("forget_received")
                .text(&client.client_id)
                .number(epoch.0)
                .number(packet_id.get().into());
        }
        Request::Broker(Command::Tell(tell)) => pack_tell(&mut pack, tell),
        Request::Broker(Command::DropWill { client }) => {
            pack.array(2).text("drop_will").text(&client.client_id);
        }
        Request::Broker(Command::Restamp {
            client,
            epoch,
            generation,
        }) => {
            pack.array(4)
                .text("restamp")
                .text(&client.client_id)
                .number(epoch.0)
                .text(&owner(*generation));
        }
        Request::Broker(Command::Erase { .. }) => unreachable!("it is carried out by itself"),
        Request::Broker(Command::Sweep { now, limit }) => return sweep(*now, *limit),
        Request::Broker(Command::Void {
            generation,
            now,
            limit,
        }) => return void(*generation, *now, *limit),
        Request::Push(push::Command::Accept(accept)) => pack_accept(&mut pack, accept),
        Request::Push(push::Command::Target(target)) => pack_target(&mut pack, target),
        Request::Push(push::Command::Counted { push, .. }) => {
            pack.array(2).text("counted").text(&hex(MessageId(push.0)));
        }
        Request::Push(push::Command::Change(change)) => pack_change(&mut pack, change),
    }
    pack.into_bytes()
}

/// A sweep of one app.
pub fn sweep(now: Millis, limit: u32) -> Vec<u8> {
    let mut pack = Pack::default();
    pack.array(3)
        .text("sweep")
        .number(now.0)
        .number(limit.into());
    pack.into_bytes()
}

/// The end of a node, in one app.
pub fn void(generation: Generation, now: Millis, limit: u32) -> Vec<u8> {
    let mut pack = Pack::default();
    pack.array(4)
        .text("void")
        .text(&owner(generation))
        .number(now.0)
        .number(limit.into());
    pack.into_bytes()
}

/// A generation as it is stored: it may be larger than what Lua can count.
pub fn owner(generation: Generation) -> String {
    generation.0.to_string()
}

fn pack_claim(pack: &mut Pack, claim: &Claim) {
    pack.array(7)
        .text("claim")
        .text(&claim.client.client_id)
        .text(&owner(claim.owner))
        .number(claim.now.0)
        .truth(claim.clean_start)
        .number(claim.expiry_seconds.into())
        .option(claim.will.as_ref(), |pack, will| {
            pack_will(pack, &claim.client.client_id, will);
        });
}

fn pack_will(pack: &mut Pack, client_id: &str, will: &Will) {
    let record = WillRecord::of(client_id, will).encode_to_vec();
    pack.array(3)
        .text(&hex(will.message.id))
        .number(will.delay_seconds.into())
        .bytes(&record);
}

fn pack_subscribe(pack: &mut Pack, subscribe: &Subscribe) {
    pack.array(6)
        .text("subscribe")
        .text(&subscribe.client.client_id)
        .number(subscribe.epoch.0)
        .list(subscribe.add.iter(), pack_subscription)
        .list(subscribe.remove.iter(), |pack, filter| {
            pack.text(filter);
        })
        .list(subscribe.inbox.iter(), |pack, item| {
            pack_item(pack, item, false, None);
        });
}

fn pack_subscription(pack: &mut Pack, subscription: &StoredSubscription) {
    // The filter is the field's name already.
    let record = SubscriptionRecord {
        filter: String::new(),
        ..SubscriptionRecord::of(subscription)
    };
    let options = subscription.options;
    let member = format!(
        "{},{},{}",
        options.qos as u8,
        u8::from(options.retain_as_published),
        subscription.id.unwrap_or_default()
    );
    pack.array(3)
        .text(&subscription.filter)
        .bytes(&record.encode_to_vec())
        .text(&member);
}

/// All but the rule's name.
fn pack_progress(pack: &mut Pack, progress: &Progress) {
    pack.text(&progress.client.client_id)
        .number(progress.epoch.0)
        .number(progress.ordinal.into())
        .option(progress.cursors.as_ref(), |pack, cursors| {
            pack.list(cursors.iter(), pack_cursor);
        })
        .option(progress.unfinished.as_ref(), |pack, unfinished| {
            pack.bytes(&UnfinishedRecord::of(unfinished).encode_to_vec());
        })
        .list(progress.inbox_done.iter(), |pack, offset| {
            pack.number(offset.0);
        })
        .list(progress.receipts.iter(), |pack, id| {
            pack.text(&hex(*id));
        });
    // What only a later version knows is nothing to this one.
    let settled = progress.settled.iter();
    let settled: Vec<(MessageId, &str)> = settled
        .filter_map(|(id, code)| Some((*id, set_of(Mark::from_code(*code)?)?)))
        .collect();
    pack.list(settled.into_iter(), |pack, (id, set)| {
        pack.array(2).text(&hex(id)).text(set);
    })
    .option(progress.memory.as_ref(), |pack, memory| {
        pack.bytes(memory);
    });
}

fn pack_cursor(pack: &mut Pack, cursor: &Cursor) {
    let above: Vec<String> = cursor
        .done_above
        .iter()
        .map(|offset| offset.0.to_string())
        .collect();
    pack.array(3)
        .number(log_number(cursor.log).into())
        .text(&cursor.done.0.to_string())
        .text(&above.join(","));
}

fn pack_release(pack: &mut Pack, release: &Release) {
    let time = |pack: &mut Pack, at: Millis| {
        pack.number(at.0);
    };
    pack.array(13).text("release");
    pack_progress(pack, &release.progress);
    pack.option(release.expires_at, time)
        .number(release.now.0)
        .option(release.will_at, time);
}

fn pack_publish(pack: &mut Pack, publish: &Publish, clock: Millis) {
    const KEEP: u64 = 1;
    const REMOVE: u64 = 2;
    let message = &publish.message;
    let retained = match (publish.retain, message.payload().is_empty()) {
        (false, _) => 0,
        (true, false) => KEEP,
        (true, true) => REMOVE,
    };
    // Not needed where only inboxes get it: their records have it.
    let is_stored = publish.log.is_some() || retained == KEEP;
    let record = match is_stored {
        true => MessageRecord::of(message).encode_to_vec(),
        false => Vec::new(),
    };
    let all_filters: [Arc<str>; 1] = ["".into()];
    let filters = match publish.filters.len() {
        0..=MAX_POSTED_FILTERS => publish.filters.as_slice(),
        _ => all_filters.as_slice(),
    };
    pack.array(11)
        .text("publish")
        .bytes(&record)
        .option(publish.log, pack_log)
        .number(clock.0)
        .list(filters.iter(), |pack, filter| {
            pack.text(filter);
        })
        .list(publish.inboxes.iter(), |pack, (client_id, item)| {
            pack.array(2).text(client_id);
            pack_item(pack, item, false, None);
        })
        .number(retained)
        .text(message.topic())
        .option(message.expires_at, |pack, at| {
            pack.number(at.0);
        })
        .option(publish.received.as_ref(), |pack, received| {
            pack.array(3)
                .text(&received.client.client_id)
                .number(received.epoch.0)
                .number(received.packet_id.get().into());
        })
        .option(publish.spends_will.as_ref(), |pack, (client_id, id)| {
            pack.array(2).text(client_id).text(&hex(*id));
        });
}

/// A log by its number.
pub fn pack_log(pack: &mut Pack, log: LogKind) {
    pack.number(log_number(log).into());
}

/// `shared`: the message is stored once, with the push.
fn pack_item(pack: &mut Pack, item: &InboxItem, shared: bool, collapse_key: Option<&str>) {
    let record = InboxRecord::of(item, shared);
    let is_push = item.message.kind == Kind::Push;
    pack.array(6)
        .bytes(&record.encode_to_vec())
        .number(record.size_bytes)
        .text(&match is_push {
            true => hex(item.message.id),
            false => String::new(),
        })
        .option(item.message.expires_at.filter(|_| !is_push), |pack, at| {
            pack.number(at.0);
        })
        .number(item.lane.code().into())
        .option(collapse_key, |pack, key| {
            pack.text(key);
        });
}

fn pack_accept(pack: &mut Pack, accept: &Accept) {
    let message = push_message(accept);
    let devices = match &accept.audience {
        Audience::All | Audience::Matching(_) => None,
        Audience::Devices(devices) => Some(devices),
    };
    let shared = devices.is_some_and(|devices| devices.len() > 1);
    let is_stored = devices.is_none() || shared;
    let record = match is_stored {
        true => MessageRecord::of(&message).encode_to_vec(),
        false => Vec::new(),
    };
    pack.array(13)
        .text("accept")
        .text(&hex(message.id))
        .number(accept.accepted_ms)
        .number(accept.expires_ms)
        .option(devices, |pack, devices| {
            pack.list(devices.iter(), |pack, device| {
                pack.text(device);
            });
        })
        .bytes(&record)
        .option(devices, |pack, _| {
            let item = push_item(&message, accept.priority);
            pack_item(pack, &item, shared, accept.collapse_key.as_deref());
        })
        .option(accept.idempotency.as_ref(), |pack, idempotency| {
            pack.array(3)
                .text(&idempotency.key)
                .bytes(&idempotency.body_hash)
                .number(idempotency.expires_ms);
        })
        .truth(matches!(accept.audience, Audience::Matching(_)))
        .option(accept.rows.as_deref(), |pack, change| {
            pack.array(6);
            pack_rows(pack, change);
        })
        .bytes(&accept.info)
        .truth(accept.watched)
        .truth(accept.channel == Channel::Control);
}

/// What cannot be understood is a request too: it gets its answer in turn.
fn pack_tell(pack: &mut Pack, tell: &Tell) {
    let Some(told) = marks_told(tell) else {
        pack.array(1).text("not_understood");
        return;
    };
    pack.array(4)
        .text("tell")
        .text(&tell.client.client_id)
        .number(tell.ordinal.into())
        .list(told.iter(), |pack, (push, told)| {
            let sets: Vec<&str> = told.marks.iter().filter_map(|mark| set_of(*mark)).collect();
            let clicked = told_event(Mark::Clicked, told.action.as_deref());
            pack.array(3)
                .text(&hex(MessageId(push.0)))
                .list(sets.into_iter(), |pack, set| {
                    pack.text(set);
                })
                .option(clicked.and_then(|what| what.data()), |pack, data| {
                    pack.text(&data);
                });
        });
}

/// The name of the set of a mark, as a part of its keys; `None` for a mark that nothing sets yet.
pub fn set_of(mark: Mark) -> Option<&'static str> {
    Some(match mark {
        Mark::Targeted => "t",
        Mark::Delivered => "d",
        Mark::Dropped(DropReason::InboxFull) => "x",
        Mark::Displayed => "s",
        Mark::Clicked => "k",
        Mark::Dismissed => "w",
        Mark::Failed(FailReason::TooLarge) => "b",
        Mark::Dropped(DropReason::FrequencyCap) => "f",
        Mark::Dropped(DropReason::QuietHours) => "q",
        Mark::Dropped(DropReason::LocalTimePast) => "p",
        Mark::Collapsed => "r",
        _ => return None,
    })
}

/// The mark of a set's name.
pub fn mark_of(set: &str) -> Option<Mark> {
    Mark::ALL
        .into_iter()
        .find(|mark| set_of(*mark) == Some(set))
}

fn pack_target(pack: &mut Pack, target: &Target) {
    // Redis counts the bits of a byte from the highest.
    let devices = target.devices.iter().take(Target::MAX_BYTES);
    let devices: Vec<u8> = devices.map(|byte| byte.reverse_bits()).collect();
    pack.array(4)
        .text("target")
        .text(&hex(MessageId(target.push.0)))
        .number(target.chunk.into())
        .bytes(&devices);
}

fn pack_change(pack: &mut Pack, change: &Change) {
    pack.array(7).text("change");
    pack_rows(pack, change);
}

fn pack_rows(pack: &mut Pack, change: &Change) {
    pack.number(change.now_ms)
        .list(change.expect.iter(), |pack, (key, version)| {
            pack.array(3)
                .number(key.table as u64)
                .text(&key.name)
                .number(version.0);
        })
        .list(change.writes.iter(), |pack, write| {
            pack.array(4)
                .number(write.key.table as u64)
                .text(&write.key.name)
                .option(write.value.as_ref(), |pack, value| {
                    pack.bytes(value);
                })
                .option(write.expires_ms, |pack, at| {
                    pack.number(at);
                });
        })
        .list(change.bounds.iter(), |pack, (table, rows)| {
            pack.array(2).number(*table as u64).number(*rows);
        })
        .list(change.events.iter(), |pack, event| {
            pack.array(4)
                .number(event.kind.code().into())
                .option(event.device.as_ref(), |pack, device| {
                    pack.text(device);
                })
                .option(event.push, |pack, push| {
                    pack.text(&hex(MessageId(push.0)));
                })
                .option(event.data.as_ref(), |pack, data| {
                    pack.text(data);
                });
        })
        .list(change.cohorts.iter(), |pack, enrolment| {
            pack.array(3)
                .text(&enrolment.device)
                .text(&enrolment.cohort)
                .truth(enrolment.is_in);
        });
}

/// An id in 32 hexadecimal digits.
pub fn hex(id: MessageId) -> String {
    format!("{:032x}", id.0)
}
