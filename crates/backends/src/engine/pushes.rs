//! The push domain: apps, accepting pushes, and what becomes of them.

use std::{collections::BTreeMap, sync::Arc};

use campanile_broker::store::QoS;
use campanile_broker::{
    ids::{AppId, ClientKey, MessageId, Millis, Offset},
    lane::Lane,
    message::{Kind, Message},
    store::{InboxItem, LogKind, Notice, StoreError},
};
use campanile_push::{
    app::AppName,
    event::{Draft, What},
    id::PushId,
    lanes::Priority,
    receipt::Mark,
    rows::{Key, Table as RowTable},
    store::{Accept, Audience, Channel, Command, Idempotency, Outcome, Target},
};
use roaring::RoaringBitmap;
use smallvec::SmallVec;

use super::{
    keys::{ExpiryKind, Subject, Table, receipt_tail},
    kv::KvError,
    kv::View,
    records::{IdempotencyRecord, MessageRecord, PushClientsRecord, PushRecord, damaged},
    state::Ephemeral,
    txn::{Txn, encode_chunk},
};

/// Where devices get their pushes.
const PUSH_TOPIC: &str = "push/in";
/// Where devices get what the server says.
const CONTROL_TOPIC: &str = "push/ctl";

/// What the request was answered that used an idempotency key first, if it is in use.
pub fn first_answer(
    used: Option<IdempotencyRecord>,
    idempotency: &Idempotency,
    now_ms: u64,
) -> Result<Option<Outcome>, KvError> {
    let Some(used) = used.filter(|used| used.expires_ms > now_ms) else {
        return Ok(None);
    };
    if used.body_hash != idempotency.body_hash {
        return Ok(Some(Outcome::KeyReused));
    }
    let id = used
        .push
        .as_slice()
        .try_into()
        .map_err(|_| damaged("idempotency key"))?;
    Ok(Some(Outcome::Replayed {
        id: PushId(u128::from_be_bytes(id)),
        targeted: (!used.to_audience).then_some(used.targeted),
        accepted_ms: used.accepted_ms,
    }))
}

