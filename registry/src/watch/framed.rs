//! A message as it goes to the transport: behind the head that gRPC puts before each.

use bytes::{BufMut, Bytes, BytesMut};
use mesh_api::encoded::Encoded;
use prost::Message;

/// Bytes of the head: a flag that says "not compressed", and the length (gRPC over HTTP/2, "Length-Prefixed-Message").
const HEAD: usize = 5;

/// Up to this length the part that is everybody's is copied behind the one that is a receiver's own: a piece more would
/// cost more than that.
const COPIED_MAX: usize = 4 * 1024;

/// One message in its frame, in one piece or in two; of each everybody's bytes are shared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Framed {
    first: Bytes,
    rest: Bytes,
}

impl Framed {
    /// A message that is everybody's: framed once for all who get it.
    pub(super) fn message(message: &impl Message) -> Bytes {
        let length = message.encoded_len();
        let mut framed = begin(length, length);
        // There is room for it: that is what was measured.
        message.encode(&mut framed).unwrap_or_default();
        framed.freeze()
    }

    /// Such a message.
    pub(super) fn whole(framed: Bytes) -> Self {
        Self { first: framed, rest: Bytes::new() }
    }

    /// A message of which each part has other fields: this receiver's own, and those that are everybody's. Encodings of
    /// protobuf messages that stand behind one another are one message with the fields of both.
    pub(super) fn of(own: &impl Message, shared: Bytes) -> Self {
        let own_length = own.encoded_len();
        let copied = if shared.len() <= COPIED_MAX { shared.len() } else { 0 };
        let mut first = begin(own_length + shared.len(), own_length + copied);
        own.encode(&mut first).unwrap_or_default();
        first.put_slice(&shared[..copied]);
        Self { first: first.freeze(), rest: shared.slice(copied..) }
    }

    /// Bytes of both pieces.
    pub(super) fn len(&self) -> usize {
        self.first.len() + self.rest.len()
    }

    /// Its pieces; the second may be empty.
    pub(super) fn into_pieces(self) -> [Bytes; 2] {
        [self.first, self.rest]
    }

    /// The message without its frame, for a transport that puts its own around it.
    pub(super) fn unframed(self) -> Encoded {
        Encoded::of(self.first.slice(HEAD.min(self.first.len())..), self.rest)
    }
}

/// The head of a message of this length, with room for so much of it.
fn begin(length: usize, room: usize) -> BytesMut {
    let mut frame = BytesMut::with_capacity(HEAD + room);
    frame.put_u8(0);
    // Longer messages than 4 GiB there are none: a chunk ends at 256 KiB.
    frame.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    frame
}

#[cfg(test)]
mod tests {
    use mesh_api::registry::v1 as pb;

    use super::*;

    /// A message as its receiver reads it, and the length that its head says.
    fn read(framed: &Framed) -> (usize, pb::WatchResponse) {
        let bytes = framed.clone().into_pieces().concat();
        let (head, message) = bytes.split_at(HEAD);
        assert_eq!(head[0], 0, "not compressed");
        let length = u32::from_be_bytes(head[1..].try_into().expect("four bytes"));
        (length as usize, pb::WatchResponse::decode(message).expect("a message"))
    }

    #[test]
    fn a_message_of_two_parts_is_one_however_long_the_second_is() {
        let own = pb::WatchResponse { complete: true, ..Default::default() };
        for length in [0, 1, COPIED_MAX - 100, COPIED_MAX, 64 * 1024] {
            let shared = pb::WatchResponse { service: "x".repeat(length), ..Default::default() }.encode_to_vec();
            let framed = Framed::of(&own, shared.clone().into());
            let (said, message) = read(&framed);
            assert_eq!(said, own.encoded_len() + shared.len());
            assert_eq!((said + HEAD, message.complete, message.service.len()), (framed.len(), true, length));
            let unframed = framed.unframed().encode_to_vec();
            assert_eq!(pb::WatchResponse::decode(&*unframed).expect("a message"), message);
        }
    }

    #[test]
    fn what_is_long_is_not_copied() {
        let shared = Bytes::from(vec![0; COPIED_MAX + 1]);
        let [_, rest] = Framed::of(&pb::WatchResponse::default(), shared.clone()).into_pieces();
        assert_eq!(rest.as_ptr(), shared.as_ptr());
    }
}
