//! Every error of the registry as a gRPC status: the one table, without a wildcard, so that a new error asks for its
//! code here.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::{Full, TooFast};
use crate::catalog::{CatalogError, Invalid, Position, StoreId};
use crate::engine::EngineError;
use crate::wire::Fault;

/// Domain of every `google.rpc.ErrorInfo` of the house.
const DOMAIN: &str = "meshwork";

/// What a caller who met a full queue should wait before it asks again, before its own jitter.
const RETRY_SOON: Duration = Duration::from_millis(250);
/// What it should wait where the registry or its store needs more than a moment.
const RETRY_LATER: Duration = Duration::from_secs(1);
/// What it should wait where somebody has to leave first.
const RETRY_MUCH_LATER: Duration = Duration::from_secs(5);

/// Why a front door answers with an error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrontError {
    /// The request is wrong whatever the state is.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The engine did not do it.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A message longer than its method takes.
    #[error("the message has {bytes} bytes, at most {max} are taken")]
    MessageTooLarge {
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        max: usize,
    },
    /// An answer longer than callers take by default.
    #[error("the answer has {bytes} bytes, at most {max} are sent at once: watch sends it in parts")]
    AnswerTooLarge {
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        max: usize,
    },
    /// The position asked for did not come in time.
    #[error("this node is at revision {} and did not reach {} in time", .here.revision, .asked.revision)]
    Behind {
        /// What the answer had to include.
        asked: Position,
        /// Where this node is.
        here: Position,
    },
    /// The position asked for belongs to another store, and nothing here ever includes it.
    #[error("the position is of store {}, this is store {}", .asked.store, .here.store)]
    OtherStore {
        /// What the answer had to include.
        asked: Position,
        /// Where this node is.
        here: Position,
    },
    /// As many streams of this kind as there may be are open.
    #[error("{full} {kind} streams are open already")]
    TooManyStreams {
        /// Which kind.
        kind: &'static str,
        /// How many there may be.
        full: Full,
    },
    /// As many names as may be are followed already.
    #[error("{full} subscriptions are open already")]
    TooManyFollowed {
        /// How many there may be.
        full: Full,
    },
    /// Registrations come faster than they may.
    #[error("more than {} registrations per second come {}", .too_fast.per_second, if .too_fast.of_address { "from this address" } else { "in all" })]
    TooManyRegistrations {
        /// How fast they may come.
        too_fast: TooFast,
    },
    /// A process of another store takes this one for its own.
    #[error("this registry's store is {}, not {asked}", here.as_str())]
    PeerOfOtherStore {
        /// The store that it names.
        asked: String,
        /// The store that this is.
        here: StoreId,
    },
    /// More processes talk to this one than can be of one store.
    #[error("{max} other registry processes are talking to this one already")]
    TooManyPeers {
        /// How many may.
        max: usize,
    },
    /// A watch stream follows as many names as it may.
    #[error("this stream follows {max} services already")]
    TooManySubscriptions {
        /// How many there may be.
        max: usize,
    },
    /// A watcher did not take what it asked for.
    #[error("nothing was read from this stream for {stalled:?}")]
    SlowWatcher {
        /// How long.
        stalled: Duration,
    },
    /// A watcher took one snapshot too slowly.
    #[error(
        "one snapshot was not read to its end within {taken:?}: read faster, or follow large services by a stream of their own"
    )]
    SlowSnapshot {
        /// How long it took so far.
        taken: Duration,
    },
}

impl From<CatalogError> for FrontError {
    fn from(error: CatalogError) -> Self {
        Self::Engine(EngineError::Catalog(error))
    }
}

/// What an error is called on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) code: Code,
    /// Reason of its `google.rpc.ErrorInfo`.
    pub(crate) reason: &'static str,
    help: Help,
}

/// What is said beside the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Help {
    /// `BadRequest`: which field to change.
    field: Option<&'static str>,
    /// `RetryInfo`: when to ask again.
    retry: Option<Duration>,
    /// `ResourceInfo`: what was not found, or is full.
    service: bool,
}

