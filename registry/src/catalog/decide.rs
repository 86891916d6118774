//! What a command comes to. Nothing here changes anything.

mod operate;
mod own;
mod register;
mod remove;

use super::{
    Answer, CatalogError, Command, Emptiness, Expected, History, Identity, IdentityKey, Key, Limits, NodeId, OpId,
    Overlay, Proposal, Record, Report, Revision, ServiceKey, ServiceRecord, Timestamp, Ttl, Write,
};
use std::sync::Arc;
use std::time::Duration;

/// How long a removal and a fenced start are remembered: for so long a start that said goodbye cannot come back, and a
/// reader that merges can still be told what is gone.
pub const REMEMBERED: Duration = Duration::from_secs(600);

/// What a decision needs to know beside the state: all of it fixed for one command.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// The time.
    pub now: Timestamp,
    /// What the proposal is called, if there is one.
    pub op: OpId,
    /// Quotas.
    pub limits: Limits,
    /// Granted to who asks for no TTL.
    pub default_ttl: Ttl,
    /// Which node decides; `None` where it is the only one.
    pub node: Option<NodeId>,
}

/// What a command comes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    /// What is to be committed; `None` where everything is already as it is wanted.
    pub proposal: Option<Proposal>,
    /// What to answer once it is.
    pub answer: Answer,
}

impl Decision {
    /// Everything is as it is wanted.
    fn nothing(answer: Answer) -> Self {
        Self { proposal: None, answer }
    }
}

/// Decides a command. Reads only: what it wants written comes out as a proposal, and the state changes when a commit
/// comes back through [`State::apply`](super::State::apply). The same state, command and context give the same answer in
/// production, in a replay and in a test.
pub fn decide(on: &Overlay<'_>, command: &Command, context: Context) -> Result<Decision, CatalogError> {
    match command {
        Command::Register { request, fresh } => register::register(on, request, *fresh, context),
        Command::Report(change) => Ok(report(on, change, context)),
        Command::Deregister { lease, incarnation } => remove::deregister(on, *lease, *incarnation, context),
        Command::Remove { service, id } => Ok(remove::by_operator(on, service, *id, context)),
        Command::Claim { identity, lease } => Ok(own::claim(on, identity, *lease, context)),
        Command::Adopt(orphans) => Ok(own::adopt(on, orphans, context)),
        Command::Expire { identity, lease } => Ok(remove::expire(on, identity, *lease, context)),
        Command::SetRule(rule) => operate::set_rule(on, rule, context),
        Command::EndRule { service, selector } => Ok(operate::end_rule(on, service, selector, context)),
        Command::DeleteService { service } => operate::delete_service(on, service, context),
        Command::Forget { identities } => Ok(remove::forget(on, identities, context)),
    }
}

/// An instance says that its serving status changed. Of a lease that is no longer the current one nothing is believed.
fn report(on: &Overlay<'_>, change: &Report, context: Context) -> Decision {
    let known = on.identity(&change.identity);
    let Some((identity, live)) = known.and_then(|identity| Some((identity, identity.live.as_ref()?))) else {
        return Decision::nothing(Answer::Done);
    };
    if live.lease != change.lease {
        return Decision::nothing(Answer::Done);
    }
    let mut said = live.as_ref().clone();
    said.serving = change.serving.unwrap_or(said.serving);
    let changed = said.spec.report(&change.services);
    if !changed && said.serving == live.serving {
        return Decision::nothing(Answer::Done);
    }
    let mut draft = Draft::new(on);
    draft.put_identity(&change.identity, Identity { live: Some(Arc::new(said)), ..identity.clone() });
    Decision { proposal: draft.proposal(context), answer: Answer::Done }
}

/// A proposal in the making: every key that is written or read is expected to be as the overlay shows it.
struct Draft<'a> {
    on: &'a Overlay<'a>,
    expected: Vec<(Key, Expected)>,
    writes: Vec<Write>,
    /// The last removal that is forgotten with this.
    forgotten: Revision,
}

impl<'a> Draft<'a> {
    fn new(on: &'a Overlay<'a>) -> Self {
        Self { on, expected: Vec::new(), writes: Vec::new(), forgotten: Revision::ZERO }
    }

    /// The decision rests on this key.
    fn reads(&mut self, key: Key) {
        if !self.expected.iter().any(|(expected, _)| *expected == key) {
            self.expected.push((key.clone(), self.on.expected(&key)));
        }
    }

    fn put(&mut self, key: Key, record: Record) {
        self.reads(key.clone());
        self.writes.push(Write::Put(key, record));
    }

    fn delete(&mut self, key: Key) {
        self.reads(key.clone());
        self.writes.push(Write::Delete(key));
    }

    fn put_identity(&mut self, key: &IdentityKey, identity: Identity) {
        let before = self.on.identity(key).into_iter().flat_map(|before| &before.tombstones);
        for stone in before.filter(|stone| !identity.still_tells(stone)) {
            self.forgotten = self.forgotten.max(self.on.removed_at(key.id, stone).unwrap_or(Revision::MAX));
        }
        let key = Key::Identity(key.clone());
        if identity.is_blank() { self.delete(key) } else { self.put(key, Record::Identity(identity)) }
    }

    /// Writes the record of a service again, as it is. After a restart the record tells when something about all of the
    /// service's instances changed last.
    fn touch(&mut self, service: &ServiceKey) {
        let record = self.on.record(service).unwrap_or(ServiceRecord { emptiness: Emptiness::Lapsed });
        self.put(Key::Service(service.clone()), Record::Service(record));
    }

    fn proposal(mut self, context: Context) -> Option<Proposal> {
        if self.forgotten > self.on.history().floor {
            let history = History { floor: self.forgotten };
            self.put(Key::History, Record::History(history));
        }
        let Self { on: _, expected, writes, forgotten: _ } = self;
        (!writes.is_empty()).then_some(Proposal { op: context.op, expected, writes })
    }
}

#[cfg(test)]
mod tests;
