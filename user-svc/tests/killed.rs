//! Two processes on one database, one of which is killed at any moment: nothing that was answered is lost, nothing is done
//! twice, and the other goes on.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use mesh_api::shop::user::v1::user_service_client::UserServiceClient;
use mesh_api::shop::user::v1::{CreateUserRequest, ListUsersRequest, User};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tonic::Code;
use tonic::transport::Channel;

/// Callers at a time.
const CALLERS: usize = 8;

/// Kills.
const ROUNDS: usize = 3;

/// A user-svc of its own process; killed when dropped.
struct Instance {
    process: Child,
    client: UserServiceClient<Channel>,
}

impl Instance {
    async fn start(folder: &Path) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_user-svc"))
            .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--auth", "off"])
            // Nobody listens on the discard port: the registry is down.
            .args(["--registry", "127.0.0.1:9", "--database", &format!("sqlite:{}/user.db", folder.display())])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        let address = ready.split_once("grpc=").unwrap().1.split(' ').next().unwrap();
        let client = UserServiceClient::connect(format!("http://{address}")).await.unwrap();
        Self { process, client }
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn request(number: usize) -> CreateUserRequest {
    CreateUserRequest {
        request_id: format!("request-{number:016}"),
        email: format!("user{number}@example.com"),
        display_name: format!("User {number}"),
        password: "correct horse".into(),
    }
}

/// What became of one caller's requests.
#[derive(Default)]
struct Outcome {
    /// The answers, by request.
    answered: BTreeMap<usize, User>,
    /// The request whose answer the kill took: done or not, nobody knows.
    in_doubt: Vec<usize>,
}

/// One of some callers at an instance that will be gone; each answer is also told as it comes.
async fn create_until_killed(
    mut client: UserServiceClient<Channel>,
    numbers: impl Iterator<Item = usize>,
    tell: mpsc::UnboundedSender<()>,
) -> Outcome {
    let mut outcome = Outcome::default();
    for number in numbers {
        match client.create_user(request(number)).await {
            Ok(response) => {
                outcome.answered.insert(number, response.into_inner().user.unwrap());
                let _ = tell.send(());
            }
            // More callers than places for passwords: refused, which is an answer.
            Err(status) if status.code() == Code::ResourceExhausted => {}
            Err(_) => {
                outcome.in_doubt.push(number);
                break;
            }
        }
    }
    outcome
}

async fn create(instance: &mut Instance, number: usize) -> User {
    instance.client.create_user(request(number)).await.unwrap().into_inner().user.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_instance_loses_no_answer_doubles_no_account_and_blocks_nobody() {
    let folder = TempDir::new().unwrap();
    let mut survivor = Instance::start(folder.path()).await;
    let (mut answered, mut in_doubt) = (BTreeMap::new(), Vec::new());
    for round in 0..ROUNDS {
        let mut victim = Instance::start(folder.path()).await;
        let (tell, mut told) = mpsc::unbounded_channel();
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let numbers = (round * 1_000_000 + caller..).step_by(CALLERS);
                tokio::spawn(create_until_killed(victim.client.clone(), numbers, tell.clone()))
            })
            .collect();
        // The other callers are in the middle of something.
        for _ in 0..10 + round {
            told.recv().await.unwrap();
        }
        victim.kill();
        for caller in callers {
            let outcome = caller.await.unwrap();
            answered.extend(outcome.answered);
            in_doubt.extend(outcome.in_doubt);
        }
        // The survivor still writes.
        let next = round * 1_000_000 + 999_999;
        answered.insert(next, create(&mut survivor, next).await);
    }
    for (number, user) in &answered {
        assert_eq!(create(&mut survivor, *number).await, *user);
    }
    assert_eq!(in_doubt.len(), ROUNDS * CALLERS, "each kill took an answer from every caller");
    for number in in_doubt {
        let user = create(&mut survivor, number).await;
        assert_eq!(create(&mut survivor, number).await, user, "whether it was done before the kill or only now");
        answered.insert(number, user);
    }
    let (mut ids, mut page_token) = (BTreeSet::new(), String::new());
    loop {
        let page =
            survivor.client.list_users(ListUsersRequest { page_size: 200, page_token }).await.unwrap().into_inner();
        for user in page.users {
            assert!(ids.insert(user.user_id), "a page repeats an account");
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let expected: BTreeSet<_> = answered.into_values().map(|user| user.user_id).collect();
    assert_eq!(ids, expected, "one account for each request that was answered at last, and no other");
}
