//! Who may call what: every method of the shop's services, in one table.
//!
//! [`Rpc`] is generated from the descriptors, and [`Rpc::access`] is one `match` over it without a wildcard: a method that is
//! new in a proto file does not compile until somebody has decided who may call it.

use std::fmt;
use std::str::FromStr;

use Role::{Admin, Service, User};

include!(concat!(env!("OUT_DIR"), "/rpc.rs"));

/// In what capacity somebody calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// A person with an account. Whatever a user may call is about their own account and orders; another's do not exist.
    User,
    /// Who runs the shop: everybody's accounts and orders.
    Admin,
    /// Another program of the mesh.
    Service,
}

/// Who may call a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody, with a token or without; a token is not looked at.
    Public,
    /// Whoever has a token of one of these roles.
    Allowed(&'static [Role]),
}

impl Rpc {
    /// Who may call it.
    #[must_use]
    pub const fn access(self) -> Access {
        match self {
            // Who has no account yet has no token; who logs in or refreshes wants one; whoever verifies needs the keys.
            Self::CreateUser | Self::Login | Self::Refresh | Self::GetJwks => Access::Public,
            Self::Logout | Self::ChangePassword => Access::Allowed(&[User, Admin]),
            Self::GetUser => Access::Allowed(&[User, Admin, Service]),
            Self::UpdateUser | Self::DeleteUser => Access::Allowed(&[User, Admin]),
            Self::ListUsers => Access::Allowed(&[Admin]),
            Self::CreateOrder
            | Self::GetOrder
            | Self::UpdateOrder
            | Self::CancelOrder
            | Self::DeleteOrder
            | Self::ListOrders => Access::Allowed(&[User, Admin]),
        }
    }
}

impl Access {
    /// Who may call the method of this path; `None` if the shop has none such.
    #[must_use]
    pub fn of(path: &str) -> Option<Self> {
        Rpc::from_path(path).map(Rpc::access)
    }

    /// Whether somebody of this role may call.
    #[must_use]
    pub fn admits(self, role: Role) -> bool {
        match self {
            Self::Public => true,
            Self::Allowed(roles) => roles.contains(&role),
        }
    }
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 3] = [User, Admin, Service];

    /// As it stands in tokens, key files and messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            User => "user",
            Admin => "admin",
            Service => "service",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Not a role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no role; user, admin and service are")]
pub struct UnknownRole(String);

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|role| role.name() == text).ok_or_else(|| UnknownRole(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use prost_reflect::DescriptorPool;

    use super::{Access, Role, Rpc};

    #[test]
    fn every_method_of_the_shop_is_in_the_table_under_its_path() {
        let pool = DescriptorPool::decode(crate::FILE_DESCRIPTOR_SET).unwrap();
        let services = pool.services().filter(|service| service.full_name().starts_with("shop."));
        let paths: Vec<_> = services
            .flat_map(|service| service.methods().collect::<Vec<_>>())
            .map(|method| format!("/{}/{}", method.parent_service().full_name(), method.name()))
            .collect();
        assert_eq!(Rpc::ALL.iter().map(|rpc| rpc.path()).collect::<Vec<_>>(), paths);
        assert!(Rpc::ALL.iter().all(|rpc| Rpc::from_path(rpc.path()) == Some(*rpc)));
        assert_eq!(Access::of("/shop.user.v1.UserService/Unknown"), None);
    }

    #[test]
    fn nobody_but_an_admin_sees_all_accounts() {
        assert_eq!(Role::ALL.map(|role| Rpc::ListUsers.access().admits(role)), [false, true, false]);
    }

    #[test]
    fn roles_are_read_as_they_are_written() {
        assert!(Role::ALL.iter().all(|role| role.name().parse() == Ok(*role)));
        assert!("root".parse::<Role>().is_err() && "Admin".parse::<Role>().is_err());
    }
}
