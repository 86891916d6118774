//! What a registry may push, and what is made of it. `hostile_push` of the reliability study is told here piece by piece.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::clock;
use crate::load::LoadReport;
use crate::resolver::MethodLevels;

pub(super) fn epoch(store: &str) -> Epoch {
    Epoch { store: store.into(), generation: 1 }
}

pub(super) fn at(store: &str, revision: u64) -> Position {
    Position { epoch: epoch(store), revision }
}

/// Instance `n` of a service, at an address of its own.
pub(super) fn instance(n: u16, incarnation: u64, revision: u64) -> Instance {
    Instance {
        id: Uuid::from_u128(n.into()),
        incarnation,
        revision,
        address: SocketAddr::from(([127, 0, 0, 1], 10_000 + n)),
        zone: "".into(),
        weight: 100,
        serving: ServingStatus::Serving,
        admin: Admin::Enabled,
        methods: Arc::new(MethodLevels::default()),
        descriptors: None,
    }
}

fn good(n: u16) -> Entry {
    Entry::Good(instance(n, 1, 1))
}

fn removal(n: u16, cause: Cause, revision: u64) -> Removal {
    Removal { id: Uuid::from_u128(n.into()), incarnation: 1, revision, cause }
}

fn snapshot(presence: Presence, entries: Vec<Entry>, removals: Vec<Removal>) -> Chunk {
    Chunk { index: 0, last: true, presence, entries, removals }
}

fn delta(base: u64, presence: Presence, entries: Vec<Entry>, removals: Vec<Removal>) -> Delta {
    Delta { base, presence, entries, removals }
}

const TAKEN: Verdict = Verdict::Applied { entries_rejected: 0 };

/// A service as it stands after ten instances were listed at revision 10 of store "a".
fn ten() -> ServiceState {
    let mut state = ServiceState::new();
    let entries = (1..=10).map(good).collect();
    let chunk = snapshot(Presence::Populated, entries, vec![]);
    assert_eq!(state.chunk(&at("a", 10), Completeness::Complete, chunk, clock::now().into_std()), TAKEN);
    state
}

impl ServiceState {
    fn push(&mut self, position: &Position, chunk: Chunk) -> Verdict {
        self.chunk(position, Completeness::Complete, chunk, clock::now().into_std())
    }

    fn change(&mut self, position: &Position, delta: Delta) -> Verdict {
        self.delta(position, Completeness::Complete, delta, clock::now().into_std())
    }

    fn say_soft(&mut self, position: &Position, entries: Vec<SoftEntry>) {
        assert_eq!(self.soft(position, entries, clock::now().into_std()), Verdict::Kept);
    }

    pub(super) fn standings(&self) -> Vec<(u128, Standing)> {
        self.resolution().endpoints.iter().map(|e| (e.instance_id.as_u128(), e.standing)).collect()
    }

    fn count(&self, standing: Standing) -> usize {
        self.standings().iter().filter(|(_, s)| *s == standing).count()
    }
}

#[test]
fn an_empty_push_takes_nothing_away() {
    for presence in [Presence::Populated, Presence::Unknown, Presence::Lapsed] {
        let mut state = ten();
        assert_eq!(state.push(&at("a", 11), snapshot(presence, vec![], vec![])), TAKEN);
        assert_eq!(state.count(Standing::Lapsed), 10, "{presence:?}");
        assert_eq!(state.resolution().status, ResolutionStatus::Resolved);
    }
}

#[test]
fn a_push_of_a_fifth_keeps_the_rest_as_lapsed() {
    let mut state = ten();
    state.push(&at("a", 11), snapshot(Presence::Populated, vec![good(1), good(2)], vec![]));
    assert_eq!((state.count(Standing::Alive), state.count(Standing::Lapsed)), (2, 8));
    // They come back as they were once they are listed again.
    state.push(&at("a", 12), snapshot(Presence::Populated, (1..=10).map(good).collect(), vec![]));
    assert_eq!(state.count(Standing::Alive), 10);
}

