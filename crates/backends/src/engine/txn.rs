//! A batch while it is carried out: reads see its own writes, and a refused request is taken back alone.

use std::{
    collections::BTreeMap,
    ops::{Bound, ControlFlow},
};

use campanile_broker::{
    ids::{AppId, ClientKey, Millis, Offset},
    store::{LogKind, Notice, StoreError},
};
use campanile_push::receipt::Mark;
use roaring::RoaringBitmap;

use super::{
    cluster::first_number_at,
    keys::{META_CLOCK, META_SEQUENCE, Subject, Table, receipt_tail},
    kv::{Entry, KvError, Value, View, Writes, after_prefix},
    records::{LogMetaRecord, damaged, decode, encode},
    state::{Ephemeral, LogState, State, Undo},
};
use crate::Config;

/// A batch while it is carried out.
pub struct Txn<'a> {
    committed: &'a dyn View,
    pub state: &'a mut State,
    pub config: &'a Config,
    /// Set: nothing can be written now, for this reason.
    read_only: Option<KvError>,
    writes: Writes,
    /// Parts of bitmaps that the batch touches, decoded once.
    receipts: BTreeMap<Vec<u8>, Chunk>,
    /// Logs that the batch appends to or trims, as they were before.
    logs_before: BTreeMap<(AppId, LogKind), LogState>,
    sequence_before: u64,
    undo: Vec<Change>,
    notices: Vec<Notice>,
    dropped: u32,
    /// The place in the batch of the request that is carried out.
    place: usize,
    changed: Vec<(usize, AppId, Offset)>,
}

/// What a batch comes to.
pub struct Finished {
    pub writes: Writes,
    pub notices: Vec<Notice>,
    pub dropped: u32,
    /// See [`crate::Committed::changed`].
    pub changed: Vec<(usize, AppId, Offset)>,
    /// How to take the changes of [`State`] back, last first.
    pub undo: Vec<Undo>,
}

/// A point to roll back to.
#[derive(Clone, Copy)]
pub struct Savepoint {
    undo: usize,
    notices: usize,
    dropped: u32,
    changed: usize,
}

/// 65,536 device numbers of a bitmap.
struct Chunk {
    bits: RoaringBitmap,
    added: u32,
}

/// How to take a change back.
enum Change {
    Write(Value, Option<Option<Value>>),
    Receipt(Vec<u8>, u32),
    State(Undo),
}

