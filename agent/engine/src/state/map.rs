use std::hash::{BuildHasherDefault, Hasher};

use crate::TaskId;

/// A table by task id for what is looked up many times per task. It hashes without a random seed, and can be gone
/// through only in the order of the ids, so that nothing depends on where the hasher put what.
#[derive(Debug)]
pub(crate) struct TaskMap<V>(Table<V>);

#[expect(
    clippy::disallowed_types,
    reason = "a fixed hasher, and no iteration but in the order of the keys"
)]
type Table<V> = std::collections::HashMap<TaskId, V, BuildHasherDefault<IdHasher>>;

impl<V> Default for TaskMap<V> {
    fn default() -> Self {
        Self(Table::default())
    }
}

impl<V> TaskMap<V> {
    pub(crate) fn get(&self, id: TaskId) -> Option<&V> {
        self.0.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: TaskId) -> Option<&mut V> {
        self.0.get_mut(&id)
    }

    pub(crate) fn insert(&mut self, id: TaskId, value: V) -> Option<V> {
        self.0.insert(id, value)
    }

    pub(crate) fn remove(&mut self, id: TaskId) -> Option<V> {
        self.0.remove(&id)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Everything, in the order of the ids. Sorts: not for what happens with every task.
    pub(crate) fn sorted(&self) -> impl Iterator<Item = (TaskId, &V)> + '_ {
        let mut entries: Vec<(TaskId, &V)> = self.0.iter().map(|(id, value)| (*id, value)).collect();
        entries.sort_unstable_by_key(|(id, _)| *id);
        entries.into_iter()
    }
}

/// Mixes the one word that an id hashes to, well enough for ids that count up.
#[derive(Debug, Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    #[inline]
    fn write_u64(&mut self, word: u64) {
        let mixed = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}
