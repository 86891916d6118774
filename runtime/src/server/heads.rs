//! The heads of HTTP/1 requests as they pass below hyper, for two things that it does not say (S11).
//!
//! hyper takes `Transfer-Encoding` for the truth when there is a `Content-Length` beside it, drops the latter, and answers; and
//! it takes a bare LF for the end of a line. Both are allowed, and both are how a request is smuggled past a proxy that reads
//! them otherwise; so such a request is told from others here, for its service to refuse. And its time for a head also
//! runs while nobody has asked for anything, where a connection may well rest for longer than a head may take.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Most of a header's name that is looked at: the longest that matters, and one byte to tell it from longer ones.
const NAME_MAX: usize = "transfer-encoding".len() + 1;

/// Which request of a connection, counted from 0, is the first whose length two readers may take for different ones.
#[derive(Debug, Clone)]
pub(super) struct Doubted(Arc<AtomicU64>);

impl Default for Doubted {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(u64::MAX)))
    }
}

impl Doubted {
    /// Whether this request is the first one or comes after it.
    pub(super) fn reaches(&self, request: u64) -> bool {
        request >= self.0.load(Ordering::Relaxed)
    }
}

/// How far the requests of a connection have been read.
#[derive(Debug, Default)]
struct Parser {
    at: At,
    /// Heads that are complete.
    heads: u64,
    line: Line,
    length: Option<u64>,
    chunked: bool,
    bare_lf: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Nothing of the next request has come, or empty lines before it.
    #[default]
    Between,
    /// In a line of the head.
    Head,
    /// In a body of this many bytes more.
    Body(u64),
    /// In the line before a chunk; its size so far, until something else than a digit comes.
    Size { size: u64, done: bool },
    /// In a chunk of this many bytes more.
    Chunk(u64),
    /// In the end of line after a chunk.
    ChunkEnd,
    /// In the lines after the last chunk; whether this one has anything in it.
    Trailers { empty: bool },
}

/// One line of a head.
#[derive(Debug, Default)]
struct Line {
    name: [u8; NAME_MAX],
    name_len: usize,
    /// The name is over.
    named: bool,
    /// What its value says as a number.
    number: u64,
    empty: bool,
    after_cr: bool,
}

impl Line {
    fn begun() -> Self {
        Self { empty: true, ..Self::default() }
    }

    /// Its name in lower case; cut where it is longer than any that matters.
    fn name(&self) -> &[u8] {
        &self.name[..self.name_len]
    }

    fn lengthen(&mut self, byte: u8) {
        if let Some(place) = self.name.get_mut(self.name_len) {
            *place = byte.to_ascii_lowercase();
            self.name_len += 1;
        }
    }

    fn see(&mut self, byte: u8) {
        self.after_cr = byte == b'\r';
        match byte {
            b'\r' => return,
            b':' => self.named = true,
            _ if !self.named => self.lengthen(byte),
            b'0'..=b'9' => self.number = self.number.saturating_mul(10).saturating_add(u64::from(byte - b'0')),
            _ => {}
        }
        self.empty = false;
    }
}

impl Parser {
    /// Reads on. True when a head is over whose length is in doubt; its number is then `heads - 1`.
    fn see(&mut self, mut bytes: &[u8]) -> Option<u64> {
        let mut doubted = None;
        while let Some((&byte, rest)) = bytes.split_first() {
            match &mut self.at {
                At::Body(left) | At::Chunk(left) => {
                    let passed = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    *left -= passed as u64;
                    if *left == 0 {
                        self.at = if matches!(self.at, At::Body(_)) { At::Between } else { At::ChunkEnd };
                    }
                    bytes = &bytes[passed..];
                    continue;
                }
                At::Between if matches!(byte, b'\r' | b'\n') => {}
                At::Between => {
                    (self.length, self.chunked, self.bare_lf) = (None, false, false);
                    self.line = Line::begun();
                    self.line.see(byte);
                    self.at = At::Head;
                }
                At::Head if byte == b'\n' => {
                    if self.end_line() {
                        doubted = doubted.or(Some(self.heads - 1));
                    }
                }
                At::Head => self.line.see(byte),
                At::Size { size, .. } if byte == b'\n' => {
                    self.at = if *size == 0 { At::Trailers { empty: true } } else { At::Chunk(*size) };
                }
                At::Size { size, done } => match char::from(byte).to_digit(16) {
                    Some(digit) if !*done => *size = size.saturating_mul(16).saturating_add(digit.into()),
                    _ => *done = true,
                },
                At::ChunkEnd if byte == b'\n' => self.at = At::Size { size: 0, done: false },
                At::Trailers { empty: true } if byte == b'\n' => self.at = At::Between,
                At::Trailers { empty } => *empty = byte == b'\n' || (*empty && byte == b'\r'),
                At::ChunkEnd => {}
            }
            bytes = rest;
        }
        doubted
    }

