//! What the engine needs of a store: an ordered map of byte strings with atomic, durable commits.

use std::{ops::ControlFlow, sync::Arc};

use campanile_broker::store::StoreError;

/// A key or value: immutable bytes, cheap to clone.
pub type Value = fjall::Slice;

/// Writes of one commit by key; `None` removes.
pub type Writes = std::collections::BTreeMap<Value, Option<Value>>;

/// A key and its value.
pub type Entry = (Vec<u8>, Value);

/// The store could not read or write. Carries a text for the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KvError(pub Arc<str>);

impl From<KvError> for StoreError {
    fn from(error: KvError) -> StoreError {
        StoreError::Unavailable(error.0)
    }
}

impl From<KvError> for campanile_push::store::Unavailable {
    fn from(error: KvError) -> campanile_push::store::Unavailable {
        campanile_push::store::Unavailable(error.0)
    }
}

/// Committed state to read from.
pub trait View {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Value>, KvError>;

    /// Visits the entries with `from <= key < to` in ascending order until the visitor breaks.
    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &Value) -> ControlFlow<()>,
    ) -> Result<(), KvError>;

    /// The same in descending order.
    fn scan_back(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &Value) -> ControlFlow<()>,
    ) -> Result<(), KvError>;
}

/// An ordered key-value store with one writer. As a [`View`] it shows what is committed.
pub trait Kv: View + Send {
    /// A handle for readers on other threads.
    type Reads: Reads;

    /// Called before each batch: the time to recover from an earlier failure.
    fn prepare(&mut self) {}

    /// Makes all writes durable, or none of them.
    fn commit(&mut self, writes: &Writes) -> Result<(), KvError>;

    /// A handle for readers on other threads.
    fn reads(&self) -> Self::Reads;

    /// Releases everything, writing what is left to write.
    fn close(self) -> Result<(), KvError>;
}

/// Access to consistent views from other threads.
pub trait Reads: Send + Sync + 'static {
    /// Shows one consistent view of what is committed, for the time of the call.
    fn with_view<R>(
        &self,
        read: impl FnOnce(&dyn View) -> Result<R, KvError>,
    ) -> Result<R, KvError>;
}

/// The smallest byte string that is larger than all that begin with `prefix`. The prefix has a byte below 0xff.
pub(super) fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let keep = prefix
        .iter()
        .rposition(|byte| *byte != 0xff)
        .expect("table bytes are below 0xff");
    let mut end = prefix[..=keep].to_vec();
    end[keep] += 1;
    end
}
