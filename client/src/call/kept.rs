//! What is kept of a request's body for another attempt.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

/// How much of one body is kept. linkerd2-proxy's bound; a body beyond it is sent once.
const CALL_BYTES_MAX: usize = 64 << 10;
/// What one call keeps without asking the pool: about as much as the rest of its state takes. Most calls are smaller, and
/// 10 000 of them ([`Policy::in_flight_max`](crate::Policy::in_flight_max)) hold 20 MiB.
const CALL_BYTES_FREE: usize = 2 << 10;
/// How much larger bodies keep together, in one process.
const POOL_BYTES_MAX: usize = 16 << 20;

/// What the larger bodies of this process share.
pub(super) static POOL: Pool = Pool::new(POOL_BYTES_MAX);

/// A number of bytes that may be kept at the same time.
#[derive(Debug)]
pub(super) struct Pool {
    taken: AtomicUsize,
    max: usize,
}

impl Pool {
    pub(super) const fn new(max: usize) -> Self {
        Self { taken: AtomicUsize::new(0), max }
    }

    /// Counted before it is compared: a race refuses rather than taking too much.
    fn take(&self, bytes: usize) -> bool {
        let granted = self.taken.fetch_add(bytes, Ordering::Relaxed) + bytes <= self.max;
        if !granted {
            self.give_back(bytes);
        }
        granted
    }

    fn give_back(&self, bytes: usize) {
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The pieces of one body so far: all of them, or none. A piece that is kept is one reference more to the same bytes.
#[derive(Debug)]
pub(super) struct Kept {
    pieces: Pieces,
    bytes: usize,
    /// What was taken out of the pool for them.
    charged: usize,
    pool: &'static Pool,
}

/// A unary call has one piece, and keeps it without an allocation.
#[derive(Debug)]
enum Pieces {
    None,
    One(Bytes),
    Many(Vec<Bytes>),
    /// There were too many, or nobody needs them any more.
    Gone,
}

impl Kept {
    pub(super) fn new(pool: &'static Pool) -> Self {
        Self { pieces: Pieces::None, bytes: 0, charged: 0, pool }
    }

    /// How many pieces there were; `None` once they are gone.
    pub(super) fn count(&self) -> Option<usize> {
        match &self.pieces {
            Pieces::None => Some(0),
            Pieces::One(_) => Some(1),
            Pieces::Many(pieces) => Some(pieces.len()),
            Pieces::Gone => None,
        }
    }

    pub(super) fn piece(&self, index: usize) -> Option<&Bytes> {
        match &self.pieces {
            Pieces::One(piece) if index == 0 => Some(piece),
            Pieces::Many(pieces) => pieces.get(index),
            Pieces::None | Pieces::One(_) | Pieces::Gone => None,
        }
    }

    /// Keeps one more piece, or lets go of all of them where that would be too much.
    pub(super) fn push(&mut self, piece: &Bytes) {
        if let Pieces::Gone = self.pieces {
            return;
        }
        self.bytes += piece.len();
        if self.bytes > CALL_BYTES_FREE {
            let charge = self.bytes - self.charged;
            if self.bytes > CALL_BYTES_MAX || !self.pool.take(charge) {
                self.let_go();
                return;
            }
            self.charged += charge;
        }
        match &mut self.pieces {
            Pieces::Many(pieces) => pieces.push(piece.clone()),
            Pieces::One(first) => self.pieces = Pieces::Many(vec![first.clone(), piece.clone()]),
            Pieces::None | Pieces::Gone => self.pieces = Pieces::One(piece.clone()),
        }
    }

    /// Nobody needs them any more.
    pub(super) fn let_go(&mut self) {
        self.pieces = Pieces::Gone;
        self.give_back();
    }

    fn give_back(&mut self) {
        if self.charged > 0 {
            self.pool.give_back(std::mem::take(&mut self.charged));
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(max: usize) -> &'static Pool {
        Box::leak(Box::new(Pool::new(max)))
    }

    fn kept(pool: &'static Pool, pieces: &[usize]) -> Kept {
        let mut kept = Kept::new(pool);
        pieces.iter().for_each(|bytes| kept.push(&Bytes::from(vec![0; *bytes])));
        kept
    }

    #[test]
    fn pieces_come_back_in_their_order() {
        let mut kept = Kept::new(pool(0));
        ["a", "b", "c"].into_iter().for_each(|piece| kept.push(&Bytes::from(piece)));
        let back: Vec<_> = (0..4).map_while(|index| kept.piece(index).cloned()).collect();
        assert_eq!((back, kept.count()), (vec![Bytes::from("a"), "b".into(), "c".into()], Some(3)));
    }

    #[test]
    fn one_byte_too_many_lets_go_of_everything_and_gives_it_back() {
        let pool = pool(POOL_BYTES_MAX);
        assert!(kept(pool, &[CALL_BYTES_MAX]).count().is_some());
        let large = kept(pool, &[CALL_BYTES_MAX, 1]);
        assert!(large.count().is_none() && large.piece(0).is_none());
        assert_eq!(pool.taken.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn all_calls_together_keep_no_more_than_the_pool_has() {
        let pool = pool(100_000);
        let first = kept(pool, &[30_000, 20_000]);
        let second = kept(pool, &[50_000]);
        assert!(first.count().is_some() && second.count().is_some());
        assert!(kept(pool, &[10_000]).count().is_none(), "there is none left");
        assert!(kept(pool, &[CALL_BYTES_FREE]).count().is_some(), "a small one does not ask");
        drop(first);
        assert!(kept(pool, &[40_000]).count().is_some());
        drop(second);
        assert_eq!(pool.taken.load(Ordering::Relaxed), 0);
    }
}
