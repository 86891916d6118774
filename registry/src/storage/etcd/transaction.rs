//! A proposal as one etcd transaction, and what the answer says. Pure.

use bytes::Bytes;
use mesh_api::etcd::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use mesh_api::etcd::etcdserverpb::request_op::Request;
use mesh_api::etcd::etcdserverpb::response_op::Response;
use mesh_api::etcd::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, TxnResponse,
};
use mesh_api::etcd::mvccpb::KeyValue;

use super::layout::Layout;
use crate::catalog::{Key, OpId, Proposal, Revision, Write};
use crate::storage::codec;

/// Keys that one proposal may name: etcd's limit is 128 to a list (--max-txn-ops), less what every commit adds.
pub(super) const KEYS_MAX: usize = 120;

/// What a key has to be: its mod revision, 0 where it must not exist.
pub(super) type Wanted<'a> = (&'a Key, u64);

/// The transaction that makes a proposal, if every key is as wanted and, where one has to be absent, no record was deleted
/// after `fence`.
///
/// A mod revision never comes back, but absence does: without the fence, a request that was given up long ago and arrives
/// late could put a record back that somebody has deleted since.
pub(super) fn transaction(layout: &Layout, proposal: &Proposal, wanted: &[Wanted<'_>], fence: Revision) -> TxnRequest {
    let mut compare: Vec<Compare> = wanted.iter().map(|(key, at)| modified(layout.record(key), *at)).collect();
    if wanted.iter().any(|(_, at)| *at == 0) {
        let result = CompareResult::Less;
        compare.push(Compare { result: result.into(), ..modified(layout.deleted(), fence.get() + 1) });
    }
    let op = Bytes::copy_from_slice(&proposal.op.0);
    let mut success = vec![put(layout.head(), op.clone())];
    if proposal.writes.iter().any(|write| matches!(write, Write::Delete(_))) {
        success.push(put(layout.deleted(), op));
    }
    success.extend(proposal.writes.iter().map(|write| match write {
        Write::Put(key, record) => {
            put(layout.record(key), codec::encode_value(record, Revision::ZERO, proposal.op).into())
        }
        Write::Delete(key) => {
            let request = DeleteRangeRequest { key: layout.record(key), ..DeleteRangeRequest::default() };
            operation(Request::RequestDeleteRange(request))
        }
    }));
    // What the keys are instead, told in the same answer.
    let mut failure = vec![range(layout.head(), false), range(layout.deleted(), true)];
    failure.extend(wanted.iter().map(|(key, _)| {
        let puts = |write: &Write| matches!(write, Write::Put(..)) && write.key() == *key;
        range(layout.record(key), !proposal.writes.iter().any(puts))
    }));
    TxnRequest { compare, success, failure }
}

/// What a transaction came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// It was made.
    Made(Revision),
    /// A key is not as wanted, and stays so: what was handed in is never made any more.
    Conflict {
        /// Revision of the last commit.
        seen: Revision,
    },
    /// Every key is as wanted, but something was deleted after the fence.
    Fenced {
        /// Revision of the last commit.
        seen: Revision,
        /// As of when the keys were looked at.
        now: Revision,
    },
}

