//! How much the catalog holds. Every map in it is bounded by one of these.

/// Quotas of a registry (S27). At each of them a registration, rule or name is refused with its own error; what is held
/// already is not touched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Most instances of one service.
    pub instances_per_service: usize,
    /// Most instances altogether.
    pub instances: usize,
    /// Most services known, over all namespaces.
    pub services: usize,
    /// Most admin rules of one service.
    pub rules_per_service: usize,
    /// Most tombstones kept for one service: past it, one is announced like any other but forgotten right after, and an
    /// operator is told so.
    pub tombstones_per_service: usize,
    /// Most tombstones kept altogether, with the same consequence.
    pub tombstones: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            instances_per_service: 1_000,
            instances: 200_000,
            services: 20_000,
            rules_per_service: 256,
            tombstones_per_service: 2_000,
            tombstones: 200_000,
        }
    }
}
