//! Messages in the body of a gRPC call: a flag and a length before each.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// A flag and a length.
const PREFIX: usize = 5;

/// A message as it is sent: not compressed.
pub(super) fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(PREFIX + message.len());
    frame.put_u8(0);
    // A request is far smaller than what four bytes can say: its body is bounded.
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(message);
    frame.freeze()
}

/// Why an answer is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameFault {
    /// A message larger than is taken.
    #[error("a message of {bytes} bytes, at most {max} are taken")]
    TooLarge {
        /// What was announced.
        bytes: usize,
        /// What is taken.
        max: usize,
    },
    /// Nobody said that compressed messages are understood.
    #[error("a compressed message, which nobody asked for")]
    Compressed,
    /// The answer ended within a message.
    #[error("the answer ends within a message")]
    Cut,
}

/// Messages out of pieces that are cut anywhere. Holds one message and one piece at the most.
#[derive(Debug)]
pub(super) struct Frames {
    max: usize,
    /// A piece that came while there was nothing else: most answers are one piece, and are never copied.
    whole: Bytes,
    /// The part of a message that has come.
    part: BytesMut,
}

impl Frames {
    /// Messages of at most `max` bytes.
    pub(super) fn new(max: usize) -> Self {
        Self { max, whole: Bytes::new(), part: BytesMut::new() }
    }

    /// Takes a piece; every message of the piece before was taken out.
    pub(super) fn push(&mut self, piece: Bytes) {
        if self.part.is_empty() && self.whole.is_empty() {
            self.whole = piece;
        } else {
            self.part.extend_from_slice(&std::mem::take(&mut self.whole));
            self.part.extend_from_slice(&piece);
        }
    }

    /// The next message, where all of it is there.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, FrameFault> {
        if !self.whole.is_empty() {
            if let Some(length) = self.length(&self.whole)?
                && self.whole.len() >= PREFIX + length
            {
                self.whole.advance(PREFIX);
                return Ok(Some(self.whole.split_to(length)));
            }
            self.part.extend_from_slice(&std::mem::take(&mut self.whole));
        }
        match self.length(&self.part)? {
            Some(length) if self.part.len() >= PREFIX + length => {
                self.part.advance(PREFIX);
                Ok(Some(self.part.split_to(length).freeze()))
            }
            _ => Ok(None),
        }
    }

    /// The answer is over.
    pub(super) fn end(&self) -> Result<(), FrameFault> {
        if self.whole.is_empty() && self.part.is_empty() { Ok(()) } else { Err(FrameFault::Cut) }
    }

    fn length(&self, bytes: &[u8]) -> Result<Option<usize>, FrameFault> {
        let Some([flag, length @ ..]) = bytes.first_chunk::<PREFIX>() else { return Ok(None) };
        if *flag != 0 {
            return Err(FrameFault::Compressed);
        }
        let bytes = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if bytes > self.max {
            return Err(FrameFault::TooLarge { bytes, max: self.max });
        }
        Ok(Some(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&[u8]], max: usize) -> Result<Vec<Bytes>, FrameFault> {
        let (mut frames, mut messages) = (Frames::new(max), Vec::new());
        for piece in pieces {
            frames.push(Bytes::copy_from_slice(piece));
            while let Some(message) = frames.next()? {
                messages.push(message);
            }
        }
        frames.end()?;
        Ok(messages)
    }

    #[test]
    fn messages_come_out_however_they_are_cut() {
        let sent = [&b"one"[..], b"", b"three of them"];
        let body = sent.map(framed).concat();
        for piece in 1..=body.len() {
            let pieces: Vec<&[u8]> = body.chunks(piece).collect();
            assert_eq!(read(&pieces, 13).unwrap(), sent, "in pieces of {piece}");
        }
    }

    #[test]
    fn what_is_too_large_compressed_or_cut_is_a_fault() {
        assert_eq!(read(&[&framed(b"four")], 3), Err(FrameFault::TooLarge { bytes: 4, max: 3 }));
        assert_eq!(read(&[&[1, 0, 0, 0, 0]], 3), Err(FrameFault::Compressed));
        for cut in [&b"\0"[..], b"\0\0\0\0\x01", b"\0\0\0\0\x02a"] {
            assert_eq!(read(&[cut], 3), Err(FrameFault::Cut), "{cut:?}");
        }
    }
}
