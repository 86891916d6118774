//! gRFC A66: what a gRPC server measures of its calls. Names, labels and buckets are the proposal's.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use tonic::Code;

use super::methods::Methods;
use crate::load::Counts;

/// Upper bounds of the latency buckets, in seconds (A66).
const SECONDS: [f64; 41] = [
    0.0, 0.00001, 0.00005, 0.0001, 0.0003, 0.0006, 0.0008, 0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.008, 0.01,
    0.013, 0.016, 0.02, 0.025, 0.03, 0.04, 0.05, 0.065, 0.08, 0.1, 0.13, 0.16, 0.2, 0.25, 0.3, 0.4, 0.5, 0.65, 0.8,
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0,
];

/// Upper bounds of the size buckets, in bytes (A66).
const BYTES: [f64; 14] = [
    0.0,
    1024.0,
    2048.0,
    4096.0,
    16384.0,
    65536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
    268_435_456.0,
    1_073_741_824.0,
    4_294_967_296.0,
];

/// gRPC has the codes 0 to 16.
const CODES: usize = 17;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Started {
    grpc_method: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    grpc_method: String,
    grpc_status: &'static str,
}

type Sizes = Family<Ended, Histogram, fn() -> Histogram>;

/// The call metrics of one server. The label sets are bounded by its methods times the codes; each is looked up once
/// and then held, so that a call costs no map and no allocation.
pub(crate) struct Calls {
    methods: Methods,
    per_method: Vec<Method>,
    duration: Sizes,
    sent: Sizes,
    received: Sizes,
    expired_unbegun: Counter,
    load: Arc<Counts>,
}

struct Method {
    started: Counter,
    ended: [OnceLock<Outcome>; CODES],
}

struct Outcome {
    duration: Histogram,
    sent: Histogram,
    received: Histogram,
}

/// What one call came to.
pub(crate) struct Measured {
    pub(crate) method: usize,
    pub(crate) code: Code,
    pub(crate) took: Duration,
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
}

impl Calls {
    /// Registers the families and gives every method its counter, so that a method never called shows as 0.
    pub(crate) fn register(methods: Methods, load: Arc<Counts>, registry: &mut Registry) -> Self {
        let started = Family::<Started, Counter>::default();
        let duration = Sizes::new_with_constructor(|| Histogram::new(SECONDS));
        let sent = Sizes::new_with_constructor(|| Histogram::new(BYTES));
        let received = Sizes::new_with_constructor(|| Histogram::new(BYTES));
        registry.register("grpc_server_call_started", "Calls that began, finished or not", started.clone());
        registry.register_with_unit(
            "grpc_server_call_duration",
            "Time from the request's headers to the last byte of the answer",
            Unit::Seconds,
            duration.clone(),
        );
        registry.register_with_unit(
            "grpc_server_call_sent_total_compressed_message_size",
            "Message bytes sent in a call, compressed, without framing",
            Unit::Bytes,
            sent.clone(),
        );
        registry.register_with_unit(
            "grpc_server_call_rcvd_total_compressed_message_size",
            "Message bytes received in a call, compressed, without framing",
            Unit::Bytes,
            received.clone(),
        );
        let expired_unbegun = Counter::default();
        registry.register(
            "mesh_server_calls_expired_unbegun",
            "Calls answered DEADLINE_EXCEEDED without their handler, since nobody waited any more when it was their turn",
            expired_unbegun.clone(),
        );
        let per_method = methods
            .names()
            .iter()
            .map(|name| Method {
                started: started.get_or_create_owned(&Started { grpc_method: name.clone() }),
                ended: [const { OnceLock::new() }; CODES],
            })
            .collect();
        Self { methods, per_method, duration, sent, received, expired_unbegun, load }
    }

    /// Counts a call that begins; the index is for [`Calls::ended`].
    pub(crate) fn started(&self, path: &str) -> usize {
        let method = self.methods.index(path);
        self.per_method[method].started.inc();
        self.load.begun();
        method
    }

    /// Counts a call whose deadline passed before its handler ran.
    pub(crate) fn expired_unbegun(&self) {
        self.expired_unbegun.inc();
    }

    /// Takes what a call came to.
    pub(crate) fn ended(&self, call: &Measured) {
        self.load.ended(call.code);
        let slot = &self.per_method[call.method].ended[code_number(call.code)];
        let outcome = slot.get_or_init(|| {
            let labels =
                Ended { grpc_method: self.methods.names()[call.method].clone(), grpc_status: code_name(call.code) };
            Outcome {
                duration: self.duration.get_or_create_owned(&labels),
                sent: self.sent.get_or_create_owned(&labels),
                received: self.received.get_or_create_owned(&labels),
            }
        });
        outcome.duration.observe(call.took.as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "sizes past 2^53 bytes fall in the last bucket either way")]
        {
            outcome.sent.observe(call.sent_bytes as f64);
            outcome.received.observe(call.received_bytes as f64);
        }
    }

    /// `package.Service/Method`, or `other`.
    pub(crate) fn name(&self, method: usize) -> &str {
        &self.methods.names()[method]
    }
}

fn code_number(code: Code) -> usize {
    usize::try_from(i32::from(code)).unwrap_or_default().min(CODES - 1)
}

/// The code as the gRPC specification writes it.
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
