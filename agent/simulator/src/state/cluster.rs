use std::collections::{BTreeMap, BTreeSet};

use waypost_engine::{BlockId, Time};

/// The platform on which blocks run, and what is wrong with it at the moment.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// Blocks that it will make.
    pub(crate) creating: BTreeSet<BlockId>,
    /// New blocks find room from then on.
    pub(crate) room_at: Time,
    /// Images can be pulled from then on.
    pub(crate) images_at: Time,
    /// It can be asked, and says what it sees, from then on.
    pub(crate) api_at: Time,
    /// Nodes that are gone, and until when.
    pub(crate) lost: BTreeMap<u32, Time>,
    /// What it sees comes in its order.
    pub(crate) watch: Time,
}

impl Cluster {
    pub(crate) const fn new(now: Time) -> Self {
        Self {
            creating: BTreeSet::new(),
            room_at: now,
            images_at: now,
            api_at: now,
            lost: BTreeMap::new(),
            watch: now,
        }
    }
}
