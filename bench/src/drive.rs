//! A process that makes calls one after the other, and counts what they allocate.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;
use tonic::{Request, Status};

use crate::args::DriveArgs;
use crate::contestant::Work;
use crate::counting::{self, Counted};
use crate::echo::{Channel, EchoClient, EchoRequest};
use crate::failure::Failure;

/// The deadline of every call of every contestant.
const DEADLINE: Duration = Duration::from_secs(1);

/// What the counted calls took together.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) allocations: u64,
    pub(crate) bytes: u64,
}

/// Makes the calls, and prints [`Counts`] on stdout.
pub(crate) fn drive(runtime: &Runtime, args: &DriveArgs) -> Result<(), Failure> {
    let Counted { allocations, bytes } = args.contestant.compete(runtime, &args.servers, Sequence { args })??;
    println!("{}", serde_json::to_string(&Counts { allocations, bytes }).expect("two numbers are JSON"));
    Ok(())
}

/// One call after the other.
struct Sequence<'a> {
    args: &'a DriveArgs,
}

impl Work for Sequence<'_> {
    type Output = Result<Counted, Failure>;

    fn over<C: Channel>(self, runtime: &Runtime, channel: C) -> Result<Counted, Failure> {
        let mut client = EchoClient::new(channel);
        let payload = vec![b'x'; self.args.payload_bytes];
        runtime.block_on(sequence(&mut client, &payload, self.args.warm_up))?;
        let before = counting::start();
        measured(runtime, &mut client, &payload, self.args.calls)?;
        Ok(counting::counted() - before)
    }
}

/// What callgrind collects: it is told this function's name. Nothing else may have `drive` and then `measured` in its
/// symbol, closures in here included: collecting is turned over each time such a function is entered and left.
#[inline(never)]
fn measured<C: Channel>(
    runtime: &Runtime,
    client: &mut EchoClient<C>,
    payload: &[u8],
    calls: u32,
) -> Result<(), Failure> {
    runtime.block_on(sequence(client, payload, calls))
}

async fn sequence<C: Channel>(client: &mut EchoClient<C>, payload: &[u8], calls: u32) -> Result<(), Failure> {
    for _ in 0..calls {
        call(client, payload).await.map_err(Box::new)?;
    }
    Ok(())
}

/// One call as an application makes it.
async fn call<C: Channel>(client: &mut EchoClient<C>, payload: &[u8]) -> Result<(), Status> {
    let mut request = Request::new(EchoRequest { payload: payload.to_vec() });
    request.set_timeout(DEADLINE);
    let answer = client.echo(request).await?.into_inner();
    if answer.payload.len() == payload.len() { Ok(()) } else { Err(Status::data_loss("not what was sent")) }
}
