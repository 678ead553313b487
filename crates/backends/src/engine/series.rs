//! When devices told of a push: a count for each stretch of time, beside the sets.

use campanile_broker::store::StoreError;
use campanile_push::{
    app::AppName,
    id::PushId,
    receipt::Mark,
    series::{Series, bucket_of},
};

use super::{
    keys::{Subject, Table},
    kv::{KvError, View},
    records::{PushRecord, damaged, decode_u64},
    recover::for_each_of,
    txn::Txn,
};

impl Txn<'_> {
    /// Counts a mark that was new. Of a push to one device the sets say all there is to know.
    pub fn count_in_series(
        &mut self,
        push: &Subject,
        record: &PushRecord,
        mark: Mark,
    ) -> Result<(), StoreError> {
        if !record.to_all && record.targeted <= 1 {
            return Ok(());
        }
        let bucket = bucket_of(self.state.clock.0.saturating_sub(record.accepted_ms));
        let [high, low] = bucket.to_be_bytes();
        let key = push.key_with(Table::Series, &[high, low, mark.code()]);
        let before = self.get(&key)?.map(|bytes| decode_u64(&bytes, "count"));
        let count = before.transpose()?.unwrap_or_default() + 1;
        self.put(key, count.to_be_bytes().as_slice().into())
    }
}

/// The counts of a push.
pub fn read_series(view: &dyn View, app: &AppName, id: PushId) -> Result<Series, KvError> {
    let push = Subject::push(app.as_str(), id.0);
    let mut series = Series::default();
    for_each_of(view, Table::Series, &push, |key, value| {
        let [high, low, code] = *key.last_chunk::<3>().ok_or_else(|| damaged("count"))?;
        // A mark that a later version counts is passed over.
        if let Some(mark) = Mark::from_code(code) {
            let bucket = u16::from_be_bytes([high, low]);
            series.load(bucket, mark, decode_u64(value, "count")?);
        }
        Ok(())
    })?;
    Ok(series)
}
