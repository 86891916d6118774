//! What befalls a registry process: it is stopped, killed, and asked by everybody at once. Real processes and sockets; the
//! times are printed, and counts are judged.

#[path = "../support/process.rs"]
mod process;
#[path = "../support/mod.rs"]
mod support;

mod clock_jump;
mod crowd;
mod linearizable;
mod reregister;
mod sigstop_gap;
mod watcher_storm;

use std::sync::Once;

/// Says once that this program may have many sockets.
fn many_files() {
    static RAISED: Once = Once::new();
    RAISED.call_once(|| {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let limit = getrlimit(Resource::Nofile);
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        // Where it is not allowed the test says which socket it could not open.
        let _ = setrlimit(Resource::Nofile, raised);
    });
}
