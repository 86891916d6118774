//! How often somebody may guess a password: per account and per address, each in this instance's memory.
//!
//! [`FREE`] failures are free. With each further one the next attempt has to wait longer, up to [`DELAY_MAX`]; then one is
//! let through, whatever came before: nothing is locked for good. Attempts that are refused count for nothing. Failures are
//! forgiven one by one, those of an account once a minute, those of an address, which may be many people's, every six
//! seconds; while somebody waits, nothing is forgiven. A success ends the account's failures.
//!
//! An attempt counts for its account from its beginning, so that many at once are no way round. For its address it counts
//! when it has failed, since many people behind one address do log in at once; how many can be in flight, the queue of
//! passwords bounds.
//!
//! Where somebody has logged in to an account before, failures elsewhere do not count: strangers who guess without end keep its
//! owner waiting at a new place, and not at home. What fails there counts for that place alone.
//!
//! An account is an email address, whether anybody has it or not: the limits tell nothing either.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use mesh_runtime::peer_network;
use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use crate::clock::Clock;
use crate::user::Email;

/// Failures without a delay.
pub(crate) const FREE: u32 = 10;
/// The first delay; the next is twice as long.
const DELAY_FIRST: Duration = Duration::from_secs(6);
/// The longest delay.
pub(crate) const DELAY_MAX: Duration = Duration::from_secs(60);
/// Failures that are counted: with one more, the delay would not grow any more.
const COUNTED_MAX: u32 = FREE + 4;
/// How long it takes to forgive an account one failure.
const ACCOUNT_FORGIVES: Duration = Duration::from_secs(60);
/// How long it takes to forgive an address one failure.
const ADDRESS_FORGIVES: Duration = Duration::from_secs(6);
/// Accounts, and addresses, that are remembered, in some 15 MB at most. One more, and the one that would be forgotten first makes room.
/// To push an account out before its time, an attacker has to fail at this many others, which are as many password hashes:
/// a quarter of an hour of two cores, by when it would be forgotten anyway.
const REMEMBERED_MAX: usize = 1 << 16;

/// Places of logins that are remembered, in some 5 MB at most. One more, and the oldest is forgotten: its owner waits as one does
/// at a new place.
const HOMES_MAX: usize = 1 << 16;

/// The failures of one account or address. All zero is nobody's: such a record is not kept.
#[derive(Clone, Copy, Debug)]
struct Record {
    failures: u32,
    /// From when on time forgives.
    forgiven_to: Instant,
    /// When the next attempt may begin.
    open_at: Instant,
}

impl Record {
    fn fresh(now: Instant) -> Self {
        Self { failures: 0, forgiven_to: now, open_at: now }
    }

    fn forgive(&mut self, every: Duration, now: Instant) {
        let passed = now.saturating_duration_since(self.forgiven_to).as_nanos() / every.as_nanos();
        let forgiven = self.failures.min(u32::try_from(passed).unwrap_or(u32::MAX));
        self.failures -= forgiven;
        self.forgiven_to = if self.failures == 0 { now } else { self.forgiven_to + every * forgiven };
    }

    fn count(&mut self, now: Instant) {
        self.failures = (self.failures + 1).min(COUNTED_MAX);
        self.delay(now);
    }

    /// Lets nobody in for as long as so many failures ask for.
    fn delay(&mut self, now: Instant) {
        if let Some(beyond) = self.failures.checked_sub(FREE) {
            self.open_at = now + (DELAY_FIRST * (1 << beyond)).min(DELAY_MAX);
            self.forgiven_to = self.forgiven_to.max(self.open_at);
        }
    }

    /// Takes back what was counted at the beginning of an attempt that came to no verdict.
    fn uncount(&mut self, now: Instant) {
        self.failures = self.failures.saturating_sub(1);
        self.open_at = now;
        self.forgiven_to = self.forgiven_to.min(now);
    }

    fn forgotten_at(&self, every: Duration) -> Instant {
        self.forgiven_to + every * self.failures
    }
}

/// The records of accounts, or of addresses.
#[derive(Debug)]
struct Records<K> {
    every: Duration,
    max: usize,
    by_key: HashMap<K, Record>,
    /// The same keys by when they are forgotten.
    by_end: BTreeSet<(Instant, K)>,
}

impl<K: Copy + Eq + Hash + Ord> Records<K> {
    fn new(every: Duration, max: usize) -> Self {
        Self { every, max, by_key: HashMap::new(), by_end: BTreeSet::new() }
    }

    /// How long an attempt has to wait.
    fn wait(&self, key: K, now: Instant) -> Duration {
        self.by_key.get(&key).map_or(Duration::ZERO, |record| record.open_at.saturating_duration_since(now))
    }

    fn change(&mut self, key: K, now: Instant, change: impl FnOnce(&mut Record)) {
        let mut record = self.remove(key).unwrap_or_else(|| Record::fresh(now));
        record.forgive(self.every, now);
        change(&mut record);
        if record.failures > 0 {
            self.make_room(now);
            self.by_end.insert((record.forgotten_at(self.every), key));
            self.by_key.insert(key, record);
        }
    }

    fn remove(&mut self, key: K) -> Option<Record> {
        let record = self.by_key.remove(&key)?;
        self.by_end.remove(&(record.forgotten_at(self.every), key));
        Some(record)
    }

