//! The 512-byte header block: POSIX.1-1988 ustar, its v7 ancestor, and GNU's and star's variants.

/// Size of a header and unit of padding, in bytes.
pub(super) const BLOCK: usize = 512;

/// Which fields a header has beyond v7's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// None.
    V7,
    /// Device numbers and a prefix of this many bytes (155 in ustar and PAX, 131 in star).
    Ustar(usize),
    /// Device numbers; old-GNU sparse maps where ustar has its prefix.
    Gnu,
}

/// A header block with the right checksum.
#[derive(Clone)]
pub(super) struct Header {
    block: [u8; BLOCK],
}

/// What is wrong with a field or block.
pub(super) type HeaderError = &'static str;

impl Header {
    /// Checks the checksum, a sum of unsigned bytes (POSIX) or of signed ones (some historical writers).
    pub(super) fn parse(block: [u8; BLOCK]) -> Result<Self, HeaderError> {
        let (mut unsigned, mut signed) = (0i64, 0i64);
        for (index, byte) in block.iter().enumerate() {
            // The sum counts its own field as spaces.
            let byte = if (148..156).contains(&index) { b' ' } else { *byte };
            unsigned += i64::from(byte);
            signed += i64::from(byte as i8);
        }
        let header = Self { block };
        let stated = number(header.field(148, 8)).map_err(|_| "its checksum is not a number")?;
        if stated == unsigned || stated == signed {
            Ok(header)
        } else {
            Err("its checksum is wrong: the data is damaged or not a tar archive")
        }
    }

    fn field(&self, start: usize, length: usize) -> &[u8] {
        self.block.get(start..start + length).unwrap_or_default()
    }

    fn dialect(&self) -> Dialect {
        match self.field(257, 8) {
            b"ustar  \0" => Dialect::Gnu,
            magic if magic.starts_with(b"ustar\0") && self.field(508, 4) == b"tar\0" => Dialect::Ustar(131),
            magic if magic.starts_with(b"ustar") => Dialect::Ustar(155),
            _ => Dialect::V7,
        }
    }

    pub(super) fn type_flag(&self) -> u8 {
        self.field(156, 1).first().copied().unwrap_or_default()
    }

    /// The name with its prefix, as the archive has it.
    pub(super) fn name(&self) -> Vec<u8> {
        let name = text(self.field(0, 100));
        match self.dialect() {
            Dialect::Ustar(length) => match text(self.field(345, length)) {
                b"" => name.to_vec(),
                prefix => [prefix, b"/", name].concat(),
            },
            Dialect::V7 | Dialect::Gnu => name.to_vec(),
        }
    }

    pub(super) fn link_name(&self) -> &[u8] {
        text(self.field(157, 100))
    }

    pub(super) fn mode(&self) -> Result<i64, HeaderError> {
        number(self.field(100, 8)).map_err(|_| "its mode is not a number")
    }

    pub(super) fn uid(&self) -> Result<i64, HeaderError> {
        number(self.field(108, 8)).map_err(|_| "its owner is not a number")
    }

    pub(super) fn gid(&self) -> Result<i64, HeaderError> {
        number(self.field(116, 8)).map_err(|_| "its group is not a number")
    }

    pub(super) fn size(&self) -> Result<i64, HeaderError> {
        number(self.field(124, 12)).map_err(|_| "its size is not a number")
    }

    pub(super) fn mtime(&self) -> Result<i64, HeaderError> {
        number(self.field(136, 12)).map_err(|_| "its time is not a number")
    }

    /// Major and minor device number; 0 in v7, which has none.
    pub(super) fn device(&self) -> Result<(i64, i64), HeaderError> {
        if self.dialect() == Dialect::V7 {
            return Ok((0, 0));
        }
        let part = |start| number(self.field(start, 8)).map_err(|_| "its device number is not a number");
        Ok((part(329)?, part(337)?))
    }

    /// The sparse map of an old-GNU header, up to four segments, and the file's real size.
    pub(super) fn sparse(&self) -> Result<(SparseTable, i64), HeaderError> {
        let size = number(self.field(483, 12)).map_err(|_| "its real size is not a number")?;
        let table = SparseTable { segments: segments(self.field(386, 96))?, more: self.field(482, 1) != [0] };
        Ok((table, size))
    }
}

