//! Panics: each is a bug that one call pays for; all of them are counted and logged.

use std::backtrace::Backtrace;
use std::panic;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

static SEEN: AtomicU64 = AtomicU64::new(0);

/// Counts every panic from here on, and logs it where the other logs go. Calling it again changes nothing.
pub(crate) fn watch() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let earlier = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            SEEN.fetch_add(1, Ordering::Relaxed);
            if tracing::dispatcher::has_been_set() {
                let thread = std::thread::current();
                let thread = thread.name().unwrap_or("unnamed");
                let location = info.location().map(ToString::to_string);
                let what = info.payload_as_str().unwrap_or("not a text");
                let backtrace = Backtrace::capture();
                tracing::error!(thread, location, panic = what, %backtrace, "panicked: this is a bug");
            } else {
                earlier(info);
            }
        }));
    });
}

/// Panics since [`watch`] was first called.
pub(crate) fn seen() -> u64 {
    SEEN.load(Ordering::Relaxed)
}