#[test]
fn emptiness_is_believed_when_the_record_says_who_emptied_it() {
    let mut state = ten();
    state.change(
        &at("a", 11),
        delta(10, Presence::Emptied, vec![], (1..=10).map(|n| removal(n, Cause::Told, 11)).collect()),
    );
    assert_eq!(state.resolution(), Resolution { endpoints: vec![], status: ResolutionStatus::Empty });

    let mut state = ten();
    state.push(&at("b", 1), snapshot(Presence::Emptied, vec![], vec![]));
    assert_eq!(state.resolution().status, ResolutionStatus::Empty);
}

#[test]
fn a_lapse_of_the_last_one_is_not_believed() {
    let mut state = ten();
    let gone = (1..=10).map(|n| removal(n, Cause::Silence, 11)).collect();
    state.change(&at("a", 11), delta(10, Presence::Lapsed, vec![], gone));
    assert_eq!(state.count(Standing::Lapsed), 10);
    // Who removes one of them by name after all is believed.
    state.change(&at("a", 12), delta(11, Presence::Emptied, vec![], vec![removal(1, Cause::Told, 12)]));
    assert_eq!(state.count(Standing::Lapsed), 0);
}

/// What an earlier process knew: ten instances at revision 10 of store "a".
fn recalled() -> ServiceState {
    let mut state = ServiceState::new();
    let (_, known) = ten().known().unwrap();
    state.recall(known, clock::now().into_std());
    state
}

#[test]
fn what_an_earlier_process_knew_is_doubted_until_the_registry_speaks() {
    let state = recalled();
    assert_eq!(state.count(Standing::Stale), 10);
    assert_eq!(state.resolution().status, ResolutionStatus::Resolved);
    assert_eq!(state.position(), None, "the registry is asked for everything");
    assert_eq!(state.known(), None, "and nothing is saved that it has not said");
}

#[test]
fn the_first_complete_snapshot_replaces_what_an_earlier_process_knew() {
    let mut state = recalled();
    let older = Entry::Good(Instance { weight: 7, ..instance(1, 1, 0) });
    assert_eq!(state.push(&at("a", 9), snapshot(Presence::Populated, vec![older, good(11)], vec![])), TAKEN);
    assert_eq!(state.standings(), [(1, Standing::Alive), (11, Standing::Alive)]);
    assert_eq!(state.resolution().endpoints[0].weight, 7);
    // Too late to say anything.
    state.recall(ten().known().unwrap().1, clock::now().into_std());
    assert_eq!(state.standings().len(), 2);
}

#[test]
fn a_registry_that_warms_up_merges_with_what_an_earlier_process_knew() {
    let merged = |state: &mut ServiceState| {
        assert_eq!((state.count(Standing::Alive), state.count(Standing::Stale)), (2, 8));
        state.bookmark(&at("b", 2), Completeness::Complete, clock::now().into_std());
        assert_eq!(state.standings(), [(1, Standing::Alive), (11, Standing::Alive)]);
    };
    let now = clock::now().into_std();
    let partial = || snapshot(Presence::Populated, vec![good(1), good(11)], vec![removal(2, Cause::Told, 2)]);
    let mut state = recalled();
    state.chunk(&at("b", 2), Completeness::Warming, partial(), now);
    merged(&mut state);
    // The disk may also be slower than the registry.
    let mut state = ServiceState::new();
    state.chunk(
        &at("b", 2),
        Completeness::Warming,
        snapshot(Presence::Populated, vec![good(1), good(11)], vec![]),
        now,
    );
    state.recall(ten().known().unwrap().1.into_iter().filter(|known| known.instance.id.as_u128() != 2).collect(), now);
    merged(&mut state);
}

#[test]
fn an_empty_push_does_not_take_away_what_an_earlier_process_knew() {
    for presence in [Presence::Populated, Presence::Unknown, Presence::Lapsed] {
        let mut state = recalled();
        assert_eq!(state.push(&at("b", 1), snapshot(presence, vec![], vec![])), TAKEN);
        assert_eq!(state.count(Standing::Lapsed), 10, "{presence:?}");
    }
    let mut state = recalled();
    state.push(&at("b", 1), snapshot(Presence::Emptied, vec![], vec![]));
    assert_eq!(state.resolution().status, ResolutionStatus::Empty);
}

