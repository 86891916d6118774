//! A server as its peers meet it: over real sockets where the kernel matters, over pipes and a paused clock where time
//! does.

#![expect(clippy::unwrap_used, reason = "a test stops at the first thing that is not as it should be")]

mod calls;
mod drain;
mod front;
mod limits;
mod probes;
mod support;