impl FrontError {
    /// The table.
    pub(crate) fn verdict(&self) -> Verdict {
        match self {
            Self::Fault(fault) => of_fault(fault),
            Self::Engine(error) => of_engine(error),
            // Neither gets better by waiting, so neither is RESOURCE_EXHAUSTED.
            Self::MessageTooLarge { .. } => Verdict::new(Code::InvalidArgument, "MESSAGE_TOO_LARGE"),
            Self::AnswerTooLarge { .. } => Verdict::new(Code::OutOfRange, "ANSWER_TOO_LARGE"),
            Self::Behind { .. } => Verdict::new(Code::Unavailable, "NODE_BEHIND").retry(RETRY_LATER),
            Self::OtherStore { .. } => Verdict::new(Code::FailedPrecondition, "OTHER_STORE"),
            Self::TooManyStreams { .. } => Verdict::full("TOO_MANY_STREAMS", RETRY_LATER),
            Self::PeerOfOtherStore { .. } => Verdict::new(Code::FailedPrecondition, "OTHER_STORE"),
            Self::TooManyPeers { .. } => Verdict::full("TOO_MANY_PEERS", RETRY_LATER),
            Self::TooManyFollowed { .. } | Self::TooManySubscriptions { .. } => {
                Verdict::full("TOO_MANY_SUBSCRIPTIONS", RETRY_LATER)
            }
            Self::TooManyRegistrations { too_fast } => {
                Verdict::full("TOO_MANY_REGISTRATIONS", too_fast.retry_in.max(RETRY_SOON))
            }
            Self::SlowWatcher { .. } | Self::SlowSnapshot { .. } => Verdict::full("SLOW_WATCHER", RETRY_LATER),
        }
    }
}

fn of_fault(fault: &Fault) -> Verdict {
    let reason = match fault {
        Fault::Invalid(invalid) => return of_invalid(invalid),
        Fault::Missing { .. } => "FIELD_MISSING",
        Fault::LoopbackFromAfar { .. } | Fault::LinkLocal { .. } => "ADDRESS_INVALID",
    };
    Verdict::new(Code::InvalidArgument, reason).field(fault.field())
}

fn of_invalid(invalid: &Invalid) -> Verdict {
    let reason = match invalid {
        Invalid::Text { .. } => "FIELD_INVALID",
        Invalid::Length { .. } => "FIELD_LENGTH",
        Invalid::TooMany { .. } => "TOO_MANY_ENTRIES",
        Invalid::TtlOutOfRange { .. } => "TTL_OUT_OF_RANGE",
        Invalid::WeightOutOfRange { .. } => "WEIGHT_OUT_OF_RANGE",
        Invalid::ExpiryOutOfRange { .. } => "EXPIRY_OUT_OF_RANGE",
        Invalid::Address { .. } | Invalid::Port { .. } => "ADDRESS_INVALID",
        Invalid::NoEndpoint => "NO_ENDPOINT",
        Invalid::NoGrpcEndpoint => "NO_GRPC_ENDPOINT",
    };
    Verdict::new(Code::InvalidArgument, reason).field(invalid.field())
}

fn of_engine(error: &EngineError) -> Verdict {
    match error {
        EngineError::Catalog(error) => of_catalog(error),
        EngineError::Overloaded { .. } => Verdict::full("OVERLOADED", RETRY_SOON),
        EngineError::Aborted { .. } => Verdict::new(Code::Aborted, "CONFLICT").retry(RETRY_SOON),
        EngineError::StoreRefused { .. } => Verdict::full("STORE_READ_ONLY", RETRY_LATER),
        EngineError::StoreUnavailable => Verdict::new(Code::Unavailable, "STORE_UNAVAILABLE").retry(RETRY_LATER),
        EngineError::OutcomeUnknown => Verdict::new(Code::Unavailable, "OUTCOME_UNKNOWN").retry(RETRY_LATER),
        EngineError::TooManyFollowed { .. } => Verdict::full("TOO_MANY_UNKNOWN_SERVICES", RETRY_LATER),
        EngineError::Stopped => Verdict::new(Code::Unavailable, "SHUTTING_DOWN").retry(RETRY_SOON),
    }
}

