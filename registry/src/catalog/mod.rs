//! Who is alive, as a pure function: the rules of registration, fencing, removal and liveness, with no clock, no
//! randomness, no I/O and no transport inside. Time is an argument, lease ids are handed in, and what is to be written
//! comes out as a [`Proposal`], so that the same state, command and time give the same answer in production, in a replay
//! and in a test.
//!
//! Two halves, which meet only in the engine:
//!
//! - **what is stored**: [`decide`](fn@decide) reads a [`State`] through an [`Overlay`] and never changes anything;
//!   [`State::apply`] is the only change, and it is fed by what the store says was committed;
//! - **what is not**: [`Leases`] concludes from heartbeats who is ALIVE, SUSPECT, STALE or due to go. It is never stored
//!   and has no revision.
//!
//! Names, limits and identities are values whose constructors check; inside this module nothing is invalid.

mod admin;
mod command;
mod decide;
mod drawn;
mod error;
mod health;
mod instance;
#[cfg(test)]
pub(crate) mod kit;
mod lease;
mod leases;
mod limits;
mod name;
mod node;
mod overlay;
mod position;
mod record;
mod roster;
mod state;
mod text;
mod time;
mod view;

pub use admin::{AdminRule, AdminState, Selector};
pub use command::{Answer, Beat, BeatOutcome, Beaten, Command, Granted, Orphan, Register, Report, RuleSet};
pub use decide::{Context, Decision, REMEMBERED, decide};
pub use error::{CatalogError, Invalid};
pub use health::{InstanceHealth, Liveness, LoadReport, RemovalHold, RemovalHoldReason, SoftState, Standing, standing};
pub use instance::{
    DescriptorDigest, Endpoint, GrpcService, IdempotencyLevel, Instance, InstanceSpec, Metadata, Method, Protocol,
    ServingStatus, Version, Weight, Zone,
};
pub use lease::{Incarnation, LeaseId, StartNonce, StreamId, Ttl};
pub use leases::{Keeper, Lapse, Leases, Renewal};
pub use limits::Limits;
pub use name::{IdentityKey, InstanceId, Namespace, ServiceKey, ServiceName};
pub use node::NodeId;
pub use overlay::Overlay;
pub use position::{Generation, Position, Revision, StoreId};
pub use record::{
    Committed, Emptiness, Expected, History, Identity, Key, OpId, PastStart, Proposal, Record, Registration,
    RemovalReason, ServiceRecord, Tombstone, Write,
};
pub use roster::Roster;
pub use state::State;
pub use text::Few;
pub use time::Timestamp;
pub use view::{Presence, Removal, Resume, ServiceChange, ServiceView};
