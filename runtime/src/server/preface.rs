//! The HTTP/2 client preface, read here so that a connection that never speaks costs a few bytes and is no
//! connection yet: hyper's graceful shutdown would wait for it for ever (hyperium/hyper#4170). Whoever says something else
//! speaks HTTP/1, where that is spoken here at all.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// What every HTTP/2 client sends first (RFC 9113 §3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    Http2,
    /// HTTP/1, as far as anybody knows.
    Other,
}

/// Waits for the preface. Ends at the first byte that differs, so that a client of another protocol is told at once by a
/// closed connection.
pub(super) async fn read<Io: AsyncRead + Unpin>(io: Io) -> io::Result<Spoken<Io>> {
    match hear(io).await? {
        (Language::Http2, spoken) => Ok(spoken),
        (Language::Other, _) => Err(io::Error::new(io::ErrorKind::InvalidData, "not an HTTP/2 preface")),
    }
}

/// Waits for the preface, or for the first byte that differs from it.
pub(super) async fn hear<Io: AsyncRead + Unpin>(mut io: Io) -> io::Result<(Language, Spoken<Io>)> {
    let mut heard = [0; PREFACE.len()];
    let mut len = 0;
    while len < PREFACE.len() {
        match io.read(&mut heard[len..]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            more => len += more,
        }
        if heard[..len] != PREFACE[..len] {
            return Ok((Language::Other, Spoken { io, unread: Bytes::copy_from_slice(&heard[..len]) }));
        }
    }
    Ok((Language::Http2, Spoken { io, unread: Bytes::from_static(PREFACE) }))
}

/// A connection whose client has spoken; what it said is read from it once more, by the engine of its protocol.
#[derive(Debug)]
pub(super) struct Spoken<Io> {
    io: Io,
    unread: Bytes,
}

impl<Io: AsyncRead + Unpin> AsyncRead for Spoken<Io> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let now = self.unread.len().min(buf.remaining());
        buf.put_slice(&self.unread[..now]);
        self.unread.advance(now);
        Poll::Ready(Ok(()))
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Spoken<Io> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn the_preface_may_come_in_pieces_and_is_read_again_before_the_rest() {
        let (mut client, server) = tokio::io::duplex(64);
        let reading = tokio::spawn(read(server));
        for byte in PREFACE {
            client.write_all(&[*byte]).await.unwrap();
        }
        client.write_all(b"and the rest").await.unwrap();
        drop(client);
        let mut heard = Vec::new();
        reading.await.unwrap().unwrap().read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, [&PREFACE[..], b"and the rest"].concat());
    }

    #[tokio::test]
    async fn another_protocol_is_refused_at_its_first_byte() {
        let refused = read(&b"GET / HTTP/1.1\r\n"[..]).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
        let cut = read(&PREFACE[..10]).await.unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
    }
}
