//! Who calls.

use std::sync::Arc;

use mesh_api::access::Role;
use tonic::{Code, Request, Status};
use uuid::Uuid;

use super::claims::USER_ISSUER;
use crate::status::refusal;

/// Whoever makes a call, as its token says. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    subject: Arc<str>,
    role: Role,
    issuer: Arc<str>,
    user_id: Option<Uuid>,
}

impl Caller {
    /// A program or an operator.
    pub(super) fn named(role: Role, subject: &str, issuer: &str) -> Self {
        Self { subject: subject.into(), role, issuer: issuer.into(), user_id: None }
    }

    /// A person with an account.
    #[must_use]
    pub fn user(user_id: Uuid) -> Self {
        let subject = user_id.to_string().into();
        Self { subject, role: Role::User, issuer: USER_ISSUER.into(), user_id: Some(user_id) }
    }

    /// Who every caller is where nobody is asked (`--auth off`): one who may do everything.
    #[must_use]
    pub fn operator() -> Self {
        Self::named(Role::Admin, "operator", "")
    }

    /// Who made this request. Fails where no [`AccessLayer`](super::AccessLayer) stands in front of the method, or where the
    /// method is public: nobody was asked then.
    pub fn of<T>(request: &Request<T>) -> Result<&Self, Status> {
        let missing = || refusal(Code::Unauthenticated, "TOKEN_MISSING", "this call needs an access token");
        request.extensions().get().ok_or_else(missing)
    }

    /// Whose things alone this caller may see and change: a user's own. `None`: everybody's.
    #[must_use]
    pub fn owner(&self) -> Option<Uuid> {
        self.user_id
    }

    /// Whether this caller may know of things of this user.
    #[must_use]
    pub fn may_see(&self, user_id: Uuid) -> bool {
        self.owner().is_none_or(|owner| owner == user_id)
    }

    /// In what capacity.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// The UUID of a user in lower-case text form, the name of a program or of an operator.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Who vouches for that; empty where nobody was asked.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }
}
