//! MessagePack, as far as the scripts speak it.
//!
//! Lua numbers are doubles: integers are exact below 2^53. What may be larger travels as text.

/// Writes values one after another.
#[derive(Debug, Default)]
pub struct Pack(Vec<u8>);

impl Pack {
    /// What was written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Begins an array; that many values follow.
    pub fn array(&mut self, length: usize) -> &mut Pack {
        match length {
            0..=15 => self.0.push(0x90 | length as u8),
            16..=0xffff => {
                self.0.push(0xdc);
                self.0.extend_from_slice(&(length as u16).to_be_bytes());
            }
            _ => {
                self.0.push(0xdd);
                self.0.extend_from_slice(&(length as u32).to_be_bytes());
            }
        }
        self
    }

    /// Values that were packed elsewhere.
    pub fn raw(&mut self, packed: &[u8]) -> &mut Pack {
        self.0.extend_from_slice(packed);
        self
    }

    /// A byte string.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Pack {
        match bytes.len() {
            length @ 0..=31 => self.0.push(0xa0 | length as u8),
            length @ 32..=0xffff => {
                self.0.push(0xda);
                self.0.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => {
                self.0.push(0xdb);
                self.0.extend_from_slice(&(length as u32).to_be_bytes());
            }
        }
        self.0.extend_from_slice(bytes);
        self
    }

    /// A text.
    pub fn text(&mut self, text: &str) -> &mut Pack {
        self.bytes(text.as_bytes())
    }

    /// A number; beyond 2^53 it arrives rounded.
    pub fn number(&mut self, number: u64) -> &mut Pack {
        if number < 0x80 {
            self.0.push(number as u8);
        } else {
            self.0.push(0xcf);
            self.0.extend_from_slice(&number.to_be_bytes());
        }
        self
    }

    /// A truth value. `false` stands for what is absent, too: a Lua array must not have holes.
    pub fn truth(&mut self, truth: bool) -> &mut Pack {
        self.0.push(if truth { 0xc3 } else { 0xc2 });
        self
    }

    /// The value, or `false` if there is none.
    pub fn option<T>(&mut self, value: Option<T>, pack: impl FnOnce(&mut Pack, T)) -> &mut Pack {
        match value {
            Some(value) => pack(self, value),
            None => {
                self.truth(false);
            }
        }
        self
    }

    /// An array of values.
    pub fn list<T>(
        &mut self,
        values: impl ExactSizeIterator<Item = T>,
        mut pack: impl FnMut(&mut Pack, T),
    ) -> &mut Pack {
        self.array(values.len());
        for value in values {
            pack(self, value);
        }
        self
    }
}

/// A value that a script answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Packed {
    /// Nothing there, or no.
    False,
    /// Yes.
    True,
    /// A number.
    Number(u64),
    /// A byte string.
    Bytes(Vec<u8>),
    /// An array.
    Array(Vec<Packed>),
}

/// The answer is not one that the scripts give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl Packed {
    /// Reads one value that fills the bytes.
    pub fn parse(mut bytes: &[u8]) -> Result<Packed, Malformed> {
        let value = parse(&mut bytes, 0)?;
        if bytes.is_empty() {
            Ok(value)
        } else {
            Err(Malformed)
        }
    }

    /// The elements of an array.
    pub fn array(self) -> Result<Vec<Packed>, Malformed> {
        match self {
            Packed::Array(values) => Ok(values),
            _ => Err(Malformed),
        }
    }

    /// The elements of an array of that many.
    pub fn tuple<const N: usize>(self) -> Result<[Packed; N], Malformed> {
        self.array()?.try_into().map_err(|_| Malformed)
    }

    /// The elements of an array, each read by `read`.
    pub fn list<T>(
        self,
        read: impl FnMut(Packed) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        self.array()?.into_iter().map(read).collect()
    }

    /// A number; also one in decimal digits.
    pub fn number(&self) -> Result<u64, Malformed> {
        match self {
            Packed::Number(number) => Ok(*number),
            Packed::Bytes(digits) => std::str::from_utf8(digits)
                .ok()
                .and_then(|digits| digits.parse().ok())
                .ok_or(Malformed),
            _ => Err(Malformed),
        }
    }

    /// A truth value.
    pub fn truth(&self) -> Result<bool, Malformed> {
        match self {
            Packed::True => Ok(true),
            Packed::False => Ok(false),
            _ => Err(Malformed),
        }
    }

    /// A byte string.
    pub fn bytes(self) -> Result<Vec<u8>, Malformed> {
        match self {
            Packed::Bytes(bytes) => Ok(bytes),
            _ => Err(Malformed),
        }
    }

    /// A text.
    pub fn text(self) -> Result<String, Malformed> {
        String::from_utf8(self.bytes()?).map_err(|_| Malformed)
    }

    /// `None` for `false`.
    pub fn option(self) -> Option<Packed> {
        (self != Packed::False).then_some(self)
    }
}

