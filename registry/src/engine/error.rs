//! Why the engine did not do what it was asked.

use std::fmt;

use tokio::sync::mpsc::error::TrySendError;

use crate::catalog::CatalogError;

/// A queue into the engine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Lane {
    /// Renewals; they go before everything else.
    Beats,
    /// Goodbyes, an instance's own or an operator's; they go before registrations.
    Departures,
    /// Registrations.
    Registrations,
    /// What else operators ask for.
    Operations,
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Beats => "heartbeats",
            Self::Departures => "deregistrations",
            Self::Registrations => "registrations",
            Self::Operations => "operators' changes",
        })
    }
}

/// Why the engine did not do what it was asked. Nothing was changed, except where a variant says otherwise.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EngineError {
    /// The catalog refuses it.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The queue is full: try again, with a jitter.
    #[error("the queue of {lane} is full")]
    Overloaded {
        /// Which one.
        lane: Lane,
    },
    /// Others changed the same records every time: try again.
    #[error("others changed the same records {attempts} times in a row")]
    Aborted {
        /// How often it was decided.
        attempts: u32,
    },
    /// The store takes no writes now, such as on a full disk. Reads and heartbeats go on.
    #[error("the store refuses writes: {reason}")]
    StoreRefused {
        /// In its words.
        reason: String,
    },
    /// This node cannot reach the store that it shares with others, so it does not know what it may change. Reads go on, and
    /// so do heartbeats unless it reaches no other node either, so that its instances would run out at others.
    #[error("this registry does not reach its store: ask another one, or this one once it does")]
    StoreUnavailable,
    /// The store did not tell in time. The change may have been made: repeating the request is safe and settles it.
    #[error("the store did not tell what became of the write")]
    OutcomeUnknown,
    /// Too many names that nobody registered are followed already.
    #[error("{max} unknown names are followed already {}", if *.of_address { "from this address" } else { "in all" })]
    TooManyFollowed {
        /// How many may be.
        max: u32,
        /// Whether that is from one address, or from all of them.
        of_address: bool,
    },
    /// The engine is going down.
    #[error("the registry is shutting down")]
    Stopped,
}

impl EngineError {
    /// Why a message did not get into its lane.
    pub(super) fn from_lane<T>(refused: &TrySendError<T>, lane: Lane) -> Self {
        match refused {
            TrySendError::Full(_) => Self::Overloaded { lane },
            TrySendError::Closed(_) => Self::Stopped,
        }
    }
}
