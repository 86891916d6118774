//! A bound on what a peer makes us do without calling anything: PING and SETTINGS frames, each of which is answered (S06,
//! CVE-2019-9512, CVE-2019-9515). Neither h2 nor hyper counts them, so they are counted below, by the heads of the frames
//! as they pass: some twenty instructions a frame, and a clock is read for the frames in question only.
//!
//! A peer has an allowance. It fills with time, and with every frame of ours that answers a call: libraries that measure
//! the path send a PING for each answer that they read (gRPC in Go does), and pay for it with the call.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::clock;

/// Bytes of a frame's head (RFC 9113 §4.1).
const HEAD: usize = 9;
/// Bytes of the client's preface, which comes before its first frame.
const PREFACE: usize = 24;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
/// Flag of PING and SETTINGS frames that answer ours.
const ACK: u8 = 1;

/// GOAWAY with ENHANCE_YOUR_CALM and the word that gRPC libraries look for. It claims that every stream may have been
/// taken up, so that nothing is repeated that should not be.
const GOAWAY: &[u8] = b"\0\0\x16\x07\0\0\0\0\0\x7f\xff\xff\xff\0\0\0\x0btoo_many_pings";

/// How many frames a peer may have answered that are no part of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Steadily.
    pub per_second: u32,
    /// At once, and saved up at most.
    pub burst: u32,
}

/// How far the frames of one direction have been read.
#[derive(Debug, Default)]
struct Frames {
    /// What is left of the preface or of a payload.
    skip: usize,
    /// The part of a head that has come.
    head: [u8; HEAD],
    have: usize,
}

impl Frames {
    /// Reads on, and tells the type and the flags of each frame that begins.
    #[inline]
    fn see(&mut self, mut bytes: &[u8], mut begins: impl FnMut(u8, u8)) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = &bytes[skipped..];
            } else if self.have == 0
                && let Some((head, rest)) = bytes.split_first_chunk::<HEAD>()
            {
                self.skip = payload(head);
                begins(head[3], head[4]);
                bytes = rest;
            } else {
                let more = (HEAD - self.have).min(bytes.len());
                self.head[self.have..self.have + more].copy_from_slice(&bytes[..more]);
                self.have += more;
                bytes = &bytes[more..];
                if self.have == HEAD {
                    self.have = 0;
                    self.skip = payload(&self.head);
                    begins(self.head[3], self.head[4]);
                }
            }
        }
    }

    /// Whether a frame may begin here.
    fn is_between(&self) -> bool {
        self.skip == 0 && self.have == 0
    }
}

fn payload(head: &[u8; HEAD]) -> usize {
    // Three bytes fit whatever `usize` is.
    (usize::from(head[0]) << 16) | (usize::from(head[1]) << 8) | usize::from(head[2])
}

/// A transport of a server that ends with an error when its peer is not calm.
pub(super) struct Calm<Io> {
    io: Io,
    heard: Frames,
    said: Frames,
    allowance: Allowance,
    left: u32,
    filled: Instant,
}

impl<Io> Calm<Io> {
    /// A transport on which the client's preface comes next.
    pub(super) fn new(io: Io, allowance: Allowance) -> Self {
        let heard = Frames { skip: PREFACE, ..Frames::default() };
        Self { io, heard, said: Frames::default(), allowance, left: allowance.burst, filled: clock::now() }
    }

    /// Takes what the peer sent; false when that was more than it may.
    fn hear(&mut self, bytes: &[u8]) -> bool {
        let mut asked = 0_u32;
        self.heard.see(bytes, |kind, flags| asked += u32::from(matches!(kind, PING | SETTINGS) && flags & ACK == 0));
        if asked == 0 {
            return true;
        }
        let now = clock::now();
        let each = Duration::from_secs(1) / self.allowance.per_second.max(1);
        let earned = (now - self.filled).as_nanos() / each.as_nanos().max(1);
        if earned > 0 {
            // What is over stays: a peer that asks often loses nothing for it.
            let earned = u32::try_from(earned).unwrap_or(u32::MAX);
            self.filled = self.filled.checked_add(each.saturating_mul(earned)).unwrap_or(now);
            self.earn(earned);
        }
        match self.left.checked_sub(asked) {
            Some(left) => self.left = left,
            None => return false,
        }
        true
    }

