//! What an error of etcd's, or of the way to it, says about whether something was done.

use tonic::{Code, Status};
use tonic_types::StatusExt;

/// What is known after a call that failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// Nothing was done, and the same call may succeed in a moment.
    NotNow,
    /// Nothing was done: there was nobody to send the call to.
    Unsent,
    /// Nothing was done, and the same call will not succeed before somebody does something about it.
    Never,
    /// It may have been done, or may yet be.
    Unknown,
}

/// What etcd says before it looks at a request: no leader where one is required, no room in the queue, proposals dropped
/// because nobody leads.
const NOT_NOW: [&str; 4] =
    ["etcdserver: no leader", "etcdserver: too many requests", "etcdserver: not capable", "raft proposal dropped"];

impl Fault {
    /// What is known after this status of a request that changes something.
    pub(super) fn of(status: &Status) -> Self {
        if NOT_NOW.contains(&status.message()) {
            return Self::NotNow;
        }
        if was_not_sent(status) {
            return Self::Unsent;
        }
        // Of etcd's own words, those with these codes come before the request is in its log or turn it away whole
        // ("database space exceeded" among them). The same codes without its words may be about a stream that broke.
        let own = status.message().starts_with("etcdserver: ") || status.message().contains("message larger than max");
        match status.code() {
            Code::Unimplemented => Self::Never,
            Code::InvalidArgument
            | Code::ResourceExhausted
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::DataLoss
                if own =>
            {
                Self::Never
            }
            // "request timed out", "leader changed", a connection that broke, a deadline: etcd may have it in its log.
            _ => Self::Unknown,
        }
    }
}

/// Whether the client says that it had nobody to send the request to. It repeats nothing that changes something, so then the
/// request was never sent.
fn was_not_sent(status: &Status) -> bool {
    let info = status.get_details_error_info();
    status.code() == Code::Unavailable
        && info.is_some_and(|info| (&*info.domain, &*info.reason) == ("meshwork", "NOBODY_READY"))
}

/// Whether a revision that was asked for is compacted away.
pub(super) fn is_compacted(status: &Status) -> bool {
    status.code() == Code::OutOfRange && status.message().contains("compacted")
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn only_what_was_never_looked_at_counts_as_not_done() {
        assert_eq!(Fault::of(&Status::unavailable("etcdserver: no leader")), Fault::NotNow);
        assert_eq!(Fault::of(&Status::unknown("raft proposal dropped")), Fault::NotNow);
        assert_eq!(Fault::of(&Status::unavailable("etcdserver: request timed out")), Fault::Unknown);
        assert_eq!(Fault::of(&Status::unavailable("etcdserver: leader changed")), Fault::Unknown);
        assert_eq!(Fault::of(&Status::deadline_exceeded("late")), Fault::Unknown);
        let full = Status::resource_exhausted("etcdserver: mvcc: database space exceeded");
        assert_eq!(Fault::of(&full), Fault::Never);
        assert_eq!(Fault::of(&Status::resource_exhausted("etcd: stream reset")), Fault::Unknown);
        let nobody = ErrorDetails::with_error_info("NOBODY_READY", "meshwork", HashMap::new());
        let nobody = Status::with_error_details(Code::Unavailable, "etcd: no endpoint is ready", nobody);
        assert_eq!(Fault::of(&nobody), Fault::Unsent);
        assert!(is_compacted(&Status::out_of_range("etcdserver: mvcc: required revision has been compacted")));
        assert!(!is_compacted(&Status::out_of_range("etcdserver: mvcc: required revision is a future revision")));
    }
}
