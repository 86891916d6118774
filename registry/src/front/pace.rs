//! How fast something may come: in all, and from each address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use mesh_runtime::{clock, peer_network};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::quotas::Rate;

/// Most addresses whose pace is kept apart. Past it those that come last share one pace until others have rested: a table
/// that anybody can make longer has to end somewhere.
const ADDRESSES_MAX: usize = 65_536;

/// A token bucket, kept as the moment at which it is full again: a full one is a moment that has passed, and nothing has to
/// be remembered of it.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    full_at: Instant,
}

impl Bucket {
    /// The bucket without one more token, or how long until there is one.
    fn take(self, rate: Rate, now: Instant) -> Result<Self, Duration> {
        let each = Duration::from_secs(1) / rate.per_second.max(1);
        let after = Self { full_at: self.full_at.max(now) + each };
        let over = (after.full_at - now).saturating_sub(each * rate.burst.max(1));
        if over.is_zero() { Ok(after) } else { Err(over) }
    }
}

/// Too fast, and how fast may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooFast {
    /// Whether it is the pace of one address that is too fast, or that of all of them together.
    pub(crate) of_address: bool,
    /// What is allowed steadily.
    pub(crate) per_second: u32,
    /// How long until the next one is let in, if nobody else comes.
    pub(crate) retry_in: Duration,
}

/// The pace of one kind of thing.
#[derive(Debug)]
pub(crate) struct Pace {
    in_all: Rate,
    per_address: Rate,
    buckets: Mutex<Buckets>,
}

#[derive(Debug)]
struct Buckets {
    in_all: Bucket,
    /// At most [`ADDRESSES_MAX`] and the one that the rest share.
    by_address: HashMap<IpAddr, Bucket>,
    /// When the table was full and looked through last.
    swept: Option<Instant>,
}

impl Pace {
    /// So fast, and so fast from each address.
    pub(crate) fn new(in_all: Rate, per_address: Rate) -> Self {
        let in_all_bucket = Bucket { full_at: clock::now() };
        let buckets = Buckets { in_all: in_all_bucket, by_address: HashMap::new(), swept: None };
        Self { in_all, per_address, buckets: Mutex::new(buckets) }
    }

    /// Lets one in, or says why not. What is refused counts for nothing.
    pub(crate) fn take(&self, from: IpAddr) -> Result<(), TooFast> {
        let now = clock::now();
        let mut buckets = self.buckets.lock();
        let address = buckets.place_of(peer_network(from), now);
        let held = buckets.by_address.get(&address).copied().unwrap_or(Bucket { full_at: now });
        let too_fast =
            |rate: Rate, of_address| move |retry_in| TooFast { of_address, per_second: rate.per_second, retry_in };
        let of_address = held.take(self.per_address, now).map_err(too_fast(self.per_address, true))?;
        let in_all = buckets.in_all.take(self.in_all, now).map_err(too_fast(self.in_all, false))?;
        buckets.in_all = in_all;
        buckets.by_address.insert(address, of_address);
        Ok(())
    }
}

impl Buckets {
    /// Under which entry an address is counted: its own while there is room.
    fn place_of(&mut self, address: IpAddr, now: Instant) -> IpAddr {
        const THE_REST: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
        if self.by_address.len() < ADDRESSES_MAX || self.by_address.contains_key(&address) {
            return address;
        }
        if self.swept.is_none_or(|swept| now - swept >= SWEEP_INTERVAL) {
            self.swept = Some(now);
            self.by_address.retain(|_, bucket| bucket.full_at > now);
        }
        if self.by_address.len() < ADDRESSES_MAX { address } else { THE_REST }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Rate = Rate { per_second: 1_000_000, burst: 1_000_000 };

    fn address(number: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + number))
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_let_in_and_then_the_steady_rate() {
        let pace = Pace::new(FAST, Rate { per_second: 10, burst: 3 });
        let let_in = |count: usize| (0..count).filter(|_| pace.take(address(1)).is_ok()).count();
        assert_eq!(let_in(5), 3);
        let refused = pace.take(address(1)).expect_err("too fast");
        let retry_in = Duration::from_millis(100);
        assert_eq!(refused, TooFast { of_address: true, per_second: 10, retry_in });
        assert!(pace.take(address(2)).is_ok(), "another address has its own");
        tokio::time::advance(retry_in).await;
        assert_eq!(let_in(2), 1, "as promised");
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(let_in(9), 3, "a long rest is worth one burst");
    }

    #[tokio::test(start_paused = true)]
    async fn all_together_have_a_pace_too_and_what_is_refused_costs_no_token() {
        let pace = Pace::new(Rate { per_second: 1, burst: 2 }, Rate { per_second: 1, burst: 1 });
        assert!(pace.take(address(1)).is_ok() && pace.take(address(1)).is_err());
        assert!(pace.take(address(2)).is_ok(), "the refusal before took nothing from all");
        let refused = pace.take(address(3)).expect_err("the second was the last");
        assert_eq!((refused.of_address, refused.retry_in), (false, Duration::from_secs(1)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(pace.take(address(3)).is_ok(), "its own bucket is still full");
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_of_addresses_ends_and_is_emptied_by_rest() {
        let pace = Pace::new(FAST, Rate { per_second: 1, burst: 1 });
        let count = u32::try_from(ADDRESSES_MAX).expect("small");
        assert!((0..count).all(|number| pace.take(address(number)).is_ok()));
        assert!(pace.take(address(count)).is_ok(), "the rest have one bucket");
        assert!(pace.take(address(count + 1)).is_err(), "and share it");
        assert_eq!(pace.buckets.lock().by_address.len(), ADDRESSES_MAX + 1);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(pace.take(address(count + 1)).is_ok());
        assert_eq!(pace.buckets.lock().by_address.len(), 1, "those that have rested are forgotten");
    }
}