impl<'a> Txn<'a> {
    /// An empty batch on top of what is committed. With `read_only` every write is refused for that reason.
    pub fn new(
        committed: &'a dyn View,
        state: &'a mut State,
        config: &'a Config,
        read_only: Option<KvError>,
    ) -> Txn<'a> {
        Txn {
            committed,
            sequence_before: state.sequence,
            state,
            config,
            read_only,
            writes: Writes::new(),
            receipts: BTreeMap::new(),
            logs_before: BTreeMap::new(),
            undo: Vec::new(),
            notices: Vec::new(),
            dropped: 0,
            place: 0,
            changed: Vec::new(),
        }
    }

    /// The present point.
    pub fn savepoint(&self) -> Savepoint {
        Savepoint {
            undo: self.undo.len(),
            notices: self.notices.len(),
            dropped: self.dropped,
            changed: self.changed.len(),
        }
    }

    /// From now on it is about the request at this place of the batch.
    pub fn begin(&mut self, place: usize) {
        self.place = place;
    }

    /// Takes back everything since a savepoint.
    pub fn roll_back(&mut self, to: Savepoint) {
        self.notices.truncate(to.notices);
        self.dropped = to.dropped;
        self.changed.truncate(to.changed);
        while self.undo.len() > to.undo {
            match self.undo.pop().expect("longer than the savepoint") {
                Change::Write(key, Some(before)) => {
                    self.writes.insert(key, before);
                }
                Change::Write(key, None) => {
                    self.writes.remove(&key);
                }
                Change::Receipt(key, bit) => {
                    // None: flushed since, by a request after the one that marked it; that one stands.
                    if let Some(chunk) = self.receipts.get_mut(&key) {
                        chunk.bits.remove(bit);
                        chunk.added -= 1;
                    }
                }
                Change::State(undo) => self.state.undo(undo),
            }
        }
    }

    /// Ends the batch: what is to be committed.
    pub fn finish(mut self) -> Finished {
        self.flush_receipts();
        for ((app, log), before) in std::mem::take(&mut self.logs_before) {
            let now = self.state.log(&app, log);
            if now != before {
                let record = LogMetaRecord {
                    end: now.end.0,
                    trimmed_to: now.trimmed_to.0,
                    bytes: now.bytes,
                };
                self.writes.insert(
                    Subject::log(&app, log).key(Table::LogMeta).into(),
                    Some(encode(&record)),
                );
            }
        }
        // Numbers are burnt only by requests that wrote something, so that a batch that writes nothing stays so.
        if self.state.sequence != self.sequence_before {
            let sequence = self.state.sequence.to_be_bytes();
            self.writes
                .insert(META_SEQUENCE.into(), Some(sequence.as_slice().into()));
        }
        if self.config.shared && !self.writes.is_empty() {
            let clock = self.state.clock.0.to_be_bytes();
            self.writes
                .insert(META_CLOCK.into(), Some(clock.as_slice().into()));
        }
        let undo = self.undo.into_iter().filter_map(|change| match change {
            Change::State(undo) => Some(undo),
            Change::Write(..) | Change::Receipt(..) => None,
        });
        Finished {
            undo: undo.collect(),
            writes: self.writes,
            notices: self.notices,
            dropped: self.dropped,
            changed: self.changed,
        }
    }

    /// The record of a subject in a table.
    pub fn record<R: prost::Message + Default>(
        &self,
        table: Table,
        subject: &Subject,
        what: &str,
    ) -> Result<Option<R>, KvError> {
        self.get(&subject.key(table))?
            .map(|bytes| decode(&bytes, what))
            .transpose()
    }

    /// Whether there is a record of a subject in a table.
    pub fn has(&self, table: Table, subject: &Subject) -> Result<bool, KvError> {
        Ok(self.get(&subject.key(table))?.is_some())
    }

    /// The entries of a table whose subject begins with `prefix`, at most `limit`.
    pub fn list(
        &self,
        table: Table,
        prefix: &Subject,
        limit: usize,
    ) -> Result<Vec<Entry>, KvError> {
        let from = prefix.key(table);
        let to = after_prefix(&from);
        let mut found = Vec::new();
        if limit == 0 {
            return Ok(found);
        }
        self.scan(&from, &to, &mut |key, value| {
            found.push((key.to_vec(), value.clone()));
            if found.len() < limit {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        Ok(found)
    }

    /// Writes an entry.
    pub fn put(&mut self, key: Vec<u8>, value: Value) -> Result<(), StoreError> {
        self.write(key, Some(value))
    }

    /// Writes a record.
    pub fn put_record(
        &mut self,
        table: Table,
        subject: &Subject,
        record: &impl prost::Message,
    ) -> Result<(), StoreError> {
        self.write(subject.key(table), Some(encode(record)))
    }

    /// Removes an entry. Call it only for one that is there: it costs a write.
    pub fn remove(&mut self, key: Vec<u8>) -> Result<(), StoreError> {
        self.write(key, None)
    }

    /// Removes an entry if it is there; whether it was.
    pub fn remove_if_there(&mut self, key: Vec<u8>) -> Result<bool, StoreError> {
        let there = self.get(&key)?.is_some();
        if there {
            self.remove(key)?;
        }
        Ok(there)
    }

    fn write(&mut self, key: Vec<u8>, value: Option<Value>) -> Result<(), StoreError> {
        self.check_writable()?;
        let key = Value::from(key);
        let before = self.writes.insert(key.clone(), value);
        self.undo.push(Change::Write(key, before));
        Ok(())
    }

    /// Whether anything can be written now.
    pub fn is_writable(&self) -> bool {
        self.read_only.is_none()
    }

    fn check_writable(&self) -> Result<(), StoreError> {
        match &self.read_only {
            Some(reason) => Err(reason.clone().into()),
            None => Ok(()),
        }
    }

    /// Adds a device to a set of a push. Returns whether it was not in.
    pub fn mark(&mut self, push: &Subject, mark: Mark, ordinal: u32) -> Result<bool, StoreError> {
        self.check_writable()?;
        let key = push.key_with(Table::Receipts, &receipt_tail(mark, (ordinal >> 16) as u16));
        if !self.receipts.contains_key(&key) {
            let bits = match self.get(&key)? {
                Some(bytes) => decode_chunk(&bytes)?,
                None => RoaringBitmap::new(),
            };
            self.receipts.insert(key.clone(), Chunk { bits, added: 0 });
        }
        let chunk = self.receipts.get_mut(&key).expect("inserted above");
        let bit = ordinal & 0xffff;
        let is_new = chunk.bits.insert(bit);
        if is_new {
            chunk.added += 1;
            self.undo.push(Change::Receipt(key, bit));
        }
        Ok(is_new)
    }

    /// Whether a device is in a set of a push.
    pub fn is_marked(&self, push: &Subject, mark: Mark, ordinal: u32) -> Result<bool, KvError> {
        let key = push.key_with(Table::Receipts, &receipt_tail(mark, (ordinal >> 16) as u16));
        let bit = ordinal & 0xffff;
        if let Some(chunk) = self.receipts.get(&key) {
            return Ok(chunk.bits.contains(bit));
        }
        let bits = self.get(&key)?.map(|bytes| decode_chunk(&bytes));
        Ok(bits.transpose()?.is_some_and(|bits| bits.contains(bit)))
    }

    /// Adds devices of a chunk to a set of a push.
    pub fn mark_all(
        &mut self,
        push: &Subject,
        mark: Mark,
        chunk: u16,
        devices: RoaringBitmap,
    ) -> Result<(), StoreError> {
        self.flush_receipts();
        let key = push.key_with(Table::Receipts, &receipt_tail(mark, chunk));
        let before = match self.get(&key)? {
            Some(bytes) => decode_chunk(&bytes)?,
            None => RoaringBitmap::new(),
        };
        if !devices.is_subset(&before) {
            self.put(key, encode_chunk(before | devices))?;
        }
        Ok(())
    }

    /// Turns the touched parts of bitmaps into writes, for a request that reads or removes them. What earlier requests marked stays.
    pub fn flush_receipts(&mut self) {
        for (key, chunk) in std::mem::take(&mut self.receipts) {
            if chunk.added > 0 {
                self.writes
                    .insert(key.into(), Some(encode_chunk(chunk.bits)));
            }
        }
    }

    /// The next place in logs and inboxes.
    pub fn next_offset(&mut self) -> Offset {
        self.undo
            .push(Change::State(Undo::Sequence(self.state.sequence)));
        self.state.sequence += 1;
        if self.config.shared {
            let first = first_number_at(self.state.clock);
            self.state.sequence = self.state.sequence.max(first);
        }
        Offset(self.state.sequence)
    }

    /// All nodes must know an app's changes up to here before the request is answered.
    pub fn count_change(&mut self, app: &AppId, offset: Offset) {
        let known = self
            .changed
            .iter_mut()
            .rev()
            .take_while(|(place, ..)| *place == self.place)
            .find(|(_, known, _)| known == app);
        match known {
            Some((_, _, last)) => *last = offset,
            None => self.changed.push((self.place, app.clone(), offset)),
        }
    }

    /// Notes that a log stands elsewhere now.
    pub fn set_log(&mut self, app: &AppId, log: LogKind, now: LogState) {
        let before = self.state.log(app, log);
        self.logs_before.entry((app.clone(), log)).or_insert(before);
        self.undo
            .push(Change::State(Undo::Log(app.clone(), log, before)));
        self.state.app(app).logs.insert(log, now);
    }

    /// Notes that a device has, or has not, a stored session.
    pub fn set_stored(&mut self, app: &AppId, ordinal: u32, stored: bool) {
        let was = self.state.set_stored(app, ordinal, stored);
        self.undo
            .push(Change::State(Undo::Stored(app.clone(), ordinal, was)));
    }

    /// Replaces the entry of a client that is connected without a stored session.
    pub fn set_ephemeral(
        &mut self,
        client: &ClientKey,
        entry: Option<Ephemeral>,
    ) -> Result<(), StoreError> {
        let before = self.state.set_ephemeral(client, entry);
        self.undo
            .push(Change::State(Undo::Ephemeral(client.clone(), before)));
        self.put_ephemeral(client, entry)
    }

    /// Counts a push to all devices of an app.
    pub fn count_push_to_all(&mut self, app: &AppId) {
        self.state.app(app).pushes_to_all += 1;
        self.undo.push(Change::State(Undo::PushToAll(app.clone())));
    }

    /// A device number that no other device has.
    pub fn take_ordinal(&mut self, app: &AppId) -> Result<u32, StoreError> {
        /// Reserving many at once saves writes; those that a crash leaves over are never used.
        const RESERVED_AT_ONCE: u32 = 1024;
        let state = self.state.app(app);
        if let Some(ordinal) = state.free_ordinals.pop() {
            self.undo
                .push(Change::State(Undo::OrdinalTaken(app.clone(), ordinal)));
            return Ok(ordinal);
        }
        let ordinal = state.next_ordinal;
        let Some(next) = ordinal.checked_add(1) else {
            return Err(StoreError::Unavailable(
                "the app has no device numbers left".into(),
            ));
        };
        self.undo.push(Change::State(Undo::Ordinals(
            app.clone(),
            ordinal,
            state.reserved_ordinals,
        )));
        state.next_ordinal = next;
        if ordinal >= state.reserved_ordinals {
            let reserved = ordinal.saturating_add(RESERVED_AT_ONCE);
            state.reserved_ordinals = reserved;
            self.put(
                Subject::app(app.as_str()).key(Table::Ordinals),
                reserved.to_be_bytes().as_slice().into(),
            )?;
        }
        Ok(ordinal)
    }

    /// Gives a device number back that no push was ever for.
    pub fn free_ordinal(&mut self, app: &AppId, ordinal: u32) {
        self.state.app(app).free_ordinals.push(ordinal);
        self.undo
            .push(Change::State(Undo::OrdinalFreed(app.clone())));
    }

    /// Brings the clock forward.
    pub fn advance_clock(&mut self, now: Millis) {
        self.state.clock = self.state.clock.max(now);
        self.state.shared.advance_clock(now);
    }

    /// Announces something once the batch is committed.
    pub fn announce(&mut self, notice: Notice) {
        self.notices.push(notice);
    }

    /// Counts an inbox entry that the quota dropped.
    pub fn count_dropped(&mut self) {
        self.dropped += 1;
    }
}

/// The state with what the batch has written so far.
impl View for Txn<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Value>, KvError> {
        match self.writes.get(key) {
            Some(own) => Ok(own.clone()),
            None => self.committed.get(key),
        }
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &Value) -> ControlFlow<()>,
    ) -> Result<(), KvError> {
        let range = (Bound::Included(from), Bound::Excluded(to));
        let mut own = self.writes.range::<[u8], _>(range).peekable();
        let mut flow = ControlFlow::Continue(());
        self.committed.scan(from, to, &mut |key, value| {
            while let Some((own_key, own_value)) =
                own.next_if(|(own_key, _)| own_key.as_ref() < key)
            {
                if let Some(own_value) = own_value {
                    flow = visit(own_key, own_value);
                    flow?;
                }
            }
            flow = match own.next_if(|(own_key, _)| own_key.as_ref() == key) {
                Some((_, Some(own_value))) => visit(key, own_value),
                Some((_, None)) => ControlFlow::Continue(()),
                None => visit(key, value),
            };
            flow
        })?;
        for (key, value) in own {
            if flow.is_break() {
                break;
            }
            if let Some(value) = value {
                flow = visit(key, value);
            }
        }
        Ok(())
    }

    /// For questions of readers only, so that it may cost more than it has to.
    fn scan_back(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &Value) -> ControlFlow<()>,
    ) -> Result<(), KvError> {
        let mut found = Vec::new();
        self.scan(from, to, &mut |key, value| {
            found.push((key.to_vec(), value.clone()));
            ControlFlow::Continue(())
        })?;
        for (key, value) in found.iter().rev() {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// Reads a part of a bitmap.
pub fn decode_chunk(bytes: &[u8]) -> Result<RoaringBitmap, KvError> {
    RoaringBitmap::deserialize_from(bytes).map_err(|_| damaged("set of devices"))
}

/// The stored form of a part of a bitmap.
pub fn encode_chunk(mut bits: RoaringBitmap) -> Value {
    bits.optimize();
    let mut bytes = Vec::with_capacity(bits.serialized_size());
    bits.serialize_into(&mut bytes)
        .expect("writing to memory does not fail");
    bytes.into()
}
