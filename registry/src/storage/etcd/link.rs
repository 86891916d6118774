//! The way to etcd: the mesh client's channel over a fixed list of members.

use std::time::Duration;

use mesh_api::etcd::FILE_DESCRIPTOR_SET;
use mesh_api::etcd::etcdserverpb::kv_client::KvClient;
use mesh_api::etcd::etcdserverpb::lease_client::LeaseClient;
use mesh_api::etcd::etcdserverpb::maintenance_client::MaintenanceClient;
use mesh_api::etcd::etcdserverpb::watch_client::WatchClient;
use mesh_client::{ConfigError, Mesh, MeshChannel, Policy};
use tonic::Request;
use tonic::metadata::MetadataValue;

/// What logs call the channels. Two names are two sets of connections: a watch that is behind delays no write and no lease.
const WRITES: &str = "etcd-writes";
const WATCHES: &str = "etcd-watches";

/// How long a request waits while no member answers. Less than an attempt at a commit may take, so that it is known that it
/// was not sent.
pub(super) const FAILFAST: Duration = Duration::from_millis(700);

/// Largest answer taken: a page of records and the events of a compaction's worth of commits are far below.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Channels to the members of one etcd cluster. Clones share the connections.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    writes: MeshChannel,
    watches: MeshChannel,
}

impl Link {
    /// A link to these members, `HOST:PORT` each; nothing is waited for. Must be called inside a tokio runtime.
    pub(super) fn new(members: &[String]) -> Result<Self, ConfigError> {
        // Nothing that is slow is sent twice: a second one of a transaction would conflict with the first.
        let policy = Policy { hedging: None, failfast: FAILFAST, ..Policy::default() };
        let mesh = Mesh::builder()
            .host_service(WRITES, members)
            .host_service(WATCHES, members)
            .descriptors(FILE_DESCRIPTOR_SET)
            .default_policy(policy)
            .build()?;
        Ok(Self { writes: mesh.channel(WRITES), watches: mesh.channel(WATCHES) })
    }

    pub(crate) fn kv(&self) -> KvClient<MeshChannel> {
        KvClient::new(self.writes.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub(crate) fn lease(&self) -> LeaseClient<MeshChannel> {
        LeaseClient::new(self.writes.clone())
    }

    pub(crate) fn watch(&self) -> WatchClient<MeshChannel> {
        WatchClient::new(self.watches.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub(super) fn maintenance(&self) -> MaintenanceClient<MeshChannel> {
        MaintenanceClient::new(self.writes.clone())
    }
}

/// A request that a member without a leader refuses at once, or ends when it loses its leader: one that is cut off from the
/// others would keep it waiting instead.
pub(crate) fn led<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
    request
}

/// A request for an answer within this time.
pub(crate) fn led_within<T>(time: Duration, message: T) -> Request<T> {
    let mut request = led(message);
    request.set_timeout(time);
    request
}

/// The members that `--store etcd:` names, as `HOST:PORT` each.
pub(crate) fn members(urls: &str) -> Result<Vec<String>, String> {
    urls.split(',').map(member).collect()
}

fn member(url: &str) -> Result<String, String> {
    let fault = |reason: &str| format!("etcd URL {url:?}: {reason}, expected HOST:PORT or http://HOST:PORT");
    let bare = match url.split_once("://") {
        None => url,
        Some(("http", rest)) => rest,
        Some(("https", _)) => return Err(fault("TLS to etcd is not supported")),
        Some(_) => return Err(fault("the scheme is not http")),
    };
    let bare = bare.strip_suffix('/').unwrap_or(bare);
    let (host, port) = bare.rsplit_once(':').ok_or_else(|| fault("the port is missing"))?;
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    if host.is_empty() || !host.bytes().all(known) {
        return Err(fault("not a host and port"));
    }
    match port.parse::<u16>() {
        Ok(1..) => Ok(bare.to_owned()),
        _ => Err(fault("the port is not in 1 to 65535")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_come_with_and_without_scheme() {
        let two = members("http://10.0.0.1:2379/,etcd.internal:2379").unwrap();
        assert_eq!(two, ["10.0.0.1:2379", "etcd.internal:2379"]);
        assert_eq!(members("[::1]:2379").unwrap(), ["[::1]:2379"]);
        for bad in ["", "host", "https://a:1", "ftp://a:1", "a:0", "a:70000", "a:1/x", "u@a:1", "a:1,", ":1"] {
            assert!(members(bad).is_err(), "{bad:?} was taken");
        }
    }
}
