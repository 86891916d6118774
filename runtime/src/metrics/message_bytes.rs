//! Message bytes in a gRPC body: what the size metrics count.

/// Counts the message bytes of a body that comes in pieces cut anywhere. The five bytes in front of each message (a
/// flag and a length) are framing and do not count, as gRFC A66 defines the sizes.
#[derive(Debug, Default)]
pub(crate) struct MessageBytes {
    counted: u64,
    /// Bytes of the message at hand that are still to come.
    message_left: u32,
    /// The part of a prefix that has arrived.
    prefix: [u8; Self::PREFIX],
    prefix_len: usize,
}

impl MessageBytes {
    const PREFIX: usize = 5;

    /// Takes the next piece of the body.
    pub(crate) fn take(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() {
            if self.message_left > 0 {
                let now = piece.len().min(usize::try_from(self.message_left).unwrap_or(usize::MAX));
                let (message, rest) = piece.split_at(now);
                self.counted += message.len() as u64;
                self.message_left -= u32::try_from(now).unwrap_or(self.message_left);
                piece = rest;
            } else {
                let now = piece.len().min(Self::PREFIX - self.prefix_len);
                let (prefix, rest) = piece.split_at(now);
                self.prefix[self.prefix_len..self.prefix_len + now].copy_from_slice(prefix);
                self.prefix_len += now;
                piece = rest;
                if let ([_flag, length @ ..], Self::PREFIX) = (self.prefix, self.prefix_len) {
                    self.message_left = u32::from_be_bytes(length);
                    self.prefix_len = 0;
                }
            }
        }
    }

    /// Message bytes so far.
    pub(crate) fn counted(&self) -> u64 {
        self.counted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn framing_does_not_count_however_the_body_is_cut() {
        let mut body = Vec::new();
        for message in [&b"seven b"[..], b"", b"and eleven."] {
            body.push(0);
            body.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
            body.extend(message);
        }
        for piece in 1..=body.len() {
            let mut bytes = MessageBytes::default();
            body.chunks(piece).for_each(|chunk| bytes.take(chunk));
            assert_eq!(bytes.counted(), 18, "cut every {piece} bytes");
        }
    }
}