    /// The line is over, and true when so is a head whose length is in doubt.
    fn end_line(&mut self) -> bool {
        self.bare_lf |= !self.line.after_cr;
        if !self.line.empty {
            match self.line.name() {
                b"content-length" => self.length = Some(self.line.number),
                b"transfer-encoding" => self.chunked = true,
                _ => {}
            }
            self.line = Line::begun();
            return false;
        }
        self.heads += 1;
        self.at = match self.length {
            _ if self.chunked => At::Size { size: 0, done: false },
            None | Some(0) => At::Between,
            Some(length) => At::Body(length),
        };
        self.bare_lf || (self.chunked && self.length.is_some())
    }
}

/// A transport whose requests begin and end as HTTP/1 says, and whose heads are there in time.
pub(super) struct Heads<Io> {
    io: Io,
    parser: Parser,
    doubted: Doubted,
    patience: Duration,
    /// Runs while a head has begun and is not over.
    overdue: Option<Pin<Box<Sleep>>>,
}

impl<Io> Heads<Io> {
    /// A transport whose heads take at most `patience` from their first byte to their last.
    pub(super) fn new(io: Io, patience: Duration) -> Self {
        Self { io, parser: Parser::default(), doubted: Doubted::default(), patience, overdue: None }
    }

    /// Tells which requests are in doubt.
    pub(super) fn doubted(&self) -> Doubted {
        self.doubted.clone()
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Heads<Io> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        if Pin::new(&mut this.io).poll_read(cx, buf)?.is_ready() {
            let heads = this.parser.heads;
            if let Some(request) = this.parser.see(&buf.filled()[before..]) {
                this.doubted.0.fetch_min(request, Ordering::Relaxed);
            }
            if this.parser.at != At::Head {
                this.overdue = None;
            } else if this.overdue.is_none() || this.parser.heads != heads {
                this.overdue = Some(Box::pin(sleep(this.patience)));
            }
            return Poll::Ready(Ok(()));
        }
        let Some(overdue) = &mut this.overdue else { return Poll::Pending };
        ready!(overdue.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the head of a request did not come in time")))
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Heads<Io> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many heads there are in these bytes however they are cut, the first one in doubt, and what comes next.
    fn seen(bytes: &[u8]) -> (u64, Option<u64>, At) {
        let of_pieces = |piece: usize| {
            let mut parser = Parser::default();
            let doubted = bytes.chunks(piece).fold(None, |doubted: Option<u64>, piece| {
                let next = parser.see(piece);
                doubted.or(next)
            });
            (parser.heads, doubted, parser.at)
        };
        let whole = of_pieces(bytes.len().max(1));
        for piece in [1, 2, 3, 7] {
            assert_eq!(of_pieces(piece), whole, "in pieces of {piece}");
        }
        whole
    }

    #[test]
    fn requests_are_told_apart() {
        let plain = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
        let sized = b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\n\r\n\r\n";
        let chunked = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=9\r\n0123456789\r\n0\r\nt: 1\r\n\r\n";
        assert_eq!(seen(&[&plain[..], sized, chunked, plain, b"\r\n"].concat()), (4, None, At::Between));
        assert_eq!(seen(&[&sized[..], b"GET"].concat()), (1, None, At::Head));
    }

    #[test]
    fn two_lengths_and_bare_line_feeds_are_in_doubt() {
        let plain = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
        for doubted in [
            &b"POST / HTTP/1.1\r\ncontent-length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"[..],
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nCONTENT-LENGTH:3\r\n\r\n0\r\n\r\n",
            b"GET / HTTP/1.1\nhost: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nhost: x\n\r\n",
            b"GET / HTTP/1.1\r\nhost: x\r\n\n",
        ] {
            assert_eq!(seen(&[&plain[..], doubted, plain].concat()), (3, Some(1), At::Between), "{doubted:?}");
        }
        assert_eq!(seen(b"GET / HTTP/1.1\r\nx-transfer-encoding: 1\r\ncontent-length: 0\r\n\r\n").1, None);
    }
}
