//! Records to bytes, straight from what the catalog holds: a registration has some forty texts and lists, and each would be
//! copied for a message of its own. The field numbers are those of `mesh/store/v1/store.proto` and
//! `mesh/registry/v1/types.proto`; that a reader of those messages finds everything is what the tests are for.

use std::time::Duration;

use bytes::BufMut;
use mesh_api::registry::v1 as wire;
use mesh_api::store::v1 as pb;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use crate::catalog::{
    AdminRule, AdminState, Emptiness, Endpoint, GrpcService, IdempotencyLevel, Identity, Method, OpId, PastStart,
    Protocol, Record, Registration, RemovalReason, Revision, ServiceRecord, ServingStatus, Timestamp, Tombstone,
};

/// `Stored`.
pub(super) fn stored(out: &mut Vec<u8>, record: &Record, revision: Revision, op: OpId) {
    let mut out = Fields(out);
    out.number(1, revision.get());
    out.bytes(2, &op.0);
    match record {
        Record::Service(record) => out.message(3, |out| service(out, record)),
        Record::Identity(record) => out.message(4, |out| identity(out, record)),
        Record::Rule(record) => out.message(5, |out| rule(out, record)),
        Record::History(record) => out.message(6, |out| out.number(1, record.floor.get())),
    }
}

fn service(out: &mut Fields<'_>, record: &ServiceRecord) {
    out.choice(
        1,
        match record.emptiness {
            Emptiness::Lapsed => pb::Emptiness::Lapsed,
            Emptiness::Emptied => pb::Emptiness::Emptied,
        },
    );
}

fn rule(out: &mut Fields<'_>, rule: &AdminRule) {
    out.choice(
        1,
        match rule.state {
            AdminState::Enabled => wire::AdminState::Enabled,
            AdminState::Draining => wire::AdminState::Draining,
            AdminState::Disabled => wire::AdminState::Disabled,
        },
    );
    if let Some(until) = rule.until {
        out.moment(2, until);
    }
}

fn identity(out: &mut Fields<'_>, identity: &Identity) {
    if let Some(live) = &identity.live {
        out.message(1, |out| registration(out, live));
    }
    for stone in &identity.tombstones {
        out.message(2, |out| tombstone(out, stone));
    }
    for past in &identity.past {
        out.message(3, |out| past_start(out, past));
    }
}

fn registration(out: &mut Fields<'_>, registration: &Registration) {
    let spec = &registration.spec;
    out.text(1, registration.service.namespace.as_str());
    out.text(2, registration.service.name.as_str());
    out.number(3, registration.incarnation.get());
    out.bytes(4, registration.nonce.as_bytes());
    out.bytes(5, registration.lease.as_bytes());
    out.time(6, registration.ttl.get());
    out.choice(7, serving_status(registration.serving));
    for address in spec.endpoints() {
        out.message(8, |out| endpoint(out, address));
    }
    out.text(9, spec.zone.as_str());
    out.number(10, spec.weight.get().into());
    out.text(11, spec.version.as_str());
    for (key, value) in spec.metadata.labels() {
        out.message(12, |out| {
            out.text(1, key);
            out.text(2, value);
        });
    }
    out.bytes(13, spec.descriptor_digest.as_ref().map_or(&[], |digest| digest.as_bytes()));
    for service in spec.grpc_services() {
        out.message(14, |out| grpc_service(out, service));
    }
    out.bytes(15, registration.owner.as_ref().map_or(&[], |owner| owner.as_bytes()));
}

fn endpoint(out: &mut Fields<'_>, endpoint: &Endpoint) {
    out.text(1, endpoint.name());
    out.choice(
        2,
        match endpoint.protocol() {
            Protocol::Grpc => wire::Protocol::Grpc,
            Protocol::Http => wire::Protocol::Http,
        },
    );
    out.text(3, &endpoint.address().ip().to_string());
    out.number(4, endpoint.address().port().into());
}

