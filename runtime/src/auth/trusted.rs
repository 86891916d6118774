//! Keys that an operator trusts: a key set in a file, in which each key says whose it is and what it may sign.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use jsonwebtoken::DecodingKey;
use mesh_api::access::Role;
use serde::{Deserialize, Serialize};

use super::draft;
use super::jwk::{Jwk, JwkError};

/// Most keys in one file, and in any key set.
pub(super) const KEYS_MAX: usize = 256;
/// Longest file, in bytes: twice what so many keys take.
const FILE_BYTES_MAX: u64 = 256 << 10;
/// Longest name of an issuer, in bytes.
const ISSUER_BYTES_MAX: usize = 64;

/// A key of a trusted file: a public key, and two members of our own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustedKey {
    /// The key.
    #[serde(flatten)]
    pub key: Jwk,
    /// The one `iss` that it may sign for: 1 to 64 bytes of `[a-z0-9.-]`, such as the name of a program.
    pub iss: String,
    /// The roles that it may give: "service", "admin".
    pub roles: Vec<String>,
}

/// A private key where none may be: the member that holds it in a JWK.
#[derive(Deserialize)]
struct Private {
    d: Option<serde::de::IgnoredAny>,
}

#[derive(Serialize, Deserialize)]
struct KeySet<K> {
    keys: Vec<K>,
}

/// Why a trusted file is not taken; one line for the operator, who has to act.
#[derive(Debug, thiserror::Error)]
pub enum TrustedError {
    /// It could not be read or written.
    #[error("cannot {what} the trusted keys {path}: {source}")]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others than its owner may add a key to it.
    #[error("others than their owner may write the trusted keys {path}; `chmod go-w {path}`")]
    Open {
        /// The file.
        path: PathBuf,
    },
    /// It is not a key set of ours.
    #[error("{path} is no set of trusted keys: {fault}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: String,
    },
}

/// A key that is trusted, checked.
#[derive(Clone)]
pub(super) struct Trusted {
    pub(super) kid: String,
    pub(super) decoding: DecodingKey,
    pub(super) issuer: String,
    pub(super) roles: Vec<Role>,
}

/// One file, and what it held when it was last well.
pub(super) struct TrustedFile {
    path: PathBuf,
    stamp: Option<Stamp>,
    keys: Vec<Trusted>,
}

/// What changes when a file does.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl TrustedFile {
    /// Reads a file for the first time: a fault is the operator's to mend before anything starts.
    pub(super) fn open(path: &Path) -> Result<Self, TrustedError> {
        let stamp = stamp(path);
        Ok(Self {
            path: path.to_owned(),
            stamp,
            keys: read(path)?.iter().map(checked).collect::<Result<_, _>>().map_err(|fault| malformed(path, fault))?,
        })
    }

    /// Reads the file again if it has changed; tells whether its keys are others now. One that cannot be read leaves the
    /// keys as they were.
    pub(super) fn look(&mut self) -> bool {
        let stamp = stamp(&self.path);
        if stamp == self.stamp {
            return false;
        }
        match Self::open(&self.path) {
            Ok(read) => {
                tracing::info!(path = %self.path.display(), keys = read.keys.len(), "trusted keys have changed");
                *self = read;
                true
            }
            Err(error) => {
                // Once for each change.
                self.stamp = stamp;
                tracing::warn!(%error, "trusted keys stay as they were");
                false
            }
        }
    }

    pub(super) fn keys(&self) -> &[Trusted] {
        &self.keys
    }
}

/// Adds a public key to a trusted file, which is made if missing. The file is replaced whole, so that who reads it
/// meanwhile sees the old keys or the new; of two that add at once, one may be lost. A key that is there already is not
/// added twice: its issuer and roles are replaced.
pub fn trust(path: &Path, key: TrustedKey) -> Result<(), TrustedError> {
    checked(&key).map_err(|fault| malformed(path, fault))?;
    let mut keys = match read(path) {
        Err(TrustedError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => Vec::new(),
        read => read?,
    };
    keys.retain(|known| known.key.kid != key.key.kid);
    keys.push(key);
    if keys.len() > KEYS_MAX {
        return Err(malformed(path, format!("it would hold more than {KEYS_MAX} keys")));
    }
    let text = serde_json::to_string_pretty(&KeySet { keys }).map_err(|error| malformed(path, error.to_string()))?;
    let made = std::fs::create_dir_all(draft::folder(path));
    // Public keys: everybody may read them, nobody else may add one.
    let written = made.and_then(|()| draft::write(path, 0o644, text.as_bytes(), std::fs::rename));
    written.map_err(|source| TrustedError::File { what: "write", path: path.to_owned(), source })
}

fn read(path: &Path) -> Result<Vec<TrustedKey>, TrustedError> {
    let failed = |source| TrustedError::File { what: "read", path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.permissions().mode() & 0o022 != 0 {
        return Err(TrustedError::Open { path: path.to_owned() });
    }
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(malformed(path, format!("it is longer than {FILE_BYTES_MAX} bytes")));
    }
    let private: KeySet<Private> = serde_json::from_slice(&text).map_err(|error| malformed(path, error.to_string()))?;
    if private.keys.iter().any(|key| key.d.is_some()) {
        return Err(malformed(
            path,
            "it holds a private key (member d), which everybody can now use: make a new one".into(),
        ));
    }
    let set: KeySet<TrustedKey> = serde_json::from_slice(&text).map_err(|error| malformed(path, error.to_string()))?;
    if set.keys.len() > KEYS_MAX {
        return Err(malformed(path, format!("it holds more than {KEYS_MAX} keys")));
    }
    Ok(set.keys)
}

fn checked(key: &TrustedKey) -> Result<Trusted, String> {
    let TrustedKey { key, iss, roles } = key;
    let kid = key.kid.clone();
    let decoding = key.decoding_key().map_err(|error: JwkError| error.to_string())?;
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-');
    if !(1..=ISSUER_BYTES_MAX).contains(&iss.len()) || !iss.bytes().all(plain) {
        return Err(format!("key {kid:?}: iss must be 1 to {ISSUER_BYTES_MAX} bytes of a-z 0-9 . -"));
    }
    let roles: Result<Vec<Role>, _> = roles.iter().map(|role| role.parse()).collect();
    let roles = roles.map_err(|error| format!("key {kid:?}: {error}"))?;
    if roles.is_empty() || roles.contains(&Role::User) {
        return Err(format!("key {kid:?}: roles must name service, admin or both; users log in"));
    }
    Ok(Trusted { kid, decoding, issuer: iss.clone(), roles })
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = path.metadata().ok()?;
    Some(Stamp { inode: metadata.ino(), bytes: metadata.size(), modified: (metadata.mtime(), metadata.mtime_nsec()) })
}

fn malformed(path: &Path, fault: String) -> TrustedError {
    TrustedError::Malformed { path: path.to_owned(), fault }
}
