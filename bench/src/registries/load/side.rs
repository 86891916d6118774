//! What both sides can do, through stubs that were generated alike.

use std::fmt::Debug;
use std::future::Future;

use bytes::Bytes;
use prost::DecodeError;
use tonic::Status;
use tonic::transport::Channel;

use crate::registries::payload::{Instance, Service};

/// One side over one connection.
pub(super) trait Side: Clone + Send + Sync + 'static {
    /// What a registration is granted.
    type Lease: Clone + Debug + Send + Sync + 'static;
    /// A stream of heartbeats.
    type Beats: Beats<Lease = Self::Lease>;
    /// A stream of changes.
    type Watch: Watch;

    fn over(channel: Channel) -> Self;

    /// Registers an instance under a lease of its own.
    fn register(&self, instance: Instance) -> impl Future<Output = Result<Self::Lease, Status>> + Send;

    /// Whether the server takes what it knows for all there is. Until then it says so in its answers, and once more when it
    /// does; the loads are not about that.
    fn is_complete(&self, service: Service) -> impl Future<Output = Result<bool, Status>> + Send;

    /// Changes the record of a registered instance.
    fn change(
        &self,
        instance: Instance,
        lease: &Self::Lease,
        change: u32,
    ) -> impl Future<Output = Result<(), Status>> + Send;

    /// Opens a stream with a first beat.
    fn beats(&self, first: &Self::Lease) -> impl Future<Output = Result<Self::Beats, Status>> + Send;

    /// The instances of a service now, as the answer came.
    fn resolve(&self, service: Service, read: Read) -> impl Future<Output = Result<Bytes, Status>> + Send;

    /// How many there are in such an answer.
    fn instances(answer: Bytes) -> Result<usize, DecodeError>;

    /// Follows a service; the stream is past what is there already.
    fn watch(&self, service: Service) -> impl Future<Output = Result<Self::Watch, Status>> + Send;
}

/// How current an answer must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// As a caller asks who thinks nothing of it.
    ByDefault,
    /// Whatever the node asked knows.
    Local,
}

/// A stream of heartbeats.
pub(super) trait Beats: Send + 'static {
    type Lease;

    /// Renews one lease by one message and waits for its answer, which must say that it is renewed.
    fn beat(&mut self, lease: &Self::Lease) -> impl Future<Output = Result<(), Status>> + Send;
}

/// A stream of changes.
pub(super) trait Watch: Send + 'static {
    /// The changes that the next message tells, in their order; a message that tells none is passed over.
    fn next(&mut self, changes: &mut Vec<u32>) -> impl Future<Output = Result<(), Status>> + Send;
}
