//! Every error of the registry as a gRPC status: the one table, without a wildcard, so that a new error asks for its
//! code here.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::Full;
use crate::catalog::{CatalogError, Invalid, Position};
use crate::engine::EngineError;
use crate::wire::Fault;

/// Domain of every `google.rpc.ErrorInfo` of the house.
const DOMAIN: &str = "meshwork";

/// What a caller who met a full queue should wait before it asks again, before its own jitter.
const RETRY_SOON: Duration = Duration::from_millis(250);
/// What it should wait where the registry or its store needs more than a moment.
const RETRY_LATER: Duration = Duration::from_secs(1);

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
    /// All watch streams together follow as many names as they may.
    #[error("{full} subscriptions are open already")]
    TooManyFollowed {
        /// How many there may be.
        full: Full,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Help {
    /// Nothing: the reason is all there is to say.
    None,
    /// `BadRequest`: which field to change.
    Field(&'static str),
    /// `RetryInfo`: when to ask again.
    Retry(Duration),
    /// `ResourceInfo`: what was not found, or is full.
    Service,
}

impl FrontError {
    /// The table.
    pub(crate) fn verdict(&self) -> Verdict {
        match self {
            Self::Fault(fault) => of_fault(fault),
            Self::Engine(error) => of_engine(error),
            Self::MessageTooLarge { .. } => Verdict::new(Code::ResourceExhausted, "MESSAGE_TOO_LARGE"),
            Self::AnswerTooLarge { .. } => Verdict::new(Code::ResourceExhausted, "ANSWER_TOO_LARGE"),
            Self::Behind { .. } => Verdict::new(Code::Unavailable, "NODE_BEHIND").retry(RETRY_LATER),
            Self::OtherStore { .. } => Verdict::new(Code::FailedPrecondition, "OTHER_STORE"),
            Self::TooManyStreams { .. } => Verdict::new(Code::ResourceExhausted, "TOO_MANY_STREAMS").retry(RETRY_LATER),
            Self::TooManyFollowed { .. } => {
                Verdict::new(Code::ResourceExhausted, "TOO_MANY_SUBSCRIPTIONS").retry(RETRY_LATER)
            }
            Self::TooManySubscriptions { .. } => Verdict::new(Code::ResourceExhausted, "TOO_MANY_SUBSCRIPTIONS"),
            Self::SlowWatcher { .. } => Verdict::new(Code::ResourceExhausted, "SLOW_WATCHER").retry(RETRY_LATER),
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
        Invalid::NoGrpcEndpoint => "NO_GRPC_ENDPOINT",
    };
    Verdict::new(Code::InvalidArgument, reason).field(invalid.field())
}

fn of_engine(error: &EngineError) -> Verdict {
    match error {
        EngineError::Catalog(error) => of_catalog(error),
        EngineError::Overloaded { .. } => Verdict::new(Code::ResourceExhausted, "OVERLOADED").retry(RETRY_SOON),
        EngineError::Aborted { .. } => Verdict::new(Code::Aborted, "CONFLICT").retry(RETRY_SOON),
        EngineError::StoreRefused { .. } => Verdict::new(Code::ResourceExhausted, "STORE_READ_ONLY").retry(RETRY_LATER),
        EngineError::OutcomeUnknown => Verdict::new(Code::Unavailable, "OUTCOME_UNKNOWN").retry(RETRY_LATER),
        EngineError::TooManyFollowed { .. } => {
            Verdict::new(Code::ResourceExhausted, "TOO_MANY_UNKNOWN_SERVICES").retry(RETRY_LATER)
        }
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
            Verdict::new(Code::ResourceExhausted, "TOO_MANY_INSTANCES_OF_SERVICE").service()
        }
        CatalogError::TooManyInstances { .. } => {
            Verdict::new(Code::ResourceExhausted, "TOO_MANY_INSTANCES").retry(RETRY_LATER)
        }
        CatalogError::TooManyServices { .. } => {
            Verdict::new(Code::ResourceExhausted, "TOO_MANY_SERVICES").retry(RETRY_LATER)
        }
        CatalogError::TooManyRules { .. } => Verdict::new(Code::ResourceExhausted, "TOO_MANY_RULES").service(),
    }
}

impl Verdict {
    fn new(code: Code, reason: &'static str) -> Self {
        Self { code, reason, help: Help::None }
    }

    fn field(self, field: &'static str) -> Self {
        Self { help: Help::Field(field), ..self }
    }

    fn retry(self, after: Duration) -> Self {
        Self { help: Help::Retry(after), ..self }
    }

    fn service(self) -> Self {
        Self { help: Help::Service, ..self }
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
        match help {
            Help::None => {}
            Help::Field(field) => {
                details.add_bad_request_violation(field, message.clone());
            }
            Help::Retry(after) => {
                details.set_retry_info(Some(after));
            }
            Help::Service => {
                details.set_resource_info("service", service_of(&error).unwrap_or_default(), "", message.clone());
            }
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