fn of_catalog(error: &CatalogError) -> Verdict {
    match error {
        CatalogError::Invalid(invalid) => of_invalid(invalid),
        // A newer start holds the id: the caller takes a new one.
        CatalogError::Fenced { .. } => Verdict::new(Code::FailedPrecondition, "FENCED"),
        CatalogError::Departed { retry_in } => Verdict::new(Code::FailedPrecondition, "DEPARTED").retry(*retry_in),
        CatalogError::UnknownService { .. } => Verdict::new(Code::NotFound, "UNKNOWN_SERVICE").service(),
        CatalogError::ServiceInUse { .. } => Verdict::new(Code::FailedPrecondition, "SERVICE_IN_USE").service(),
        CatalogError::TooManyInstancesOfService { .. } => {
            Verdict::full("TOO_MANY_INSTANCES_OF_SERVICE", RETRY_MUCH_LATER).service()
        }
        CatalogError::TooManyInstances { .. } => Verdict::full("TOO_MANY_INSTANCES", RETRY_MUCH_LATER),
        CatalogError::TooManyServices { .. } => Verdict::full("TOO_MANY_SERVICES", RETRY_MUCH_LATER),
        CatalogError::TooManyRules { .. } => Verdict::full("TOO_MANY_RULES", RETRY_MUCH_LATER).service(),
    }
}

impl Verdict {
    fn new(code: Code, reason: &'static str) -> Self {
        Self { code, reason, help: Help::default() }
    }

    /// Something is full. The only way to RESOURCE_EXHAUSTED, so that none goes out without saying when to come back.
    fn full(reason: &'static str, after: Duration) -> Self {
        Self::new(Code::ResourceExhausted, reason).retry(after)
    }

    fn field(self, field: &'static str) -> Self {
        Self { help: Help { field: Some(field), ..self.help }, ..self }
    }

    fn retry(self, after: Duration) -> Self {
        Self { help: Help { retry: Some(after), ..self.help }, ..self }
    }

    fn service(self) -> Self {
        Self { help: Help { service: true, ..self.help }, ..self }
    }

    /// When to ask again, where that is of use.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        self.help.retry
    }
}

/// The service that an error is about.
fn service_of(error: &FrontError) -> Option<String> {
    let FrontError::Engine(EngineError::Catalog(error)) = error else { return None };
    match error {
        CatalogError::UnknownService { service }
        | CatalogError::ServiceInUse { service, .. }
        | CatalogError::TooManyInstancesOfService { service, .. }
        | CatalogError::TooManyRules { service, .. } => Some(service.to_string()),
        CatalogError::Invalid(_)
        | CatalogError::Fenced { .. }
        | CatalogError::Departed { .. }
        | CatalogError::TooManyInstances { .. }
        | CatalogError::TooManyServices { .. } => None,
    }
}

impl From<FrontError> for Status {
    fn from(error: FrontError) -> Self {
        let Verdict { code, reason, help } = error.verdict();
        let message = error.to_string();
        let mut details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
        if let Some(field) = help.field {
            details.add_bad_request_violation(field, message.clone());
        }
        if let Some(after) = help.retry {
            details.set_retry_info(Some(after));
        }
        if help.service {
            details.set_resource_info("service", service_of(&error).unwrap_or_default(), "", message.clone());
        }
        Status::with_error_details(code, message, details)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Incarnation, ServiceKey};

