//! The keys of a local mesh: of whoever runs it, and of each service that calls others for itself.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use mesh_runtime::auth::{Role, SigningKey, TrustedKey, trust};

use crate::args::Program;
use crate::operator::Operator;

/// Name of whoever runs the mesh, in tokens.
const OPERATOR: &str = "operator";

/// Every key that is trusted from the start: the name of its file and its issuer, and for callers in which role it signs.
const TRUSTED: [(&str, Role); 3] = [(OPERATOR, Role::Admin), ("order-svc", Role::Service), ("gateway", Role::Service)];

/// The folder with the keys, and who may use the first of them.
#[derive(Debug)]
pub(super) struct Keys {
    folder: PathBuf,
    operator: Operator,
}

impl Keys {
    /// Makes what is missing in the folder of a mesh; keys that are there stay.
    pub(super) fn make(data: &Path) -> Result<Keys, String> {
        let folder = data.join("keys");
        for (name, role) in TRUSTED {
            let key = SigningKey::open_or_create(&key_file(&folder, name)).map_err(|error| error.to_string())?;
            let (key, iss, roles) = (key.public_jwk().clone(), name.to_owned(), vec![role.to_string()]);
            trust(&jwks(&folder), TrustedKey { key, iss, roles }).map_err(|error| error.to_string())?;
        }
        let operator = Operator::open(&key_file(&folder, OPERATOR), OPERATOR).map_err(|error| error.to_string())?;
        Ok(Keys { folder, operator })
    }

    /// Whoever runs the mesh.
    pub(super) fn operator(&self) -> &Operator {
        &self.operator
    }

    /// The file of their key.
    pub(super) fn operator_file(&self) -> PathBuf {
        key_file(&self.folder, OPERATOR)
    }

    /// What an instance is told of keys: whom to trust, and which key is its own where it calls others for itself. With which
    /// one it signs for users, an instance of user-svc settles with its siblings.
    pub(super) fn flags(&self, program: Program) -> Vec<OsString> {
        let own = match program {
            Program::Registry => return Vec::new(),
            Program::UserSvc => None,
            Program::OrderSvc | Program::Gateway => Some(("--service-key", key_file(&self.folder, program.name()))),
        };
        let mut flags = vec!["--auth".into(), "jwt".into(), "--trusted-jwks".into(), jwks(&self.folder).into()];
        flags.extend(own.into_iter().flat_map(|(flag, file)| [flag.into(), file.into()]));
        flags
    }
}

fn key_file(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.pem"))
}

fn jwks(folder: &Path) -> PathBuf {
    folder.join("trusted.jwks.json")
}