#[test]
fn one_of_many_that_expires_is_gone() {
    let mut state = ten();
    state.change(&at("a", 11), delta(10, Presence::Populated, vec![], vec![removal(3, Cause::Silence, 11)]));
    assert_eq!(state.standings().len(), 9);
}

#[test]
fn an_older_position_of_the_same_store_is_ignored() {
    let mut state = ten();
    assert_eq!(state.push(&at("a", 9), snapshot(Presence::Emptied, vec![], vec![])), Verdict::Older);
    assert_eq!(state.change(&at("a", 10), delta(8, Presence::Emptied, vec![], vec![])), Verdict::Older);
    let restored = Position { epoch: Epoch { generation: 0, ..epoch("a") }, revision: 99 };
    assert_eq!(state.push(&restored, snapshot(Presence::Emptied, vec![], vec![])), Verdict::Older);
    assert_eq!(state.count(Standing::Alive), 10);
}

#[test]
fn another_store_is_taken_at_a_lower_revision_and_replaces_what_it_lists() {
    let mut state = ten();
    let fresh = Entry::Good(Instance { weight: 7, ..instance(1, 1, 2) });
    assert_eq!(state.push(&at("b", 2), snapshot(Presence::Populated, vec![fresh], vec![])), TAKEN);
    assert_eq!((state.count(Standing::Alive), state.count(Standing::Lapsed)), (1, 9));
    assert_eq!(state.resolution().endpoints[0].weight, 7);
    assert_eq!(state.position(), Some(&at("b", 2)));
}

#[test]
fn a_change_of_another_store_is_a_gap() {
    let mut state = ten();
    assert_eq!(state.change(&at("b", 11), delta(10, Presence::Populated, vec![], vec![])), Verdict::Gap);
    assert_eq!(state.position(), Some(&at("a", 10)));
}

#[test]
fn a_change_that_builds_on_the_unseen_is_a_gap_and_one_on_the_seen_is_taken() {
    let mut state = ten();
    assert_eq!(state.change(&at("a", 13), delta(12, Presence::Populated, vec![good(11)], vec![])), Verdict::Gap);
    assert_eq!(state.change(&at("a", 12), delta(8, Presence::Populated, vec![good(11)], vec![])), TAKEN);
    assert_eq!(state.standings().len(), 11);
    assert_eq!(ServiceState::new().change(&at("a", 1), delta(0, Presence::Populated, vec![], vec![])), Verdict::Gap);
}

#[test]
fn a_registry_that_warms_up_adds_and_removes_only_by_name() {
    let mut state = ten();
    let now = clock::now().into_std();
    let partial = snapshot(Presence::Populated, vec![good(1), good(11)], vec![]);
    assert_eq!(state.chunk(&at("b", 2), Completeness::Warming, partial, now), TAKEN);
    assert_eq!(state.count(Standing::Alive), 11);
    let change = delta(2, Presence::Populated, vec![good(2)], vec![removal(3, Cause::Told, 3)]);
    assert_eq!(state.delta(&at("b", 3), Completeness::Warming, change, now), TAKEN);
    assert_eq!(state.count(Standing::Alive), 10);
    // Once it says that it knows everything, who did not come back is doubted, not dropped.
    state.bookmark(&at("b", 3), Completeness::Complete, now);
    assert_eq!((state.count(Standing::Alive), state.count(Standing::Lapsed)), (3, 7));
}

#[test]
fn an_empty_service_of_a_registry_that_warms_up_is_not_believed() {
    let mut state = ServiceState::new();
    let now = clock::now().into_std();
    state.chunk(&at("a", 0), Completeness::Warming, snapshot(Presence::Unknown, vec![], vec![]), now);
    assert_eq!(state.resolution().status, ResolutionStatus::Unresolved);
    state.bookmark(&at("a", 0), Completeness::Complete, now);
    assert_eq!(state.resolution().status, ResolutionStatus::Empty);

    let mut state = ten();
    state.chunk(&at("b", 0), Completeness::Warming, snapshot(Presence::Emptied, vec![], vec![]), now);
    assert_eq!(state.count(Standing::Alive), 10);
}

