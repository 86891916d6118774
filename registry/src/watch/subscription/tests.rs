//! A subscription against a replica that knows only the protocol: whatever happens between, it ends where the registry is.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use mesh_runtime::clock;
use pb::watch_response::Event;
use proptest::prelude::*;
use prost::Message as _;
use uuid::Uuid;

use super::*;
use crate::catalog::{
    Committed, Endpoint, Generation, Identity, IdentityKey, Incarnation, InstanceHealth, InstanceId, InstanceSpec, Key,
    LeaseId, LoadReport, Metadata, Namespace, OpId, Protocol, Record, Registration, RemovalReason, ServiceKey,
    StartNonce, State, StoreId, Tombstone, Ttl, Write,
};

/// A store with one service that is looked at and one that is not, driven commit by commit.
struct World {
    state: State,
    view: Arc<Published>,
    complete: Complete,
    now: Instant,
    press: Press,
    /// How long a label each instance carries.
    label_bytes: usize,
}

fn key(service: &str) -> ServiceKey {
    ServiceKey::parse("", service).expect("a valid name")
}

fn id(number: u8) -> InstanceId {
    InstanceId::new(Uuid::from_u128(u128::from(number) + 1)).expect("not nil")
}

impl World {
    fn new() -> Self {
        let store = StoreId::parse("test").expect("a valid id");
        let state = State::empty(Position { store, generation: Generation(1), revision: Revision::new(10) });
        let view = Arc::new(Published::new(state.view(&key("seen"))));
        Self { state, view, complete: Complete::Whole, now: clock::now(), press: Press::default(), label_bytes: 0 }
    }

    fn commit(&mut self, service: &str, number: u8, live: Option<ServingStatus>, reason: Option<RemovalReason>) {
        let revision = self.state.position().revision.next();
        let incarnation = Incarnation::new(revision.get()).expect("not zero");
        let identity = IdentityKey { namespace: Namespace::parse("").expect("the default"), id: id(number) };
        let live = live.map(|serving| {
            let ip = IpAddr::V4(Ipv4Addr::new(10, 0, 0, number));
            let endpoint = Endpoint::new("grpc", Protocol::Grpc, ip, 7410).expect("a valid endpoint");
            let mut spec = InstanceSpec::new(vec![endpoint]).expect("a valid spec");
            let labels = BTreeMap::from([("label".to_owned(), "x".repeat(self.label_bytes))]);
            spec.metadata = Metadata::new(labels).expect("valid labels");
            Arc::new(Registration {
                service: key(service),
                incarnation,
                nonce: StartNonce::new([number; 16]),
                lease: LeaseId::new([number; 16]),
                owner: None,
                ttl: Ttl::DEFAULT,
                serving,
                spec,
            })
        });
        let tombstones = reason.map(|reason| Tombstone {
            service: key(service),
            incarnation: self.view.instances().get(&id(number)).map_or(incarnation, |held| held.incarnation()),
            nonce: StartNonce::new([number; 16]),
            lease: LeaseId::new([number; 16]),
            reason,
            until: Timestamp::since_epoch(Duration::from_secs(600)),
        });
        let record = Identity { live, tombstones: tombstones.into_iter().collect(), past: Default::default() };
        let write = match record.is_blank() {
            true => Write::Delete(Key::Identity(identity)),
            false => Write::Put(Key::Identity(identity), Record::Identity(record)),
        };
        let op = OpId(u128::from(revision.get()).to_be_bytes());
        for change in self.state.apply(&Committed { revision, op, writes: vec![write] }) {
            if change.service == key("seen") {
                self.view = Arc::new(Published::new(self.view.advanced(change)));
            }
        }
    }

    fn put(&mut self, number: u8, serving: ServingStatus) {
        self.commit("seen", number, Some(serving), None);
    }

    /// Removes an instance if it is there.
    fn remove(&mut self, number: u8) {
        if self.view.instances().contains_key(&id(number)) {
            self.commit("seen", number, None, Some(RemovalReason::Expired));
        }
    }

    /// Forgets a tombstone if there is one.
    fn forget(&mut self, number: u8) {
        if self.view.removals().contains_key(&id(number)) {
            self.commit("seen", number, None, None);
        }
    }

    /// A change that is not of the service looked at.
    fn elsewhere(&mut self) {
        self.commit("unseen", 200, Some(ServingStatus::Serving), None);
    }

