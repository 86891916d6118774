//! One call after the other, counted.

use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use super::call;
use crate::args::SequencePlan;
use crate::contestant::Work;
use crate::counting;
use crate::echo::{Channel, EchoClient};
use crate::failure::Failure;

/// What the counted calls took together.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) allocations: u64,
    pub(crate) bytes: u64,
}

/// The work.
pub(super) struct Sequence<'a> {
    pub(super) plan: &'a SequencePlan,
    pub(super) payload: &'a [u8],
}

impl Work for Sequence<'_> {
    type Output = Result<Counts, Failure>;

    fn over<C: Channel>(self, runtime: &Runtime, channel: C) -> Result<Counts, Failure> {
        let mut client = EchoClient::of(self.plan.stub, channel);
        runtime.block_on(one_by_one(&mut client, self.payload, self.plan.warm_up))?;
        let before = counting::start();
        measured(runtime, &mut client, self.payload, self.plan.calls)?;
        let counted = counting::counted() - before;
        Ok(Counts { allocations: counted.allocations, bytes: counted.bytes })
    }
}

/// What callgrind collects: it is told this function's name. Nothing else may have `sequence` and then `measured` in its
/// symbol, closures in here included: collecting is turned over each time such a function is entered and left.
#[inline(never)]
fn measured<C: Channel>(
    runtime: &Runtime,
    client: &mut EchoClient<C>,
    payload: &[u8],
    calls: u32,
) -> Result<(), Failure> {
    runtime.block_on(one_by_one(client, payload, calls))
}

async fn one_by_one<C: Channel>(client: &mut EchoClient<C>, payload: &[u8], calls: u32) -> Result<(), Failure> {
    for _ in 0..calls {
        call(client, payload).await.map_err(Box::new)?;
    }
    Ok(())
}
