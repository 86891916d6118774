//! The better of two by expected time to an answer, simulated: endpoints with latencies of their own, callers that call
//! again as soon as they are answered.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use mesh_client::Balancer;
use mesh_client::balancer::{Candidates, Ewma};
use proptest::prelude::*;

use crate::model::{Endpoint, Model, is_likely, picker};

const ENDPOINTS: usize = 8;

/// How an endpoint answers.
#[derive(Clone, Copy, Debug)]
enum Manner {
    Answers(Duration),
    Fails(Duration),
}

/// Callers in a closed loop over simulated time.
struct World {
    model: Model,
    averages: Vec<Ewma>,
    /// When each call under way ends, where, and when it began; in microseconds.
    ends: BinaryHeap<Reverse<(u64, usize, u64)>>,
    now_us: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let averages = vec![Ewma::new(Duration::from_micros(200), 0); ENDPOINTS];
        Self { model: Model::equal(ENDPOINTS, seed), averages, ends: BinaryHeap::new(), now_us: 0 }
    }

    fn now_ms(&self) -> u32 {
        (self.now_us / 1000) as u32
    }

    /// Runs `callers` for this long, each thinking for `pause` between calls; how many calls each endpoint got.
    fn run(&mut self, manners: &[Manner; ENDPOINTS], callers: usize, pause: Duration, span: Duration) -> Vec<usize> {
        let picker = picker(&Balancer::PeakEwma, &self.model, None);
        let mut picks = vec![0; ENDPOINTS];
        let until = self.now_us + span.as_micros() as u64;
        // Callers begin one after the other, and think for up to twice the pause.
        let mut begins: BinaryHeap<Reverse<u64>> =
            (0..callers as u64).map(|caller| Reverse(self.now_us + caller)).collect();
        while self.now_us < until {
            let next_begin = begins.peek().map_or(u64::MAX, |begin| begin.0);
            let next_end = self.ends.peek().map_or(u64::MAX, |end| end.0.0);
            self.now_us = next_begin.min(next_end);
            if next_end <= next_begin {
                let Reverse((end, index, began)) = self.ends.pop().expect("just looked at");
                self.end(index, Duration::from_micros(end - began), manners[index]);
                let jitter = self.model.draw() % (2 * pause.as_micros() as u64 + 1);
                begins.push(Reverse(end + jitter));
            } else {
                begins.pop();
                picks[self.begin(&picker, manners)] += 1;
            }
        }
        // Whoever is under way is done before the next run.
        while let Some(Reverse((end, index, began))) = self.ends.pop() {
            self.now_us = self.now_us.max(end);
            self.end(index, Duration::from_micros(end - began), manners[index]);
        }
        picks
    }

    fn begin(&mut self, picker: &mesh_client::balancer::Picker, manners: &[Manner; ENDPOINTS]) -> usize {
        let now_ms = self.now_ms();
        for (endpoint, average) in self.model.endpoints.iter_mut().zip(&self.averages) {
            endpoint.latency = average.project(now_ms);
        }
        let picked = picker.pick(&self.model, None).expect("somebody can take a call");
        self.model.endpoints[picked].in_flight += 1;
        let (Manner::Answers(base) | Manner::Fails(base)) = manners[picked];
        // Half as long to one and a half times as long.
        let share = 0.5 + (self.model.draw() >> 40) as f64 / (1_u64 << 24) as f64;
        let took = base.mul_f64(share).as_micros() as u64;
        self.ends.push(Reverse((self.now_us + took, picked, self.now_us)));
        picked
    }

    fn end(&mut self, index: usize, took: Duration, manner: Manner) {
        let now_ms = self.now_ms();
        self.model.endpoints[index].in_flight -= 1;
        let average = &mut self.averages[index];
        *average = match manner {
            Manner::Answers(_) => average.sampled(took, now_ms),
            Manner::Fails(_) => average.failed(took, now_ms),
        };
    }
}

fn share(picks: &[usize], index: usize) -> f64 {
    picks[index] as f64 / picks.iter().sum::<usize>() as f64
}

const FAST: Manner = Manner::Answers(Duration::from_millis(2));
const MINUTE: Duration = Duration::from_secs(60);

fn one_of_eight(manner: Manner) -> [Manner; ENDPOINTS] {
    let mut manners = [FAST; ENDPOINTS];
    manners[0] = manner;
    manners
}

