//! Where the database is: the value of `--database`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A database as named on the command line: `sqlite:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseUrl {
    path: PathBuf,
}

/// Why a `--database` value is not one.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DatabaseUrlError {
    /// A PostgreSQL address: planned, not there.
    #[error("PostgreSQL is not supported by this version; use sqlite:PATH")]
    Postgres,
    /// No scheme that we know.
    #[error("expected sqlite:PATH")]
    Scheme,
    /// `sqlite:` without a file: each instance would see a truth of its own.
    #[error("sqlite: needs the path of a file; an in-memory database cannot be shared by instances")]
    NoFile,
    /// `?name=value` behind the path.
    #[error("options behind the path are not supported")]
    Options,
}

impl DatabaseUrl {
    /// The database file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file whose lock guards opening, beside the database.
    pub(super) fn lock_path(&self) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(".lock");
        path.into()
    }
}

impl FromStr for DatabaseUrl {
    type Err = DatabaseUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with("postgres:") || text.starts_with("postgresql:") {
            return Err(DatabaseUrlError::Postgres);
        }
        let path = text.strip_prefix("sqlite:").ok_or(DatabaseUrlError::Scheme)?;
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.is_empty() || path == ":memory:" {
            return Err(DatabaseUrlError::NoFile);
        }
        if path.contains('?') {
            return Err(DatabaseUrlError::Options);
        }
        // Absolute, since SQLite would read a name that begins with "file:" as a URI with options of its own.
        let path = std::path::absolute(path).map_err(|_| DatabaseUrlError::NoFile)?;
        Ok(Self { path })
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sqlite:{}", self.path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::{DatabaseUrl, DatabaseUrlError};

    #[test]
    fn a_path_may_be_relative_absolute_or_behind_slashes() {
        let here = std::env::current_dir().unwrap();
        let parse = |text: &str| text.parse::<DatabaseUrl>().unwrap().path().to_owned();
        assert_eq!(parse("sqlite:mesh-data/user.db"), here.join("mesh-data/user.db"));
        assert_eq!(parse("sqlite://user.db"), here.join("user.db"));
        assert_eq!(parse("sqlite:///var/lib/user.db"), std::path::Path::new("/var/lib/user.db"));
        assert_eq!(parse("sqlite:file:user.db"), here.join("file:user.db"));
    }

    #[test]
    fn what_cannot_be_opened_says_why() {
        let fault = |text: &str| text.parse::<DatabaseUrl>().unwrap_err();
        assert_eq!(fault("postgres://db/users"), DatabaseUrlError::Postgres);
        assert_eq!(fault("postgresql://db/users"), DatabaseUrlError::Postgres);
        assert_eq!(fault("user.db"), DatabaseUrlError::Scheme);
        assert_eq!(fault("sqlite:"), DatabaseUrlError::NoFile);
        assert_eq!(fault("sqlite::memory:"), DatabaseUrlError::NoFile);
        assert_eq!(fault("sqlite:user.db?mode=ro"), DatabaseUrlError::Options);
    }
}
