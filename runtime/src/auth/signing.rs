//! The key that a program signs with, in a file that nobody else can read.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use jsonwebtoken::EncodingKey;
use pem_rfc7468::LineEnding;
use rustix::fs::OFlags;
use zeroize::Zeroizing;

use super::draft;
use super::jwk::Jwk;

/// The label of a PKCS#8 key in PEM.
const LABEL: &str = "PRIVATE KEY";
/// Longest key file, in bytes; one of ours has 119.
const FILE_BYTES_MAX: u64 = 4 << 10;
/// Permissions that a key file must not give: any to the group or to others.
const NOT_THE_OWNERS: u32 = 0o077;

/// An Ed25519 key that signs tokens. It has no `Debug`; its bytes are wiped when it is dropped.
pub struct SigningKey {
    encoding: EncodingKey,
    public: Jwk,
}

/// Why there is no key; one line for the operator, who has to act.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file could not be read or written.
    #[error("cannot {what} the key file {path}: {source}")]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A key is there already, and is not overwritten.
    #[error("{0} exists already; a key is never overwritten")]
    Exists(PathBuf),
    /// A symbolic link, which can be turned elsewhere.
    #[error("the key file {0} is a symbolic link; name the file itself")]
    Link(PathBuf),
    /// A folder, a device, a pipe.
    #[error("the key file {0} is not a regular file")]
    NotAFile(PathBuf),
    /// Others may read it.
    #[error(
        "others may use the key file {path} (mode {mode:04o}); `chmod 600 {path}` if nobody has, else make a new key"
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Something else than an Ed25519 key.
    #[error("{0} holds no Ed25519 private key in PKCS#8 PEM")]
    NotAKey(PathBuf),
    /// The operating system or the library gave no key.
    #[error("no key could be drawn")]
    Draw,
}

