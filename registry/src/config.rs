//! The flags, and what is left of them once their ranges and how they relate are checked.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use mesh_runtime::{Advertise, ServerArgs, advertised, duration};

use crate::catalog::Ttl;
use crate::storage::EtcdAddress;
use crate::{Settings, StorePlace};

mod quotas;

/// Command line of the registry.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) server: ServerArgs,

    /// Where records live: file:DIR, a folder for this registry alone; memory, gone with the process; or
    /// etcd:URL[,URL...], shared by every registry that is given the same.
    #[arg(long, env = "MESH_STORE", value_name = "STORE", default_value = "file:mesh-data/registry")]
    store: Store,

    /// With etcd: address where the other registries reach this one; required when listening on a wildcard address
    /// [default: the bound address].
    #[arg(long, env = "MESH_ADVERTISE", value_name = "IP:PORT", value_parser = advertised)]
    advertise: Option<SocketAddr>,

    /// TTL of a lease that asks for none, 2s to 5m. Instances beat every third of it.
    #[arg(long, env = "MESH_DEFAULT_TTL", value_name = "DURATION", default_value = "10s", value_parser = duration)]
    default_ttl: Duration,

    /// How long silence alone does not remove the last instance of a service, 0s to 24h.
    #[arg(long, env = "MESH_LAST_INSTANCE_HOLD", value_name = "DURATION", default_value = "1h", value_parser = duration)]
    last_instance_hold: Duration,

    #[command(flatten)]
    quotas: quotas::QuotaArgs,
}

/// Longest `--last-instance-hold`: a day without a heartbeat is not a lapse.
const LAST_INSTANCE_HOLD_MAX: Duration = Duration::from_secs(24 * 3600);

/// Every fault of a command line, in one line.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub(crate) struct ConfigError(Vec<String>);

impl TryFrom<&Args> for Settings {
    type Error = ConfigError;

    fn try_from(args: &Args) -> Result<Self, ConfigError> {
        let mut faults = Vec::new();
        let store = match &args.store {
            Store::Memory => StorePlace::Memory,
            Store::File(dir) => StorePlace::File(dir.into()),
            Store::Etcd(urls) => match EtcdAddress::parse(urls) {
                Ok(address) => StorePlace::Etcd(address),
                Err(fault) => {
                    faults.push(format!("--store: {fault}"));
                    StorePlace::Memory
                }
            },
        };
        if let (Some(address), Store::Memory | Store::File(_)) = (args.advertise, &args.store) {
            let store = &args.store;
            faults.push(format!("--advertise {address}: nobody looks for it with --store {store}, only with etcd:URL"));
        }
        let default_ttl = Ttl::new(args.default_ttl).unwrap_or_else(|invalid| {
            faults.push(format!("--default-ttl: {invalid}"));
            Ttl::DEFAULT
        });
        if args.last_instance_hold > LAST_INSTANCE_HOLD_MAX {
            faults.push(format!("--last-instance-hold {:?}: must be at most 24h", args.last_instance_hold));
        }
        if !faults.is_empty() {
            return Err(ConfigError(faults));
        }
        let mut settings = Self::of_process();
        settings.store = store;
        settings.engine.default_ttl = default_ttl;
        settings.engine.last_instance_hold = args.last_instance_hold;
        settings.engine.limits = args.quotas.limits();
        settings.quotas = args.quotas.quotas();
        Ok(settings)
    }
}

impl Args {
    /// Who dials this registry apart from those who were told its address: the others on one etcd, or nobody.
    pub(crate) fn advertises(&self) -> Advertise {
        match self.store {
            Store::Etcd(_) => self.advertise.into(),
            Store::Memory | Store::File(_) => Advertise::Nothing,
        }
    }
}

/// Which store `--store` names.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Store {
    Memory,
    File(String),
    Etcd(String),
}

impl FromStr for Store {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "memory" => Ok(Self::Memory),
            Some(("file", dir)) if !dir.is_empty() => Ok(Self::File(dir.to_owned())),
            Some(("etcd", urls)) if !urls.is_empty() => Ok(Self::Etcd(urls.to_owned())),
            _ => Err("expected memory, file:DIR or etcd:URL[,URL...]".to_owned()),
        }
    }
}

impl fmt::Display for Store {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => write!(formatter, "memory"),
            Self::File(dir) => write!(formatter, "file:{dir}"),
            Self::Etcd(urls) => write!(formatter, "etcd:{urls}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_are_named_by_their_scheme() {
        assert_eq!("memory".parse(), Ok(Store::Memory));
        assert_eq!("file:mesh-data/registry".parse(), Ok(Store::File("mesh-data/registry".to_owned())));
        for bad in ["", "file:", "etcd:", "disk:/x", "memory:x"] {
            assert!(bad.parse::<Store>().is_err(), "{bad:?} was read");
        }
    }
}
