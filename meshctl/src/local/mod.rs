//! A mesh on this machine: servers as child processes of this very binary.

mod keys;
mod mesh;
mod process;

pub use mesh::{Listen, LocalMesh, LocalMeshPlan, Member, Names};
pub use process::{Launch, Launcher, Process, ProcessError};