/// What an answer says; `None` where it is not an answer to such a transaction.
pub(super) fn verdict(answer: &TxnResponse, op: OpId, wanted: &[Wanted<'_>]) -> Option<Verdict> {
    let now = revision(answer.header.as_ref()?.revision);
    if answer.succeeded {
        return Some(Verdict::Made(now));
    }
    let mut found = answer.responses.iter().map(|response| match &response.response {
        Some(Response::ResponseRange(range)) => Some(range.kvs.first()),
        _ => None,
    });
    let (head, _deleted) = (found.next()??, found.next()?);
    let mut seen = head.map_or(0, |head| head.mod_revision);
    let mut as_wanted = true;
    for (_, at) in wanted {
        let key: Option<&KeyValue> = found.next()??;
        let is = key.map_or(0, |key| key.mod_revision);
        // Its own earlier attempt, of which nothing was heard.
        let own = key.is_some_and(|key| codec::decode_value(&key.value).is_ok_and(|value| value.op == op));
        if own {
            return Some(Verdict::Made(revision(is)));
        }
        as_wanted &= u64::try_from(is).is_ok_and(|is| is == *at);
        seen = seen.max(is);
    }
    let seen = revision(seen);
    Some(if as_wanted { Verdict::Fenced { seen, now } } else { Verdict::Conflict { seen } })
}

/// An etcd revision, which is never negative.
pub(super) fn revision(number: i64) -> Revision {
    Revision::new(number.try_into().unwrap_or(0))
}

/// A revision as etcd counts; those that a store has are etcd's own.
pub(super) fn number(revision: u64) -> i64 {
    revision.try_into().unwrap_or(i64::MAX)
}

fn modified(key: Bytes, at: u64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key,
        range_end: Bytes::new(),
        target_union: Some(TargetUnion::ModRevision(number(at))),
    }
}

pub(super) fn put(key: Bytes, value: Bytes) -> RequestOp {
    operation(Request::RequestPut(PutRequest { key, value, ..PutRequest::default() }))
}

pub(super) fn range(key: Bytes, keys_only: bool) -> RequestOp {
    operation(Request::RequestRange(RangeRequest { key, keys_only, ..RangeRequest::default() }))
}

/// The condition that a key does not exist, or was last changed then.
pub(super) fn unchanged(key: Bytes, at: Revision) -> Compare {
    modified(key, at.get())
}

