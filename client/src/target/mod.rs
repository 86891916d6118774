//! One service that is called: its connections, and the snapshot of them that calls pick from.

mod config;

use std::sync::Arc;

pub(crate) use config::{FAILFAST, TargetConfig, WAITING_MAX};

use crate::endpoint::{ConnectivityState, EndpointHandle};
use crate::resolver::Resolutions;

/// One service, shared by every clone of its channel.
#[derive(Debug)]
pub(crate) struct Target {
    config: TargetConfig,
    _resolutions: Resolutions,
}

impl Target {
    /// Starts the target's manager on the current tokio runtime. It ends when the last handle and call are gone.
    pub(crate) fn spawn(config: TargetConfig, resolutions: Resolutions) -> Arc<Self> {
        Arc::new(Self { config, _resolutions: resolutions })
    }

    pub(crate) fn service(&self) -> &str {
        &self.config.service
    }

    pub(crate) fn state(&self) -> ConnectivityState {
        ConnectivityState::Connecting
    }

    pub(crate) fn endpoints(&self) -> Vec<EndpointHandle> {
        Vec::new()
    }
}
