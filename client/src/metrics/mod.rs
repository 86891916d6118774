//! What is measured of the calls to one service.
//!
//! Calls write plain atomics, found once per call by the method's path; names, labels and buckets appear only when somebody
//! scrapes. Names and buckets are those of gRFC A66 (calls and attempts) and A96 (repetitions).

mod buckets;
mod calls;
mod methods;
mod recent;

pub(crate) use calls::{CallStats, Repeats};
pub(crate) use methods::MethodIndex;
