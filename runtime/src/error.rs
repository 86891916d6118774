//! How a program ends other than well.

use std::fmt::Display;

/// Why a program ended; [`crate::main`] makes it one line on stderr and an exit code.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not start: a bad flag, a taken port, an unreadable store. Nothing was written, nobody was told. Exit
    /// code 2, because somebody has to change something before a second try can work.
    #[error("{0}")]
    Startup(String),
    /// It ran and could not go on. Exit code 1: starting it again may help.
    #[error("{0}")]
    Failed(String),
}

impl Error {
    /// The program could not start, for this reason.
    pub fn startup(reason: impl Display) -> Self {
        Self::Startup(reason.to_string())
    }

    /// The program could not go on, for this reason.
    pub fn failed(reason: impl Display) -> Self {
        Self::Failed(reason.to_string())
    }

    /// 2 for what a person has to change, 1 for everything else.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Startup(_) => 2,
            Self::Failed(_) => 1,
        }
    }
}
