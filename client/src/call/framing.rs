//! Messages and what is written in front of them.

/// A flag and a length stand before each message.
const PREFIX: usize = 5;

/// Tells messages from their framing, in a body that comes in pieces cut anywhere.
#[derive(Debug, Default)]
pub(super) struct Framing {
    /// Bytes of the message at hand that are still to come.
    message_left: u32,
    /// The part of a prefix that has come.
    prefix: [u8; PREFIX],
    prefix_len: u8,
}

impl Framing {
    /// How many bytes of the next piece belong to messages: what size metrics count (gRFC A66).
    pub(super) fn message_bytes(&mut self, mut piece: &[u8]) -> usize {
        if self.message_left == 0 && self.prefix_len == 0 && is_one_message(piece) {
            return piece.len() - PREFIX;
        }
        let mut counted = 0;
        while !piece.is_empty() {
            if self.message_left > 0 {
                let (message, rest) = piece.split_at(piece.len().min(self.message_left as usize));
                counted += message.len();
                self.message_left -= message.len() as u32;
                piece = rest;
                continue;
            }
            self.prefix[usize::from(self.prefix_len)] = piece[0];
            self.prefix_len += 1;
            piece = &piece[1..];
            if usize::from(self.prefix_len) == PREFIX {
                self.message_left = announced(self.prefix);
                self.prefix_len = 0;
            }
        }
        counted
    }
}

/// Whether a piece is one message, no more and no less.
pub(super) fn is_one_message(piece: &[u8]) -> bool {
    piece.first_chunk().is_some_and(|prefix| announced(*prefix) as usize == piece.len() - PREFIX)
}

fn announced([_flag, length @ ..]: [u8; PREFIX]) -> u32 {
    u32::from_be_bytes(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(message: &[u8]) -> Vec<u8> {
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        [&[0], &length[..], message].concat()
    }

    #[test]
    fn framing_does_not_count_however_the_body_is_cut() {
        let body = [&b"seven b"[..], b"", b"and eleven."].map(framed).concat();
        for piece in 1..=body.len() {
            let mut framing = Framing::default();
            let counted: usize = body.chunks(piece).map(|piece| framing.message_bytes(piece)).sum();
            assert_eq!(counted, 18, "cut every {piece} bytes");
        }
    }

    #[test]
    fn one_message_is_told_from_none_from_a_part_and_from_two() {
        let message = framed(b"hello");
        assert!(is_one_message(&message) && is_one_message(&framed(b"")));
        assert!(!is_one_message(b"") && !is_one_message(&message[..9]));
        assert!(!is_one_message(&[message.clone(), message].concat()));
    }
}
