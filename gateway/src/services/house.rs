//! What is the house's own: the shop's methods and their paths, whoever registers. PURE.
//!
//! People send passwords to them. Were they free while nobody serves them, or for whoever comes first by name, any service that
//! registers could wait there for them.

use std::sync::Arc;

use mesh_api::shop::{order, user};
use prost_reflect::DescriptorPool;

use crate::transcode::{RouteTable, ServiceRoutes};

/// The shop's gRPC services, and the name under which each is registered.
const HOUSE: [(&str, &str); 2] = [
    (user::v1::user_service_server::SERVICE_NAME, "user-svc"),
    (order::v1::order_service_server::SERVICE_NAME, "order-svc"),
];

/// The table of what is reserved.
pub(super) fn reserved() -> RouteTable {
    let pool = DescriptorPool::decode(mesh_api::FILE_DESCRIPTOR_SET).expect("the build script compiled it");
    let claims = HOUSE.map(|(grpc, registered)| {
        let routes = ServiceRoutes::compile(registered, pool.clone(), &[grpc.to_owned()]);
        Arc::new(routes.expect("the descriptors have it, and a test reads its rules"))
    });
    RouteTable::build(claims).0
}

#[cfg(test)]
mod tests {
    use mesh_api::access::Rpc;

    use super::*;

    #[test]
    fn every_method_of_the_access_table_is_reserved() {
        let reserved = reserved();
        for rpc in Rpc::ALL {
            assert!(reserved.rpc(rpc.path()).is_some(), "{} is free for anybody", rpc.path());
        }
    }

    #[test]
    fn no_stranger_gets_the_login_nor_one_user_of_the_shops() {
        let pool = DescriptorPool::decode(mesh_api::FILE_DESCRIPTOR_SET).unwrap();
        let names = HOUSE.map(|(grpc, _)| grpc.to_owned());
        let claim = |name: &str| Arc::new(ServiceRoutes::compile(name, pool.clone(), &names[..1]).unwrap());
        let (table, refused) = RouteTable::build_beside(&reserved(), [claim("aaa")]);
        assert!(table.routes().is_empty() && table.rpc("/shop.user.v1.UserService/Login").is_none());
        assert!(refused.iter().all(|conflict| conflict.holder == "user-svc" && conflict.refused == "aaa"));
        let (table, refused) = RouteTable::build_beside(&reserved(), [claim("user-svc")]);
        assert!(refused.is_empty() && !table.routes().is_empty());
    }
}