fn grpc_service(out: &mut Fields<'_>, service: &GrpcService) {
    out.text(1, service.name());
    for each in service.methods() {
        out.message(2, |out| method(out, each));
    }
    out.choice(3, serving_status(service.status()));
}

fn method(out: &mut Fields<'_>, method: &Method) {
    out.text(1, method.name());
    out.choice(
        2,
        match method.idempotency() {
            IdempotencyLevel::Unknown => wire::IdempotencyLevel::Unspecified,
            IdempotencyLevel::NoSideEffects => wire::IdempotencyLevel::NoSideEffects,
            IdempotencyLevel::Idempotent => wire::IdempotencyLevel::Idempotent,
        },
    );
}

fn tombstone(out: &mut Fields<'_>, stone: &Tombstone) {
    out.text(1, stone.service.namespace.as_str());
    out.text(2, stone.service.name.as_str());
    out.number(3, stone.incarnation.get());
    out.bytes(4, stone.nonce.as_bytes());
    out.bytes(5, stone.lease.as_bytes());
    out.choice(
        6,
        match stone.reason {
            RemovalReason::Deregistered => wire::RemovalReason::Deregistered,
            RemovalReason::Expired => wire::RemovalReason::Expired,
            RemovalReason::Superseded => wire::RemovalReason::Superseded,
            RemovalReason::Operator => wire::RemovalReason::Operator,
        },
    );
    out.moment(7, stone.until);
}

fn past_start(out: &mut Fields<'_>, past: &PastStart) {
    out.bytes(1, past.nonce.as_bytes());
    out.bytes(2, past.lease.as_bytes());
    out.number(3, past.incarnation.get());
    out.moment(4, past.until);
}

fn serving_status(status: ServingStatus) -> wire::ServingStatus {
    match status {
        ServingStatus::Serving => wire::ServingStatus::Serving,
        ServingStatus::NotServing => wire::ServingStatus::NotServing,
        ServingStatus::Draining => wire::ServingStatus::Draining,
    }
}

/// The fields of a message, one after the other. What is zero or empty is left out, as it means the same.
struct Fields<'a>(&'a mut Vec<u8>);

impl Fields<'_> {
    fn number(&mut self, field: u32, number: u64) {
        if number > 0 {
            encode_key(field, WireType::Varint, self.0);
            encode_varint(number, self.0);
        }
    }

    /// One of an enumeration, none of which is below zero.
    fn choice(&mut self, field: u32, choice: impl Into<i32>) {
        self.number(field, choice.into().unsigned_abs().into());
    }

    fn text(&mut self, field: u32, text: &str) {
        self.bytes(field, text.as_bytes());
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            encode_key(field, WireType::LengthDelimited, self.0);
            encode_varint(bytes.len() as u64, self.0);
            self.0.put_slice(bytes);
        }
    }

    /// A message in the message, also where nothing is in it. Its length, which stands before it, is known after it: there is
    /// room for that of most, and where there is not, it is moved.
    fn message(&mut self, field: u32, fill: impl FnOnce(&mut Fields<'_>)) {
        encode_key(field, WireType::LengthDelimited, self.0);
        let at = self.0.len();
        self.0.push(0);
        fill(&mut Fields(self.0));
        let end = self.0.len();
        let length = (end - at - 1) as u64;
        let more = encoded_len_varint(length) - 1;
        if more > 0 {
            self.0.resize(end + more, 0);
            self.0.copy_within(at + 1..end, at + 1 + more);
        }
        encode_varint(length, &mut &mut self.0[at..]);
    }

    /// `google.protobuf.Timestamp`. Exact: a moment of the catalog is 64 bits of nanoseconds, whose seconds fit.
    fn moment(&mut self, field: u32, at: Timestamp) {
        self.time(field, at.as_duration());
    }

    /// `google.protobuf.Duration`.
    fn time(&mut self, field: u32, time: Duration) {
        self.message(field, |out| {
            out.number(1, time.as_secs());
            out.number(2, time.subsec_nanos().into());
        });
    }
}
