//! `token`: says who calls, signed.

use std::time::Duration;

use mesh_runtime::auth::{AUDIENCE_ALL, Claims, Role, SigningKey, lifetime_max, mint};
use mesh_runtime::clock;
use serde_json::json;

use crate::args::{Format, Globals, TokenArgs};
use crate::commands::key::issuer;
use crate::commands::words::span;
use crate::failure::Failure;
use crate::output::print;

/// `meshctl token`. The token goes to stdout and nowhere else.
pub(crate) fn token(globals: &Globals, args: &TokenArgs) -> Result<(), Failure> {
    let issuer = issuer(args.issuer.as_deref(), &args.key)?;
    let role = Role::from(args.role);
    check_lifetime(role, args.ttl)?;
    let audience = audience(role, args.audience.as_deref())?;
    let key = SigningKey::open(&args.key).map_err(|error| Failure::Usage(format!("--key: {error}")))?;
    let subject = args.subject.as_deref().unwrap_or(&issuer);
    let claims = Claims::new(&issuer, role, subject, [audience], clock::wall(), args.ttl);
    let token = mint(&key, &claims);
    match globals.output {
        Format::Table => print(token.expose()),
        Format::Json => {
            let good_until = prost_types::Timestamp { seconds: claims.exp.cast_signed(), nanos: 0 };
            let told = json!({
                "token": token.expose(), "kid": key.kid(), "issuer": claims.iss, "subject": claims.sub,
                "role": role.name(), "audience": claims.aud, "expireTime": good_until.to_string(),
            });
            print(&told.to_string())
        }
    }
}

/// For whom a token is. Servers refuse a program's token that is for everybody: whoever is shown it could show it on.
fn audience(role: Role, named: Option<&str>) -> Result<&str, Failure> {
    let audience = named.unwrap_or(AUDIENCE_ALL);
    if role == Role::Service && audience == AUDIENCE_ALL {
        return Err(Failure::Usage(
            "a token of the role service is for one service: say which with --audience, such as `--audience user-svc`"
                .to_owned(),
        ));
    }
    Ok(audience)
}

/// Servers refuse a token that is to hold for longer than its role may, and one that holds for less than a second.
fn check_lifetime(role: Role, ttl: Duration) -> Result<(), Failure> {
    let max = lifetime_max(role);
    if ttl < Duration::from_secs(1) || ttl > max {
        let (ttl, max) = (span(ttl), span(max));
        return Err(Failure::Usage(format!("--ttl {ttl} is not between 1s and {max}, which {role} may have at most")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_programs_token_is_for_one_service() {
        assert!(audience(Role::Service, None).is_err() && audience(Role::Service, Some("meshwork")).is_err());
        assert_eq!(audience(Role::Service, Some("user-svc")).ok(), Some("user-svc"));
        assert_eq!(audience(Role::Admin, None).ok(), Some("meshwork"));
    }

    #[test]
    fn a_token_lives_no_longer_than_servers_take_it() {
        for (role, ttl, fits) in [
            (Role::Admin, Duration::from_secs(24 * 3600), true),
            (Role::Admin, Duration::from_secs(24 * 3600 + 1), false),
            (Role::Service, Duration::from_secs(3600), true),
            (Role::Service, Duration::from_secs(2 * 3600), false),
            (Role::Admin, Duration::from_millis(999), false),
        ] {
            assert_eq!(check_lifetime(role, ttl).is_ok(), fits, "{role} {ttl:?}");
        }
    }
}
