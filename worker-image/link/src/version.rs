use serde::{Deserialize, Serialize};

/// The version of the link that this crate speaks best.
pub const VERSION: u16 = 1;

/// Every link version that this crate speaks: its own and the one before, once there is one.
pub const VERSIONS: VersionRange = VersionRange {
    oldest: 1,
    newest: VERSION,
};

/// Link versions, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRange {
    /// The oldest.
    pub oldest: u16,
    /// The newest.
    pub newest: u16,
}

/// Two peers have no link version in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the agent speaks link versions {} to {}, the worker {} to {}: update the older of them",
    ours.oldest, ours.newest, theirs.oldest, theirs.newest
)]
pub struct VersionMismatch {
    /// What the agent speaks.
    pub ours: VersionRange,
    /// What the worker speaks.
    pub theirs: VersionRange,
}

impl VersionRange {
    /// The newest version that both speak. `self` is the agent's.
    ///
    /// # Errors
    /// [`VersionMismatch`] if there is none.
    pub fn negotiate(self, theirs: Self) -> Result<u16, VersionMismatch> {
        let version = self.newest.min(theirs.newest);
        if version >= self.oldest.max(theirs.oldest) {
            Ok(version)
        } else {
            Err(VersionMismatch { ours: self, theirs })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(oldest: u16, newest: u16) -> VersionRange {
        VersionRange { oldest, newest }
    }

    #[test]
    fn a_worker_of_the_version_before_is_spoken_to_in_its_version() {
        assert_eq!(range(1, 2).negotiate(range(1, 1)), Ok(1));
        assert_eq!(range(1, 1).negotiate(range(1, 2)), Ok(1));
        assert_eq!(range(2, 3).negotiate(range(2, 3)), Ok(3));
    }

    #[test]
    fn two_versions_apart_is_an_error_that_names_both() {
        let error = range(3, 4).negotiate(range(1, 2)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the agent speaks link versions 3 to 4, the worker 1 to 2: update the older of them"
        );
        assert!(range(1, 2).negotiate(range(3, 4)).is_err());
    }

    #[test]
    fn a_range_that_is_upside_down_is_refused() {
        assert!(range(1, 2).negotiate(range(2, 1)).is_err());
    }
}