#[test]
fn chunks_are_applied_together_and_in_order() {
    let mut state = ten();
    let part = |index, last, entries| Chunk { index, last, presence: Presence::Populated, entries, removals: vec![] };
    assert_eq!(state.push(&at("a", 11), part(0, false, vec![good(1)])), Verdict::Kept);
    assert_eq!(state.count(Standing::Alive), 10);
    assert_eq!(state.push(&at("a", 11), part(2, true, vec![])), Verdict::Gap);
    assert_eq!(state.push(&at("a", 11), part(1, true, vec![])), Verdict::Gap);
    assert_eq!(state.count(Standing::Alive), 10);

    assert_eq!(state.push(&at("a", 11), part(0, false, vec![good(1)])), Verdict::Kept);
    // A first chunk starts over.
    assert_eq!(state.push(&at("a", 12), part(0, false, vec![good(11)])), Verdict::Kept);
    assert_eq!(state.push(&at("a", 12), part(1, true, vec![good(12)])), TAKEN);
    assert_eq!((state.count(Standing::Alive), state.count(Standing::Lapsed)), (2, 10));

    assert_eq!(state.push(&at("a", 13), part(0, false, vec![])), Verdict::Kept);
    state.forget_unfinished();
    assert_eq!(state.push(&at("a", 13), part(1, true, vec![])), Verdict::Gap);
}

#[test]
fn one_bad_entry_costs_itself_and_not_the_update() {
    let mut state = ten();
    let entries = vec![Entry::Bad(Some(Uuid::from_u128(1))), Entry::Bad(None), good(2)];
    let verdict = state.push(&at("a", 11), snapshot(Presence::Populated, entries, vec![]));
    assert_eq!(verdict, Verdict::Applied { entries_rejected: 2 });
    // The one that is listed but not understood stays as it was understood last.
    assert_eq!((state.count(Standing::Alive), state.count(Standing::Lapsed)), (2, 8));
}

#[test]
fn of_two_entries_under_one_id_the_higher_incarnation_holds() {
    for order in [[1, 2], [2, 1]] {
        let mut state = ServiceState::new();
        let entries = order.map(|incarnation| Entry::Good(instance(1, incarnation, 5))).to_vec();
        state.push(&at("a", 5), snapshot(Presence::Populated, entries, vec![]));
        assert_eq!(state.resolution().endpoints.len(), 1);
        assert_eq!(state.resolution().endpoints[0].incarnation, 2, "{order:?}");
    }
}

#[test]
fn a_removal_of_an_older_start_leaves_the_newer_one() {
    let mut state = ServiceState::new();
    state.push(&at("a", 5), snapshot(Presence::Populated, vec![Entry::Good(instance(1, 2, 5))], vec![]));
    state.change(&at("a", 6), delta(5, Presence::Populated, vec![], vec![removal(1, Cause::Told, 6)]));
    assert_eq!(state.standings(), [(1, Standing::Alive)]);
}

#[test]
fn what_was_removed_comes_back_only_with_newer_news() {
    let mut state = ten();
    state.change(&at("a", 11), delta(10, Presence::Populated, vec![], vec![removal(1, Cause::Told, 11)]));
    let verdict = state.change(&at("a", 12), delta(11, Presence::Populated, vec![good(1)], vec![]));
    assert_eq!(verdict, Verdict::Applied { entries_rejected: 1 });
    assert_eq!(state.standings().len(), 9);
    let again = Entry::Good(instance(1, 2, 13));
    assert_eq!(state.change(&at("a", 13), delta(12, Presence::Populated, vec![again], vec![])), TAKEN);
    assert_eq!(state.standings().len(), 10);
}