    fn make_room(&mut self, now: Instant) {
        while let Some(&(end, key)) = self.by_end.first() {
            if end > now && self.by_key.len() < self.max {
                return;
            }
            self.remove(key);
        }
    }
}

/// Where somebody has logged in, the oldest forgotten first.
#[derive(Debug)]
struct Homes {
    max: usize,
    last: HashMap<[u8; 16], Instant>,
    /// The same keys by when that was.
    by_age: BTreeSet<(Instant, [u8; 16])>,
}

impl Homes {
    fn new(max: usize) -> Self {
        Self { max, last: HashMap::new(), by_age: BTreeSet::new() }
    }

    fn remember(&mut self, home: [u8; 16], now: Instant) {
        if let Some(before) = self.last.insert(home, now) {
            self.by_age.remove(&(before, home));
        }
        self.by_age.insert((now, home));
        while self.last.len() > self.max
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.last.remove(&oldest);
        }
    }
}

/// The limits of one instance. Clones are one.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    clock: Clock,
    held: Arc<Mutex<Held>>,
}

#[derive(Debug)]
struct Held {
    /// By half of the SHA-256 of the email address.
    accounts: Records<[u8; 16]>,
    /// By network, as connections are counted.
    addresses: Records<IpAddr>,
    homes: Homes,
}

/// An attempt that may go on. Dropped without a verdict, by a caller that does not wait for it, it has failed.
pub(crate) struct Attempt {
    limits: Limits,
    /// What the failures are of: the account, or one of its homes.
    account: [u8; 16],
    /// The account at this address.
    home: [u8; 16],
    address: IpAddr,
    /// Whether a failure counts twice.
    is_double: bool,
    has_verdict: bool,
}

/// Too many attempts have failed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many attempts have failed; the next one may be made in {} s", .wait.as_secs_f64().ceil())]
pub(crate) struct TooOften {
    /// How long to wait.
    pub(crate) wait: Duration,
}

impl Limits {
    pub(crate) fn new(clock: Clock) -> Self {
        Self::bounded(clock, REMEMBERED_MAX)
    }

    fn bounded(clock: Clock, max: usize) -> Self {
        let accounts = Records::new(ACCOUNT_FORGIVES, max);
        let addresses = Records::new(ADDRESS_FORGIVES, max);
        let homes = Homes::new(HOMES_MAX.min(max));
        Self { clock, held: Arc::new(Mutex::new(Held { accounts, addresses, homes })) }
    }

    /// Begins an attempt at the password of an account.
    pub(crate) fn begin(&self, account: &Email, address: IpAddr) -> Result<Attempt, TooOften> {
        self.begin_at(account.as_str(), address)
    }

    /// Begins an attempt of somebody who has logged in to the account: the failures of strangers do not keep its owner out.
    pub(crate) fn begin_own(&self, user_id: Uuid, address: IpAddr) -> Result<Attempt, TooOften> {
        self.begin_at(&user_id.to_string(), address) // no email address: it has no @
    }

    fn begin_at(&self, account: &str, address: IpAddr) -> Result<Attempt, TooOften> {
        let address = peer_network(address);
        let home = key(&format!("{account} {address}")); // no account: none has a space
        let now = self.clock.now();
        let mut held = self.held.lock();
        let account = if held.homes.last.contains_key(&home) { home } else { key(account) };
        let wait = held.accounts.wait(account, now).max(held.addresses.wait(address, now));
        if !wait.is_zero() {
            return Err(TooOften { wait });
        }
        held.accounts.change(account, now, |record| record.count(now));
        // One at a time, once there are delays.
        held.addresses.change(address, now, |record| record.delay(now));
        drop(held);
        Ok(Attempt { limits: self.clone(), account, home, address, is_double: false, has_verdict: false })
    }
}

impl Attempt {
    /// A failure will have been two.
    pub(crate) fn count_twice(&mut self) {
        self.is_double = true;
    }

    /// The password was right.
    pub(crate) fn succeeded(mut self) {
        self.has_verdict = true;
        let now = self.limits.clock.now();
        let mut held = self.limits.held.lock();
        held.accounts.remove(self.account);
        held.homes.remember(self.home, now);
        held.addresses.change(self.address, now, |record| record.open_at = now);
    }

    /// The password was wrong.
    pub(crate) fn failed(self) {
        drop(self);
    }

    /// Nobody looked at the password.
    pub(crate) fn undecided(mut self) {
        self.has_verdict = true;
        let now = self.limits.clock.now();
        let mut held = self.limits.held.lock();
        held.accounts.change(self.account, now, |record| record.uncount(now));
        held.addresses.change(self.address, now, |record| record.open_at = now);
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.has_verdict {
            let now = self.limits.clock.now();
            let mut held = self.limits.held.lock();
            held.addresses.change(self.address, now, |record| record.count(now));
            if self.is_double {
                held.accounts.change(self.account, now, |record| record.count(now));
                held.addresses.change(self.address, now, |record| record.count(now));
            }
        }
    }
}

fn key(account: &str) -> [u8; 16] {
    let digest = digest::digest(&digest::SHA256, account.as_bytes());
    *digest.as_ref().first_chunk().expect("a SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests;
