//! One thing that is wrong.

use serde_json::{Value, json};

/// How bad it is. In this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// Somebody's calls can fail for it, or soon will.
    Error,
    /// It may be meant so, or pass by itself.
    Warning,
}

impl Level {
    pub(super) fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warning => "warning",
        }
    }
}

/// What is wrong, where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) level: Level,
    /// Which check found it; a fixed word for programs.
    pub(super) check: &'static str,
    /// The registry, the service, or the instance and its address.
    pub(super) place: String,
    pub(super) what: String,
    pub(super) advice: &'static str,
}

impl Finding {
    pub(super) fn error(check: &'static str, place: String, what: String, advice: &'static str) -> Finding {
        Finding { level: Level::Error, check, place, what, advice }
    }

    pub(super) fn warning(check: &'static str, place: String, what: String, advice: &'static str) -> Finding {
        Finding { level: Level::Warning, check, place, what, advice }
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "level": self.level.name(), "check": self.check, "where": self.place, "what": self.what, "do": self.advice,
        })
    }
}
