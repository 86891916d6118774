//! An open-loop load over both services: calls start at their time, whatever becomes of the ones before them, and each
//! has one right answer, known in advance.
//!
//! What counts as failed: another final status than the expected one, content that is not what was asked for or written
//! before, or no answer by the deadline and 50 ms, counted from the moment the client has the call. Nothing is tried twice
//! here: what the mesh does not absorb is seen. Latencies count from the time the call was due, so that a load that falls
//! behind cannot hide a slow answer; calls that it started late are told apart, for they are its own fault.

mod ledger;
mod oracle;
mod shop;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mesh_client::MeshChannel;
use mesh_runtime::{clock, entropy};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;

use crate::operator::Operator;
pub use ledger::{CallFailure, Ledger, LoadReport, MethodReport};
use shop::{Planned, Shop, Stubs, Verdict};

/// How much later than its deadline an answer may come before it counts as none.
const GRACE: Duration = Duration::from_millis(50);

/// A call that starts so long after it was due was held up by the generator, or by the machine under it.
const LATE_START: Duration = Duration::from_millis(50);

/// Customers that exist before the load begins. Each costs a password hash.
const CUSTOMERS: usize = 8;

/// How many of them log in, each for another hash, and call with tokens of their own. Logins are limited to ten a minute from
/// one address, and a mesh may see several loads one after the other.
const LOGINS: usize = 3;

/// Longest that each of these calls may take.
const OPENING_MAX: Duration = Duration::from_secs(5);

/// What load to make.
#[derive(Debug, Clone)]
pub struct LoadPlan {
    /// Way to user-svc.
    pub users: MeshChannel,
    /// Way to order-svc.
    pub orders: MeshChannel,
    /// Does what users do not do for themselves.
    pub operator: Operator,
    /// Calls started per second.
    pub rate: u32,
    /// Deadline of each call.
    pub deadline: Duration,
    /// What the sequence of calls is drawn from.
    pub seed: u64,
}

impl LoadPlan {
    /// A deadline of 1 s, as every promise about failed calls has it (`research/reliability.md` §0.1).
    pub fn new(users: MeshChannel, orders: MeshChannel, operator: Operator, rate: u32) -> LoadPlan {
        LoadPlan { users, orders, operator, rate, deadline: Duration::from_secs(1), seed: entropy::seed() }
    }
}

/// A running load. Dropping it stops it.
#[derive(Debug)]
pub struct Load {
    books: Arc<Books>,
    stop: CancellationToken,
    tracker: TaskTracker,
    scheduler: JoinHandle<()>,
}

/// What the calls share. Both locks are held for moments only, and never across an await.
#[derive(Debug)]
struct Books {
    shop: Mutex<Shop>,
    ledger: Mutex<Ledger>,
}

impl Load {
    /// Creates the first customers, of whom some log in, then starts to call.
    pub async fn start(plan: LoadPlan) -> Result<Load, Status> {
        let stubs = Stubs::new(plan.users.clone(), plan.orders.clone(), plan.operator.clone());
        let mut shop = Shop::new(entropy::rng(plan.seed));
        for number in 0..CUSTOMERS {
            let request = shop.a_new_user();
            let (email, password) = (request.email.clone(), request.password.clone());
            let user = stubs.create_user(request, OPENING_MAX).await?;
            let login = if number < LOGINS { stubs.log_in(email, password, OPENING_MAX).await? } else { None };
            shop.welcome(user, login);
        }
        let books = Arc::new(Books { shop: Mutex::new(shop), ledger: Mutex::new(Ledger::default()) });
        let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
        let schedule = Schedule { plan, stubs, books: books.clone(), tracker: tracker.clone() };
        let stopped = stop.clone();
        let scheduler = tokio::spawn(async move {
            stopped.run_until_cancelled(schedule.run()).await;
        });
        Ok(Load { books, stop, tracker, scheduler })
    }

    /// What has been counted so far.
    pub fn so_far(&self) -> LoadReport {
        self.books.ledger().report()
    }