#[test]
fn soft_state_replaces_the_last_one_and_means_one_incarnation() {
    let mut state = ten();
    let entry =
        |n: u128, incarnation, liveness| SoftEntry { id: Uuid::from_u128(n), incarnation, liveness, load: None };
    state.say_soft(
        &at("a", 10),
        vec![entry(1, 1, Liveness::Suspect), entry(2, 1, Liveness::Stale), entry(3, 9, Liveness::Stale)],
    );
    assert_eq!((state.count(Standing::Suspect), state.count(Standing::Stale)), (1, 1));
    state.say_soft(&at("a", 10), vec![entry(2, 1, Liveness::Suspect)]);
    assert_eq!((state.count(Standing::Suspect), state.count(Standing::Stale)), (1, 0));
    state.say_soft(&at("b", 10), vec![entry(1, 1, Liveness::Suspect)]);
    assert_eq!(state.count(Standing::Alive), 10);
}

#[test]
fn a_load_report_means_one_incarnation_and_ages_from_its_first_telling() {
    let mut state = ten();
    let report = |requests_in_flight| LoadReport { requests_in_flight, ..LoadReport::default() };
    let entry = |n: u128, incarnation, load| SoftEntry {
        id: Uuid::from_u128(n),
        incarnation,
        liveness: Liveness::Alive,
        load: Some(report(load)),
    };
    let loads = |state: &ServiceState| -> Vec<_> {
        state.resolution().endpoints.iter().filter_map(|e| Some((e.instance_id.as_u128(), e.load?))).collect()
    };
    let start = clock::now().into_std();
    let later = start + Duration::from_secs(3);
    state.soft(&at("a", 10), vec![entry(1, 1, 7), entry(2, 1, 7), entry(3, 9, 7)], start);
    state.soft(&at("a", 10), vec![entry(1, 1, 7), entry(2, 1, 8), entry(3, 9, 7)], later);
    let (same, other) = (report(7), report(8));
    let expected = [EndpointLoad { report: same, since: start }, EndpointLoad { report: other, since: later }];
    assert_eq!(loads(&state), [(1, expected[0]), (2, expected[1])]);
    state.say_soft(&at("a", 10), vec![]);
    assert_eq!(loads(&state), []);
}

#[test]
fn standing_puts_operators_first_then_the_instance_then_its_heartbeats() {
    let lapsed = Listing::Lapsed { since: clock::now().into_std() };
    let carried = Listing::Carried { since: clock::now().into_std() };
    let listed = Listing::Listed;
    let cases = [
        (listed, Liveness::Alive, ServingStatus::Serving, Admin::Disabled, None),
        (listed, Liveness::Stale, ServingStatus::Serving, Admin::Draining, Some(Standing::Draining)),
        (listed, Liveness::Suspect, ServingStatus::Draining, Admin::Enabled, Some(Standing::Draining)),
        (lapsed, Liveness::Alive, ServingStatus::NotServing, Admin::Enabled, Some(Standing::Draining)),
        (lapsed, Liveness::Alive, ServingStatus::Serving, Admin::Enabled, Some(Standing::Lapsed)),
        (listed, Liveness::Suspect, ServingStatus::Serving, Admin::Enabled, Some(Standing::Suspect)),
        (listed, Liveness::Stale, ServingStatus::Serving, Admin::Enabled, Some(Standing::Stale)),
        (carried, Liveness::Alive, ServingStatus::Serving, Admin::Enabled, Some(Standing::Alive)),
    ];
    for (listing, liveness, serving, admin, expected) in cases {
        assert_eq!(standing(listing, liveness, serving, admin), expected);
    }
}

#[test]
fn an_address_belongs_to_the_instance_that_is_listed_there() {
    let mut state = ten();
    let successor = Instance { address: instance(1, 1, 1).address, ..instance(11, 1, 11) };
    let entries = (2..=10).map(good).chain([Entry::Good(successor)]).collect();
    state.push(&at("a", 11), snapshot(Presence::Populated, entries, vec![]));
    assert_eq!(state.count(Standing::Alive), 10);
    assert_eq!(state.count(Standing::Lapsed), 0);
}

