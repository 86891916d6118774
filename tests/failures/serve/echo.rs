//! The fault server: HTTP/2 by hand, because a well-behaved library would not do what is asked here.

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use mesh_runtime::clock;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::tell;
use crate::wire::{Answer, Manners, News};

/// Serves whoever connects, in the manners of the moment.
pub(super) async fn accept(listener: TcpListener, manners: watch::Receiver<Manners>) {
    let began = clock::now();
    while let Ok((socket, _)) = listener.accept().await {
        tell(News::Connected(began.elapsed()));
        let _ = socket.set_nodelay(true);
        tokio::spawn(connection(socket, manners.clone()));
    }
}

/// Serves one connection; its end, however it comes, is nothing to tell of.
async fn connection(socket: TcpStream, manners: watch::Receiver<Manners>) {
    let at_first = *manners.borrow();
    if at_first.answer == Answer::Silence {
        // Held open, and never read.
        let _socket = socket;
        return std::future::pending().await;
    }
    let mut builder = Builder::new();
    if let Some(most) = at_first.streams_max {
        builder.max_concurrent_streams(most);
    }
    let Ok(mut connection) = builder.handshake::<_, Bytes>(socket).await else { return };
    let (accepted, mut sent_away) = (clock::now(), false);
    while let Some(Ok((request, respond))) = connection.accept().await {
        tell(News::Called);
        let now = *manners.borrow();
        tokio::spawn(call(request, respond, now));
        if !sent_away && now.goaway_after.is_some_and(|after| accepted.elapsed() >= after) {
            sent_away = true;
            connection.graceful_shutdown();
            tell(News::SentAway);
        }
    }
}

/// Answers one call as the manners are, unless it is taken back first.
async fn call(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, manners: Manners) {
    let answering = async {
        let message = everything(request.into_body()).await.ok()?;
        tokio::time::sleep(manners.delay).await;
        Some(message)
    };
    let message = tokio::select! {
        message = answering => message,
        _ = std::future::poll_fn(|cx| respond.poll_reset(cx)) => None,
    };
    match message {
        Some(message) => {
            tell(News::Answered);
            answer(message, respond, manners.answer);
        }
        None => tell(News::Dropped),
    }
}

async fn everything(mut body: RecvStream) -> Result<Bytes, h2::Error> {
    let mut whole = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        whole.extend_from_slice(&piece);
    }
    Ok(whole.into())
}

/// Sends the answer. It does not fit whoever has gone meanwhile, which is no fault of anybody.
fn answer(message: Bytes, mut respond: SendResponse<Bytes>, answer: Answer) {
    let mut head = Response::new(());
    head.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    match answer {
        Answer::Echo => {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            if let Ok(mut stream) = respond.send_response(head, false)
                && stream.send_data(message, false).is_ok()
            {
                let _ = stream.send_trailers(trailers);
            }
        }
        Answer::Status(code) => {
            head.headers_mut().insert("grpc-status", HeaderValue::from(i32::from(code)));
            let _ = respond.send_response(head, true);
        }
        Answer::Reset | Answer::Silence => respond.send_reset(Reason::INTERNAL_ERROR),
    }
}
