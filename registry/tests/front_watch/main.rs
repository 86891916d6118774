//! What Watch promises, told with a generated client over a pipe, under paused time.

mod bounds;
mod kit;
mod pace;
mod slow;
mod state;
#[path = "../support/mod.rs"]
mod support;