    fn soft(&mut self, number: u8, liveness: Liveness, load: Option<LoadReport>) {
        let mut soft = SoftState::clone(self.view.soft());
        match self.view.instances().get(&id(number)) {
            Some(held) => {
                let health = InstanceHealth { incarnation: held.incarnation(), liveness, load };
                soft.instances.insert(id(number), health);
            }
            None => {
                soft.instances.remove(&id(number));
            }
        }
        self.view = Arc::new(Published::new(self.view.with_soft(Arc::new(soft))));
    }

    fn outlook<T>(&self, with: impl FnOnce(&Outlook<'_>) -> T) -> T {
        with(&Outlook {
            view: &self.view,
            here: self.state.position(),
            complete: self.complete,
            now: self.now,
            moment: Timestamp::since_epoch(Duration::from_secs(1)),
        })
    }

    fn subscribe(&self, after: Option<Position>) -> Subscription {
        let told = |_| self.complete;
        Subscription::resume(after, self.state.position(), told, self.now)
    }

    fn due(&self, subscription: &Subscription) -> Due {
        self.outlook(|outlook| subscription.due(outlook))
    }

    fn next(&self, subscription: &mut Subscription) -> Next {
        self.outlook(|outlook| subscription.next(outlook, &self.press))
    }

    /// Takes what is due, at most `max` messages; whether there may be more.
    fn take(&self, subscription: &mut Subscription, replica: &mut Replica, max: usize) -> bool {
        for _ in 0..max {
            if self.due(subscription) != Due::Now {
                return false;
            }
            match self.next(subscription) {
                Next::Send(message) => replica.apply(response(&message)),
                Next::Rest => return false,
                Next::Behind { asked } => panic!("this node is never behind, and was asked for {asked:?}"),
                Next::Slow { taken } => panic!("{taken:?} are not too long"),
            }
        }
        true
    }

    fn take_all(&self, subscription: &mut Subscription, replica: &mut Replica) {
        assert!(!self.take(subscription, replica, 1000), "a subscription comes to rest");
    }

    /// The kinds of message that are due, taken one by one.
    fn kinds(&self, subscription: &mut Subscription, replica: &mut Replica) -> Vec<&'static str> {
        let mut kinds = Vec::new();
        while self.due(subscription) == Due::Now {
            let Next::Send(message) = self.next(subscription) else { break };
            let told = response(&message);
            kinds.push(match &told.event {
                Some(Event::Snapshot(_)) => "snapshot",
                Some(Event::Delta(_)) => "delta",
                Some(Event::SoftState(_)) => "soft state",
                Some(Event::Bookmark(_) | Event::Error(_)) | None => "other",
            });
            replica.apply(told);
        }
        kinds
    }
}

/// A message as its receiver reads it.
fn response(message: &Framed) -> pb::WatchResponse {
    pb::WatchResponse::decode(message.clone().unframed().encode_to_vec().as_slice()).expect("a response")
}

/// A watcher that believes the protocol and nothing else.
#[derive(Debug, Default)]
struct Replica {
    /// What it was told is there.
    instances: BTreeMap<String, u64>,
    /// What it was ever told, without what a removal named: the set of a caller that merges.
    merged: BTreeMap<String, u64>,
    soft: Option<pb::SoftState>,
    position: Option<pb::Position>,
    complete: bool,
    /// An unfinished snapshot.
    chunks: Vec<pb::SnapshotChunk>,
}

impl Replica {
    fn apply(&mut self, response: pb::WatchResponse) {
        let revision = response.position.as_ref().expect("a position").revision;
        match response.event.expect("an event") {
            Event::Snapshot(chunk) => {
                if chunk.index == 0 {
                    self.chunks.clear();
                }
                assert_eq!(chunk.index as usize, self.chunks.len(), "chunks come in order");
                let last = chunk.last;
                self.chunks.push(chunk);
                if !last {
                    return;
                }
                self.instances.clear();
                for chunk in std::mem::take(&mut self.chunks) {
                    self.upsert(&chunk.instances);
                    self.drop_removed(&chunk.removals);
                }
                // Until the soft state comes.
                self.soft = None;
            }
            Event::Delta(delta) => {
                let held = self.position.as_ref().expect("a snapshot came before").revision;
                assert!(self.chunks.is_empty(), "nothing comes between the chunks of a snapshot");
                assert!(delta.base_revision <= held, "a delta builds on what was sent before");
                assert!(revision > held, "revisions rise");
                self.upsert(&delta.upserts);
                self.drop_removed(&delta.removals);
            }
            Event::SoftState(soft) => self.soft = Some(soft),
            other => panic!("a subscription sends no {other:?}"),
        }
        let held = self.position.as_ref().map_or(0, |position| position.revision);
        assert!(revision >= held, "positions never go back: {held} to {revision}");
        self.position = response.position;
        self.complete = response.complete;
    }

