//! The lines of a list as they come in, in pieces that end anywhere.

use std::sync::Arc;

use super::MAX_DEVICES;
use crate::{
    audience,
    device::names,
    fields::{Fields, invalid, wrong_kind},
    json::{self, Node},
    request::{Fault, Invalid},
};

/// Longest line. A client identifier in JSON, all of it escaped, has less.
const MAX_LINE_BYTES: usize = 4096;

/// What a line looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A client identifier as it is.
    Text,
    /// A JSON string, or an object `{"device": ".."}`.
    Json,
}

/// Takes pieces in, gives devices out. Empty lines count for nothing; a line may end with CR LF.
#[derive(Debug)]
pub struct Lines {
    format: Format,
    partial: Vec<u8>,
    line: u64,
    listed: u64,
}

impl Lines {
    /// At the beginning of a list.
    pub fn new(format: Format) -> Lines {
        Lines {
            format,
            partial: Vec::new(),
            line: 0,
            listed: 0,
        }
    }

    /// Takes a piece; the devices of its whole lines go to `devices`.
    pub fn take(&mut self, piece: &[u8], devices: &mut Vec<Arc<str>>) -> Result<(), Invalid> {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            if self.partial.len() + part.len() > MAX_LINE_BYTES {
                let detail = format!("the line has more than {MAX_LINE_BYTES} bytes");
                return Err(self.mistake(invalid("", detail)));
            }
            self.partial.extend_from_slice(part);
            if part.ends_with(b"\n") {
                self.end_line(devices)?;
            }
        }
        Ok(())
    }

    /// Takes the end: a last line without an end is a line too.
    pub fn finish(&mut self, devices: &mut Vec<Arc<str>>) -> Result<(), Invalid> {
        self.end_line(devices)?;
        match self.listed {
            0 => Err(invalid(
                "",
                "the list is empty: send one client identifier a line",
            )),
            _ => Ok(()),
        }
    }

    fn end_line(&mut self, devices: &mut Vec<Arc<str>>) -> Result<(), Invalid> {
        let line = std::mem::take(&mut self.partial);
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if !line.is_empty() {
            self.listed += 1;
            if self.listed > MAX_DEVICES {
                let detail = format!("the list has more than {MAX_DEVICES} devices; split it");
                return Err(invalid("", detail));
            }
            let device = match self.format {
                Format::Text => text_line(line),
                Format::Json => json_line(line),
            };
            devices.push(device.map_err(|invalid| self.mistake(invalid))?);
        }
        self.line += 1;
        Ok(())
    }

    /// Says which line it is about.
    fn mistake(&self, invalid: Invalid) -> Invalid {
        let line = self.line + 1;
        Invalid {
            fault: match invalid.fault {
                Fault::MalformedJson { column, .. } => Fault::MalformedJson {
                    line: usize::try_from(line).unwrap_or(usize::MAX),
                    column,
                },
                other => other,
            },
            detail: format!("line {line}: {}", invalid.detail),
            ..invalid
        }
    }
}

fn text_line(line: &[u8]) -> Result<Arc<str>, Invalid> {
    let text = std::str::from_utf8(line).map_err(|_| invalid("", "it is not UTF-8"))?;
    checked("", text)
}

fn json_line(line: &[u8]) -> Result<Arc<str>, Invalid> {
    const KNOWN: [&str; 1] = ["device"];
    match json::read(line)? {
        Node::Text(text) => checked("", &text),
        document => {
            let mut fields = Fields::of("", &document)?;
            let device = fields.required("device", "the client identifier of a device")?;
            fields.no_others(&KNOWN)?;
            match device {
                Node::Text(text) => checked("/device", text),
                other => Err(wrong_kind("/device", "a string", other)),
            }
        }
    }
}

fn checked(at: &str, text: &str) -> Result<Arc<str>, Invalid> {
    audience::checked(at, &names::CLIENT_ID, text)?;
    Ok(text.into())
}
