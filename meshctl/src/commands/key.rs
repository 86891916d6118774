//! `key new`: a key that signs tokens, and the word to servers that it may.

use std::fs;
use std::path::Path;

use mesh_runtime::auth::{Role, SigningKey, TrustedKey, trust};

use crate::args::{Format, Globals, KeyCommand, KeyNewArgs, an_issuer};
use crate::failure::Failure;
use crate::output::print;

/// `meshctl key ...`.
pub(crate) fn key(globals: &Globals, command: &KeyCommand) -> Result<(), Failure> {
    let KeyCommand::New(args) = command;
    let KeyNewArgs { file, jwks, .. } = args;
    let issuer = issuer(args.issuer.as_deref(), file)?;
    let key = SigningKey::create(file).map_err(|error| Failure::Usage(error.to_string()))?;
    let roles: Vec<_> = args.roles.iter().map(|role| Role::from(*role).to_string()).collect();
    let trusted = TrustedKey { key: key.public_jwk().clone(), iss: issuer, roles };
    if let Some(jwks) = jwks {
        // A key that no server is told of is of no use, and nobody has seen it yet.
        let told = trust(jwks, trusted.clone()).inspect_err(|_| drop(fs::remove_file(file)));
        told.map_err(|error| Failure::Usage(error.to_string()))?;
    }
    print(&shown(globals.output, args, &trusted)?)
}

fn shown(output: Format, KeyNewArgs { file, jwks, .. }: &KeyNewArgs, made: &TrustedKey) -> Result<String, Failure> {
    let entry = serde_json::to_string(made).map_err(|error| Failure::Failed(error.to_string()))?;
    let (file, kid) = (file.display(), &made.key.kid);
    Ok(match (output, jwks) {
        (Format::Json, _) => entry,
        (Format::Table, None) => format!(
            "{file} is a new key, kid {kid}; no server trusts it yet: this goes into \"keys\" of their --trusted-jwks file\n{entry}"
        ),
        (Format::Table, Some(jwks)) => format!(
            "{file} is a new key, kid {kid}; {} has it trusted as {}, for callers of role {}",
            jwks.display(),
            made.iss,
            made.roles.join(" and ")
        ),
    })
}

/// Who signs with a key: as given, or as the file of the key is called.
pub(crate) fn issuer(given: Option<&str>, key: &Path) -> Result<String, Failure> {
    let named = || key.file_stem().and_then(|stem| an_issuer(stem.to_str()?).ok());
    given.map(str::to_owned).or_else(named).ok_or_else(|| {
        Failure::Usage(format!("no name can be taken from the file {}; say with --issuer who signs", key.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_signs_is_told_or_stands_in_the_name_of_the_file() {
        let of = |given, file: &str| issuer(given, Path::new(file)).ok();
        assert_eq!(of(None, "keys/operator.pem").as_deref(), Some("operator"));
        assert_eq!(of(Some("ops"), "keys/operator.pem").as_deref(), Some("ops"));
        assert_eq!(of(None, "keys/my key.pem"), None);
        assert_eq!(of(None, ".."), None);
    }
}