    fn upsert(&mut self, instances: &[pb::Instance]) {
        for instance in instances {
            self.instances.insert(instance.instance_id.clone(), instance.incarnation);
            self.merged.insert(instance.instance_id.clone(), instance.incarnation);
        }
    }

    fn drop_removed(&mut self, removals: &[pb::Removal]) {
        for removal in removals {
            for set in [&mut self.instances, &mut self.merged] {
                if set.get(&removal.instance_id).is_some_and(|held| *held <= removal.incarnation) {
                    set.remove(&removal.instance_id);
                }
            }
        }
    }

    /// Whether it is where the registry is.
    fn assert_converged(&self, world: &World) {
        let truth: BTreeMap<String, u64> =
            world.view.instances().values().map(|held| (held.id().to_string(), held.incarnation().get())).collect();
        assert_eq!(self.instances, truth);
        for removal in world.view.removals().values() {
            let held = self.merged.get(&removal.id.to_string());
            assert!(
                held.is_none_or(|held| *held > removal.incarnation.get()),
                "a removal that holds was lost: {removal:?}"
            );
        }
        let soft = wire::soft_state(world.view.soft(), wire::Loads::Included, Timestamp::default());
        assert_eq!(self.soft.as_ref(), Some(&soft));
        assert_eq!(self.complete, world.complete.to_wire());
    }

    fn held(&self) -> Option<Position> {
        let position = self.position.as_ref()?;
        Some(wire::decode_position(position).expect("what was sent can be read"))
    }
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8, ServingStatus),
    Remove(u8),
    Forget(u8),
    Elsewhere,
    Soft(u8, Liveness),
    Load(u8, u32),
    /// The watcher takes at most so many messages.
    Take(usize),
    Wait(u64),
    /// The stream breaks; the watcher resumes where it was.
    Resume,
    /// The stream breaks, and many changes later the watcher resumes.
    Away(u16),
    /// A bookmark comes: everything is sent, and the position moves.
    Bookmark,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let number = 0..6u8;
    let serving =
        prop_oneof![Just(ServingStatus::Serving), Just(ServingStatus::NotServing), Just(ServingStatus::Draining)];
    let liveness = prop_oneof![Just(Liveness::Alive), Just(Liveness::Suspect), Just(Liveness::Stale)];
    let step = prop_oneof![
        6 => (number.clone(), serving).prop_map(|(number, serving)| Step::Put(number, serving)),
        4 => number.clone().prop_map(Step::Remove),
        2 => number.clone().prop_map(Step::Forget),
        2 => Just(Step::Elsewhere),
        2 => (number.clone(), liveness).prop_map(|(number, liveness)| Step::Soft(number, liveness)),
        2 => (number, 0..9u32).prop_map(|(number, load)| Step::Load(number, load)),
        6 => (1..4usize).prop_map(Step::Take),
        4 => (1..40u64).prop_map(Step::Wait),
        2 => Just(Step::Resume),
        1 => (0..200u16).prop_map(Step::Away),
        2 => Just(Step::Bookmark),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn any_interleaving_converges_and_loses_no_removal_that_holds(warming in any::<bool>(), steps in steps()) {
        let mut world = World::new();
        world.complete = Complete::from_wire(!warming);
        let mut subscription = world.subscribe(None);
        let mut replica = Replica::default();
        for step in steps {
            match step {
                Step::Put(number, serving) => world.put(number, serving),
                Step::Remove(number) => world.remove(number),
                Step::Forget(number) => world.forget(number),
                Step::Elsewhere => world.elsewhere(),
                Step::Soft(number, liveness) => world.soft(number, liveness, None),
                Step::Load(number, in_flight) => {
                    let load = LoadReport { requests_in_flight: in_flight, ..LoadReport::default() };
                    world.soft(number, Liveness::Alive, Some(load));
                }
                Step::Take(max) => {
                    world.take(&mut subscription, &mut replica, max);
                }
                Step::Wait(millis) => world.now += Duration::from_millis(millis),
                Step::Resume => {
                    replica.chunks.clear();
                    subscription = world.subscribe(replica.held());
                }
                Step::Away(changes) => {
                    replica.chunks.clear();
                    for change in 0..changes {
                        let number = u8::try_from(change % 6).expect("below six");
                        if change % 3 == 0 { world.remove(number) } else { world.put(number, ServingStatus::Serving) }
                    }
                    subscription = world.subscribe(replica.held());
                }
                Step::Bookmark => {
                    while let Next::Send(message) = world.next(&mut subscription) {
                        replica.apply(response(&message));
                    }
                    replica.position = Some(wire::position(world.state.position()));
                }
            }
        }
        world.complete = Complete::Whole;
        world.now += LOADS_SETTLE + LOADS_SETTLE;
        world.take_all(&mut subscription, &mut replica);
        world.now += LOADS_SETTLE;
        world.take_all(&mut subscription, &mut replica);
        replica.assert_converged(&world);
    }
}