    /// Stops, waits for the calls in flight, and answers with what was counted.
    pub async fn stop(mut self) -> Result<LoadReport, JoinError> {
        self.stop.cancel();
        (&mut self.scheduler).await?;
        self.tracker.close();
        self.tracker.wait().await;
        Ok(self.books.ledger().final_report())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Books {
    /// A panic of another call does not make the numbers wrong: that call stays unfinished, and unfinished is failed.
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shop(&self) -> MutexGuard<'_, Shop> {
        self.shop.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts calls at their times.
struct Schedule {
    plan: LoadPlan,
    stubs: Stubs,
    books: Arc<Books>,
    tracker: TaskTracker,
}

impl Schedule {
    async fn run(self) {
        let period = Duration::from_secs(1) / self.plan.rate;
        // Twice what a rate and a deadline can have in flight at most. Only a generator that cannot keep up gets there,
        // and then the calls that it does not make are failed ones.
        let in_flight_max =
            2 * (self.plan.rate as usize).max(1) * (self.plan.deadline + GRACE).as_secs_f64().ceil() as usize;
        let mut scheduled = clock::now();
        loop {
            tokio::time::sleep_until(scheduled).await;
            let planned = self.books.shop().next_call(clock::now());
            self.books.ledger().started(planned.method);
            if self.tracker.len() < in_flight_max {
                self.tracker.spawn(one_call(
                    self.stubs.clone(),
                    self.books.clone(),
                    planned,
                    scheduled,
                    self.plan.deadline,
                ));
            } else {
                let outcome = "not sent: too many calls are in flight".to_owned();
                self.books.ledger().failed(CallFailure::new(&planned, scheduled, outcome));
            }
            scheduled += period;
        }
    }
}

/// Makes one call and enters what became of it.
async fn one_call(stubs: Stubs, books: Arc<Books>, planned: Planned, scheduled: Instant, deadline: Duration) {
    let handed = clock::now();
    let answer = tokio::time::timeout(deadline + GRACE, stubs.send(&planned, deadline)).await;
    let times = Times { scheduled, handed, answered: clock::now() };
    if times.started_late() {
        books.ledger().started_late();
    }
    let verdict = match answer {
        Ok(answer) if times.in_time(deadline) => books.shop().judge(&planned, answer),
        _ => Verdict::Wrong(format!("no answer within {:?}", deadline + GRACE)),
    };
    match verdict {
        Verdict::AsExpected => books.ledger().succeeded(planned.method, times.latency()),
        Verdict::Wrong(outcome) => books.ledger().failed(CallFailure::new(&planned, scheduled, outcome)),
    }
}

/// The times of one call.
struct Times {
    /// When it was due.
    scheduled: Instant,
    /// When the client got it.
    handed: Instant,
    /// When its answer was here, or nobody waited for it any more.
    answered: Instant,
}

impl Times {
    fn started_late(&self) -> bool {
        self.handed.saturating_duration_since(self.scheduled) > LATE_START
    }

    /// The client has had the call since `handed`; what went before is not the mesh's.
    fn in_time(&self, deadline: Duration) -> bool {
        self.answered.saturating_duration_since(self.handed) <= deadline + GRACE
    }

    /// As whoever wanted the call at its time would see it.
    fn latency(&self) -> Duration {
        self.answered.saturating_duration_since(self.scheduled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_start_is_the_generators_and_a_late_answer_the_meshs() {
        const DEADLINE: Duration = Duration::from_secs(1);
        let scheduled = clock::now();
        let times = |handed_ms, answered_ms| Times {
            scheduled,
            handed: scheduled + Duration::from_millis(handed_ms),
            answered: scheduled + Duration::from_millis(answered_ms),
        };
        assert!(!times(50, 60).started_late() && times(51, 60).started_late());
        assert!(times(0, 1050).in_time(DEADLINE) && !times(0, 1051).in_time(DEADLINE));
        assert!(times(400, 1450).in_time(DEADLINE), "the client has had it for 1.05 s");
        assert_eq!(times(400, 410).latency(), Duration::from_millis(410), "whoever waited has waited");
    }
}
