//! The store in etcd, against real etcd processes: what every store holds to, and what happens when etcd is hurt.

#[path = "support/store_contract.rs"]
mod contract;
#[path = "support/etcd.rs"]
mod etcd;

use registry::catalog::StoreId;
use registry::storage::{EtcdAddress, EtcdStore, MemoryStore};

use etcd::Etcd;

fn address(etcd: &Etcd) -> EtcdAddress {
    EtcdAddress::parse(&etcd.urls()).expect("URLs")
}

async fn open(etcd: &Etcd) -> EtcdStore {
    EtcdStore::open(&address(etcd)).await.expect("etcd is there")
}

#[tokio::test]
async fn a_store_in_memory_holds_to_what_stores_hold_to() {
    contract::holds(&MemoryStore::new(StoreId::parse("memory").expect("an id"))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_in_etcd_holds_to_what_stores_hold_to() {
    let Some(etcd) = Etcd::start("etcd_store contract", 1) else { return };
    contract::holds(&open(&etcd).await).await;
}
