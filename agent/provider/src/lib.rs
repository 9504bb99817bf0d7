//! Blocks: what a platform launches, and in which workers run. One trait, and what implements it.
//!
//! A provider decides nothing: it starts and ends the blocks that it is told to, and says what it sees of them. All
//! orders return at once; what becomes of them comes as [`ProviderEvent`]s.

pub mod kubernetes;
pub mod local;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use uuid::Uuid;
use waypost_engine::{BlockId, BlockState, StartOutcome};

/// What a provider has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProviderEvent {
    /// What became of [`Provider::start`].
    Started {
        /// Which block.
        block: BlockId,
        /// What.
        outcome: StartOutcome,
    },
    /// What became of [`Provider::delete`]: whether the platform took the request.
    Deleted {
        /// Which block.
        block: BlockId,
        /// Whether it did.
        done: bool,
    },
    /// A block changed. After [`BlockState::Ended`] nothing is left of it and nothing more comes.
    Observed {
        /// Which block.
        block: BlockId,
        /// What it is now.
        state: BlockState,
    },
    /// The platform said where a block is.
    Located {
        /// Which block.
        block: BlockId,
        /// Where.
        details: BlockDetails,
    },
}

/// What is known of where a block is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockDetails {
    /// Its name on the platform: its pod's.
    pub name: String,
    /// The node that it was put on, once it was.
    pub node: Option<String>,
}

/// Why blocks can not be listed.
#[derive(Debug, thiserror::Error)]
#[error("the blocks of the user endpoint can not be listed in {place}: {source}")]
pub struct ListError {
    place: String,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl ListError {
    fn new(place: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self {
            place: place.into(),
            source: source.into(),
        }
    }
}

/// What the platform says of the blocks that the configuration asks for, before the first is wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// No block can ever be launched so: what is wrong, with the option's path where that is known.
    #[error("{0}")]
    Refused(String),
    /// None could be launched now, but that may change: the platform can not be reached, a permission is missing.
    #[error("{0}")]
    Doubtful(String),
}

/// A platform that launches blocks for one user endpoint.
pub trait Provider: Send {
    /// Asks whether the platform would launch blocks as they are configured; launches nothing.
    fn check(&mut self) -> BoxFuture<'_, Result<(), CheckError>> {
        std::future::ready(Ok(())).boxed()
    }

    /// The blocks that exist, of whatever life of the agent. From here on they are watched.
    fn list(&mut self) -> BoxFuture<'_, Result<Vec<BlockId>, ListError>>;

    /// Launches a block.
    fn start(&mut self, block: BlockId);

    /// Ends a block, whatever it does.
    fn delete(&mut self, block: BlockId);

    /// A block has work, or none any more; told with each change. For whoever moves or ends blocks that are idle.
    fn busy(&mut self, _block: BlockId, _busy: bool) {}

    /// Whether the task queue is ours. Only then is anything removed that was not ordered to be: what an ended block left.
    fn hold(&mut self, _holds: bool) {}

    /// Another agent has the task queue, and the blocks with it: nothing is launched or ended, nor gone on with, until this
    /// one holds the queue again. What was ordered before the list that comes with that is not wanted any more.
    fn stand_by(&mut self) {}

    /// Waits until what ended blocks left is removed. The last order of all: a process that ends before leaves it there.
    fn finish(&mut self) -> BoxFuture<'_, ()> {
        std::future::ready(()).boxed()
    }
}

/// What the blocks of one user endpoint are called: the first eight digits of its id, the epoch, and the number in it,
/// after the name of the release where others share the namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockNames {
    user_endpoint: Uuid,
    prefix: String,
}

impl BlockNames {
    /// Names without a release.
    #[must_use]
    pub fn new(user_endpoint: Uuid) -> Self {
        let digits = user_endpoint.simple().to_string();
        Self {
            user_endpoint,
            prefix: format!("{}-", &digits[..8]),
        }
    }

    /// Names that begin with the name of a release.
    #[must_use]
    pub fn of_release(user_endpoint: Uuid, release: &str) -> Self {
        let names = Self::new(user_endpoint);
        Self {
            prefix: format!("{release}-{}", names.prefix),
            ..names
        }
    }

    /// Whose blocks they are.
    #[must_use]
    pub const fn user_endpoint(&self) -> Uuid {
        self.user_endpoint
    }

    /// A block's name.
    #[must_use]
    pub fn name(&self, block: BlockId) -> String {
        format!("{}{block}", self.prefix)
    }

    /// The block that has this name, if it is one of this user endpoint. What stands before its id may be another
    /// release's name: blocks live on when that changes, and a worker's token says whether its name is a true one.
    #[must_use]
    pub fn parse(&self, name: &str) -> Option<BlockId> {
        let own = Self::new(self.user_endpoint);
        let short = match name.rfind(&own.prefix) {
            Some(0) => name,
            Some(at) if name[..at].ends_with('-') => &name[at..],
            Some(_) | None => return None,
        };
        let (epoch, number) = short.strip_prefix(&own.prefix)?.split_once('-')?;
        let block = BlockId {
            epoch: epoch.parse().ok()?,
            number: number.parse().ok()?,
        };
        // A name is only this block's if it is written as this block's: "1-01" is not "1-1".
        (own.name(block) == short).then_some(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_back_as_its_block_and_only_by_its_user_endpoint() {
        let ours = BlockNames::new(Uuid::from_u128(1 << 120));
        let other = BlockNames::new(Uuid::from_u128(2 << 120));
        let block = BlockId { epoch: 12, number: 3 };
        assert_eq!(ours.name(block), "01000000-12-3");
        assert_eq!(ours.parse("01000000-12-3"), Some(block));
        assert_eq!(other.parse("01000000-12-3"), None);
        for name in [
            "",
            "01000000",
            "01000000-",
            "01000000-1",
            "01000000-1-01",
            "01000000-1--1",
            "01000000-1-1-1",
        ] {
            assert_eq!(ours.parse(name), None, "{name}");
        }
    }

    #[test]
    fn a_release_stands_before_the_names_of_its_blocks() {
        let user_endpoint = Uuid::from_u128(1 << 120);
        let names = BlockNames::of_release(user_endpoint, "lab-7");
        let block = BlockId { epoch: 12, number: 3 };
        assert_eq!(names.name(block), "lab-7-01000000-12-3");
        for known in [
            "lab-7-01000000-12-3",
            "renamed-01000000-12-3",
            "01000000-12-3",
            "01000000-01000000-12-3",
        ] {
            assert_eq!(names.parse(known), Some(block), "{known}");
        }
        assert_eq!(names.parse("lab01000000-12-3"), None);
        assert_eq!(names.parse("lab-02000000-12-3"), None);
    }
}
