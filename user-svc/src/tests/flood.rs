//! T51, `login_timing_and_flood`: what a login costs tells nobody who has an account, and a flood of logins keeps nobody else
//! waiting. Counts decide; times are printed. `MESH_STORY=full` compares the times too, for some minutes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use mesh_runtime::clock;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tonic::Code;

use super::logins::{from, login_from};
use super::{Instance, PASSWORD, ada, create, get, refused};
use crate::clock::Clock;
use crate::password::Passwords;

/// Hashes at a time, and the places for them and for those that wait.
const PERMITS: usize = 2;
const PLACES: u32 = 6;
/// Logins of the flood: a second of them at 500/s.
const LOGINS: u32 = 500;
/// Logins at once: more than there are places for.
const WAVE: u32 = 25;

/// Logins with a wrong password, in turn of an account that somebody has and of one that nobody has, without delays.
struct Guesser {
    instance: Instance,
    round: u32,
}

impl Guesser {
    /// How long one takes, in microseconds.
    async fn guess(&mut self, email: &str) -> u64 {
        self.round += 1;
        self.instance.clock.advance(Duration::from_secs(15 * 60));
        let begun = clock::now();
        let guess = login_from(&self.instance, from(self.round), email, "battery staple").await;
        let took = begun.elapsed();
        assert_eq!(refused(guess), (Code::Unauthenticated, "CREDENTIALS_INVALID".into()));
        u64::try_from(took.as_micros()).unwrap()
    }
}

fn median(times: &[u64]) -> u64 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

