//! The registry: who is alive, and who is told.
//!
//! | module | its one idea |
//! |---|---|
//! | [`catalog`] | the rules, pure: commands and a time in, proposals out; commits in, state out |
//! | [`storage`] | where records live |
//! | [`cluster`] | several processes on one store: who is there, and who may act |
//! | [`engine`] | the one task that owns the catalog: gather, decide, commit, apply, publish, sleep |
//! | `watch` | state to watchers, bounded in bytes for each of them |
//! | `wire` | messages and domain types, one into the other |
//! | `front` | the doors: gRPC, and a page over HTTP |
//!
//! [`main`] is the program. [`Registry`] is everything in it but the process: a test or a simulation starts one, serves
//! its [`routes`](Registry::routes) over whatever pipe it likes, and ends it.
//!
//! What holds: heartbeats never reach the store; reads and watches take no lock that a write holds; a watcher that does
//! not read is told no more and then cut; what the doors let in is valid, and further in nothing is checked again.

pub mod catalog;
pub mod cluster;
pub mod engine;
pub mod storage;

/// What an operator does with a store besides running a registry on it. All of it blocks.
pub mod store {
    pub use crate::storage::{BackupError, Summary, backup, restore, verify};
}

mod config;
mod front;
mod program;
mod registry;
mod watch;
mod wire;

pub use front::{Quotas, Rate, Share};
pub use program::main;
pub use registry::{Registry, Settings, StartError, StorePlace};
