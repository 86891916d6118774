//! A backup as bytes: a line that says what it is, then messages with their lengths, the last of which has the checksum of
//! all before it.

use std::io::{self, Read, Write};
use std::time::SystemTime;

use bytes::Bytes;
use mesh_api::store::v1 as pb;
use pb::backup_item::Item;
use prost::Message;
use sha2::{Digest, Sha256};

use crate::catalog::{Generation, Position, Revision, StoreId};
use crate::storage::codec::FORMAT;

/// What the file begins with.
const FIRST_LINE: &[u8] = b"meshwork registry backup\n";

/// Longest item, in bytes: many times the largest registration that the door lets in.
const ITEM_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A record's key and value.
pub(super) type KeyValue = (Vec<u8>, Vec<u8>);

/// Writes a backup.
pub(super) struct Writer<W> {
    out: W,
    sum: Sha256,
    records: u64,
}

impl<W: Write> Writer<W> {
    pub(super) fn begin(out: W, position: &Position, taken_at: SystemTime) -> io::Result<Self> {
        let mut writer = Self { out, sum: Sha256::new(), records: 0 };
        writer.bytes(FIRST_LINE)?;
        let header = pb::BackupHeader {
            format: FORMAT,
            store_id: position.store.as_str().to_owned(),
            generation: position.generation.0,
            revision: position.revision.get(),
            taken_at: Some(taken_at.into()),
        };
        writer.item(Item::Header(header))?;
        Ok(writer)
    }

    pub(super) fn record(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.records += 1;
        let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
        self.item(Item::Record(pb::BackupRecord { key, value }))
    }

    pub(super) fn end(mut self) -> io::Result<W> {
        let sha256 = Bytes::copy_from_slice(&self.sum.clone().finalize());
        let records = self.records;
        self.item(Item::End(pb::BackupEnd { records, sha256 }))?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn item(&mut self, item: Item) -> io::Result<()> {
        self.bytes(&pb::BackupItem { item: Some(item) }.encode_length_delimited_to_vec())
    }

    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sum.update(bytes);
        self.out.write_all(bytes)
    }
}

/// Reads a backup. What it gave is only to be believed once it has said that this was all.
pub(super) struct Reader<R> {
    from: R,
    sum: Sha256,
    records: u64,
    ended: bool,
    pub(super) position: Position,
    pub(super) taken_at: Option<SystemTime>,
}

impl<R: Read> Reader<R> {
    /// Reads up to the header.
    pub(super) fn of(mut from: R) -> Result<Self, String> {
        let mut first = [0; FIRST_LINE.len()];
        let read = from.read_exact(&mut first);
        if read.is_err() || first != *FIRST_LINE {
            return Err("it does not begin like one".to_owned());
        }
        let position = Position { store: nobody(), generation: Generation::default(), revision: Revision::ZERO };
        let sum = Sha256::new_with_prefix(FIRST_LINE);
        let mut reader = Self { from, sum, records: 0, ended: false, position, taken_at: None };
        match reader.item()? {
            (Item::Header(header), _) => reader.take(header)?,
            _ => return Err("its header is missing".to_owned()),
        }
        Ok(reader)
    }

    fn take(&mut self, header: pb::BackupHeader) -> Result<(), String> {
        match header.format {
            FORMAT => {}
            0 => return Err("it is in format 0, which there never was".to_owned()),
            found => return Err(format!("it is in format {found}, and this program knows formats up to {FORMAT}")),
        }
        self.position = Position {
            store: StoreId::parse(&header.store_id).map_err(|invalid| invalid.to_string())?,
            generation: Generation(header.generation),
            revision: Revision::new(header.revision),
        };
        self.taken_at = header.taken_at.and_then(|at| at.try_into().ok());
        Ok(())
    }

    /// The next record's key and value; `None` after the last, if all of them were as written.
    pub(super) fn next(&mut self) -> Result<Option<KeyValue>, String> {
        if self.ended {
            return Ok(None);
        }
        match self.item()? {
            (Item::Record(record), _) => {
                self.records += 1;
                Ok(Some((record.key.to_vec(), record.value.to_vec())))
            }
            (Item::End(end), sum) => {
                if end.sha256 != sum[..] || end.records != self.records {
                    return Err("its checksum is not that of what it holds".to_owned());
                }
                if self.from.read(&mut [0]).map_err(|error| error.to_string())? != 0 {
                    return Err("something follows its end".to_owned());
                }
                self.ended = true;
                Ok(None)
            }
            (Item::Header(_), _) => Err("it has a second header".to_owned()),
        }
    }

    /// The next item, and the checksum of everything before it.
    fn item(&mut self) -> Result<(Item, Vec<u8>), String> {
        let before = self.sum.clone();
        let length = self.length()?;
        if length > ITEM_BYTES_MAX {
            return Err(format!("an item of {length} bytes, when {ITEM_BYTES_MAX} is the most"));
        }
        let mut bytes = Vec::new();
        let read = (&mut self.from).take(length as u64).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        if read < length {
            return Err("it is cut short".to_owned());
        }
        self.sum.update(&bytes);
        let item = pb::BackupItem::decode(&*bytes).map_err(|error| format!("an item is no message: {error}"))?;
        let item = item.item.ok_or("an item is of a kind that is not known")?;
        Ok((item, before.finalize().to_vec()))
    }

    /// A length as a varint of at most five bytes.
    fn length(&mut self) -> Result<usize, String> {
        let mut length = 0_usize;
        for place in 0..5 {
            let mut byte = [0];
            match self.from.read_exact(&mut byte) {
                Ok(()) => self.sum.update(byte),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err("it is cut short".to_owned()),
                Err(error) => return Err(error.to_string()),
            }
            length |= usize::from(byte[0] & 0x7f) << (7 * place);
            if byte[0] & 0x80 == 0 {
                return Ok(length);
            }
        }
        Err("an item without a length".to_owned())
    }
}

/// Until the header has been read.
fn nobody() -> StoreId {
    StoreId::parse("-").expect("a printable character is a store id")
}
