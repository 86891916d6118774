//! The flags of every service that asks who calls.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::verifier::{KeySource, Verifier};
use crate::error::Error;

/// Whether callers are asked who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AuthMode {
    /// Every call of a method that is not public needs an access token.
    Jwt,
    /// Nobody is asked, and everybody may do everything; on loopback only.
    Off,
}

impl AuthMode {
    /// What holds without the flag.
    pub const DEFAULT: Self = Self::Jwt;
}

impl fmt::Display for AuthMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Jwt => "jwt",
            Self::Off => "off",
        })
    }
}

/// Flags of every service that asks who calls.
#[derive(Debug, Clone, Args)]
pub struct AuthArgs {
    /// Whether callers need an access token; "off" lets everybody do everything, and is refused off loopback
    #[arg(long, env = "MESH_AUTH", value_name = "jwt|off", value_enum, default_value_t = AuthMode::DEFAULT,
          hide_possible_values = true)]
    pub auth: AuthMode,

    /// Key sets of the programs and operators that are trusted, each key with its "iss" and "roles"; read again when they
    /// change; several are separated by commas
    #[arg(long, env = "MESH_TRUSTED_JWKS", value_name = "FILE", value_delimiter = ',')]
    pub trusted_jwks: Vec<PathBuf>,
}

impl AuthArgs {
    /// What asks the callers of the service of this name, which listens there; `None` where nobody is asked. To be called
    /// within a tokio runtime, once the flags are read: what it refuses is the operator's to mend.
    pub fn verifier(&self, service: &str, listen: SocketAddr, users: KeySource) -> Result<Option<Verifier>, Error> {
        match self.auth {
            AuthMode::Jwt => Verifier::start(service, &self.trusted_jwks, users).map(Some).map_err(Error::startup),
            AuthMode::Off if !listen.ip().is_loopback() => Err(Error::startup(format_args!(
                "--auth off lets everybody do everything, and --listen {listen} is not a loopback address: that needs \
                 --auth jwt"
            ))),
            AuthMode::Off => {
                tracing::warn!("--auth off: nobody is asked who calls, and everybody may do everything");
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use clap::{Command, FromArgMatches};

    use super::*;

    fn parsed(args: &[&str]) -> AuthArgs {
        let command = AuthArgs::augment_args(Command::new("server"));
        AuthArgs::from_arg_matches(&command.get_matches_from([&["server"], args].concat())).unwrap()
    }

    #[tokio::test]
    async fn nobody_is_asked_on_loopback_only() {
        let verifier = |args: &[&str], listen: &str| {
            let listen: SocketAddr = listen.parse().unwrap();
            parsed(args).verifier("user-svc", listen, KeySource::none())
        };
        for loopback in ["127.0.0.1:7410", "127.9.9.9:0", "[::1]:7410"] {
            assert!(verifier(&["--auth", "off"], loopback).unwrap().is_none(), "{loopback}");
        }
        for elsewhere in ["0.0.0.0:7410", "[::]:7410", "10.0.0.5:7410", "192.168.1.1:0"] {
            let refused = verifier(&["--auth", "off"], elsewhere).err().unwrap();
            assert_eq!(refused.exit_code(), 2);
            assert!(refused.to_string().contains("--auth jwt") && refused.to_string().contains(elsewhere), "{refused}");
            assert!(verifier(&["--auth", "jwt"], elsewhere).unwrap().is_some());
        }
        let missing = verifier(&["--auth", "jwt", "--trusted-jwks", "/nowhere/a.json,/nowhere/b.json"], "127.0.0.1:0");
        assert!(missing.err().unwrap().to_string().contains("/nowhere/a.json"));
    }

    #[test]
    fn the_default_is_written_once() {
        assert_eq!(parsed(&[]).auth, AuthMode::DEFAULT);
        assert_eq!(parsed(&["--trusted-jwks", "a,b"]).trusted_jwks, [PathBuf::from("a"), PathBuf::from("b")]);
    }
}