fn parse(bytes: &mut &[u8], depth: u8) -> Result<Packed, Malformed> {
    const DEEPEST: u8 = 16;
    if depth > DEEPEST {
        return Err(Malformed);
    }
    let [tag] = take(bytes)?;
    Ok(match tag {
        0x00..=0x7f => Packed::Number(tag.into()),
        0xa0..=0xbf => string(bytes, usize::from(tag & 0x1f))?,
        0x90..=0x9f => array(bytes, usize::from(tag & 0x0f), depth)?,
        // An empty table.
        0x80 => Packed::Array(Vec::new()),
        0xc0 | 0xc2 => Packed::False,
        0xc3 => Packed::True,
        0xca => float(f32::from_be_bytes(take(bytes)?).into())?,
        0xcb => float(f64::from_be_bytes(take(bytes)?))?,
        0xcc => Packed::Number(take::<1>(bytes)?[0].into()),
        0xcd => Packed::Number(u16::from_be_bytes(take(bytes)?).into()),
        0xce => Packed::Number(u32::from_be_bytes(take(bytes)?).into()),
        0xcf | 0xd3 => Packed::Number(u64::from_be_bytes(take(bytes)?)),
        0xc4 | 0xd9 => {
            let [length] = take(bytes)?;
            string(bytes, length.into())?
        }
        0xc5 | 0xda => {
            let length = u16::from_be_bytes(take(bytes)?);
            string(bytes, length.into())?
        }
        0xc6 | 0xdb => {
            let length = u32::from_be_bytes(take(bytes)?);
            string(bytes, length as usize)?
        }
        0xdc => {
            let length = u16::from_be_bytes(take(bytes)?);
            array(bytes, length.into(), depth)?
        }
        0xdd => {
            let length = u32::from_be_bytes(take(bytes)?);
            array(bytes, length as usize, depth)?
        }
        _ => return Err(Malformed),
    })
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (head, rest) = bytes.split_first_chunk::<N>().ok_or(Malformed)?;
    *bytes = rest;
    Ok(*head)
}

fn string(bytes: &mut &[u8], length: usize) -> Result<Packed, Malformed> {
    let (head, rest) = bytes.split_at_checked(length).ok_or(Malformed)?;
    *bytes = rest;
    Ok(Packed::Bytes(head.to_vec()))
}

fn array(bytes: &mut &[u8], length: usize, depth: u8) -> Result<Packed, Malformed> {
    // Each element has at least one byte, so that a wrong length cannot make us reserve memory.
    let mut values = Vec::with_capacity(length.min(bytes.len()));
    for _ in 0..length {
        values.push(parse(bytes, depth + 1)?);
    }
    Ok(Packed::Array(values))
}

fn float(number: f64) -> Result<Packed, Malformed> {
    let is_whole = number.fract() == 0.0 && (0.0..9_007_199_254_740_992.0).contains(&number);
    if is_whole {
        Ok(Packed::Number(number as u64))
    } else {
        Err(Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_parsed() {
        let mut pack = Pack::default();
        let long = "x".repeat(70_000);
        pack.array(6)
            .number(7)
            .number(1 << 52)
            .text(&long)
            .truth(true)
            .option(None::<u64>, |pack, number| {
                pack.number(number);
            })
            .list(
                (0..20u64).collect::<Vec<_>>().into_iter(),
                |pack, number| {
                    pack.number(number);
                },
            );
        let parsed = Packed::parse(&pack.into_bytes()).unwrap().array().unwrap();
        assert_eq!(parsed[0], Packed::Number(7));
        assert_eq!(parsed[1], Packed::Number(1 << 52));
        assert_eq!(parsed[2], Packed::Bytes(long.into_bytes()));
        assert_eq!((&parsed[3], &parsed[4]), (&Packed::True, &Packed::False));
        assert_eq!(parsed[5].clone().array().unwrap().len(), 20);
    }

    #[test]
    fn nonsense_is_refused() {
        for bytes in [
            &[][..],
            &[0xdd, 0xff, 0xff, 0xff, 0xff],
            &[0xa5, b'x'],
            &[1, 2],
            &[0xff],
            &[0x91; 40],
        ] {
            assert_eq!(Packed::parse(bytes), Err(Malformed));
        }
    }
}