pub(super) fn operation(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

#[cfg(test)]
mod tests {
    use mesh_api::etcd::etcdserverpb::{RangeResponse, ResponseHeader, ResponseOp};

    use super::super::layout::PREFIX;
    use super::*;
    use crate::catalog::kit::service;
    use crate::catalog::{Emptiness, Expected, Record, ServiceRecord};

    fn key(name: &str) -> Key {
        Key::Service(service(name))
    }

    fn record() -> Record {
        Record::Service(ServiceRecord { emptiness: Emptiness::Lapsed })
    }

    fn op(number: u8) -> OpId {
        OpId([number; 16])
    }

    fn proposal(writes: Vec<Write>) -> Proposal {
        let expected = writes.iter().map(|write| (write.key().clone(), Expected::Absent)).collect();
        Proposal { op: op(1), expected, writes }
    }

    /// The conditions of a request, as `key operator revision`.
    fn conditions(request: &TxnRequest) -> Vec<String> {
        let one = |compare: &Compare| {
            assert_eq!(compare.target(), CompareTarget::Mod);
            let sign = match compare.result() {
                CompareResult::Equal => "=",
                CompareResult::Less => "<",
                other => panic!("{other:?}"),
            };
            let Some(TargetUnion::ModRevision(at)) = compare.target_union else { panic!("{compare:?}") };
            format!("{} {sign} {at}", String::from_utf8_lossy(&compare.key))
        };
        request.compare.iter().map(one).collect()
    }

    /// The keys that a request changes.
    fn changes(request: &TxnRequest) -> Vec<String> {
        let one = |operation: &RequestOp| match &operation.request {
            Some(Request::RequestPut(put)) => format!("put {}", String::from_utf8_lossy(&put.key)),
            Some(Request::RequestDeleteRange(gone)) => format!("delete {}", String::from_utf8_lossy(&gone.key)),
            other => panic!("{other:?}"),
        };
        request.success.iter().map(one).collect()
    }

    #[test]
    fn what_has_to_be_absent_is_fenced_against_later_deletions() {
        let layout = Layout::new("/");
        let (a, b) = (key("a"), key("b"));
        let proposal = proposal(vec![Write::Put(a.clone(), record())]);
        let request = transaction(&layout, &proposal, &[(&a, 0), (&b, 7)], Revision::new(9));
        let (one, other) = ("/r/service/default/a = 0", "/r/service/default/b = 7");
        assert_eq!(conditions(&request), [one, other, "/deleted < 10"]);
        let request = transaction(&layout, &proposal, &[(&b, 7)], Revision::new(9));
        assert_eq!(conditions(&request), [other], "a revision never comes back");
    }

    #[test]
    fn every_change_moves_the_head_and_a_deletion_the_fence() {
        let layout = Layout::new("/");
        let put = proposal(vec![Write::Put(key("a"), record())]);
        let request = transaction(&layout, &put, &[], Revision::ZERO);
        assert_eq!(changes(&request), ["put /head", "put /r/service/default/a"]);
        let both = proposal(vec![Write::Put(key("a"), record()), Write::Delete(key("b"))]);
        let request = transaction(&layout, &both, &[], Revision::ZERO);
        let all = ["put /head", "put /deleted", "put /r/service/default/a", "delete /r/service/default/b"];
        assert_eq!(changes(&request), all);
    }

    fn found(mod_revision: i64, value: Vec<u8>) -> Option<KeyValue> {
        Some(KeyValue { mod_revision, value: value.into(), ..KeyValue::default() })
    }

    /// An answer as of revision 20 to a transaction that was not made, with what was found under each key.
    fn failed(found: Vec<Option<KeyValue>>) -> TxnResponse {
        let response = |kv: Option<KeyValue>| {
            let range = RangeResponse { kvs: kv.into_iter().collect(), ..RangeResponse::default() };
            ResponseOp { response: Some(Response::ResponseRange(range)) }
        };
        let header = Some(ResponseHeader { revision: 20, ..ResponseHeader::default() });
        TxnResponse { header, succeeded: false, responses: found.into_iter().map(response).collect() }
    }

    #[test]
    fn an_answer_says_what_became_of_the_proposal() {
        let (a, b) = (key("a"), key("b"));
        let wanted = [(&a, 0), (&b, 7)];
        let head = || found(9, vec![9; 16]);
        let told = |answer: &TxnResponse| verdict(answer, op(1), &wanted);

        let header = Some(ResponseHeader { revision: 20, ..ResponseHeader::default() });
        let made = TxnResponse { header, succeeded: true, responses: Vec::new() };
        assert_eq!(told(&made), Some(Verdict::Made(Revision::new(20))));

        let others = codec::encode_value(&record(), Revision::ZERO, op(2));
        let conflict = failed(vec![head(), None, found(8, others), found(7, Vec::new())]);
        assert_eq!(told(&conflict), Some(Verdict::Conflict { seen: Revision::new(9) }));
        let edited = failed(vec![head(), None, None, found(12, Vec::new())]);
        assert_eq!(told(&edited), Some(Verdict::Conflict { seen: Revision::new(12) }), "by hand, without the head");
        let own = codec::encode_value(&record(), Revision::ZERO, op(1));
        let own = failed(vec![head(), None, found(8, own), found(7, Vec::new())]);
        assert_eq!(told(&own), Some(Verdict::Made(Revision::new(8))), "an earlier request of the same proposal");
        let fenced = failed(vec![head(), found(9, Vec::new()), None, found(7, Vec::new())]);
        let expected = Verdict::Fenced { seen: Revision::new(9), now: Revision::new(20) };
        assert_eq!(told(&fenced), Some(expected));
        assert_eq!(told(&failed(vec![head()])), None, "no answer to this question");
    }

    #[test]
    fn the_largest_proposal_stays_below_the_limit_of_etcd() {
        let layout = Layout::new(PREFIX);
        let keys: Vec<Key> = (0..KEYS_MAX).map(|number| key(&format!("s{number}"))).collect();
        let proposal = proposal(keys.iter().map(|key| Write::Delete(key.clone())).collect());
        let wanted: Vec<Wanted<'_>> = keys.iter().map(|key| (key, 0)).collect();
        let TxnRequest { compare, success, failure } = transaction(&layout, &proposal, &wanted, Revision::ZERO);
        assert!([compare.len(), success.len(), failure.len()].into_iter().all(|length| length <= 128));
    }
}
