//! Which etcd this is, and whether it is one to run in production.

use std::fmt;

/// A version of etcd.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct EtcdVersion {
    major: u32,
    minor: u32,
    patch: u32,
}

/// The first that takes progress requests and comparisons as they are made here.
const OLDEST: EtcdVersion = EtcdVersion::new(3, 4, 0);

/// The first of each line without the holes of [`ADVISORIES`].
const SOUND: [EtcdVersion; 3] = [EtcdVersion::new(3, 5, 33), EtcdVersion::new(3, 6, 14), EtcdVersion::new(3, 7, 1)];

/// What is wrong with those below, as of this release.
const ADVISORIES: &str = "CVE-2026-73499, CVE-2026-33343 (a watch or a nested transaction reads keys that its user may not), \
    CVE-2026-33413 (maintenance calls without authentication) and CVE-2026-59818 (revoked certificates are taken)";

impl EtcdVersion {
    const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }

    /// Takes "3.4.23" and what has something after it, as in "3.6.0-rc.1".
    pub(super) fn parse(text: &str) -> Option<Self> {
        let bare = text.split(['-', '+']).next()?;
        let mut numbers = bare.split('.').map(str::parse);
        let version = Self::new(numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
        numbers.next().is_none().then_some(version)
    }

    /// Whether it can be worked with at all.
    pub(super) fn is_usable(self) -> bool {
        self >= OLDEST && self.major == OLDEST.major
    }

    /// What an operator should know of it.
    pub(super) fn warning(self) -> Option<String> {
        let same_line = |sound: &EtcdVersion| (sound.major, sound.minor) == (self.major, self.minor);
        let sound = match SOUND.iter().find(|sound| same_line(sound)) {
            Some(sound) => *sound,
            None if self > SOUND[2] => return None,
            None => SOUND[0],
        };
        (self < sound).then(|| format!("etcd {self} is affected by {ADVISORIES}: use {sound} or newer"))
    }
}

impl fmt::Display for EtcdVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> EtcdVersion {
        EtcdVersion::parse(text).unwrap()
    }

    #[test]
    fn versions_are_read_and_nothing_else() {
        assert_eq!(version("3.4.23"), EtcdVersion::new(3, 4, 23));
        assert_eq!(version("3.6.0-rc.1"), EtcdVersion::new(3, 6, 0));
        for bad in ["", "3", "3.4", "3.4.x", "3.4.5.6", "not decided"] {
            assert_eq!(EtcdVersion::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn too_old_is_unusable_and_unsound_is_warned_of() {
        assert!(!version("3.3.27").is_usable() && !version("2.3.8").is_usable() && !version("4.0.0").is_usable());
        assert!(version("3.4.0").is_usable() && version("3.8.1").is_usable());
        for unsound in ["3.4.23", "3.4.99", "3.5.32", "3.6.13", "3.7.0"] {
            assert!(version(unsound).warning().is_some(), "{unsound}");
        }
        for sound in ["3.5.33", "3.6.14", "3.7.1", "3.8.0"] {
            assert_eq!(version(sound).warning(), None, "{sound}");
        }
        let text = version("3.4.23").warning().unwrap();
        assert!(text.contains("CVE-2026-73499") && text.ends_with("use 3.5.33 or newer"), "{text}");
    }
}