#[test]
fn the_first_thing_is_a_snapshot_and_then_the_soft_state() {
    let mut world = World::new();
    world.put(1, ServingStatus::Serving);
    let (mut subscription, mut replica) = (world.subscribe(None), Replica::default());
    assert_eq!(world.kinds(&mut subscription, &mut replica), ["snapshot", "soft state"]);
    replica.assert_converged(&world);
    assert_eq!(world.due(&subscription), Due::Idle);
}

#[test]
fn a_resume_is_a_delta_until_a_removal_after_it_was_forgotten() {
    let mut world = World::new();
    world.put(1, ServingStatus::Serving);
    let (mut subscription, mut replica) = (world.subscribe(None), Replica::default());
    world.take_all(&mut subscription, &mut replica);

    world.put(2, ServingStatus::Serving);
    world.remove(1);
    let mut resumed = world.subscribe(replica.held());
    assert_eq!(world.kinds(&mut resumed, &mut replica), ["delta", "soft state"]);
    replica.assert_converged(&world);

    world.put(3, ServingStatus::Serving);
    world.remove(3);
    world.forget(3);
    let mut resumed = world.subscribe(replica.held());
    assert_eq!(world.kinds(&mut resumed, &mut replica), ["snapshot", "soft state"]);
    replica.assert_converged(&world);
}

#[test]
fn a_resume_at_every_revision_ends_in_the_same_state() {
    let mut world = World::new();
    let mut held = vec![Replica::default()];
    let mut subscription = world.subscribe(None);
    let mut last = Replica::default();
    for number in 0..5 {
        world.put(number, ServingStatus::Serving);
        world.take(&mut subscription, &mut last, 9);
        world.remove(number / 2);
        world.now += SETTLE;
        world.take(&mut subscription, &mut last, 9);
        held.push(Replica {
            instances: last.instances.clone(),
            merged: last.merged.clone(),
            position: last.position.clone(),
            ..Replica::default()
        });
    }
    for mut replica in held {
        let mut resumed = world.subscribe(replica.held());
        world.take_all(&mut resumed, &mut replica);
        replica.assert_converged(&world);
    }
}

#[test]
fn a_position_of_another_store_or_life_gives_a_snapshot() {
    let mut world = World::new();
    world.put(1, ServingStatus::Serving);
    let here = world.state.position().clone();
    let other = StoreId::parse("other").expect("a valid id");
    for after in [
        Position { store: other, ..here.clone() },
        Position { generation: Generation(2), ..here.clone() },
        Position { generation: Generation(0), ..here },
    ] {
        let mut subscription = world.subscribe(Some(after));
        assert_eq!(world.kinds(&mut subscription, &mut Replica::default()), ["snapshot", "soft state"]);
    }
}