    /// Takes what was sent to the peer.
    fn say(&mut self, bytes: &[u8]) {
        let mut answers = 0_u32;
        self.said.see(bytes, |kind, _| answers += u32::from(matches!(kind, DATA | HEADERS)));
        self.earn(answers);
    }

    fn earn(&mut self, more: u32) {
        self.left = self.left.saturating_add(more).min(self.allowance.burst);
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> AsyncRead for Calm<Io> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        if this.hear(&buf.filled()[before..]) {
            return Poll::Ready(Ok(()));
        }
        if this.said.is_between() {
            // The connection ends here either way; whether this still fits is the peer's luck.
            let _ = Pin::new(&mut this.io).poll_write(cx, GOAWAY);
            let _ = Pin::new(&mut this.io).poll_flush(cx);
        }
        Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "too many PING and SETTINGS frames")))
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Calm<Io> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.io).poll_write(cx, buf))?;
        this.say(&buf[..written.min(buf.len())]);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.io).poll_write_vectored(cx, bufs))?;
        let mut left = written;
        for buf in bufs {
            let of_this = left.min(buf.len());
            this.say(&buf[..of_this]);
            left -= of_this;
        }
        Poll::Ready(Ok(written))
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

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).unwrap().to_be_bytes();
        let mut frame = [&length[1..], &[kind, flags, 0, 0, 0, 0]].concat();
        frame.resize(HEAD + payload, 0xff);
        frame
    }

    #[test]
    fn frames_are_told_apart_wherever_they_are_cut() {
        let stream = [frame(DATA, 1, 300), frame(PING, 0, 8), frame(SETTINGS, ACK, 0), frame(HEADERS, 4, 1)].concat();
        for piece in [1, 2, 8, 9, 10, 17, stream.len()] {
            let (mut frames, mut begun) = (Frames::default(), Vec::new());
            for bytes in stream.chunks(piece) {
                frames.see(bytes, |kind, flags| begun.push((kind, flags)));
            }
            assert_eq!(begun, [(DATA, 1), (PING, 0), (SETTINGS, ACK), (HEADERS, 4)], "in pieces of {piece}");
            assert!(frames.is_between());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_allowance_fills_with_time_and_with_answers_and_no_further() {
        let mut calm = Calm::new(tokio::io::empty(), Allowance { per_second: 10, burst: 3 });
        calm.heard.skip = 0;
        let ping = frame(PING, 0, 8);
        assert!(calm.hear(&ping.repeat(3)));
        assert!(calm.hear(&frame(PING, ACK, 8)) && calm.hear(&frame(SETTINGS, ACK, 0)), "answers to ours are free");
        assert!(calm.hear(&frame(DATA, 0, 8)), "and so are calls");
        assert!(!calm.hear(&ping));
        calm.say(&[frame(HEADERS, 4, 20), frame(DATA, 0, 5), frame(PING, ACK, 8)].concat());
        assert!(calm.hear(&ping.repeat(2)) && !calm.hear(&frame(SETTINGS, 0, 6)), "an answer earns, a PONG does not");
        tokio::time::advance(Duration::from_millis(100)).await;
        assert!(calm.hear(&ping) && !calm.hear(&ping));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(calm.hear(&ping.repeat(3)) && !calm.hear(&ping));
    }

    #[test]
    fn the_goodbye_is_one_whole_frame() {
        let (mut frames, mut begun) = (Frames::default(), Vec::new());
        frames.see(GOAWAY, |kind, flags| begun.push((kind, flags)));
        assert!(frames.is_between() && begun == [(7, 0)]);
    }
}
