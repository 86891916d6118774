//! The one owner of the catalog: a task that gathers commands, decides them, commits them as a group, applies only what
//! the store says was committed, publishes, and sleeps until the next deadline.

mod audit;
mod error;
mod events;
mod feed;
mod follow;
mod handle;
mod metrics;
mod ownership;
mod pending;
mod publish;
mod settings;
mod task;
mod time;
mod waiting;

pub use error::{EngineError, Lane};
pub use events::{EVENTS_MAX, Event, EventKind, Events, Subject};
pub use follow::{Bell, Follow, Following, Glance, Heard, Published};
pub use handle::{Closed, Departure, Engine};
pub use metrics::Metrics;
pub use publish::View;
pub use settings::EngineSettings;
pub use task::EngineTask;
pub use time::Clock;

#[cfg(test)]
mod tests;
