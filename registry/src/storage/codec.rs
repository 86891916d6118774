//! Records as bytes, one way for every store and for backups: `mesh.store.v1`. What is written decodes to what it was;
//! what cannot be understood is an error that says where, never a guess and never a panic.

mod decode;
mod encode;
mod key;

use bytes::Bytes;
use mesh_api::store::v1 as pb;
use prost::Message;

use super::Entry;
use crate::catalog::{Invalid, Key, OpId, Record, Revision};

pub(super) use key::encode_key_to;
pub use key::{decode_key, encode_key};

/// Version of the format: of the keys, and of everything an older reader would misunderstand rather than skip. A store
/// says which it is written in, and a newer one is refused.
pub const FORMAT: u32 = 1;

/// What stands under a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Value {
    /// The record.
    pub record: Record,
    /// When it was last changed; zero in a store that counts by itself.
    pub revision: Revision,
    /// By which proposal.
    pub op: OpId,
}

impl Value {
    /// The value as the entry of its key, which has to be of the same kind.
    pub fn at(self, key: Key) -> Result<Entry, CodecError> {
        let fits = matches!(
            (&key, &self.record),
            (Key::Service(_), Record::Service(_))
                | (Key::Identity(_), Record::Identity(_))
                | (Key::Rule(..), Record::Rule(_))
                | (Key::History, Record::History(_))
        );
        let Self { record, revision, op } = self;
        if fits { Ok(Entry { key, record, revision, op }) } else { Err(CodecError::WrongKind) }
    }
}

/// The value of a record that this proposal changed at this revision; zero in a store that counts by itself.
#[must_use]
pub fn encode_value(record: &Record, revision: Revision, op: OpId) -> Vec<u8> {
    let mut value = Vec::new();
    encode_value_to(&mut value, record, revision, op);
    value
}

/// The same at the end of what is there.
pub(super) fn encode_value_to(out: &mut Vec<u8>, record: &Record, revision: Revision, op: OpId) {
    encode::stored(out, record, revision, op);
}

/// What a value says.
pub fn decode_value(bytes: &[u8]) -> Result<Value, CodecError> {
    let stored = pb::Stored::decode(bytes)?;
    let op = op_id(&stored.op)?;
    let record = decode::record(stored.record.ok_or(CodecError::Missing { field: "record" })?)?;
    Ok(Value { record, revision: Revision::new(stored.revision), op })
}

/// When and by which proposal a value was last changed, without the record: all that an expectation is about.
pub fn decode_stamp(bytes: &[u8]) -> Result<(Revision, OpId), CodecError> {
    let Stamp { revision, op } = Stamp::decode(bytes)?;
    Ok((Revision::new(revision), op_id(&op)?))
}

/// The first fields of a stored value.
#[derive(Clone, PartialEq, prost::Message)]
struct Stamp {
    #[prost(uint64, tag = "1")]
    revision: u64,
    #[prost(bytes = "bytes", tag = "2")]
    op: Bytes,
}

fn op_id(bytes: &[u8]) -> Result<OpId, CodecError> {
    bytes.try_into().map(OpId).map_err(|_| CodecError::Length { field: "op", bytes: bytes.len() })
}

/// What stands under an encoded key.
pub fn decode_entry(key: &[u8], value: &[u8]) -> Result<Entry, CodecError> {
    decode_value(value)?.at(decode_key(key)?)
}

/// Why bytes are not what they should be: they were damaged, or written by somebody else.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CodecError {
    /// No key of ours.
    #[error("{key:?} is not a key")]
    Key {
        /// The key, cut to a length that a log can bear.
        key: String,
    },
    /// No message.
    #[error("the value is not a message: {0}")]
    Message(#[from] prost::DecodeError),
    /// A field without which the record means nothing.
    #[error("{field} is missing")]
    Missing {
        /// Which.
        field: &'static str,
    },
    /// An id of the wrong length.
    #[error("{field} has {bytes} bytes, not 16")]
    Length {
        /// Which.
        field: &'static str,
        /// How many there were.
        bytes: usize,
    },
    /// A number that names nothing, or nothing that is known here.
    #[error("{field} {number} is not known")]
    Unknown {
        /// Which.
        field: &'static str,
        /// The number.
        number: i64,
    },
    /// A value that breaks its own rules.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// A record of one kind under a key of another.
    #[error("the record is of another kind than its key")]
    WrongKind,
}

#[cfg(test)]
mod tests;
