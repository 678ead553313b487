//! Uploads: long lists of devices, for a push that cannot name them. Kept as the devices' numbers, for a week.

mod lines;

pub use self::lines::{Format, Lines};

use std::sync::Arc;

use prost::Message;
use roaring::RoaringBitmap;

use super::{Context, Planned, Refusal};
use crate::{
    app::AppName,
    device::names,
    fields::invalid,
    id::PushId,
    request::Invalid,
    rows::{Key, MAX_VALUE_BYTES, Scope, Table, Version},
    store::Unavailable,
};

/// Devices that an upload may list, with those that are listed again.
pub const MAX_DEVICES: u64 = 1_000_000;
/// Uploads that an app may have at a time.
pub const MAX_UPLOADS: u64 = 100;
/// How long an upload is kept.
pub const KEPT_MS: u64 = 7 * 24 * 60 * 60 * 1000;
/// Devices that are looked up at a time.
pub const CHUNK: usize = 1000;
/// Unknown devices that are named.
pub const MAX_NAMED: usize = 100;

/// Bytes of a row that are not for the numbers.
const OVERHEAD_BYTES: usize = 64;

#[derive(Clone, PartialEq, Message)]
struct UploadRecord {
    #[prost(uint64, tag = "1")]
    created_ms: u64,
    #[prost(uint64, tag = "2")]
    expires_ms: u64,
    #[prost(uint64, tag = "3")]
    listed: u64,
    #[prost(uint64, tag = "4")]
    unknown: u64,
    #[prost(uint64, tag = "5")]
    found: u64,
    /// The portable serialisation of Roaring bitmaps.
    #[prost(bytes = "vec", tag = "6")]
    numbers: Vec<u8>,
}

/// An upload, without its list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// Its id.
    pub id: String,
    /// Unix milliseconds.
    pub created_ms: u64,
    /// Unix milliseconds after which it is gone.
    pub expires_ms: u64,
    /// Devices that were listed.
    pub listed: u64,
    /// Different devices that are known, by registration or by a connection.
    pub found: u64,
    /// Devices that are not known, each time they were listed.
    pub unknown: u64,
}

/// What is gathered while a list comes in.
#[derive(Clone, Debug, Default)]
pub struct Gathered {
    numbers: RoaringBitmap,
    listed: u64,
    unknown: u64,
    named: Vec<Arc<str>>,
}

impl Gathered {
    /// Looks up some more devices, at most [`CHUNK`].
    pub fn add(
        mut self,
        context: &Context<'_>,
        app: &AppName,
        devices: &[Arc<str>],
    ) -> Result<Gathered, Unavailable> {
        let numbers = context.reader.device_numbers(app, devices)?;
        self.listed += devices.len() as u64;
        for (device, number) in devices.iter().zip(numbers) {
            if let Some(number) = number {
                self.numbers.insert(number);
                continue;
            }
            self.unknown += 1;
            if self.named.len() < MAX_NAMED && !self.named.contains(device) {
                self.named.push(device.clone());
            }
        }
        Ok(self)
    }

    /// The first unknown devices, at most [`MAX_NAMED`].
    pub fn named(&self) -> &[Arc<str>] {
        &self.named
    }
}

fn row_of(upload: &str) -> Key {
    Key::new(Table::Upload, upload)
}

fn upload_of(id: String, record: &UploadRecord) -> Upload {
    Upload {
        id,
        created_ms: record.created_ms,
        expires_ms: record.expires_ms,
        listed: record.listed,
        found: record.found,
        unknown: record.unknown,
    }
}

fn read(
    context: &Context<'_>,
    app: &AppName,
    upload: &str,
) -> Result<(UploadRecord, Version), Refusal> {
    let check = names::UPLOAD.check(upload);
    check.map_err(|bad| invalid("", bad.to_string()))?;
    let (record, version) = context.record(&Scope::App(app.clone()), &row_of(upload))?;
    let record = record.ok_or_else(|| Refusal::Missing {
        what: "upload",
        name: upload.to_owned(),
    })?;
    Ok((record, version))
}

/// Keeps what was gathered.
pub fn create(
    context: &Context<'_>,
    app: &AppName,
    gathered: &Gathered,
) -> Result<Planned<Upload>, Refusal> {
    let id = PushId(context.unique).to_string();
    let mut numbers = gathered.numbers.clone();
    numbers.optimize();
    let bytes = numbers.serialized_size();
    // Numbers are dense, so that this takes an app of many millions of devices.
    if bytes > MAX_VALUE_BYTES - OVERHEAD_BYTES {
        return Err(too_scattered(bytes).into());
    }
    let mut serialized = Vec::with_capacity(bytes);
    numbers
        .serialize_into(&mut serialized)
        .expect("a vector takes all bytes");
    let record = UploadRecord {
        created_ms: context.now_ms,
        expires_ms: context.now_ms + KEPT_MS,
        listed: gathered.listed,
        unknown: gathered.unknown,
        found: numbers.len(),
        numbers: serialized,
    };
    let change = context
        .change(Scope::App(app.clone()))
        .expect(row_of(&id), Version::ABSENT)
        .put_until(row_of(&id), record.encode_to_vec(), record.expires_ms)
        .at_most(Table::Upload, MAX_UPLOADS);
    let answer = upload_of(id, &record);
    Ok(Planned::change(change, answer))
}

fn too_scattered(bytes: usize) -> Invalid {
    let most = MAX_VALUE_BYTES - OVERHEAD_BYTES;
    let detail = format!("the list takes {bytes} bytes to keep, at most {most}; split it");
    invalid("", detail)
}

/// An upload.
pub fn get(context: &Context<'_>, app: &AppName, upload: &str) -> Result<Upload, Refusal> {
    let (record, _) = read(context, app, upload)?;
    Ok(upload_of(upload.to_owned(), &record))
}

/// The numbers of an upload's devices.
pub fn numbers(
    context: &Context<'_>,
    app: &AppName,
    upload: &str,
) -> Result<RoaringBitmap, Refusal> {
    let (record, _) = read(context, app, upload)?;
    let numbers = RoaringBitmap::deserialize_from(&record.numbers[..]);
    numbers.map_err(|bad| {
        let damaged = format!("upload {upload:?} is damaged: {bad}");
        Refusal::Unavailable(Unavailable(damaged.into()))
    })
}

/// Removes an upload. Pushes that were made to it go on.
pub fn delete(context: &Context<'_>, app: &AppName, upload: &str) -> Result<Planned<()>, Refusal> {
    let (_, version) = read(context, app, upload)?;
    let change = context
        .change(Scope::App(app.clone()))
        .expect(row_of(upload), version)
        .remove(row_of(upload));
    Ok(Planned::change(change, ()))
}

#[cfg(test)]
mod tests;