#[test]
fn the_longest_lapsed_goes_when_there_are_too_many() {
    let mut state = ServiceState::new();
    let start = clock::now().into_std();
    let listing = |first: usize| (first..first + 600).map(|n| good(n as u16)).collect::<Vec<_>>();
    for (round, first) in [0, 1_000, 2_000].into_iter().enumerate() {
        let now = start + Duration::from_secs(round as u64);
        let chunk = snapshot(Presence::Populated, listing(first), vec![]);
        state.chunk(&at("a", round as u64), Completeness::Complete, chunk, now);
    }
    assert_eq!(state.count(Standing::Lapsed), LAPSED_MAX);
    let second_round = state.standings().iter().filter(|(id, _)| (1_000..2_000).contains(id)).count();
    assert_eq!(second_round, 600);
}

#[test]
fn what_registries_that_warm_up_have_not_listed_yet_is_bounded_and_the_longest_unlisted_goes() {
    let mut state = ServiceState::new();
    let start = clock::now().into_std();
    let listing = |first: u32| (first..first + 60_000).map(nth).collect::<Vec<_>>();
    for (round, first) in [0, 100_000, 200_000].into_iter().enumerate() {
        let chunk = snapshot(Presence::Populated, listing(first), vec![]);
        let now = start + Duration::from_secs(round as u64);
        state.chunk(&at("a", round as u64), Completeness::Warming, chunk, now);
    }
    let known = state.standings();
    assert_eq!(known.len(), INSTANCES_MAX + LAPSED_MAX);
    assert!(known.iter().filter(|(id, _)| *id >= 200_000).count() == 60_000, "what is listed stays");
    assert!(known.iter().all(|(id, _)| *id >= 100_000), "the first to be unlisted have gone");
}

/// Instance `n` of a service of any size.
fn nth(n: u32) -> Entry {
    let [_, b, c, d] = n.to_be_bytes();
    let address = SocketAddr::from(([10, b, c, d], 1));
    Entry::Good(Instance { id: Uuid::from_u128(n.into()), address, ..instance(0, 1, 1) })
}

#[test]
fn a_push_larger_than_any_service_leaves_the_last_good_state() {
    let mut state = ten();
    let entries = vec![Entry::Bad(None); INSTANCES_MAX + 1];
    assert_eq!(state.push(&at("a", 11), snapshot(Presence::Populated, entries, vec![])), Verdict::TooLarge);
    assert_eq!(state.count(Standing::Alive), 10);
}

#[test]
fn tombstones_are_bounded() {
    let mut tombstones = Tombstones::default();
    for revision in 0..3 * TOMBSTONES_MAX as u64 {
        tombstones.add(&epoch("a"), &removal((revision % 2_000) as u16, Cause::Told, revision));
    }
    assert!(tombstones.by_id.len() <= TOMBSTONES_MAX && tombstones.order.len() <= TOMBSTONES_MAX);
}

#[test]
fn an_id_that_is_listed_twice_at_once_stays_what_it_was() {
    let mut state = ten();
    let elsewhere = |n| Entry::Good(Instance { address: SocketAddr::from(([127, 0, 0, 1], 1)), ..instance(n, 1, 1) });
    let entries = [good(1), elsewhere(1), elsewhere(2), good(2), good(3), elsewhere(11), good(11)];
    let chunk = snapshot(Presence::Populated, entries.into(), vec![]);
    let verdict = state.chunk(&at("a", 11), Completeness::Complete, chunk, clock::now().into_std());
    assert_eq!(verdict, Verdict::Applied { entries_rejected: 5 });
    let addresses: Vec<_> =
        state.held.values().take(3).map(|held| (held.instance.address.port(), held.listing)).collect();
    assert_eq!(addresses, [(10_001, Listing::Listed), (10_002, Listing::Listed), (10_003, Listing::Listed)]);
    assert_eq!(state.held[&Uuid::from_u128(11)].instance.address.port(), 1, "of who is not known the first is taken");
}