#[test]
fn a_store_that_is_restored_or_replaced_gives_a_snapshot_to_who_is_there() {
    let other = StoreId::parse("other").expect("a valid id");
    for label_bytes in [0, 1_000] {
        for (store, generation) in [(None, 2), (Some(&other), 1)] {
            let mut world = World { label_bytes, ..World::new() };
            for number in 1..150 {
                world.put(number, ServingStatus::Serving);
            }
            let (mut whole, mut part) = (world.subscribe(None), world.subscribe(None));
            world.take_all(&mut whole, &mut Replica::default());
            world.take(&mut part, &mut Replica::default(), 1);
            let before = world.state.position().clone();

            let store = store.unwrap_or(&before.store).clone();
            let revision = Revision::new(3);
            world.state = State::empty(Position { store, generation: Generation(generation), revision });
            world.view = Arc::new(Published::new(world.view.replaced(world.state.view(&key("seen")))));
            world.put(77, ServingStatus::Serving);
            assert!(world.view.revision() < before.revision);
            for subscription in [&mut whole, &mut part] {
                assert!(world.outlook(|outlook| subscription.begins_snapshot(outlook)));
                let mut replica = Replica::default();
                assert_eq!(world.kinds(subscription, &mut replica), ["snapshot", "soft state"]);
                replica.assert_converged(&world);
            }
            world.now += SETTLE;
            world.put(78, ServingStatus::Serving);
            assert_eq!(world.due(&whole), Due::Now, "and goes on from there");
        }
    }
}

#[test]
fn a_position_ahead_of_this_node_is_waited_for_and_then_refused() {
    let mut world = World::new();
    let ahead = Position { revision: Revision::new(12), ..world.state.position().clone() };
    let mut late = world.subscribe(Some(ahead.clone()));
    let mut in_time = world.subscribe(Some(ahead));
    assert_eq!(world.due(&late), Due::At(world.now + BEHIND_WAIT));
    assert!(matches!(world.next(&mut late), Next::Rest));

    world.now += BEHIND_WAIT;
    assert_eq!(world.due(&late), Due::Now);
    assert!(matches!(world.next(&mut late), Next::Behind { .. }));

    world.elsewhere();
    world.elsewhere();
    assert_eq!(world.due(&in_time), Due::Now);
    let mut replica = Replica::default();
    assert_eq!(world.kinds(&mut in_time, &mut replica), ["soft state"]);
}

#[test]
fn the_first_change_goes_at_once_and_the_next_ones_gather() {
    let mut world = World::new();
    let (mut subscription, mut replica) = (world.subscribe(None), Replica::default());
    world.take_all(&mut subscription, &mut replica);

    world.put(1, ServingStatus::Serving);
    assert_eq!(world.kinds(&mut subscription, &mut replica), ["delta"]);
    let sent = world.now;
    for number in 2..5 {
        world.put(number, ServingStatus::Serving);
        assert_eq!(world.due(&subscription), Due::At(sent + SETTLE));
    }
    world.now = sent + SETTLE;
    assert_eq!(world.kinds(&mut subscription, &mut replica), ["delta"]);
    replica.assert_converged(&world);
}

#[test]
fn removals_and_draining_do_not_wait() {
    let mut world = World::new();
    world.put(1, ServingStatus::Serving);
    world.put(2, ServingStatus::Serving);
    let (mut subscription, mut replica) = (world.subscribe(None), Replica::default());
    world.take_all(&mut subscription, &mut replica);
    world.put(3, ServingStatus::Serving);
    world.take_all(&mut subscription, &mut replica);

    world.remove(1);
    assert_eq!(world.kinds(&mut subscription, &mut replica), ["delta"]);
    world.put(2, ServingStatus::Draining);
    assert_eq!(world.kinds(&mut subscription, &mut replica), ["delta"]);
    replica.assert_converged(&world);
}

#[test]
fn liveness_goes_at_once_and_load_reports_gather() {
    let mut world = World::new();
    world.put(1, ServingStatus::Serving);
    let (mut subscription, mut replica) = (world.subscribe(None), Replica::default());
    world.take_all(&mut subscription, &mut replica);
    world.now += SETTLE;

    world.soft(1, Liveness::Suspect, None);
    assert_eq!(world.kinds(&mut subscription, &mut replica), ["soft state"]);
    let sent = world.now;
    world.now += SETTLE;
    world.soft(1, Liveness::Suspect, Some(LoadReport::default()));
    assert_eq!(world.due(&subscription), Due::At(sent + LOADS_SETTLE));
    world.soft(1, Liveness::Alive, Some(LoadReport::default()));
    assert_eq!(world.kinds(&mut subscription, &mut replica), ["soft state"]);
    replica.assert_converged(&world);
}

#[test]
fn a_state_that_becomes_whole_is_told_by_a_snapshot() {
    let mut world = World::new();
    world.complete = Complete::Warming;
    world.put(1, ServingStatus::Serving);
    let (mut subscription, mut replica) = (world.subscribe(None), Replica::default());
    world.take_all(&mut subscription, &mut replica);
    assert!(!replica.complete);

    world.complete = Complete::Whole;
    assert_eq!(world.kinds(&mut subscription, &mut replica), ["snapshot", "soft state"]);
    replica.assert_converged(&world);
}

