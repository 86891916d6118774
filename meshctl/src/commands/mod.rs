//! The commands that look at a mesh, change it, or call it.

pub(crate) mod admin;
pub(crate) mod call;
mod caller;
pub(crate) mod completions;
pub(crate) mod doctor;
pub(crate) mod events;
pub(crate) mod explain;
pub(crate) mod key;
pub(crate) mod list;
pub(crate) mod reflection;
pub(crate) mod registry_store;
pub(crate) mod serve;
pub(crate) mod token;
pub(crate) mod watch;
pub(crate) mod words;
