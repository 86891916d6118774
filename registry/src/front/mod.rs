//! The front doors: views on one catalog. They decode, ask the engine and encode; no rule stands here.

mod grpc;
mod http;
mod keep_alive;
mod metrics;
mod places;
mod status;

pub(crate) use grpc::Front;
pub(crate) use http::page;
pub(crate) use places::{Full, Peer, Places};
pub(crate) use status::FrontError;
