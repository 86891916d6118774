//! An open-loop load over both services: calls start at their time, whatever becomes of the ones before them, and each
//! has one right answer, known in advance.
//!
//! What counts as failed: another final status than the expected one, an answer that is not what was written before, or
//! no answer by the deadline and 50 ms. Nothing is tried twice here: what the mesh does not absorb is seen.

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

pub use ledger::{CallFailure, Ledger, LoadReport, MethodReport};
use shop::{Planned, Shop, Stubs, Verdict};

/// How much later than its deadline an answer may come before it counts as none.
const GRACE: Duration = Duration::from_millis(50);

/// Customers that exist before the load begins. Each costs a password hash.
const CUSTOMERS: usize = 8;

/// What load to make.
#[derive(Debug, Clone)]
pub struct LoadPlan {
    /// Way to user-svc.
    pub users: MeshChannel,
    /// Way to order-svc.
    pub orders: MeshChannel,
    /// Calls started per second.
    pub rate: u32,
    /// Deadline of each call.
    pub deadline: Duration,
    /// What the sequence of calls is drawn from.
    pub seed: u64,
}

impl LoadPlan {
    /// A deadline of 1 s, as every promise about failed calls has it (`research/reliability.md` §0.1).
    pub fn new(users: MeshChannel, orders: MeshChannel, rate: u32) -> LoadPlan {
        LoadPlan { users, orders, rate, deadline: Duration::from_secs(1), seed: entropy::seed() }
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
    /// Creates the first customers, then starts to call.
    pub async fn start(plan: LoadPlan) -> Result<Load, Status> {
        let stubs = Stubs::new(plan.users.clone(), plan.orders.clone());
        let mut shop = Shop::new(entropy::rng(plan.seed));
        for _ in 0..CUSTOMERS {
            let user = stubs.create_user(shop.a_new_user(), Duration::from_secs(5)).await?;
            shop.welcome(user);
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
            let planned = self.books.shop().next_call();
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
    let answer = tokio::time::timeout(deadline + GRACE, stubs.send(&planned.request, deadline)).await;
    let latency = clock::now().saturating_duration_since(scheduled);
    let verdict = match answer {
        Ok(answer) => books.shop().judge(&planned, answer),
        Err(_) => Verdict::Wrong(format!("no answer within {:?}", deadline + GRACE)),
    };
    match verdict {
        Verdict::AsExpected => books.ledger().succeeded(planned.method, latency),
        Verdict::Wrong(outcome) => books.ledger().failed(CallFailure::new(&planned, scheduled, outcome)),
    }
}