/// One caller that pauses, up to many that do not.
fn callers() -> impl Strategy<Value = (usize, Duration)> {
    prop_oneof![
        Just((1, Duration::from_millis(20))),
        Just((1, Duration::ZERO)),
        (2_usize..16).prop_map(|callers| (callers, Duration::from_millis(5))),
        (16_usize..65).prop_map(|callers| (callers, Duration::from_millis(20))),
        (32_usize..65).prop_map(|callers| (callers, Duration::ZERO)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn one_that_is_ten_times_slower_gets_few_calls((callers, pause) in callers(), seed: u64) {
        let mut world = World::new(seed);
        let slow = one_of_eight(Manner::Answers(Duration::from_millis(20)));
        let picks = world.run(&slow, callers, pause, MINUTE / 6);
        prop_assert!(share(&picks, 0) <= 0.05, "{:?}", picks);
    }

    #[test]
    fn one_that_fails_at_once_is_not_attractive((callers, pause) in callers(), seed: u64) {
        let mut world = World::new(seed);
        let failing = one_of_eight(Manner::Fails(Duration::from_micros(100)));
        let picks = world.run(&failing, callers, pause, MINUTE / 6);
        prop_assert!(share(&picks, 0) <= 0.05, "{:?}", picks);
    }

    /// Who was slow and is not any more has its share again a minute later, without anybody asking.
    #[test]
    fn one_that_recovers_gets_its_share_again((callers, pause) in callers(), seed: u64) {
        let mut world = World::new(seed);
        world.run(&one_of_eight(Manner::Answers(Duration::from_millis(20))), callers, pause, MINUTE / 6);
        world.run(&[FAST; ENDPOINTS], callers, pause, MINUTE);
        let picks = world.run(&[FAST; ENDPOINTS], callers, pause, MINUTE / 6);
        prop_assert!((0.08..0.2).contains(&share(&picks, 0)), "{:?}", picks);
    }

    /// Latencies that differ by chance starve nobody, however quiet the service is.
    #[test]
    fn equal_endpoints_get_equal_shares((callers, pause) in callers(), seed: u64) {
        let mut world = World::new(seed);
        let picks = world.run(&[FAST; ENDPOINTS], callers, pause, MINUTE / 3);
        // Five standard deviations of the nine hundred picks of the one caller that pauses.
        prop_assert!((0..ENDPOINTS).all(|index| (0.07..0.18).contains(&share(&picks, index))), "{:?}", picks);
    }
}

proptest! {
    /// Latency times calls in flight per weight, as the naive model has it.
    #[test]
    fn busy_candidates_are_compared_by_latency_and_calls_per_weight(
        one in (1_u32..1000, 1_u16..1000, 0.0001_f32..2.0, 0.1_f32..=1.0),
        other in (1_u32..1000, 1_u16..1000, 0.0001_f32..2.0, 0.1_f32..=1.0),
        seed: u64,
    ) {
        let endpoint = |(in_flight, weight, latency, warmth)| Endpoint { in_flight, weight, latency, warmth, ..Endpoint::default() };
        let cost = |(in_flight, weight, latency, warmth): (u32, u16, f32, f32)| {
            f64::from(latency) * f64::from(in_flight + 1) / (f64::from(weight) * f64::from(warmth))
        };
        prop_assume!((cost(one) / cost(other) - 1.0).abs() > 1e-5);
        let best = if cost(one) < cost(other) { 0 } else { 1 };
        let model = Model::new(vec![endpoint(one), endpoint(other)], seed);
        prop_assert_eq!(picker(&Balancer::PeakEwma, &model, None).pick(&model, None), Some(best));
    }

    /// A quiet service still honours weights, while latencies are much the same.
    #[test]
    fn two_idle_candidates_share_by_weight(one in 1_u16..1000, other in 1_u16..1000, faster in 0.51_f32..1.0, seed: u64) {
        const CALLS: usize = 20_000;
        let mut model = Model::weighted(&[one, other], seed);
        model.endpoints[0].latency *= faster;
        let picked = model.picks(&picker(&Balancer::PeakEwma, &model, None), CALLS);
        prop_assert!(is_likely(picked[0], CALLS, f64::from(one) / f64::from(one + other)), "{:?}", picked);
    }
}
