//! A bound on writes that make no progress. The HTTP/2 keepalive cannot end a connection whose peer stopped reading: its
//! PING, and then its GOAWAY, wait behind what the peer does not take.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// A transport whose writes fail once they have been stuck for `patience`. A slow peer is no stuck one: each byte that
/// it takes starts the time anew.
pub(crate) struct Unstuck<Io> {
    io: Io,
    patience: Duration,
    stuck: Option<Pin<Box<Sleep>>>,
    /// Bytes were written.
    begun: bool,
}

impl<Io> Unstuck<Io> {
    pub(crate) fn new(io: Io, patience: Duration) -> Self {
        Self { io, patience, stuck: None, begun: false }
    }

    fn watch(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.begun = true;
            self.stuck = None;
            return written;
        }
        let patience = self.patience;
        ready!(self.stuck.get_or_insert_with(|| Box::pin(sleep(patience))).as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer stopped reading")))
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Unstuck<Io> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Unstuck<Io> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.watch(cx, written)
    }

    /// Asked before the first byte, this decides for the whole connection how long a frame of HTTP/2 may be to be written
    /// together with others: 1 KiB without, 256 bytes with vectored writes. Streams of small messages, a change told to a
    /// thousand watchers, are a write for some fifty of them and not one for each. Large frames are vectored all the same.
    fn is_write_vectored(&self) -> bool {
        self.begun && self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::clock;

    #[tokio::test(start_paused = true)]
    async fn a_reader_of_one_byte_at_a_time_is_slow_and_not_stuck() {
        let (mut reader, writer) = tokio::io::duplex(1);
        let mut writer = Unstuck::new(writer, Duration::from_secs(30));
        let writing = tokio::spawn(async move { writer.write_all(b"four").await });
        for _ in 0..4 {
            sleep(Duration::from_secs(20)).await;
            reader.read_u8().await.unwrap();
        }
        writing.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_stopped_fails_the_write() {
        let (_reader, writer) = tokio::io::duplex(1);
        let mut writer = Unstuck::new(writer, Duration::from_secs(30));
        let at = clock::now();
        assert_eq!(writer.write_all(b"two").await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!((clock::now() - at).as_secs(), 30);
    }
}
