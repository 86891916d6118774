//! Many instances that beat on few streams.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mesh_api::registry::v1 as pb;
use parking_lot::Mutex;
use pb::registry_service_client::RegistryServiceClient;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use crate::process::now;

pub(crate) type Client = RegistryServiceClient<Channel>;

/// Leases of one stream.
const LEASES_OF_STREAM: usize = 250;

/// Registrations under way on one connection.
const AT_ONCE: usize = 8;

/// Beats of one stream that wait to be taken.
const BEATS_WAITING_MAX: usize = 4;

/// A client whose connection comes from 127.0.0.`host`.
pub(crate) async fn client_from(registry: SocketAddr, host: u8) -> Client {
    let endpoint = Endpoint::from_shared(format!("http://{registry}")).expect("an address is a URL");
    let channel = endpoint.local_address(Some(Ipv4Addr::new(127, 0, 0, host).into())).connect().await;
    RegistryServiceClient::new(channel.expect("the registry listens"))
}

/// A registration of one of many.
pub(crate) fn one_of_many(service: &str, number: usize, ttl: Duration) -> pb::RegisterRequest {
    pb::RegisterRequest {
        service: service.to_owned(),
        // An id is of one service only.
        instance_id: uuid::Uuid::from_u128(
            service.bytes().fold(7, |sum, byte| sum * 31 + u128::from(byte)) << 32 | number as u128,
        )
        .to_string(),
        start_nonce: vec![1; 16].into(),
        endpoints: vec![pb::Endpoint {
            name: "grpc".to_owned(),
            protocol: pb::Protocol::Grpc.into(),
            ip: "127.0.0.1".to_owned(),
            port: 10_000 + (number % 50_000) as u32,
        }],
        ttl: ttl.try_into().ok(),
        ..pb::RegisterRequest::default()
    }
}

/// What a crowd was answered.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// Beats that renewed.
    pub(crate) renewed: AtomicU64,
    /// Beats that were answered otherwise.
    pub(crate) others: AtomicU64,
    /// From each message of beats to its answer.
    pub(crate) took: Mutex<Vec<Duration>>,
}

/// Instances that are registered and beat until they are dropped.
pub(crate) struct Crowd {
    pub(crate) answers: Arc<Answers>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Crowd {
    /// Registers so many instances of a service and lets them beat; they are spread over connections with one stream each.
    pub(crate) async fn enter(
        registry: SocketAddr,
        service: &'static str,
        count: usize,
        ttl: Duration,
        every: Duration,
    ) -> Self {
        let (answers, stop) = (Arc::<Answers>::default(), CancellationToken::new());
        let (mut tasks, mut entering) = (JoinSet::new(), JoinSet::new());
        for (stream, first) in (0..count).step_by(LEASES_OF_STREAM).enumerate() {
            let (answers, stop) = (answers.clone(), stop.clone());
            let numbers = first..count.min(first + LEASES_OF_STREAM);
            entering.spawn(async move {
                let client = client_from(registry, 2 + (stream % 8) as u8).await;
                let mut beating = None;
                for numbers in numbers.collect::<Vec<_>>().chunks(AT_ONCE) {
                    let entering = numbers.iter().map(|&number| {
                        let mut client = client.clone();
                        async move {
                            let granted = client.register(one_of_many(service, number, ttl)).await;
                            let granted = granted.expect("registered").into_inner();
                            pb::Beat {
                                lease_id: granted.lease_id,
                                incarnation: granted.incarnation,
                                ..pb::Beat::default()
                            }
                        }
                    });
                    let beats = futures_util::future::join_all(entering).await;
                    match &beating {
                        None => {
                            let stream = Beating::open(client.clone(), beats, answers.clone(), stop.clone(), every);
                            beating = Some(stream.await);
                        }
                        Some(Beating { beats: beating, .. }) => beating.lock().extend(beats),
                    }
                }
                beating
            });
        }
        while let Some(entered) = entering.join_next().await {
            if let Some(Beating { task, .. }) = entered.expect("everybody registers") {
                tasks.spawn(async move {
                    let _ = task.await;
                });
            }
        }
        Self { answers, stop, tasks }
    }

    /// Beats so far that did not renew.
    pub(crate) fn others(&self) -> u64 {
        self.answers.others.load(Ordering::Relaxed)
    }

    /// Ends all beats.
    pub(crate) async fn leave(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// One stream, and the leases that beat on it.
struct Beating {
    beats: Arc<Mutex<Vec<pb::Beat>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Beating {
    /// Opens the stream with a beat of these.
    async fn open(
        mut client: Client,
        beats: Vec<pb::Beat>,
        answers: Arc<Answers>,
        stop: CancellationToken,
        every: Duration,
    ) -> Self {
        let (requests, inbound) = mpsc::channel(BEATS_WAITING_MAX);
        requests.send(pb::KeepAliveRequest { beats: beats.clone() }).await.expect("there is room");
        let mut responses = client.keep_alive(ReceiverStream::new(inbound)).await.expect("open").into_inner();
        let beats = Arc::new(Mutex::new(beats));
        let beating = beats.clone();
        let task = tokio::spawn(async move {
            let mut tick = tokio::time::interval(every);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
            let mut sent = std::collections::VecDeque::from([now()]);
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    _ = tick.tick() => {
                        let beats = beating.lock().clone();
                        // A registry that does not read gets no more of them; the next tick tries again.
                        if !beats.is_empty() && requests.try_send(pb::KeepAliveRequest { beats }).is_ok() {
                            sent.push_back(now());
                        }
                    }
                    answer = responses.message() => {
                        let Ok(Some(answer)) = answer else { return };
                        if let Some(at) = sent.pop_front() {
                            answers.took.lock().push(now() - at);
                        }
                        let renewed = |result: &&pb::BeatResult| result.outcome() == pb::BeatOutcome::Renewed;
                        let renewals = answer.results.iter().filter(renewed).count();
                        answers.renewed.fetch_add(renewals as u64, Ordering::Relaxed);
                        answers.others.fetch_add((answer.results.len() - renewals) as u64, Ordering::Relaxed);
                    }
                }
            }
        });
        Self { beats, task }
    }
}
