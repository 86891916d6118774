//! The limit on open files: each connection is one, and the usual soft limit of 1024 is far below what a server is
//! allowed to have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard one. Programs that still call `select` are why it is lower; this one does not.
pub(crate) fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Refused only where a sandbox says so; the accept loop lives with whatever there is.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        raise_limit();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
