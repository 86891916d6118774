//! Messages and domain types, one into the other. What is decoded here is valid; further in nothing is checked again.

mod chunks;
mod decode;
mod encode;
mod events;
mod memo;
mod peer;

#[cfg(test)]
pub(crate) use chunks::CHUNK_BYTES;
pub(crate) use chunks::Chunks;
pub(crate) use decode::{
    Fault, Reach, admin_rule, beats, departure, namespace, page_size, page_token, position as decode_position,
    register, service_key,
};
pub(crate) use encode::{
    Loads, beat_results, count, duration, granted, instance, position, presence, removal, removal_hold,
    resolved_instance, soft_state, summary,
};
pub(crate) use events::{event, timestamp};
pub(crate) use memo::{Memo, Shelf};
pub(crate) use peer::{kept_health, relay_request, relay_response, relayed, relayed_beats, told_health};