    #[test]
    fn a_field_fault_names_the_field_and_the_value() {
        let invalid = Invalid::name("service", "User Svc", "a name");
        let status = Status::from(FrontError::from(Fault::from(invalid)));
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains("User Svc"), "{}", status.message());
        let details = status.get_error_details();
        assert_eq!(details.bad_request().expect("a bad request").field_violations[0].field, "service");
        let info = details.error_info().expect("an error info");
        assert_eq!((info.domain.as_str(), info.reason.as_str()), (DOMAIN, "FIELD_INVALID"));
    }

    #[test]
    fn what_is_full_tells_when_to_come_back() {
        let status = Status::from(FrontError::from(EngineError::StoreRefused { reason: "disk full".to_owned() }));
        assert_eq!(status.code(), Code::ResourceExhausted);
        let retry = status.get_error_details().retry_info().expect("a retry info").retry_delay;
        assert_eq!(retry, Some(RETRY_LATER));
    }

    /// One of each, so that none goes out without the rest.
    fn every_full() -> Vec<FrontError> {
        let service = || ServiceKey::parse("", "full").expect("a valid name");
        let too_fast = TooFast { of_address: true, per_second: 1, retry_in: Duration::from_millis(1) };
        vec![
            FrontError::TooManyStreams { kind: "watch", full: Full::InAll(1) },
            FrontError::TooManyFollowed { full: Full::OfConnection(1) },
            FrontError::TooManySubscriptions { max: 1 },
            FrontError::TooManyPeers { max: 1 },
            FrontError::TooManyRegistrations { too_fast },
            FrontError::SlowWatcher { stalled: Duration::from_secs(30) },
            FrontError::SlowSnapshot { taken: Duration::from_secs(61) },
            EngineError::Overloaded { lane: crate::engine::Lane::Beats }.into(),
            EngineError::Overloaded { lane: crate::engine::Lane::Registrations }.into(),
            EngineError::StoreRefused { reason: "disk full".to_owned() }.into(),
            EngineError::TooManyFollowed { max: 1, of_address: true }.into(),
            CatalogError::TooManyInstancesOfService { service: service(), max: 1 }.into(),
            CatalogError::TooManyInstances { max: 1 }.into(),
            CatalogError::TooManyServices { max: 1 }.into(),
            CatalogError::TooManyRules { service: service(), max: 1 }.into(),
        ]
    }

    #[test]
    fn whatever_is_full_says_when_to_come_back() {
        for error in every_full() {
            let (verdict, status) = (error.verdict(), Status::from(error.clone()));
            assert_eq!(status.code(), Code::ResourceExhausted, "{error:?}");
            let retry = status.get_error_details().retry_info().and_then(|retry| retry.retry_delay);
            assert!(retry.is_some_and(|retry| retry >= RETRY_SOON), "{error:?}: {retry:?}");
            assert_eq!(retry, verdict.retry_after(), "a subscription is told the same");
        }
    }

    #[test]
    fn what_waiting_does_not_help_is_not_called_full() {
        for error in [FrontError::MessageTooLarge { bytes: 2, max: 1 }, FrontError::AnswerTooLarge { bytes: 2, max: 1 }]
        {
            assert_ne!(error.verdict().code, Code::ResourceExhausted);
            assert_eq!(error.verdict().retry_after(), None);
        }
    }

    #[test]
    fn an_unknown_service_is_named_as_the_resource() {
        let service = ServiceKey::parse("", "nobody").expect("a valid name");
        let status = Status::from(FrontError::from(CatalogError::UnknownService { service }));
        assert_eq!(status.code(), Code::NotFound);
        let details = status.get_error_details();
        assert_eq!(details.resource_info().expect("a resource info").resource_name, "default/nobody");
    }

    #[test]
    fn fencing_is_told_apart_from_having_left() {
        let by = Incarnation::new(7).expect("not zero");
        let fenced = FrontError::from(CatalogError::Fenced { by });
        let departed = FrontError::from(CatalogError::Departed { retry_in: Duration::from_secs(9) });
        assert_eq!(fenced.verdict().reason, "FENCED");
        assert_eq!(departed.verdict().reason, "DEPARTED");
        assert_eq!(fenced.verdict().code, departed.verdict().code);
    }
}
