//! What is known of a service, on disk: a process that starts while the registry is away finds its services all the same.
//!
//! There is one file for each namespace and service, and it says which store it comes from. Files per store would pile up
//! behind a registry that takes a new store id at each start, and nobody who starts without the registry could tell which
//! of them to read. The rule for replacing one is therefore the rule in memory: under one store id nothing older is taken,
//! of another store nothing compares, and what was vouched for last is taken.
//!
//! [`record`] is what a file holds and is pure, [`folder`] reads and writes files, [`keeper`] says when.

mod folder;
mod keeper;
mod record;

pub use folder::StateDirError;
pub(crate) use folder::StateFolder;
pub(super) use keeper::{Keeper, Kept};
pub(super) use record::Known;
