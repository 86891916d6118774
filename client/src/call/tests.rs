//! The course of calls over scripted servers in memory.

mod deadline;
mod queue;
mod re_pick;
mod retry;
mod streaming;