/// Old-GNU sparse segments, as pairs of offset and length.
pub(super) struct SparseTable {
    pub(super) segments: Vec<(i64, i64)>,
    /// Whether another block of them follows.
    pub(super) more: bool,
}

/// Parses a block of up to 21 old-GNU sparse segments.
pub(super) fn sparse_extension(block: &[u8; BLOCK]) -> Result<SparseTable, HeaderError> {
    let (table, rest) = block.split_at(504);
    Ok(SparseTable { segments: segments(table)?, more: rest.first() != Some(&0) })
}

fn segments(table: &[u8]) -> Result<Vec<(i64, i64)>, HeaderError> {
    let part = |field| number(field).map_err(|_| "its sparse map is not made of numbers");
    table
        .chunks_exact(24)
        .map(|segment| segment.split_at(12))
        // The first empty length ends the table.
        .take_while(|(_, length)| length.first() != Some(&0))
        .map(|(offset, length)| Ok((part(offset)?, part(length)?)))
        .collect()
}

/// A text field up to its NUL, if it has one.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Whether these bytes begin with a header.
pub(in crate::image) fn is_header(start: &[u8]) -> bool {
    let block = start.get(..BLOCK).and_then(|block| <[u8; BLOCK]>::try_from(block).ok());
    block.is_some_and(|block| Header::parse(block).is_ok())
}

/// A number in octal digits, with leading spaces or NULs (old v7 writers), ended by a space, a NUL or the
/// field's end. If the top bit is set, the number is in GNU's base-256, in two's complement. An empty field is 0.
fn number(field: &[u8]) -> Result<i64, ()> {
    if field.first().is_some_and(|byte| byte & 0x80 != 0) {
        return base256(field);
    }
    let is_filler = |byte: &u8| *byte == 0 || byte.is_ascii_whitespace();
    let start = field.iter().position(|byte| !is_filler(byte)).unwrap_or(field.len());
    let digits = field.get(start..).unwrap_or_default();
    let end = digits.iter().position(|byte| matches!(byte, 0 | b' ')).unwrap_or(digits.len());
    let digits = digits.get(..end).unwrap_or_default();
    digits.iter().try_fold(0i64, |value, digit| match digit {
        b'0'..=b'7' => Ok(value << 3 | i64::from(digit - b'0')),
        _ => Err(()),
    })
}

fn base256(field: &[u8]) -> Result<i64, ()> {
    let negative = field.first().is_some_and(|byte| byte & 0x40 != 0);
    let mut value: i128 = if negative { -1 } else { 0 };
    for (index, byte) in field.iter().enumerate() {
        // The top bit marks the encoding. In a negative number it also is a copy of the sign.
        let byte = if index == 0 && !negative { byte & 0x7f } else { *byte };
        value = value << 8 | i128::from(byte);
    }
    i64::try_from(value).map_err(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_all_their_spellings() {
        for (field, value) in [
            (&b"0000644\0"[..], 0o644),
            (b"   644 \0", 0o644),
            (b"644\0\0\0\0\0", 0o644),
            (b"\0\0\0\x000755", 0o755),
            (b"\0 \0 1750", 0o1750),
            (b" \x00644 \0", 0o644),
            (b"\x00644\x00999", 0o644),
            (b" \0\0 \0 \0 ", 0),
            (b"00000000000\0", 0),
            (b"777777777777", 0o777_777_777_777),
            (b"\0\0\0\0\0\0\0\0", 0),
            (b"        ", 0),
            (b"\x80\0\0\0\0\0\0\0\0\0\x01\0", 256),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", -1), // does not fit: see below
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", -2),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", -1),
        ] {
            let parsed = number(field);
            if field[0] == 0x80 && field[4] == 0x80 {
                assert!(parsed.is_err());
            } else {
                assert_eq!(parsed, Ok(value), "{}", field.escape_ascii());
            }
        }
        for bad in [
            &b"8000000\0"[..],
            b"-0000001",
            b"0x10\0\0\0\0",
            b"\0\0\0x644\0",
            b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            assert!(number(bad).is_err(), "{}", bad.escape_ascii());
        }
    }
}
