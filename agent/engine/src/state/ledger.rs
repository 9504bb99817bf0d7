use std::collections::BTreeMap;

use crate::{ChannelEpoch, DeliveryTag, TaskId, Time};

/// The deliveries of the present channel that are neither acknowledged nor given back.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    channel: Option<ChannelEpoch>,
    open: BTreeMap<u64, Open>,
    settled: Vec<u64>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Open {
    pub(crate) task: TaskId,
    pub(crate) received: Time,
    /// It is being written into the journal, so that it can be acknowledged.
    pub(crate) in_journal: bool,
}

impl Ledger {
    pub(crate) const fn channel(&self) -> Option<ChannelEpoch> {
        self.channel
    }

    /// A new channel: tags of the one before mean nothing any more.
    pub(crate) fn start(&mut self, channel: ChannelEpoch) {
        self.lose();
        self.channel = Some(channel);
    }

    pub(crate) fn lose(&mut self) {
        self.channel = None;
        self.open.clear();
        self.settled.clear();
    }

    /// Enters a delivery; false if it came by another channel.
    pub(crate) fn open(&mut self, tag: DeliveryTag, task: TaskId, received: Time) -> bool {
        if self.channel != Some(tag.channel) {
            return false;
        }
        self.open.insert(
            tag.tag,
            Open {
                task,
                received,
                in_journal: false,
            },
        );
        true
    }

    /// Takes a delivery out because it is given back; false if it is not open on this channel.
    pub(crate) fn give_back(&mut self, tag: DeliveryTag) -> bool {
        self.channel == Some(tag.channel) && self.open.remove(&tag.tag).is_some()
    }

    /// Marks a delivery for acknowledgement, if it is still open.
    pub(crate) fn settle(&mut self, tag: DeliveryTag) {
        if self.channel == Some(tag.channel) && self.open.remove(&tag.tag).is_some() {
            self.settled.push(tag.tag);
        }
    }

    /// The acknowledgements of everything marked since the last time: one for all that lies below everything open, one
    /// each for the rest. (`over_open` is a mistake on purpose.)
    pub(crate) fn acknowledgements(&mut self, over_open: bool) -> Vec<(DeliveryTag, bool)> {
        let Some(channel) = self.channel else { return Vec::new() };
        if self.settled.is_empty() {
            return Vec::new();
        }
        let mut settled = std::mem::take(&mut self.settled);
        settled.sort_unstable();
        let lowest_open = self.open.first_key_value().map_or(u64::MAX, |(tag, _)| *tag);
        let lowest_open = if over_open { u64::MAX } else { lowest_open };
        let below = settled.partition_point(|tag| *tag < lowest_open);
        let mut acknowledgements = Vec::with_capacity(settled.len() - below + 1);
        if let Some(highest) = below.checked_sub(1).and_then(|index| settled.get(index)) {
            acknowledgements.push((DeliveryTag { channel, tag: *highest }, below > 1));
        }
        for tag in settled.iter().skip(below) {
            acknowledgements.push((DeliveryTag { channel, tag: *tag }, false));
        }
        acknowledgements
    }

    /// How many are open.
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    /// The oldest that is open, and not being written into the journal.
    pub(crate) fn oldest(&self) -> Option<(DeliveryTag, Open)> {
        let channel = self.channel?;
        let (tag, open) = self.open.iter().find(|(_, open)| !open.in_journal)?;
        Some((DeliveryTag { channel, tag: *tag }, *open))
    }

    pub(crate) fn set_in_journal(&mut self, tag: DeliveryTag, in_journal: bool) {
        if self.channel == Some(tag.channel)
            && let Some(open) = self.open.get_mut(&tag.tag)
        {
            open.in_journal = in_journal;
        }
    }

    pub(crate) fn owner(&self, tag: DeliveryTag) -> Option<TaskId> {
        if self.channel == Some(tag.channel) {
            self.open.get(&tag.tag).map(|open| open.task)
        } else {
            None
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, Open)> + '_ {
        self.open.iter().map(|(tag, open)| (*tag, *open))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn ledger(tags: std::ops::RangeInclusive<u64>) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.start(ChannelEpoch(1));
        for tag in tags {
            assert!(ledger.open(on(1, tag), TaskId(Uuid::from_u128(tag.into())), Time::from_micros(0)));
        }
        ledger
    }

    fn on(channel: u64, tag: u64) -> DeliveryTag {
        DeliveryTag {
            channel: ChannelEpoch(channel),
            tag,
        }
    }

    #[test]
    fn one_acknowledgement_covers_all_below_the_lowest_open_delivery() {
        let mut ledger = ledger(1..=6);
        for tag in [2, 1, 5, 3] {
            ledger.settle(on(1, tag));
        }
        assert_eq!(ledger.acknowledgements(false), [(on(1, 3), true), (on(1, 5), false)]);
        assert_eq!(ledger.acknowledgements(false), []);
        for tag in [6, 4] {
            ledger.settle(on(1, tag));
        }
        assert_eq!(ledger.acknowledgements(false), [(on(1, 6), true)]);
    }

    #[test]
    fn a_lone_acknowledgement_is_for_itself_alone() {
        let mut ledger = ledger(1..=2);
        ledger.settle(on(1, 1));
        assert_eq!(ledger.acknowledgements(false), [(on(1, 1), false)]);
    }

    #[test]
    fn tags_of_another_channel_are_never_acknowledged() {
        let mut ledger = ledger(1..=3);
        ledger.settle(on(1, 1));
        ledger.start(ChannelEpoch(2));
        assert_eq!(ledger.acknowledgements(false), []);
        ledger.settle(on(1, 2));
        assert_eq!(ledger.acknowledgements(false), []);
        assert!(!ledger.open(on(1, 4), TaskId(Uuid::nil()), Time::from_micros(0)));
        assert!(!ledger.give_back(on(1, 3)));
    }
}