impl Txn<'_> {
    /// Carries out a command of the push domain.
    pub fn push_command(&mut self, command: &Command) -> Result<Outcome, StoreError> {
        match command {
            Command::Accept(accept) => self.accept(accept),
            Command::Target(target) => self.target(target),
            Command::Counted { app, push } => self.end_count(app, *push),
            Command::Change(change) => self.change_rows(change),
        }
    }

    fn accept(&mut self, accept: &Accept) -> Result<Outcome, StoreError> {
        self.advance_clock(Millis(accept.accepted_ms));
        if let Some(idempotency) = &accept.idempotency
            && let Some(outcome) = self.replay(accept, idempotency)?
        {
            return Ok(outcome);
        }
        let app = AppId::new(accept.app.as_str());
        let push = Subject::push(app.as_str(), accept.id.0);
        if let Some(record) = self.record::<PushRecord>(Table::Push, &push, "push")? {
            // Its id says that it is the same push: repeating it is harmless.
            return Ok(Outcome::Accepted {
                targeted: (!record.to_audience).then_some(record.targeted),
            });
        }
        if let Some(rows) = &accept.rows {
            match self.change_rows(rows)? {
                Outcome::Changed { .. } => {}
                refused => return Ok(refused),
            }
        }
        let message = push_message(accept);
        let to_audience = matches!(accept.audience, Audience::Matching(_));
        let mut record = PushRecord {
            accepted_ms: accept.accepted_ms,
            expires_ms: accept.expires_ms,
            targeted: 0,
            offset: 0,
            to_all: to_audience || accept.audience == Audience::All,
            to_audience,
            is_counted: false,
            info: accept.info.clone(),
            is_control: accept.channel == Channel::Control,
        };
        let now_or_never = accept.expires_ms <= accept.accepted_ms;
        let targeted = if accept.rows.is_some() {
            self.target_of_campaign(&app, &accept.audience)?
        } else if now_or_never {
            self.announce_instant(&app, &accept.audience, &message)?
        } else {
            record.offset = self.next_offset().0;
            match &accept.audience {
                Audience::All => self.push_to_all(&app, &message, &record)?,
                Audience::Matching(_) => self.push_to_audience(&app, &message, &record)?,
                Audience::Devices(devices) => {
                    self.push_to_devices(accept, devices, &message, &record)?
                }
            }
        };
        record.targeted = match &accept.audience {
            Audience::All | Audience::Matching(_) => targeted.len(),
            // Of a push that is not stored, devices without a number count too: they did not get it.
            Audience::Devices(devices) => devices.len() as u64,
        };
        self.put_record(Table::Push, &push, &record)?;
        self.put_targeted(&push, targeted)?;
        let (at, kind) = if now_or_never {
            (
                accept
                    .expires_ms
                    .saturating_add(self.config.push_retention_ms),
                ExpiryKind::Report,
            )
        } else {
            (accept.expires_ms, ExpiryKind::Push)
        };
        self.put(push.expiry_key(at, kind), push.key(Table::Push).into())?;
        self.tell_of_accepted(accept, (!to_audience).then_some(record.targeted))?;
        if let Some(idempotency) = &accept.idempotency {
            self.remember(accept, idempotency, &record)?;
        }
        Ok(Outcome::Accepted {
            targeted: (!to_audience).then_some(record.targeted),
        })
    }

    /// Tells that a push is accepted, and notes that its end is to be told.
    fn tell_of_accepted(
        &mut self,
        accept: &Accept,
        targeted: Option<u64>,
    ) -> Result<(), StoreError> {
        if accept.channel == Channel::Control {
            // It is the server's own.
            return Ok(());
        }
        let app = accept.app.as_str();
        let has_listeners = self.has_listeners(app)?;
        if has_listeners {
            let what = What::PushAccepted { targeted };
            self.append_event(app, &Draft::new(None, Some(accept.id), &what))?;
        }
        let to_names = matches!(accept.audience, Audience::Devices(_));
        if accept.watched || has_listeners && !to_names {
            let key = Key::new(RowTable::Open, format!("{:032x}", accept.id.0));
            self.put_row(&accept.app, key, accept.info.clone())?;
        }
        Ok(())
    }

    fn replay(
        &self,
        accept: &Accept,
        idempotency: &Idempotency,
    ) -> Result<Option<Outcome>, StoreError> {
        let subject = Subject::app(accept.app.as_str()).text(&idempotency.key);
        let used: Option<IdempotencyRecord> =
            self.record(Table::Idempotency, &subject, "idempotency key")?;
        Ok(first_answer(used, idempotency, accept.accepted_ms)?)
    }

    fn remember(
        &mut self,
        accept: &Accept,
        idempotency: &Idempotency,
        push: &PushRecord,
    ) -> Result<(), StoreError> {
        let subject = Subject::app(accept.app.as_str()).text(&idempotency.key);
        let record = IdempotencyRecord {
            body_hash: idempotency.body_hash.to_vec(),
            push: accept.id.0.to_be_bytes().to_vec(),
            targeted: push.targeted,
            to_audience: push.to_audience,
            accepted_ms: accept.accepted_ms,
            expires_ms: idempotency.expires_ms,
        };
        self.put_record(Table::Idempotency, &subject, &record)?;
        let index = subject.expiry_key(idempotency.expires_ms, ExpiryKind::Idempotency);
        self.put(index, subject.key(Table::Idempotency).into())
    }

    /// A campaign is no entry anywhere. Returns whom it is for, as far as that is known.
    fn target_of_campaign(
        &mut self,
        app: &AppId,
        audience: &Audience,
    ) -> Result<RoaringBitmap, StoreError> {
        match audience {
            Audience::All => Ok(self.target_all(app)),
            Audience::Matching(_) => {
                self.count_push_to_all(app);
                Ok(RoaringBitmap::new())
            }
            Audience::Devices(devices) => {
                let number = |device: &Arc<str>| {
                    self.device_for_inbox(&ClientKey {
                        app: app.clone(),
                        client_id: device.clone(),
                    })
                };
                devices.iter().map(number).collect()
            }
        }
    }

    /// One entry of the push log, however many devices there are.
    fn push_to_all(
        &mut self,
        app: &AppId,
        message: &Arc<Message>,
        record: &PushRecord,
    ) -> Result<RoaringBitmap, StoreError> {
        let offset = Offset(record.offset);
        self.append_to_log(app, LogKind::Push, offset, message, &[])?;
        Ok(self.target_all(app))
    }

    /// The same. Who it is for is added later.
    fn push_to_audience(
        &mut self,
        app: &AppId,
        message: &Arc<Message>,
        record: &PushRecord,
    ) -> Result<RoaringBitmap, StoreError> {
        let offset = Offset(record.offset);
        self.append_to_log(app, LogKind::Push, offset, message, &[])?;
        self.count_push_to_all(app);
        Ok(RoaringBitmap::new())
    }

    /// Some of the devices that a push to an audience is for.
    fn target(&mut self, target: &Target) -> Result<Outcome, StoreError> {
        let push = Subject::push(target.app.as_str(), target.push.0);
        let record = self.record::<PushRecord>(Table::Push, &push, "push")?;
        if record.is_none_or(|record| !record.to_audience) {
            return Ok(Outcome::Done);
        }
        let bytes = &target.devices[..target.devices.len().min(Target::MAX_BYTES)];
        let devices = RoaringBitmap::from_lsb0_bytes(0, bytes);
        self.mark_all(&push, Mark::Targeted, target.chunk, devices)?;
        Ok(Outcome::Done)
    }

    /// All devices that a push to an audience is for are known.
    fn end_count(&mut self, app: &AppName, id: PushId) -> Result<Outcome, StoreError> {
        let push = Subject::push(app.as_str(), id.0);
        if let Some(record) = self.record::<PushRecord>(Table::Push, &push, "push")?
            && record.to_audience
            && !record.is_counted
        {
            let is_counted = true;
            self.put_record(
                Table::Push,
                &push,
                &PushRecord {
                    is_counted,
                    ..record
                },
            )?;
        }
        Ok(Outcome::Done)
    }

    /// Every device that has a session, live or away.
    fn target_all(&mut self, app: &AppId) -> RoaringBitmap {
        self.count_push_to_all(app);
        let state = self.state.app(app);
        &state.stored | &state.ephemeral
    }

    /// One inbox entry per device, all at the same place; the message is stored once.
    fn push_to_devices(
        &mut self,
        accept: &Accept,
        devices: &[Arc<str>],
        message: &Arc<Message>,
        record: &PushRecord,
    ) -> Result<RoaringBitmap, StoreError> {
        let app = AppId::new(accept.app.as_str());
        let push = Subject::push(app.as_str(), accept.id.0);
        let shared = devices.len() > 1;
        if shared {
            self.put_record(Table::PushMessage, &push, &MessageRecord::of(message))?;
        }
        let clients = devices
            .iter()
            .map(|device| device.as_ref().to_owned())
            .collect();
        self.put_record(Table::PushClients, &push, &PushClientsRecord { clients })?;
        let item = push_item(message, accept.priority);
        let offset = Offset(record.offset);
        let mut targeted = RoaringBitmap::new();
        for device in devices {
            let client = ClientKey {
                app: app.clone(),
                client_id: device.clone(),
            };
            let ordinal = self.device_for_inbox(&client)?;
            targeted.insert(ordinal);
            let collapse_key = accept.collapse_key.as_deref();
            self.append_to_inbox(&client, ordinal, offset, &item, shared, collapse_key)?;
        }
        Ok(targeted)
    }

    /// Announces a push for whoever is connected now. Returns the devices with a number that it is for.
    fn announce_instant(
        &mut self,
        app: &AppId,
        audience: &Audience,
        message: &Arc<Message>,
    ) -> Result<RoaringBitmap, StoreError> {
        let (targeted, clients) = match audience {
            Audience::All => (self.target_all(app), None),
            Audience::Matching(_) => {
                self.count_push_to_all(app);
                (RoaringBitmap::new(), None)
            }
            Audience::Devices(devices) => {
                let mut targeted = RoaringBitmap::new();
                for device in devices {
                    let client = ClientKey {
                        app: app.clone(),
                        client_id: device.clone(),
                    };
                    if let Some(entry) = self.state.ephemeral(&client) {
                        self.set_ephemeral(
                            &client,
                            Some(Ephemeral {
                                is_known: true,
                                ..entry
                            }),
                        )?;
                        targeted.insert(entry.ordinal);
                    } else if let Some(device) = self.device(&Subject::client(&client))? {
                        targeted.insert(device.ordinal);
                    }
                }
                (targeted, Some(devices.as_slice().into()))
            }
        };
        self.announce(Notice::Instant {
            app: app.clone(),
            clients,
            message: message.clone(),
        });
        Ok(targeted)
    }

    fn put_targeted(&mut self, push: &Subject, targeted: RoaringBitmap) -> Result<(), StoreError> {
        for (chunk, bits) in chunks(&targeted) {
            self.put(
                push.key_with(Table::Receipts, &receipt_tail(Mark::Targeted, chunk)),
                encode_chunk(bits),
            )?;
        }
        Ok(())
    }

    /// A push's time to live is over: nobody is sent it any more. Removes at most `limit` entries.
    ///
    /// Returns how many it removed, and whether that was all.
    pub fn expire_push(&mut self, push: &Subject, limit: u32) -> Result<(u32, bool), StoreError> {
        let Some(record) = self.record::<PushRecord>(Table::Push, push, "push")? else {
            return Ok((0, true));
        };
        let app = push
            .app_name()
            .map(AppId::new)
            .ok_or_else(|| damaged("push"))?;
        let offset = Offset(record.offset);
        let mut removed = 0;
        if record.to_all {
            removed += self.remove_from_push_log(&app, offset)?;
        }
        if let Some(mut waiting) =
            self.record::<PushClientsRecord>(Table::PushClients, push, "push")?
        {
            let later = waiting
                .clients
                .split_off(waiting.clients.len().min(limit as usize));
            for client_id in waiting.clients {
                let client = Subject::app(app.as_str()).text(&client_id);
                if self.remove_from_inbox(&client, &[offset])? > 0
                    && let Some(id) = push.push_id()
                {
                    self.tell_of_push(app.as_str(), id, Some(&client_id), &What::PushExpired)?;
                }
                self.forget_idle_device(&client)?;
                removed += 1;
            }
            if !later.is_empty() {
                self.put_record(
                    Table::PushClients,
                    push,
                    &PushClientsRecord { clients: later },
                )?;
                return Ok((removed, false));
            }
            self.remove(push.key(Table::PushClients))?;
            self.remove_if_there(push.key(Table::PushMessage))?;
        }
        let at = record
            .expires_ms
            .saturating_add(self.config.push_retention_ms);
        self.put(
            push.expiry_key(at, ExpiryKind::Report),
            push.key(Table::Push).into(),
        )?;
        Ok((removed, true))
    }

    fn remove_from_push_log(&mut self, app: &AppId, offset: Offset) -> Result<u32, StoreError> {
        let key = Subject::log(app, LogKind::Push)
            .offset(offset)
            .key(Table::Log);
        let Some(entry) = self.get(&key)? else {
            return Ok(0);
        };
        self.remove(key)?;
        let mut state = self.state.log(app, LogKind::Push);
        state.bytes = state.bytes.saturating_sub(entry.len() as u64);
        self.set_log(app, LogKind::Push, state);
        Ok(1)
    }

    /// Forgets a push and its report.
    pub fn forget_push(&mut self, push: &Subject) -> Result<u32, StoreError> {
        if !self.remove_if_there(push.key(Table::Push))? {
            return Ok(0);
        }
        for table in [Table::Receipts, Table::CollapsedBy, Table::Series] {
            for (key, _) in self.list(table, push, usize::MAX)? {
                self.remove(key)?;
            }
        }
        Ok(1)
    }
}

