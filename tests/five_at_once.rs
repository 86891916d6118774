//! Five instances start at once on an empty data folder, and see one truth.

mod harness;

use harness::{folder, nobody_there_yet, plan};
use mesh_api::shop::user::v1::user_service_client::UserServiceClient;
use mesh_api::shop::user::v1::{CreateUserRequest, GetUserRequest};
use meshctl::{Listen, LocalMesh, Program};
use tonic::transport::Endpoint;

const ROUNDS: usize = 20;

/// The first start creates the file, switches it to WAL and migrates it; without a lock around that, about half of all
/// such starts fail. No registry runs: nobody needs one to get ready.
#[tokio::test(flavor = "multi_thread")]
async fn five_instances_at_once_on_an_empty_folder_twenty_times() {
    for round in 1..=ROUNDS {
        let folder = folder();
        let mut plan = plan(folder.path());
        plan.registry = nobody_there_yet();
        let mut mesh = LocalMesh::without_registry(plan).expect("its log folder can be made");
        let operator = mesh.operator();
        let five = mesh.join_all(&[(Program::UserSvc, Listen::Free); 5]).await;
        let five = five.unwrap_or_else(|error| panic!("round {round}: {error}"));

        let mut user_id = None;
        for member in &five {
            let at = Endpoint::from_shared(format!("http://{}", member.process.grpc())).expect("it is a URL");
            let channel = at.connect().await.expect("it accepts connections");
            let mut stubs = UserServiceClient::with_interceptor(channel, operator.clone());
            match &user_id {
                None => {
                    let created = stubs.create_user(CreateUserRequest {
                        request_id: format!("five-at-once-{round:04}"),
                        email: "ada@shop.test".to_owned(),
                        display_name: "Ada".to_owned(),
                        password: "correct horse".to_owned(),
                    });
                    user_id = created.await.expect("she is created").into_inner().user.map(|user| user.user_id);
                }
                Some(user_id) => {
                    let asked = stubs.get_user(GetUserRequest { user_id: user_id.clone() }).await;
                    let answer = asked.unwrap_or_else(|status| panic!("round {round}: {status}"));
                    assert_eq!(answer.into_inner().user.map(|user| user.email).as_deref(), Some("ada@shop.test"));
                }
            }
        }
    }
}
