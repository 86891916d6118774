//! Answers that are bytes already: encoded once, sent to many. A message of the wire in every way but that nobody builds
//! it a second time.

use prost::bytes::{Buf, BufMut, Bytes};
use prost::encoding::{DecodeContext, WireType, skip_field};
use prost::{DecodeError, Message};
use std::marker::PhantomData;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::{ProstDecoder, ProstEncoder};

/// First size of a stream's buffer. The codec's own is 8 KiB, which most streams never fill: with twenty thousand of them
/// that would be 160 MB.
const BUFFER_BYTES: usize = 512;

/// A buffer that holds so much is sent before another message is asked for. Bounds what a stream that nobody reads keeps
/// beside the message at hand.
const YIELD_BYTES: usize = 16 * 1024;

/// One encoded message, in two parts: fields that are this receiver's own, and fields that are everybody's.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Encoded {
    own: Bytes,
    shared: Bytes,
}

impl Encoded {
    /// A message of which each part has other fields. Encodings of protobuf messages that stand behind one another are one
    /// message with the fields of both.
    #[must_use]
    pub fn of(own: Bytes, shared: Bytes) -> Self {
        Self { own, shared }
    }
}

impl Message for Encoded {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        buf.put_slice(&self.own);
        buf.put_slice(&self.shared);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        // Nobody decodes an answer that he sends.
        skip_field(wire_type, tag, buf, context)
    }

    fn encoded_len(&self) -> usize {
        self.own.len() + self.shared.len()
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

/// The codec of the server that answers so: as ever, with small buffers.
#[derive(Debug)]
pub struct Lean<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Lean<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for Lean<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(BufferSettings::new(BUFFER_BYTES, YIELD_BYTES))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(BufferSettings::default())
    }
}
