//! tonic-xds: gRPC's own way to do without sidecars, as tonic has it today. It balances by what a control plane tells it, so
//! the smallest one that it accepts runs beside it: one listener, one cluster, the endpoints, told once.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{Address, SocketAddress, address};
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints};
use envoy_types::pb::envoy::config::listener::v3::{ApiListener, Listener};
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::{Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use envoy_types::pb::google::protobuf::Any;
use futures_util::{Stream, TryStreamExt};
use prost::Message;
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};
use tonic_xds::{BootstrapConfig, XdsChannelBuilder, XdsChannelConfig, XdsChannelGrpc, XdsUri};

use crate::echo::{EchoClient, EchoRequest};

const NAME: &str = "echo";
/// How long it may take until a call is answered.
const READY_MAX: Duration = Duration::from_secs(10);
const TRY_EVERY: Duration = Duration::from_millis(20);
const CALL_MAX: Duration = Duration::from_secs(1);

/// Connects by way of a control plane that lives as long as the runtime.
pub(super) async fn connect(servers: &[SocketAddr]) -> Result<XdsChannelGrpc, String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(|error| error.to_string())?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let control_plane = AggregatedDiscoveryServiceServer::new(ControlPlane { resources: resources(servers).into() });
    let incoming = TcpIncoming::from(listener);
    tokio::spawn(Server::builder().add_service(control_plane).serve_with_incoming(incoming));

    let bootstrap = serde_json::json!({
        "xds_servers": [{ "server_uri": format!("http://{address}"), "channel_creds": [{ "type": "insecure" }] }],
        "node": { "id": "bench" },
    });
    let bootstrap = BootstrapConfig::from_json(&bootstrap.to_string()).map_err(|error| error.to_string())?;
    let target = XdsUri::parse(&format!("xds:///{NAME}")).map_err(|error| error.to_string())?;
    let channel = XdsChannelBuilder::new(XdsChannelConfig::new(target).with_bootstrap(bootstrap))
        .build_grpc_channel()
        .map_err(|error| error.to_string())?;
    answered(EchoClient::new(channel.clone())).await?;
    Ok(channel)
}

/// Waits until a call is answered: the channel does not say when it is ready.
async fn answered(mut client: EchoClient<XdsChannelGrpc>) -> Result<(), String> {
    let mut last = "no call ended".to_owned();
    let calls = async {
        loop {
            let mut request = Request::new(EchoRequest { payload: Vec::new() });
            request.set_timeout(CALL_MAX);
            match client.echo(request).await {
                Ok(_) => break,
                Err(status) => last = status.to_string(),
            }
            sleep(TRY_EVERY).await;
        }
    };
    timeout(READY_MAX, calls).await.map_err(|_| format!("no answer within {READY_MAX:?}: {last}"))
}

struct ControlPlane {
    resources: Arc<[Any]>,
}

type Answers<A> = Pin<Box<dyn Stream<Item = Result<A, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for ControlPlane {
    type StreamAggregatedResourcesStream = Answers<DiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        let resources = self.resources.clone();
        let answers = request.into_inner().try_filter_map(move |asked| {
            // With a version it is an acknowledgement, and nothing changes here.
            let is_subscription = asked.version_info.is_empty();
            let answer = is_subscription.then(|| DiscoveryResponse {
                version_info: "1".to_owned(),
                nonce: "1".to_owned(),
                resources: resources.iter().filter(|resource| resource.type_url == asked.type_url).cloned().collect(),
                type_url: asked.type_url,
                ..DiscoveryResponse::default()
            });
            std::future::ready(Ok(answer))
        });
        Ok(Response::new(Box::pin(answers)))
    }

    type DeltaAggregatedResourcesStream = Answers<DeltaDiscoveryResponse>;

    async fn delta_aggregated_resources(
        &self,
        _request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("only whole states are told"))
    }
}

/// What is told: a listener whose one route leads to the cluster, the cluster, its endpoints.
fn resources(servers: &[SocketAddr]) -> Vec<Any> {
    let route = Route {
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
            ..RouteMatch::default()
        }),
        action: Some(Action::Route(RouteAction {
            cluster_specifier: Some(ClusterSpecifier::Cluster(NAME.to_owned())),
            ..RouteAction::default()
        })),
        ..Route::default()
    };
    let host = VirtualHost {
        name: NAME.to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![route],
        ..VirtualHost::default()
    };
    let manager = HttpConnectionManager {
        route_specifier: Some(RouteSpecifier::RouteConfig(RouteConfiguration {
            name: NAME.to_owned(),
            virtual_hosts: vec![host],
            ..RouteConfiguration::default()
        })),
        ..HttpConnectionManager::default()
    };
    let manager = any("envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", &manager);
    let listener = Listener {
        name: NAME.to_owned(),
        api_listener: Some(ApiListener { api_listener: Some(manager) }),
        ..Listener::default()
    };
    let cluster = Cluster {
        name: NAME.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
        ..Cluster::default()
    };
    let endpoints =
        LocalityLbEndpoints { lb_endpoints: servers.iter().map(endpoint).collect(), ..LocalityLbEndpoints::default() };
    let assignment = ClusterLoadAssignment {
        cluster_name: NAME.to_owned(),
        endpoints: vec![endpoints],
        ..ClusterLoadAssignment::default()
    };
    vec![
        any("envoy.config.listener.v3.Listener", &listener),
        any("envoy.config.cluster.v3.Cluster", &cluster),
        any("envoy.config.endpoint.v3.ClusterLoadAssignment", &assignment),
    ]
}

fn endpoint(server: &SocketAddr) -> LbEndpoint {
    let address = address::Address::SocketAddress(SocketAddress {
        address: server.ip().to_string(),
        port_specifier: Some(PortSpecifier::PortValue(server.port().into())),
        ..SocketAddress::default()
    });
    let endpoint = Endpoint { address: Some(Address { address: Some(address) }), ..Endpoint::default() };
    LbEndpoint { host_identifier: Some(HostIdentifier::Endpoint(endpoint)), ..LbEndpoint::default() }
}

fn any(name: &str, message: &impl Message) -> Any {
    Any { type_url: format!("type.googleapis.com/{name}"), value: message.encode_to_vec() }
}
