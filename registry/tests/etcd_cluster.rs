//! Nodes on one etcd, against real etcd processes: who is there, who is sure of itself, and how soon that is known.

#[path = "support/etcd.rs"]
mod etcd;

use std::sync::Arc;
use std::time::Duration;

use mesh_api::etcd::etcdserverpb::kv_client::KvClient;
use mesh_api::etcd::etcdserverpb::lease_client::LeaseClient;
use mesh_api::etcd::etcdserverpb::{
    DeleteRangeRequest, LeaseRevokeRequest, RangeRequest, RequestOp, TxnRequest, request_op,
};
use mesh_client::{Mesh, MeshChannel};
use mesh_runtime::clock::now;
use registry::catalog::NodeId;
use registry::cluster::{Authority, Cluster, EtcdCluster, Member, Membership};
use registry::storage::{EtcdAddress, EtcdStore};
use tokio::sync::watch;
use tokio::time::timeout;
use uuid::Uuid;

use etcd::Etcd;

/// One after the other: lease times are judged.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

async fn open(etcd: &Etcd) -> EtcdStore {
    EtcdStore::open(&EtcdAddress::parse(&etcd.urls()).expect("URLs")).await.expect("etcd is there")
}

fn member(number: u16) -> Member {
    let node = NodeId::new(Uuid::from_u128(number.into()));
    Member { node, address: ([127, 0, 0, 1], 7_000 + number).into() }
}

async fn join(etcd: &Etcd, number: u16) -> EtcdCluster {
    EtcdCluster::join(&open(etcd).await, member(number)).await.expect("it joins")
}

/// Waits for a membership, and says how long that took.
async fn wait(of: &EtcdCluster, what: impl FnMut(&Arc<Membership>) -> bool) -> Duration {
    let begin = now();
    let mut membership: watch::Receiver<_> = of.membership();
    let waited = timeout(Duration::from_secs(20), membership.wait_for(what)).await;
    drop(waited.expect("in time").expect("it goes on"));
    now() - begin
}

fn sees(numbers: &[u16]) -> impl FnMut(&Arc<Membership>) -> bool {
    let expected: Vec<Member> = numbers.iter().map(|number| member(*number)).collect();
    move |now| now.members.values().copied().collect::<Vec<_>>() == expected
}

fn is(authority: Authority) -> impl FnMut(&Arc<Membership>) -> bool {
    move |now| now.authority == authority
}

/// etcd as an operator sees it.
fn operator(etcd: &Etcd) -> (KvClient<MeshChannel>, LeaseClient<MeshChannel>) {
    let hosts: Vec<String> = etcd.urls().split(',').map(|url| url.trim_start_matches("http://").to_owned()).collect();
    let mesh = Mesh::builder().host_service("etcd", hosts).build().expect("a mesh");
    (KvClient::new(mesh.channel("etcd")), LeaseClient::new(mesh.channel("etcd")))
}

