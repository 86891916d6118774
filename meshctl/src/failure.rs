//! How a command can end other than well, and which exit code that is: 0 done, 1 failed, 2 a command that made no sense;
//! and, as shells have it, 128 and the signal's number where one ended it: 129 after SIGHUP, 130 after SIGINT, 143 after
//! SIGTERM. Where a signal is how a command ends well, as with `watch` and `up`, it is 0.

use std::process::ExitCode;

use mesh_runtime::code_name;
use thiserror::Error;
use tokio::signal::unix::SignalKind;
use tonic::Status;

/// Why a command did not do what it was asked to.
#[derive(Debug, Error)]
pub enum Failure {
    /// It was asked for something that makes no sense, or for a port that is taken: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// It was asked well, but it did not work: exit code 1.
    #[error("{0}")]
    Failed(String),
    /// A server answered a call with an error: exit code 1, and the details are shown.
    #[error("{}: {}", code_name(.0.code()), .0.message())]
    Refused(Box<Status>),
    /// The same, where the caller can do something about it: what to do is shown after the details.
    #[error("{}: {}", code_name(.0.code()), .0.message())]
    RefusedWith(Box<Status>, &'static str),
    /// A signal ended it: exit code 128 and its number.
    #[error("ended by signal {}", .0.as_raw_value())]
    Signalled(SignalKind),
    /// It looked for what is wrong and found something, which it has told: exit code 1.
    #[error("something is wrong")]
    Found,
    /// Whoever read the output has gone, as `head` does: nothing is wrong, and nothing is said.
    #[error("nobody reads the output any more")]
    Unread,
}

impl Failure {
    /// The process's exit code.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Failure::Unread => 0,
            Failure::Failed(_) | Failure::Refused(_) | Failure::RefusedWith(..) | Failure::Found => 1,
            Failure::Usage(_) => 2,
            // Signals that end a process have numbers from 1 to 31.
            Failure::Signalled(signal) => 128 + u8::try_from(signal.as_raw_value()).unwrap_or(0),
        })
    }

    /// What is printed on stderr; nothing where there is nothing to say.
    pub fn lines(&self) -> Vec<String> {
        match self {
            Failure::Unread | Failure::Signalled(_) | Failure::Found => Vec::new(),
            Failure::Usage(_) | Failure::Failed(_) => vec![format!("error: {self}")],
            Failure::Refused(status) | Failure::RefusedWith(status, _) => {
                let mut lines = vec![format!("error: {self}")];
                lines.extend(detail_lines(status).into_iter().map(|line| format!("  {line}")));
                if let Failure::RefusedWith(_, advice) = self {
                    lines.push((*advice).to_owned());
                }
                lines
            }
        }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Failure::Refused(Box::new(status))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Failure::Unread,
            _ => Failure::Failed(error.to_string()),
        }
    }
}

/// The `google.rpc` details of an error, a line each.
fn detail_lines(status: &Status) -> Vec<String> {
    use tonic_types::{ErrorDetail, StatusExt};
    let details = match status.check_error_details_vec() {
        Ok(details) => details,
        Err(error) => return vec![format!("(its details cannot be read: {error})")],
    };
    let mut lines = Vec::new();
    for detail in details {
        match detail {
            ErrorDetail::ErrorInfo(info) => {
                let mut line = format!("reason {} ({})", info.reason, info.domain);
                let mut metadata: Vec<_> = info.metadata.iter().collect();
                metadata.sort();
                metadata.iter().for_each(|(key, value)| line.push_str(&format!(" {key}={value}")));
                lines.push(line);
            }
            ErrorDetail::BadRequest(bad) => {
                lines
                    .extend(bad.field_violations.iter().map(|fault| format!("{}: {}", fault.field, fault.description)));
            }
            ErrorDetail::PreconditionFailure(failure) => lines.extend(
                failure
                    .violations
                    .iter()
                    .map(|fault| format!("{} {}: {}", fault.r#type, fault.subject, fault.description)),
            ),
            ErrorDetail::QuotaFailure(failure) => {
                lines
                    .extend(failure.violations.iter().map(|fault| format!("{}: {}", fault.subject, fault.description)));
            }
            ErrorDetail::RetryInfo(retry) => {
                lines.push(match retry.retry_delay {
                    Some(delay) => format!("worth another try after {delay:?}"),
                    None => "worth another try".to_owned(),
                });
            }
            ErrorDetail::ResourceInfo(resource) => {
                lines.push(format!("{} {}: {}", resource.resource_type, resource.resource_name, resource.description));
            }
            ErrorDetail::RequestInfo(request) => lines.push(format!("request {}", request.request_id)),
            ErrorDetail::DebugInfo(debug) => lines.push(debug.detail),
            ErrorDetail::Help(help) => {
                lines.extend(help.links.iter().map(|link| format!("{}: {}", link.description, link.url)));
            }
            ErrorDetail::LocalizedMessage(message) => lines.push(message.message),
            _ => {}
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use tonic_types::{ErrorDetails, StatusExt};

    use super::*;

    #[test]
    fn a_refused_call_shows_code_message_and_every_detail() {
        let mut details = ErrorDetails::with_error_info("USER_INVALID", "meshwork", std::collections::HashMap::new());
        details.add_bad_request_violation("email", "is not an address: \"x\"");
        let status = Status::with_error_details(tonic::Code::InvalidArgument, "the user is not valid", details);

        let lines = Failure::from(status).lines();

        assert_eq!(
            lines,
            [
                "error: INVALID_ARGUMENT: the user is not valid",
                "  reason USER_INVALID (meshwork)",
                "  email: is not an address: \"x\"",
            ]
        );
    }

    #[test]
    fn a_signal_is_told_as_a_shell_would() {
        for (signal, code) in
            [(SignalKind::hangup(), 129), (SignalKind::interrupt(), 130), (SignalKind::terminate(), 143)]
        {
            assert_eq!(Failure::Signalled(signal).exit_code(), ExitCode::from(code));
        }
    }

    #[test]
    fn a_reader_that_left_is_no_failure() {
        let failure = Failure::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert_eq!(failure.exit_code(), ExitCode::SUCCESS);
        assert!(failure.lines().is_empty());
    }
}