/// Welch's t of two samples, after the slowest twentieth of each, which is the machine's doing, has been left out.
#[expect(clippy::cast_precision_loss, reason = "microseconds of some thousand samples")]
fn welch(one: &[u64], other: &[u64]) -> f64 {
    let moments = |times: &[u64]| {
        let mut sorted = times.to_vec();
        sorted.sort_unstable();
        sorted.truncate(sorted.len() * 19 / 20);
        let count = sorted.len() as f64;
        let mean = sorted.iter().map(|time| *time as f64).sum::<f64>() / count;
        let variance = sorted.iter().map(|time| (*time as f64 - mean).powi(2)).sum::<f64>() / (count - 1.0);
        (mean, variance / count)
    };
    let ((one, one_error), (other, other_error)) = (moments(one), moments(other));
    (one - other) / (one_error + other_error).sqrt()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn login_timing_and_flood_an_unknown_account_costs_as_much_as_a_known_one() {
    let is_full = std::env::var_os("MESH_STORY").is_some_and(|story| story == "full");
    let samples = if is_full { 2000 } else { 10 };
    let folder = TempDir::new().unwrap();
    let instance = Instance::start(&folder, &Clock::start()).await;
    create(&instance.users, ada("1")).await.unwrap();
    let begun = || instance.passwords.counts.begun.load(Relaxed);
    let mut guesser = Guesser { instance: instance.clone(), round: 0 };
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    let (mut known_hashes, mut unknown_hashes) = (0, 0);
    for _ in 0..samples {
        let before = begun();
        known.push(guesser.guess("ada@example.com").await);
        let between = begun();
        unknown.push(guesser.guess("bob@example.com").await);
        known_hashes += between - before;
        unknown_hashes += begun() - between;
    }
    assert_eq!((known_hashes, unknown_hashes), (samples, samples), "one hash each");
    let (t, medians) = (welch(&known, &unknown), (median(&known), median(&unknown)));
    println!("{samples} logins each: known {} us, unknown {} us, Welch's t {t:.2}", medians.0, medians.1);
    if is_full {
        assert!(medians.0.abs_diff(medians.1) * 50 <= medians.0, "medians differ by more than 2 %");
        assert!(t.abs() < 2.58, "known and unknown can be told apart (p < 0.01)");
    }
}

/// One of the flood, each from an address of its own; half of them at one account, some with its password. Its outcome.
async fn flood(instance: Instance, number: u32) -> String {
    let email = if number.is_multiple_of(2) { "ada@example.com" } else { &format!("user{number}@example.com") };
    let password = if number.is_multiple_of(20) { PASSWORD } else { "battery staple" };
    match login_from(&instance, from(number), email, password).await {
        Ok(_) => "OK".to_owned(),
        refused => super::refused(refused).1,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn login_timing_and_flood_others_are_answered_while_logins_flood_in() {
    let folder = TempDir::new().unwrap();
    let instance = Instance::with(&folder, &Clock::start(), Passwords::bounded(PERMITS)).await;
    let user = create(&instance.users, ada("1")).await.unwrap();
    let before = instance.passwords.counts.begun.load(Relaxed);

    // Others, who ask one call after the other for as long as the flood lasts.
    let is_over = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicU64::new(0));
    let other = {
        let (instance, is_over, answered) = (instance.clone(), Arc::clone(&is_over), Arc::clone(&answered));
        let user = user.clone();
        tokio::spawn(async move {
            let mut times = Vec::new();
            while !is_over.load(Relaxed) {
                let begun = clock::now();
                assert_eq!(get(&instance.users, &user.user_id).await.unwrap(), user);
                times.push(u64::try_from(begun.elapsed().as_micros()).unwrap());
                answered.fetch_add(1, Relaxed);
            }
            times
        })
    };
    let mut outcomes = BTreeMap::<String, u64>::new();
    for wave in 0..LOGINS / WAVE {
        let mut logins = JoinSet::new();
        for number in wave * WAVE..(wave + 1) * WAVE {
            logins.spawn(flood(instance.clone(), number));
        }
        for outcome in logins.join_all().await {
            *outcomes.entry(outcome).or_default() += 1;
        }
    }
    let seen = answered.load(Relaxed);
    is_over.store(true, Relaxed);
    let times = other.await.unwrap();
    let counts = &instance.passwords.counts;
    let hashes = counts.begun.load(Relaxed) - before;
    println!(
        "{LOGINS} logins: {outcomes:?}, {hashes} hashes, at most {} at a time; {seen} other calls meanwhile, median {} us, \
         slowest {} us",
        counts.running_max.load(Relaxed),
        median(&times),
        times.iter().max().unwrap()
    );
    let of = |reason: &str| outcomes.get(reason).copied().unwrap_or_default();
    assert_eq!(counts.running_max.load(Relaxed), PERMITS as u64);
    assert_eq!(hashes, of("OK") + of("CREDENTIALS_INVALID"), "one for each verdict, and none for a refusal");
    assert!(of("PASSWORD_QUEUE_FULL") > 0, "the flood was one");
    assert_eq!(outcomes.values().sum::<u64>(), u64::from(LOGINS), "each was answered");
    assert!(seen >= hashes, "a call of others in the time of each hash at least");
}

#[tokio::test]
async fn login_timing_and_flood_others_are_answered_while_not_a_hash_can_begin() {
    let folder = TempDir::new().unwrap();
    let instance = Instance::with(&folder, &Clock::start(), Passwords::bounded(PERMITS)).await;
    let user = create(&instance.users, ada("1")).await.unwrap();
    let held = instance.passwords.hold().await;
    let mut waiting = JoinSet::new();
    for number in 0..PLACES {
        let instance = instance.clone();
        waiting.spawn(async move {
            login_from(&instance, from(number), &format!("user{number}@example.com"), PASSWORD).await
        });
    }
    instance.passwords.until_full().await;
    let full = login_from(&instance, from(100), "ada@example.com", PASSWORD).await;
    assert_eq!(refused(full), (Code::ResourceExhausted, "PASSWORD_QUEUE_FULL".into()));
    assert_eq!(get(&instance.users, &user.user_id).await.unwrap(), user);
    drop(held);
    while let Some(login) = waiting.join_next().await {
        assert_eq!(refused(login.unwrap()), (Code::Unauthenticated, "CREDENTIALS_INVALID".into()));
    }
    login_from(&instance, from(100), "ada@example.com", PASSWORD).await.expect("what was refused was not counted");
}
