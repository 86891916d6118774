//! What a process says of itself, told by the registrar and heard by the resolver.

/// What an instance says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServingStatus {
    /// Takes calls.
    Serving,
    /// Alive, but asks callers to stay away.
    NotServing,
    /// On its way out: finishes what it has, takes nothing new.
    Draining,
}