#[test]
fn watchers_that_hold_the_same_share_one_message() {
    let mut world = World::new();
    let mut subscriptions = [world.subscribe(None), world.subscribe(None)];
    for subscription in &mut subscriptions {
        world.take_all(subscription, &mut Replica::default());
    }
    world.put(1, ServingStatus::Serving);
    let [first, second] = subscriptions.each_mut().map(|subscription| match world.next(subscription) {
        Next::Send(message) => message,
        other => panic!("a delta is due, not {other:?}"),
    });
    let [first, second] = [first, second].map(|message| message.into_pieces()[0].as_ptr());
    assert_eq!(first, second);
}

#[test]
fn a_change_that_is_too_long_for_a_message_comes_in_chunks() {
    let mut world = World { label_bytes: 4000, ..World::new() };
    let (mut subscription, mut replica) = (world.subscribe(None), Replica::default());
    world.take_all(&mut subscription, &mut replica);
    for number in 0..=255 {
        world.put(number, ServingStatus::Serving);
    }
    let mut longest = 0;
    while let Next::Send(message) = world.next(&mut subscription) {
        longest = longest.max(message.len());
        replica.apply(response(&message));
    }
    assert!(longest <= crate::watch::DELTA_BYTES_MAX, "{longest}");
    replica.assert_converged(&world);
}

#[test]
fn what_was_told_while_the_state_was_not_whole_is_told_again_whole() {
    let mut world = World { complete: Complete::Warming, ..World::new() };
    world.put(1, ServingStatus::Serving);
    let (mut subscription, mut replica) = (world.subscribe(None), Replica::default());
    world.take_all(&mut subscription, &mut replica);
    let warmed = world.state.position().revision;
    world.complete = Complete::Whole;
    world.put(2, ServingStatus::Serving);
    let told = |revision: Revision| Complete::from_wire(revision > warmed);
    let mut resumed = Subscription::resume(replica.held(), world.state.position(), told, world.now);
    assert_eq!(world.kinds(&mut resumed, &mut replica), ["snapshot", "soft state"]);
    let mut again = Subscription::resume(replica.held(), world.state.position(), told, world.now);
    assert_eq!(world.kinds(&mut again, &mut replica), ["soft state"]);
}

#[test]
fn a_large_service_comes_in_chunks_that_fit_a_queue_and_are_applied_together() {
    let mut world = World { label_bytes: 1000, ..World::new() };
    for number in 0..=255 {
        world.put(number, ServingStatus::Serving);
    }
    for number in 0..64 {
        world.remove(number);
    }
    let (mut subscription, mut replica) = (world.subscribe(None), Replica::default());
    let mut chunks = 0;
    while let Next::Send(message) = world.next(&mut subscription) {
        let told = response(&message);
        if matches!(told.event, Some(Event::Snapshot(_))) {
            chunks += 1;
            assert!(message.len() <= 2 * wire::CHUNK_BYTES, "{}", message.len());
            // What happens meanwhile belongs to the next delta, not into the snapshot.
            world.put(0, ServingStatus::NotServing);
        }
        replica.apply(told);
    }
    assert!(chunks > 5, "{chunks}");
    world.now += SETTLE;
    world.take_all(&mut subscription, &mut replica);
    replica.assert_converged(&world);
}

#[test]
fn a_snapshot_that_is_not_taken_within_its_time_is_let_go_of() {
    let mut world = World { label_bytes: 1000, ..World::new() };
    for number in 0..=255 {
        world.put(number, ServingStatus::Serving);
    }
    let mut subscription = world.subscribe(None);
    for _ in 0..3 {
        assert!(matches!(world.next(&mut subscription), Next::Send(_)));
        world.now += SNAPSHOT_MAX / 3;
    }
    assert!(matches!(world.next(&mut subscription), Next::Send(_)), "as long as it may take");
    let chunks = match &subscription.held {
        Held::Part(snapshot) => Arc::downgrade(&snapshot.chunks),
        other => panic!("it is in the middle, not {other:?}"),
    };
    world.now += Duration::from_secs(1);
    let next = world.next(&mut subscription);
    assert!(matches!(next, Next::Slow { taken } if taken > SNAPSHOT_MAX));
    world.press = Press::default();
    assert!(chunks.upgrade().is_none(), "its memory is free");
}
