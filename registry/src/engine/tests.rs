//! The engine under paused time: on a memory store, and on one that does everything a store may do.

mod hostile;
mod kit;
mod lifecycle;
mod ownership;
mod restored;
mod writes;
