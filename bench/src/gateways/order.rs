//! What a process that asks is told to do.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Whom to ask for what, how, and for how long.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(super) way: Way,
    pub(super) operation: Operation,
    pub(super) server: SocketAddr,
    /// The process in the middle, whose CPU time is told too.
    pub(super) pid: u32,
    /// Requests in flight, each on a connection of its own.
    pub(super) in_flight: u16,
    pub(super) warm_up_ms: u64,
    pub(super) millis: u64,
}

/// The way to the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Way {
    /// tonic's channel and a generated stub: what the middle costs is the difference.
    Direct,
    /// JSON through our gateway.
    Gateway,
    /// JSON through Envoy's grpc_json_transcoder.
    Envoy,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Operation {
    /// A small question, and an answer of some 700 bytes of JSON.
    Get,
    /// A question of some 500 bytes of JSON, and the same answer.
    Create,
}

impl Way {
    /// For people.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Direct => "gRPC, directly",
            Self::Gateway => "gateway",
            Self::Envoy => "Envoy",
        }
    }
}

impl Operation {
    /// Both.
    pub(super) const ALL: [Self; 2] = [Self::Get, Self::Create];

    /// For programs.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Create => "create",
        }
    }

    /// For people.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Get => "GET /v1/orders/{order_id}",
            Self::Create => "POST /v1/orders",
        }
    }
}
