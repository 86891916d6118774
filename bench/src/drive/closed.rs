//! A fixed number of calls in flight: the next one goes out when one has come back.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use super::call;
use super::times::{Recorder, Span, Times};
use crate::args::ClosedPlan;
use crate::clock;
use crate::contestant::Work;
use crate::echo::{Channel, EchoClient};
use crate::failure::Failure;

/// The work.
pub(super) struct Closed<'a> {
    pub(super) plan: &'a ClosedPlan,
    pub(super) payload: &'a [u8],
    pub(super) pids: &'a [u32],
}

impl Work for Closed<'_> {
    type Output = Result<Times, Failure>;

    fn over<C: Channel>(self, runtime: &Runtime, channel: C) -> Result<Times, Failure> {
        let client = EchoClient::new(channel);
        let round = |length| runtime.block_on(keep_up(&client, self.payload, self.plan.in_flight, length, self.pids));
        round(Duration::from_millis(self.plan.warm_up_ms));
        Ok(round(Duration::from_millis(self.plan.millis)))
    }
}

async fn keep_up<C: Channel>(
    client: &EchoClient<C>,
    payload: &[u8],
    in_flight: u16,
    length: Duration,
    pids: &[u32],
) -> Times {
    let recorder = Arc::new(Mutex::new(Recorder::new()));
    let span = Span::begin(pids);
    let lanes: Vec<_> = (0..in_flight)
        .map(|_| tokio::spawn(lane(client.clone(), payload.to_vec(), span.at() + length, recorder.clone())))
        .collect();
    for lane in lanes {
        lane.await.expect("a lane does not panic");
    }
    let recorder = std::mem::replace(&mut *recorder.lock().unwrap_or_else(PoisonError::into_inner), Recorder::new());
    recorder.finish(&span)
}

/// One call after the other, until the time is up.
async fn lane<C: Channel>(mut client: EchoClient<C>, payload: Vec<u8>, end: Instant, recorder: Arc<Mutex<Recorder>>) {
    let mut now = clock::now();
    while now < end {
        let start = now;
        let outcome = call(&mut client, &payload).await;
        now = clock::now();
        let mut recorder = recorder.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(answer) => recorder.answered(now - start, answer.served_by),
            Err(_) => recorder.failed(),
        }
    }
}
