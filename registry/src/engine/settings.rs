//! What an engine is told at its start.

use std::time::{Duration, SystemTime};

use crate::catalog::{Limits, Ttl};

/// What an engine is told at its start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EngineSettings {
    /// Granted to who asks for no TTL; also how long a registry that starts without complete state says so.
    pub default_ttl: Ttl,
    /// How long silence alone does not remove the last instance of a service.
    pub last_instance_hold: Duration,
    /// Quotas.
    pub limits: Limits,
    /// Where lease and op ids come from: 32 bytes nobody else knows, or in a simulation those of its seed.
    pub seed: [u8; 32],
    /// The wall time at the start; in a simulation a fixed one.
    pub started_at: SystemTime,
}

impl EngineSettings {
    /// How long silence alone does not remove the last instance, unless told otherwise.
    pub const LAST_INSTANCE_HOLD: Duration = Duration::from_secs(3_600);

    /// Defaults with a seed and a clock of the process's own.
    #[must_use]
    pub fn of_process() -> Self {
        Self::seeded(mesh_runtime::entropy::bytes(), mesh_runtime::clock::wall())
    }

    /// Defaults with this seed and time: everything the engine does follows from them and from what it is asked.
    #[must_use]
    pub fn seeded(seed: [u8; 32], started_at: SystemTime) -> Self {
        Self {
            default_ttl: Ttl::DEFAULT,
            last_instance_hold: Self::LAST_INSTANCE_HOLD,
            limits: Limits::default(),
            seed,
            started_at,
        }
    }
}
