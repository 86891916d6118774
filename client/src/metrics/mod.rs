//! What is measured of the calls to one service.
//!
//! Calls write plain atomics, found once per call by the method's path; names, labels and buckets appear only when somebody
//! scrapes. Names and buckets are those of gRFC A66 (calls and attempts) and A96 (repetitions).

mod buckets;
mod calls;
mod calls_text;
mod collector;
mod endpoints_text;
mod methods;
mod recent;
mod registries_text;
mod status;
#[cfg(test)]
mod tests;

pub(crate) use calls::{CallStats, Repeats};
pub use collector::MeshMetrics;
pub(crate) use methods::MethodIndex;
