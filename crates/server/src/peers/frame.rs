//! Frames on a stream of bytes: four bytes of length, big-endian, then a Protocol Buffers message.

use std::io;

use prost::{
    Message,
    bytes::{Buf, BufMut, Bytes, BytesMut},
};
use tokio::io::{AsyncRead, AsyncReadExt};

const LENGTH_BYTES: usize = 4;

/// A frame announces more bytes than its receiver reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {bytes} bytes, more than the {max} that are read")]
pub struct TooLarge {
    /// Its length.
    pub bytes: usize,
    /// The bound.
    pub max: usize,
}

/// Appends a frame, unless it had more than `max` bytes.
pub fn put(frame: &impl Message, max: usize, buffer: &mut BytesMut) -> Result<(), TooLarge> {
    let bytes = frame.encoded_len();
    if bytes > max || u32::try_from(bytes).is_err() {
        return Err(TooLarge { bytes, max });
    }
    buffer.reserve(LENGTH_BYTES + bytes);
    buffer.put_u32(bytes as u32);
    frame.encode_raw(buffer);
    Ok(())
}

/// Takes the next frame, if it is complete. Otherwise makes room for what is missing of it.
pub fn take(buffer: &mut BytesMut, max: usize) -> Result<Option<Bytes>, TooLarge> {
    let Some(length) = buffer.first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    let bytes = u32::from_be_bytes(*length) as usize;
    if bytes > max {
        return Err(TooLarge { bytes, max });
    }
    let whole = LENGTH_BYTES + bytes;
    if buffer.len() < whole {
        buffer.reserve(whole - buffer.len());
        return Ok(None);
    }
    buffer.advance(LENGTH_BYTES);
    Ok(Some(buffer.split_to(bytes).freeze()))
}

/// Waits for one frame. What follows it stays in `buffer`.
pub async fn read<M: Message + Default>(
    stream: &mut (impl AsyncRead + Unpin + ?Sized),
    buffer: &mut BytesMut,
    max: usize,
) -> io::Result<M> {
    loop {
        if let Some(frame) = take(buffer, max).map_err(io::Error::other)? {
            return M::decode(frame).map_err(io::Error::other);
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}
