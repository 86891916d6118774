//! Users: the values an account is made of, valid by construction.

use mesh_runtime::database::{Etag, Fault, UnixMillis};
use uuid::Uuid;
use zeroize::Zeroizing;

/// Longest email address, in bytes (RFC 5321 §4.5.3.1.3, without the angle brackets).
const EMAIL_BYTES_MAX: usize = 254;
/// Longest part before the @, in bytes (RFC 5321 §4.5.3.1.1).
const LOCAL_PART_BYTES_MAX: usize = 64;
/// Longest label of a host name, in bytes (RFC 1035 §2.3.4).
const LABEL_BYTES_MAX: usize = 63;
/// Longest display name, in characters.
const DISPLAY_NAME_CHARS_MAX: usize = 100;
/// Shortest password, in bytes (NIST SP 800-63B §5.1.1.2).
const PASSWORD_BYTES_MIN: usize = 8;
/// Longest password, in bytes: a bound before any work is done on it.
const PASSWORD_BYTES_MAX: usize = 128;

/// An account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) id: Uuid,
    pub(crate) email: Email,
    pub(crate) display_name: DisplayName,
    pub(crate) created_at: UnixMillis,
    pub(crate) updated_at: UnixMillis,
    /// Counts changes, from 1.
    pub(crate) version: i64,
}

/// What a caller wants changed; what is `None` stays.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) email: Option<Email>,
    pub(crate) display_name: Option<DisplayName>,
}

impl User {
    pub(crate) fn etag(&self) -> Etag {
        Etag::of_version(self.version)
    }

    /// The account after a change.
    pub(crate) fn changed(self, change: Change, now: UnixMillis) -> Self {
        Self {
            email: change.email.unwrap_or(self.email),
            display_name: change.display_name.unwrap_or(self.display_name),
            // A calendar that was set back must not make a change older than the account.
            updated_at: now.max(self.created_at),
            version: self.version + 1,
            ..self
        }
    }
}

/// An email address in lower case: what makes two spellings of one mailbox one account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Email(String);

impl Email {
    /// ASCII only, unquoted, no comments: what mail providers give out.
    pub(crate) fn parse(text: &str) -> Result<Self, Fault> {
        if text.is_empty() {
            return Err("is required".into());
        }
        if text.len() > EMAIL_BYTES_MAX {
            return Err(Fault(format!("must have at most {EMAIL_BYTES_MAX} bytes")));
        }
        match text.rsplit_once('@') {
            Some((local, domain)) if is_local_part(local) && is_domain(domain) => Ok(Self(text.to_ascii_lowercase())),
            _ => Err("must be an email address".into()),
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// From where only valid addresses are written.
    pub(crate) fn stored(text: String) -> Self {
        Self(text)
    }
}

fn is_local_part(text: &str) -> bool {
    let is_atom = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte);
    text.len() <= LOCAL_PART_BYTES_MAX && text.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(is_atom))
}

fn is_domain(text: &str) -> bool {
    text.split('.').all(|label| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    })
}

/// A name for people to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DisplayName(String);

impl DisplayName {
    pub(crate) fn parse(text: &str) -> Result<Self, Fault> {
        let text = text.trim();
        if text.is_empty() {
            return Err("is required".into());
        }
        if text.chars().count() > DISPLAY_NAME_CHARS_MAX {
            return Err(Fault(format!("must have at most {DISPLAY_NAME_CHARS_MAX} characters")));
        }
        if text.chars().any(char::is_control) {
            return Err("must not hold control characters".into());
        }
        Ok(Self(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// From where only valid names are written.
    pub(crate) fn stored(text: String) -> Self {
        Self(text)
    }
}

/// A password on its way to being hashed: it has no text form, and is wiped when dropped.
#[derive(Clone)]
pub(crate) struct Password(Zeroizing<String>);

impl Password {
    pub(crate) fn parse(text: Zeroizing<String>) -> Result<Self, Fault> {
        match text.len() {
            0 => Err("is required".into()),
            PASSWORD_BYTES_MIN..=PASSWORD_BYTES_MAX => Ok(Self(text)),
            _ => Err(Fault(format!("must have {PASSWORD_BYTES_MIN} to {PASSWORD_BYTES_MAX} bytes"))),
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::{Change, DisplayName, Email, Password, UnixMillis, User, Uuid};

    #[test]
    fn an_email_address_is_checked_and_lowered() {
        assert_eq!(Email::parse("Ada.Lovelace+work@Example.COM").unwrap().as_str(), "ada.lovelace+work@example.com");
        let long = format!("{}@example.com", "a".repeat(65));
        let longer = format!("a@{}", "abcdefgh.".repeat(30));
        for refused in [
            "",
            "ada",
            "@example.com",
            "ada@",
            "a da@example.com",
            "ada@exa mple.com",
            "ada@-example.com",
            "ada@example..com",
            ".ada@example.com",
            "ada.@example.com",
            "a..da@example.com",
            "\"ada\"@example.com",
            "ada@example.com\n",
            "ada@b@example.com",
            "adä@example.com",
            &long,
            &longer,
        ] {
            assert!(Email::parse(refused).is_err(), "{refused:?}");
        }
    }

    #[test]
    fn a_display_name_is_trimmed_and_readable() {
        assert_eq!(DisplayName::parse("  Ada Lovelace ").unwrap().as_str(), "Ada Lovelace");
        assert!(DisplayName::parse(&"é".repeat(100)).is_ok());
        for refused in ["", "   ", "Ada\nLovelace", "Ada\0", &"é".repeat(101)] {
            assert!(DisplayName::parse(refused).is_err(), "{refused:?}");
        }
    }

    #[test]
    fn a_password_has_8_to_128_bytes() {
        let parse = |text: &str| Password::parse(Zeroizing::new(text.to_owned()));
        assert!(parse("12345678").is_ok() && parse(&"x".repeat(128)).is_ok());
        assert!(parse("").is_err() && parse("1234567").is_err() && parse(&"x".repeat(129)).is_err());
    }

    #[test]
    fn a_change_keeps_what_it_does_not_name_and_makes_a_new_etag() {
        let user = User {
            id: Uuid::from_u128(1),
            email: Email::stored("ada@example.com".into()),
            display_name: DisplayName::stored("Ada".into()),
            created_at: UnixMillis(1000),
            updated_at: UnixMillis(1000),
            version: 1,
        };
        let change = Change { email: None, display_name: Some(DisplayName::stored("Countess".into())) };
        let changed = user.clone().changed(change, UnixMillis(500));
        assert_eq!((changed.email.as_str(), changed.display_name.as_str()), ("ada@example.com", "Countess"));
        assert_ne!(changed.etag(), user.etag());
        assert_eq!(changed.updated_at, UnixMillis(1000), "the calendar was set back");
    }
}
