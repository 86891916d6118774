//! A process that makes calls and says what they cost: one contestant, one plan, one thread.

mod closed;
mod open;
mod sequence;
mod times;

use std::time::Duration;

use tokio::runtime::Runtime;
use tonic::{Request, Status};

use crate::args::{DriveArgs, Plan};
use crate::echo::{Channel, EchoClient, EchoRequest, EchoResponse};
use crate::failure::Failure;

pub(crate) use sequence::Counts;
pub(crate) use times::{Recorder, Span, Spent, Times};

/// The deadline of every call of every contestant.
const DEADLINE: Duration = Duration::from_secs(1);

/// Makes the calls, and prints what they cost on stdout: [`Counts`] or [`Times`].
pub(crate) fn drive(runtime: &Runtime, args: &DriveArgs) -> Result<(), Failure> {
    let DriveArgs { contestant, servers, pids, payload_bytes, plan } = args;
    let payload = vec![b'x'; *payload_bytes];
    let answer = match plan {
        Plan::Sequence(plan) => {
            let counts = contestant.compete(runtime, servers, sequence::Sequence { plan, payload: &payload })??;
            serde_json::to_string(&counts)
        }
        Plan::Closed(plan) => {
            let times = contestant.compete(runtime, servers, closed::Closed { plan, payload: &payload, pids })??;
            serde_json::to_string(&times)
        }
        Plan::Open(plan) => {
            let times = contestant.compete(runtime, servers, open::Open { plan, payload: &payload, pids })??;
            serde_json::to_string(&times)
        }
    };
    println!("{}", answer.expect("numbers are JSON"));
    Ok(())
}

/// One call as an application makes it, through the client's [`Stub`](crate::echo::Stub).
async fn call<C: Channel>(client: &mut EchoClient<C>, payload: &[u8]) -> Result<EchoResponse, Status> {
    let mut request = Request::new(EchoRequest { payload: payload.to_vec() });
    request.set_timeout(DEADLINE);
    let answer = client.echo(request).await?.into_inner();
    if answer.payload.len() == payload.len() { Ok(answer) } else { Err(Status::data_loss("not what was sent")) }
}
