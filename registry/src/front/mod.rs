//! The front doors: views on one catalog. They decode, ask the engine and encode; no rule stands here.

mod events;
mod grpc;
mod http;
mod keep_alive;
mod metrics;
mod pace;
mod peer;
mod places;
mod quotas;
mod status;

pub(crate) use grpc::Front;
pub(crate) use http::page;
pub(crate) use metrics::Refusals;
pub(crate) use pace::TooFast;
pub(crate) use peer::PeerFront;
pub(crate) use places::{Full, Peer, Place, Places};
pub use quotas::{Quotas, Rate, Share};
pub(crate) use status::FrontError;