/// The message that devices get.
pub fn push_message(accept: &Accept) -> Arc<Message> {
    let id = MessageId(accept.id.0);
    let topic = match accept.channel {
        Channel::In => PUSH_TOPIC,
        Channel::Control => CONTROL_TOPIC,
    };
    let mut message = Message::new(id, Kind::Push, topic, &[], &accept.payload);
    message.qos = QoS::AtLeastOnce;
    message.expires_at = Some(Millis(accept.expires_ms));
    if let Audience::Matching(targeting) = &accept.audience {
        message.audience = Some(targeting.clone());
    }
    Arc::new(message)
}

/// A push as an inbox takes it.
pub fn push_item(message: &Arc<Message>, priority: Priority) -> InboxItem {
    InboxItem {
        message: message.clone(),
        qos: QoS::AtLeastOnce,
        retain: false,
        subscription_ids: SmallVec::new(),
        lane: match priority {
            Priority::High => Lane::High,
            Priority::Normal => Lane::Normal,
            Priority::Low => Lane::Low,
        },
    }
}

/// The parts of a bitmap by chunks of 65,536 numbers.
fn chunks(bits: &RoaringBitmap) -> BTreeMap<u16, RoaringBitmap> {
    let mut parts: BTreeMap<u16, RoaringBitmap> = BTreeMap::new();
    let mut ranges = bits.iter();
    while let Some(range) = ranges.next_range() {
        let (mut start, end) = (*range.start(), *range.end());
        loop {
            let last = end.min(start | 0xffff);
            parts
                .entry((start >> 16) as u16)
                .or_default()
                .insert_range(start & 0xffff..=last & 0xffff);
            if last == end {
                break;
            }
            start = last + 1;
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_hold_each_number_once() {
        let bits: RoaringBitmap = (65_000..70_000).chain([0, 200_000, u32::MAX]).collect();
        let parts = chunks(&bits);
        let again: RoaringBitmap = parts
            .iter()
            .flat_map(|(chunk, part)| part.iter().map(move |bit| (u32::from(*chunk) << 16) | bit))
            .collect();
        assert_eq!(again, bits);
        assert_eq!(parts.len(), 4);
    }
}