fn presence(number: u16) -> bytes::Bytes {
    format!("/meshwork/v1/n/{}", member(number).node).into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_see_who_joins_leaves_and_dies() {
    let _turn = TURN.lock().await;
    let Some(etcd) = Etcd::start("etcd_cluster members", 1) else { return };
    let (one, two, three) = (join(&etcd, 1).await, join(&etcd, 2).await, join(&etcd, 3).await);
    for node in [&one, &two, &three] {
        wait(node, sees(&[1, 2, 3])).await;
    }
    two.leave().await;
    assert_eq!(two.membership().borrow().authority, Authority::Unsure, "it is no node any more");
    assert!(wait(&one, sees(&[1, 3])).await < Duration::from_secs(1), "a goodbye is heard at once");
    two.leave().await;

    // One that says nothing any more.
    drop(three);
    let took = wait(&one, sees(&[1])).await;
    println!("a node that died is gone after {took:.1?}");
    assert!((Duration::from_secs(7)..Duration::from_secs(14)).contains(&took), "{took:?}");
    one.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_lease_is_replaced_under_the_same_id() {
    let _turn = TURN.lock().await;
    let Some(etcd) = Etcd::start("etcd_cluster lost lease", 1) else { return };
    let (one, two) = (join(&etcd, 1).await, join(&etcd, 2).await);
    wait(&two, sees(&[1, 2])).await;
    let (mut kv, mut leases) = operator(&etcd);
    let range = RangeRequest { key: presence(1), ..RangeRequest::default() };
    let found = kv.range(range).await.expect("it can be read").into_inner();
    let lost = found.kvs[0].lease;
    assert_eq!(found.kvs[0].value, format!("{} 127.0.0.1:7001", member(1).node));

    let mut seen = two.membership();
    leases.lease_revoke(LeaseRevokeRequest { id: lost }).await.expect("it is revoked");
    let gone = seen.wait_for(|now| !now.members.contains_key(&member(1).node));
    drop(timeout(Duration::from_secs(5), gone).await.expect("in time").expect("it goes on"));
    let back = wait(&two, sees(&[1, 2])).await;
    println!("a node whose lease was revoked is back after {back:.1?}");
    assert!(back < Duration::from_secs(5), "{back:?}");
    wait(&one, is(Authority::Sure)).await;
    let range = RangeRequest { key: presence(1), ..RangeRequest::default() };
    let found = kv.range(range).await.expect("it can be read").into_inner();
    assert_ne!(found.kvs[0].lease, lost, "another lease");

    // Its key alone can be lost too.
    delete_presence(&mut kv, &two).await;
    assert!(wait(&two, sees(&[1, 2])).await < Duration::from_secs(5));
    one.leave().await;
    two.leave().await;
}

/// Deletes the first node's key, and waits until another node knows.
async fn delete_presence(kv: &mut KvClient<MeshChannel>, seen_by: &EtcdCluster) {
    let delete = DeleteRangeRequest { key: presence(1), ..DeleteRangeRequest::default() };
    let delete = RequestOp { request: Some(request_op::Request::RequestDeleteRange(delete)) };
    let mut seen = seen_by.membership();
    kv.txn(TxnRequest { success: vec![delete], ..TxnRequest::default() }).await.expect("it is deleted");
    let gone = seen.wait_for(|now| !now.members.contains_key(&member(1).node));
    drop(timeout(Duration::from_secs(5), gone).await.expect("in time").expect("it goes on"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_etcd_refuses_is_put_as_soon_as_it_does_not_and_the_lease_is_kept() {
    let _turn = TURN.lock().await;
    let Some(etcd) = Etcd::start("etcd_cluster refused key", 1) else { return };
    let (one, two) = (join(&etcd, 1).await, join(&etcd, 2).await);
    wait(&two, sees(&[1, 2])).await;
    let (mut kv, _) = operator(&etcd);
    let range = RangeRequest { key: presence(1), ..RangeRequest::default() };
    let before = kv.range(range.clone()).await.expect("it can be read").into_inner();

    etcd.is_full(true);
    delete_presence(&mut kv, &two).await;
    // Longer than a lease.
    let mut here = one.membership();
    let doubt = here.wait_for(|now| now.authority == Authority::Unsure);
    assert!(timeout(Duration::from_secs(12), doubt).await.is_err(), "it is renewed meanwhile");
    assert!(sees(&[2])(&two.membership().borrow().clone()), "the key is refused");
    etcd.is_full(false);
    let back = wait(&two, sees(&[1, 2])).await;
    println!("a node whose key was refused is back after {back:.1?}");
    assert!(back < Duration::from_secs(3), "{back:?}");
    let after = kv.range(range).await.expect("it can be read").into_inner();
    assert_eq!(after.kvs[0].lease, before.kvs[0].lease);
    one.leave().await;
    two.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_hears_nothing_of_etcd_doubts_itself_before_its_lease_can_end() {
    let _turn = TURN.lock().await;
    let Some(etcd) = Etcd::start("etcd_cluster doubt", 1) else { return };
    let (one, two) = (join(&etcd, 1).await, join(&etcd, 2).await);
    wait(&one, sees(&[1, 2])).await;
    etcd.freeze(0);
    let doubt = wait(&one, is(Authority::Unsure)).await;
    println!("etcd frozen: unsure after {doubt:.1?}");
    // The last renewal was confirmed at most two seconds before.
    assert!((Duration::from_millis(4_500)..Duration::from_millis(6_900)).contains(&doubt), "{doubt:?}");
    assert_eq!(one.membership().borrow().members.len(), 2, "who is there is as it was");
    etcd.thaw(0);
    let sure = wait(&one, is(Authority::Sure)).await;
    println!("etcd back: sure after {sure:.1?}");
    assert!(sure < Duration::from_secs(6), "{sure:?}");
    wait(&one, sees(&[1, 2])).await;
    one.leave().await;
    two.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_makes_nobody_doubt() {
    let _turn = TURN.lock().await;
    let Some(mut etcd) = Etcd::start("etcd_cluster leader kill", 3) else { return };
    let (one, two) = (join(&etcd, 1).await, join(&etcd, 2).await);
    wait(&one, sees(&[1, 2])).await;
    let (mut here, mut there) = (one.membership(), two.membership());
    let leader = etcd.wait_for_leader();
    etcd.kill(leader);
    let doubt = async {
        tokio::select! {
            doubted = here.wait_for(|now| now.authority == Authority::Unsure || now.members.len() < 2) => drop(doubted),
            doubted = there.wait_for(|now| now.authority == Authority::Unsure || now.members.len() < 2) => drop(doubted),
        }
    };
    assert!(timeout(Duration::from_secs(15), doubt).await.is_err(), "longer than a lease");
    one.leave().await;
    two.leave().await;
}
