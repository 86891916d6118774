//! Calls that are due whether or not earlier ones have come back, as users make them: Poisson arrivals, and latency from
//! when a call was due, so that a stall is felt by every call that it delays.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tokio::time::sleep;

use super::call;
use super::times::{Recorder, Span, Times};
use crate::args::OpenPlan;
use crate::clock;
use crate::contestant::Work;
use crate::echo::{Channel, EchoClient};
use crate::failure::Failure;

/// Calls in flight at once; beyond that they are late, and their latency says so.
const IN_FLIGHT_MAX: usize = 10_000;
/// What tokio's timer can be trusted with; closer than that the thread stays awake.
const TIMER_GRAIN: Duration = Duration::from_millis(2);

/// The work.
pub(super) struct Open<'a> {
    pub(super) plan: &'a OpenPlan,
    pub(super) payload: &'a [u8],
    pub(super) pids: &'a [u32],
}

impl Work for Open<'_> {
    type Output = Result<Times, Failure>;

    fn over<C: Channel>(self, runtime: &Runtime, channel: C) -> Result<Times, Failure> {
        let client = EchoClient::new(channel);
        let OpenPlan { per_second, seed, warm_up_ms, millis } = *self.plan;
        let round = |seed, length| runtime.block_on(arrive(&client, self.payload, per_second, seed, length, self.pids));
        round(seed ^ 1, Duration::from_millis(warm_up_ms));
        Ok(round(seed, Duration::from_millis(millis)))
    }
}

async fn arrive<C: Channel>(
    client: &EchoClient<C>,
    payload: &[u8],
    per_second: f64,
    seed: u64,
    length: Duration,
    pids: &[u32],
) -> Times {
    let recorder = Arc::new(Mutex::new(Recorder::new()));
    let places = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    let mut rng = StdRng::seed_from_u64(seed);
    let span = Span::begin(pids);
    let mut due = span.at();
    loop {
        due += gap(&mut rng, per_second);
        if due >= span.at() + length {
            break;
        }
        loop {
            let left = due.saturating_duration_since(clock::now());
            if left.is_zero() {
                break;
            } else if left > TIMER_GRAIN {
                sleep(left - TIMER_GRAIN).await;
            } else {
                yield_now().await;
            }
        }
        let place = places.clone().acquire_owned().await.expect("it is never closed");
        let (mut client, payload, recorder) = (client.clone(), payload.to_vec(), recorder.clone());
        tokio::spawn(async move {
            let outcome = call(&mut client, &payload).await;
            let took = clock::now() - due;
            let mut recorder = recorder.lock().unwrap_or_else(PoisonError::into_inner);
            match outcome {
                Ok(answer) => recorder.answered(took, answer.served_by),
                Err(_) => recorder.failed(),
            }
            drop(place);
        });
    }
    // Every place is free again once every call has ended; each has a deadline.
    let _all = places.acquire_many(IN_FLIGHT_MAX as u32).await.expect("it is never closed");
    let recorder = std::mem::replace(&mut *recorder.lock().unwrap_or_else(PoisonError::into_inner), Recorder::new());
    recorder.finish(&span)
}

/// The time to the next arrival: exponential, which makes arrivals a Poisson process.
fn gap(rng: &mut StdRng, per_second: f64) -> Duration {
    // 53 bits fill a double's mantissa; the half keeps the logarithm's argument above zero.
    let uniform = ((rng.next_u64() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    Duration::from_secs_f64(-uniform.ln() / per_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_come_at_their_rate_and_the_same_for_one_seed() {
        let sum = |seed| {
            let mut rng = StdRng::seed_from_u64(seed);
            std::iter::repeat_with(|| gap(&mut rng, 1000.0)).take(10_000).sum::<Duration>()
        };
        assert!((9.5..10.5).contains(&sum(1).as_secs_f64()));
        assert_eq!(sum(2), sum(2));
    }
}
