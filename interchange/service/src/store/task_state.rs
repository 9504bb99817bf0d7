use super::StoreError;

/// Where a task is. The names are those of globus-compute-common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TaskState {
    /// Accepted, and not yet confirmed by the broker.
    Received,
    /// On its endpoint's queue, or taken from it.
    WaitingForEndpoint,
    /// Its function is being called, as its endpoint reported.
    Running,
    /// It has a value.
    Success,
    /// It has an error.
    Failed,
}

impl TaskState {
    /// The name that clients know.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::WaitingForEndpoint => "waiting-for-ep",
            Self::Running => "running",
            Self::Success => "success",
            Self::Failed => "failed",
        }
    }

    pub(super) fn parse(text: &str) -> Result<Self, StoreError> {
        [
            Self::Received,
            Self::WaitingForEndpoint,
            Self::Running,
            Self::Success,
            Self::Failed,
        ]
        .into_iter()
        .find(|state| state.as_str() == text)
        .ok_or_else(|| StoreError::Unreadable {
            what: "tasks.state",
            value: text.to_owned(),
        })
    }
}
