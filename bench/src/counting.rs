//! An allocator that counts what it is asked for, in every thread of the process.
#![expect(unsafe_code, reason = "an allocator is unsafe by its trait; this one hands everything on to another")]

use std::alloc::{GlobalAlloc, Layout};
use std::ops::Sub;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Whose blocks these are.
#[cfg(feature = "mimalloc")]
static BELOW: mimalloc::MiMalloc = mimalloc::MiMalloc;
#[cfg(not(feature = "mimalloc"))]
static BELOW: std::alloc::System = std::alloc::System;

/// What it is called.
pub(crate) const NAME: &str = if cfg!(feature = "mimalloc") { "mimalloc" } else { "the C library's" };

/// Off outside a count, so that what callgrind sees of it is a load and a branch.
static COUNTING: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

/// The allocator below, counted. Growing a block counts as one more allocation of what it grew by.
pub(crate) struct Counting;

/// What was asked for so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted {
    pub(crate) allocations: u64,
    pub(crate) bytes: u64,
}

/// Counts from here on.
pub(crate) fn start() -> Counted {
    COUNTING.store(true, Ordering::Relaxed);
    counted()
}

/// The count as it is.
pub(crate) fn counted() -> Counted {
    Counted { allocations: ALLOCATIONS.load(Ordering::Relaxed), bytes: BYTES.load(Ordering::Relaxed) }
}

impl Sub for Counted {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self { allocations: self.allocations - earlier.allocations, bytes: self.bytes - earlier.bytes }
    }
}

#[inline]
fn count(bytes: usize) {
    if COUNTING.load(Ordering::Relaxed) {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

// SAFETY: every call goes to `BELOW` with the arguments it came with; the counters allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promises are those that `BELOW` asks for.
        unsafe { BELOW.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as above.
        unsafe { BELOW.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count(bytes.saturating_sub(layout.size()));
        // SAFETY: as above; every block here came from `BELOW`.
        unsafe { BELOW.realloc(block, layout, bytes) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { BELOW.dealloc(block, layout) }
    }
}