impl SigningKey {
    /// A new key, in memory alone.
    pub fn generate() -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::generate().map_err(|_| KeyError::Draw)?;
        let pkcs8 = pair.to_pkcs8v1().map_err(|_| KeyError::Draw)?;
        Self::of(pkcs8.as_ref()).ok_or(KeyError::Draw)
    }

    /// A new key in a file that did not exist, readable by its owner only. Missing folders are made, for the owner only. The
    /// file appears whole: of two processes that make it at once, one fails with [`KeyError::Exists`].
    pub fn create(path: &Path) -> Result<Self, KeyError> {
        let key = Self::generate()?;
        let pem = pem_rfc7468::encode_string(LABEL, LineEnding::LF, key.encoding.as_bytes());
        let pem = Zeroizing::new(pem.map_err(|_| KeyError::Draw)?);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(draft::folder(path));
        // A link fails where there is a file.
        let made = made.and_then(|()| draft::write(path, 0o600, pem.as_bytes(), std::fs::hard_link));
        made.map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => KeyError::Exists(path.to_owned()),
            _ => KeyError::File { what: "create", path: path.to_owned(), source },
        })?;
        Ok(key)
    }

    /// The key of a file that its owner alone may read.
    pub fn open(path: &Path) -> Result<Self, KeyError> {
        let failed = |source: io::Error| match source.raw_os_error() {
            Some(code) if code == rustix::io::Errno::LOOP.raw_os_error() => KeyError::Link(path.to_owned()),
            _ => KeyError::File { what: "read", path: path.to_owned(), source },
        };
        // Not to wait for a pipe's writer, and not to follow who put a link there.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
        let file = OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path).map_err(failed)?;
        // Asked of the open file: what the path names may have changed since.
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(KeyError::NotAFile(path.to_owned()));
        }
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & NOT_THE_OWNERS != 0 {
            return Err(KeyError::Open { path: path.to_owned(), mode });
        }
        let mut pem = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX as usize + 1));
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut pem).map_err(failed)?;
        let not_a_key = || KeyError::NotAKey(path.to_owned());
        let (label, pkcs8) = pem_rfc7468::decode_vec(&pem).map_err(|_| not_a_key())?;
        let pkcs8 = Zeroizing::new(pkcs8);
        Some(pkcs8).filter(|_| label == LABEL).and_then(|pkcs8| Self::of(&pkcs8)).ok_or_else(not_a_key)
    }

    /// The key of this file, made now if there is none.
    pub fn open_or_create(path: &Path) -> Result<Self, KeyError> {
        match Self::open(path) {
            Err(KeyError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            outcome => return outcome,
        }
        match Self::create(path) {
            Err(KeyError::Exists(_)) => Self::open(path), // somebody was faster
            outcome => outcome,
        }
    }

    /// The half that others may know.
    #[must_use]
    pub fn public_jwk(&self) -> &Jwk {
        &self.public
    }

    /// Its name: the thumbprint of the public half (RFC 7638).
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.public.kid
    }

    pub(super) fn encoding(&self) -> &EncodingKey {
        &self.encoding
    }

    /// The key of a PKCS#8 document, of version 1 or 2.
    fn of(pkcs8: &[u8]) -> Option<Self> {
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8).ok()?;
        let public = Jwk::of(pair.public_key().as_ref());
        Some(Self { encoding: EncodingKey::from_ed_der(pkcs8), public })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::{KeyError, SigningKey};

    #[test]
    fn a_key_file_is_its_owners_and_holds_the_key() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("new/instance.key");
        let made = SigningKey::create(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(path.parent().unwrap().read_dir().unwrap().count(), 1, "no draft is left");
        assert_eq!(SigningKey::open(&path).unwrap().public_jwk(), made.public_jwk());
        assert_eq!(SigningKey::open_or_create(&path).unwrap().kid(), made.kid());
        assert!(matches!(SigningKey::create(&path), Err(KeyError::Exists(_))), "never overwritten");
        assert_ne!(SigningKey::open_or_create(&folder.path().join("other")).unwrap().kid(), made.kid());
    }

    #[test]
    fn of_processes_that_make_one_key_file_one_does() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("instance.key");
        let kids = std::thread::scope(|scope| {
            let makers: Vec<_> =
                std::iter::repeat_with(|| scope.spawn(|| SigningKey::open_or_create(&path))).take(8).collect();
            makers.into_iter().map(|maker| maker.join().unwrap().unwrap().kid().to_owned()).collect::<Vec<_>>()
        });
        assert!(kids.iter().all(|kid| *kid == kids[0]), "{kids:?}");
    }

    #[test]
    fn a_key_that_others_may_use_is_refused() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("instance.key");
        SigningKey::create(&path).unwrap();
        for mode in [0o644, 0o640, 0o604, 0o620, 0o601] {
            set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert!(matches!(SigningKey::open(&path), Err(KeyError::Open { mode: of, .. }) if of == mode), "{mode:o}");
        }
        set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        SigningKey::open(&path).unwrap();
        let link = folder.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(matches!(SigningKey::open(&link), Err(KeyError::Link(_))));
        assert!(matches!(SigningKey::open_or_create(&link), Err(KeyError::Link(_))));
        assert!(matches!(SigningKey::open(folder.path()), Err(KeyError::NotAFile(_))));
    }

    #[test]
    fn what_is_no_key_is_refused_and_left_as_it_is() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("instance.key");
        let pem = |label: &str, body: &str| format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n");
        // A v1 document of Ed25519, and what differs from it in one thing.
        let body = "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g";
        for (text, is_key) in [
            (pem("PRIVATE KEY", body), true),
            (pem("EC PRIVATE KEY", body), false),
            (pem("PRIVATE KEY", &body[..40]), false),
            (pem("PRIVATE KEY", ""), false),
            (String::new(), false),
            ("x".repeat(100_000), false),
        ] {
            std::fs::write(&path, &text).unwrap();
            set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            let opened = SigningKey::open_or_create(&path);
            assert_eq!(opened.is_ok(), is_key, "{text}");
            assert!(is_key || matches!(opened, Err(KeyError::NotAKey(_))));
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        assert!(matches!(SigningKey::open(&folder.path().join("none")), Err(KeyError::File { .. })));
    }
}
