//! The course of calls over scripted servers in memory.

mod cancel;
mod deadline;
mod hedging;
mod keys;
mod outcomes;
mod queue;
mod re_pick;
mod response;
mod retry;
mod streaming;
