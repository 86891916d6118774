//! Following a service: the value that is current, and a bell that rings when another one is.
//!
//! Whoever follows many services has one bell for all of them, so that a change costs one wake of those who follow it and
//! nothing of the others. A bell that rings remembers which service it was, each once: however fast a service changes, and
//! however long nobody listens, what is kept is bounded by what is followed.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Wake, Waker};

use arc_swap::{ArcSwap, Guard};
use mesh_runtime::clock;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::catalog::ServiceView;
use crate::wire::Memo;

/// One service as it is published, with what was encoded of it: that goes when the service changes.
#[derive(Debug)]
pub struct Published {
    view: ServiceView,
    memo: Memo,
}

impl Published {
    /// A view that nothing was encoded of.
    #[must_use]
    pub fn new(view: ServiceView) -> Self {
        Self { view, memo: Memo::default() }
    }

    /// What was encoded of it.
    pub(crate) fn memo(&self) -> &Memo {
        &self.memo
    }
}

impl Deref for Published {
    type Target = ServiceView;

    fn deref(&self) -> &ServiceView {
        &self.view
    }
}

/// A look at something that is published, without a count that all who look would share. Not to be kept: there is room for
/// a few of them only, and more are slower.
pub type Glance<T> = Guard<Arc<T>>;

/// What a follower is woken by.
#[derive(Debug, Default)]
pub struct Bell {
    state: Mutex<Rung>,
}

#[derive(Debug, Default)]
struct Rung {
    /// The service that changed first, by the number that its follower gave it. Mostly it is the only one, and takes no
    /// memory of its own here.
    service: Option<usize>,
    /// The others that changed; each once.
    services: Vec<usize>,
    /// Whether it rang for something that is no service.
    other: bool,
    /// Since when it rings unheard.
    since: Option<Instant>,
    /// Who is woken by it next, and gone with that.
    listener: Option<Waker>,
}

/// What a bell rang for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heard {
    /// The service that changed first.
    pub service: Option<usize>,
    /// Whether there was anything that is no service.
    pub other: bool,
}

impl Bell {
    /// Takes what it rang for; services but the first go to the end of `services`. Wakes this task when it rings next.
    pub fn collect(&self, services: &mut Vec<usize>, task: &Waker) -> Heard {
        let mut state = self.state.lock();
        services.append(&mut state.services);
        state.since = None;
        match &mut state.listener {
            Some(listener) => listener.clone_from(task),
            none => *none = Some(task.clone()),
        }
        Heard { service: state.service.take(), other: std::mem::take(&mut state.other) }
    }

    /// Since when it rings and nobody listens.
    #[must_use]
    pub fn unheard_since(&self) -> Option<Instant> {
        self.state.lock().since
    }

    /// Rings for something that is no service.
    pub fn ring(&self) {
        self.ring_for(None, clock::now());
    }

    fn ring_for(&self, service: Option<usize>, now: Instant) {
        let mut state = self.state.lock();
        match service {
            Some(number) if state.service.is_none() => state.service = Some(number),
            Some(number) => state.services.push(number),
            None => state.other = true,
        }
        if state.since.is_some() {
            return;
        }
        state.since = Some(now);
        let listener = state.listener.take();
        drop(state);
        if let Some(listener) = listener {
            listener.wake();
        }
    }
}

/// As the waker of whatever else its follower waits for.
impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

/// The current value of one service, and who follows it.
pub(super) struct Cell {
    view: ArcSwap<Published>,
    followers: Mutex<Followers>,
}

#[derive(Default)]
struct Followers {
    /// A follower keeps its slot; free ones are taken again.
    slots: Vec<Option<Arc<Follower>>>,
    free: Vec<usize>,
    /// No value comes here any more: the name was forgotten while nobody followed it.
    closed: bool,
}

struct Follower {
    bell: Arc<Bell>,
    /// What the follower calls this service.
    number: usize,
    /// The bell rang for this service and the follower has not looked since.
    rung: AtomicBool,
}

impl Cell {
    pub(super) fn new(view: Arc<Published>) -> Self {
        Self { view: ArcSwap::new(view), followers: Mutex::default() }
    }

    pub(super) fn view(&self) -> Arc<Published> {
        self.view.load_full()
    }

    /// Shows another value and wakes who follows.
    pub(super) fn publish(&self, view: Arc<Published>) {
        self.view.store(view);
        let now = clock::now();
        for follower in self.followers.lock().slots.iter().flatten() {
            // Ordered with the swap of who looks: either that one sees the new value, or the bell rings here.
            if !follower.rung.swap(true, Ordering::SeqCst) {
                follower.bell.ring_for(Some(follower.number), now);
            }
        }
    }

    /// Follows this service, which the follower calls `number`; `None` where no value comes here any more.
    pub(super) fn follow(self: &Arc<Self>, bell: &Arc<Bell>, number: usize) -> Option<Follow> {
        let follower = Arc::new(Follower { bell: Arc::clone(bell), number, rung: AtomicBool::new(false) });
        let mut followers = self.followers.lock();
        if followers.closed {
            return None;
        }
        let slot = followers.free.pop().unwrap_or(followers.slots.len());
        if slot == followers.slots.len() {
            followers.slots.push(None);
        }
        followers.slots[slot] = Some(Arc::clone(&follower));
        Some(Follow { cell: Arc::clone(self), follower, slot })
    }

    /// Closes it unless somebody follows it; whether it is closed.
    pub(super) fn close_unless_followed(&self) -> bool {
        let mut followers = self.followers.lock();
        followers.closed = followers.slots.len() == followers.free.len();
        followers.closed
    }
}

impl fmt::Debug for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cell").field("view", &self.view).finish_non_exhaustive()
    }
}

/// One service that is followed, until this is dropped.
pub struct Follow {
    cell: Arc<Cell>,
    follower: Arc<Follower>,
    slot: usize,
}

impl Follow {
    /// The service as it is now. The bell rings for every later value.
    #[must_use]
    pub fn look(&self) -> Arc<Published> {
        // A swap and no store: what is read next must not be older than this.
        self.follower.rung.swap(false, Ordering::SeqCst);
        self.cell.view()
    }

    /// The same, for who is done with it at once.
    #[must_use]
    pub fn glance(&self) -> Glance<Published> {
        self.follower.rung.swap(false, Ordering::SeqCst);
        self.cell.view.load()
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        let mut followers = self.cell.followers.lock();
        followers.slots[self.slot] = None;
        followers.free.push(self.slot);
    }
}

impl fmt::Debug for Follow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follow").field("cell", &self.cell).finish_non_exhaustive()
    }
}

/// One service that is followed for itself.
#[derive(Debug)]
pub struct Following {
    follow: Follow,
    bell: Arc<Bell>,
}

impl Following {
    pub(super) fn new(follow: Follow, bell: Arc<Bell>) -> Self {
        Self { follow, bell }
    }

    /// The service as it is now.
    #[must_use]
    pub fn look(&self) -> Arc<Published> {
        self.follow.look()
    }

    /// Whether there is another value than the one that was looked at last.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        self.follow.follower.rung.load(Ordering::SeqCst)
    }

    /// Resolves when there is another value than the one that was looked at last.
    pub async fn changed(&self) {
        let mut services = Vec::new();
        std::future::poll_fn(|context| {
            self.bell.collect(&mut services, context.waker());
            if self.has_changed() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}
