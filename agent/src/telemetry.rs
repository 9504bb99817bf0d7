//! What the agent shows of itself.

/// Every metric of the agent.
#[derive(Debug, Default)]
pub struct Metrics {}
