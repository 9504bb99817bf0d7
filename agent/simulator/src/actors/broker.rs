use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;
use waypost_engine::{ChannelEpoch, Delivery, DeliveryTag, FunctionId, Input, PublishId, PublishOutcome, TaskId};

use crate::Fault;
use crate::happening::{ChannelUse, Happening, Via};
use crate::state::{Channel, Consumer, Message, Unacknowledged};
use crate::world::World;

/// How long who has just lost a consumer waits for the broker to know.
const OWN_GONE: Duration = Duration::from_secs(1);

impl World<'_> {
    pub(crate) fn submit(&mut self, task: TaskId) {
        self.broker.ready.push_back(Message {
            task,
            deliveries: 0,
            refreshed: 0,
        });
        self.pump();
    }

    /// Delivers as far as the window allows.
    fn pump(&mut self) {
        loop {
            let mut channels = self.broker.channels.iter_mut();
            let consuming = channels.find_map(|(epoch, channel)| {
                let consumer = channel.consumer?;
                Some((*epoch, channel, consumer))
            });
            let Some((epoch, channel, consumer)) = consuming else {
                return;
            };
            let open = channel
                .unacknowledged
                .values()
                .filter(|open| open.consumer == consumer.number)
                .count();
            if open >= consumer.window as usize {
                return;
            }
            let Some(mut message) = self.broker.ready.pop_front() else {
                return;
            };
            channel.next_tag += 1;
            let (life, tag) = (channel.life, channel.next_tag);
            let deliveries = message.deliveries;
            message.deliveries += 1;
            channel.unacknowledged.insert(
                tag,
                Unacknowledged {
                    message,
                    consumer: consumer.number,
                },
            );
            let delivery = Delivery {
                tag: DeliveryTag {
                    channel: ChannelEpoch(epoch),
                    tag,
                },
                task: message.task,
                function: FunctionId(Uuid::nil()),
                redelivered: deliveries > 0,
                delivery_count: (self.broker.quorum && deliveries > 0).then_some(deliveries),
                resource_specification: None,
                result_serializers: None,
                body: Bytes::from(vec![0; self.facts.get(&message.task).map_or(0, |facts| facts.bytes)]),
            };
            let latency = self.latency();
            let at = self.broker.channels.get_mut(&epoch).map_or(self.now, |channel| {
                channel.clock = channel.clock.max(self.now + latency);
                channel.clock
            });
            let via = Via::Channel(epoch);
            self.at(
                at,
                Happening::ToAgent {
                    life,
                    via,
                    input: Input::Delivery(delivery),
                },
            );
            self.after(
                self.options.consumer_timeout,
                Happening::ConsumerTimeout { channel: epoch, tag },
            );
        }
    }

    pub(crate) fn connect_consumer(&mut self, life: u64) {
        if !self.turn_to(life) || self.agent.channel.is_some() || self.agent.consumes_no_more {
            return;
        }
        let now = self.now;
        let held = self.broker.held_by_other.is_some_and(|until| until > now) || self.broker.holder().is_some();
        if held && self.broker.up {
            // What holds it may be the agent's own consumer, on the connection that it has lost.
            let since = *self.agent.refused_since.get_or_insert(now);
            if !self.agent.has_consumed || now.since(since) >= OWN_GONE {
                self.stand_by();
            }
        }
        // Who can not find out which blocks there are does not begin again.
        let blind = self.agent.standby && self.cluster.api_at > now;
        if held || blind || !self.broker.up {
            let pause = self.chance.millis(100, 1000);
            self.after(pause, Happening::ConnectConsumer { life });
            return;
        }
        let epoch = self.number();
        if self.agent.standby {
            self.begin_again();
        }
        self.agent.channel = Some(epoch);
        self.agent.has_consumed = true;
        self.agent.refused_since = None;
        self.agent.held_since.get_or_insert(now);
        let consumer = Consumer {
            number: 0,
            window: self.options.settings.prefetch.initial,
        };
        let channel = Channel {
            life,
            unacknowledged: BTreeMap::new(),
            next_tag: 0,
            consumer: Some(consumer),
            consumers: 1,
            clock: now,
        };
        self.broker.channels.insert(epoch, channel);
        self.note_holder(life);
        self.give(Input::ConsumerStarted {
            channel: ChannelEpoch(epoch),
        });
        self.pump();
    }

    /// The broker's side of a channel is gone: everything unacknowledged goes back, the newest first, so that the
    /// oldest is delivered first again. Whose it was.
    pub(crate) fn close_channel(&mut self, epoch: u64) -> Option<u64> {
        let channel = self.broker.channels.remove(&epoch)?;
        for open in channel.unacknowledged.into_values().rev() {
            self.requeue(open.message);
        }
        self.pump();
        Some(channel.life)
    }

    fn requeue(&mut self, message: Message) {
        if !self.broker.requeue(message) {
            self.trace(|| format!("the broker drops task {}: {message:?}", message.task));
            self.mark("dropped by the broker");
            self.checkers
                .dropped(message.task, message.refreshed, message.deliveries);
        }
    }

    /// A channel closes, and after a while its agent sees it, and tries again.
    pub(crate) fn break_channel(&mut self, epoch: u64, timeout: Option<Duration>) {
        let Some(life) = self.close_channel(epoch) else { return };
        let (via, seen) = (Via::Channel(epoch), self.latency());
        if let Some(timeout) = timeout {
            let input = Input::ConsumerTimeout { timeout };
            self.after(seen, Happening::ToAgent { life, via, input });
        }
        let input = Input::ConsumerLost {
            channel: ChannelEpoch(epoch),
        };
        self.after(seen, Happening::ToAgent { life, via, input });
    }

    /// One of the channels closes.
    pub(crate) fn break_some_channel(&mut self) {
        let epochs: Vec<u64> = self.broker.channels.keys().copied().collect();
        if let Some(epoch) = self.chance.choose(&epochs) {
            self.break_channel(epoch, None);
        }
    }

    /// Every connection breaks.
    pub(crate) fn break_all(&mut self) {
        let epochs: Vec<u64> = self.broker.channels.keys().copied().collect();
        for epoch in epochs {
            self.break_channel(epoch, None);
        }
        let publishers: Vec<u64> = self.broker.publishers.keys().copied().collect();
        for publisher in publishers {
            self.break_publisher(publisher);
        }
    }

    pub(crate) fn use_channel(&mut self, epoch: u64, what: ChannelUse) {
        let Some(channel) = self.broker.channels.get_mut(&epoch) else {
            return;
        };
        let life = channel.life;
        match what {
            ChannelUse::Acknowledge { tag, multiple } => {
                let tags: Vec<u64> = if multiple {
                    channel.unacknowledged.range(..=tag).map(|(tag, _)| *tag).collect()
                } else {
                    vec![tag]
                };
                let removed: Vec<Option<Unacknowledged>> =
                    tags.iter().map(|tag| channel.unacknowledged.remove(tag)).collect();
                for (tag, open) in tags.iter().zip(removed) {
                    let Some(open) = open else {
                        self.checkers
                            .violate(format!("tag {tag} was acknowledged twice, or never delivered"));
                        continue;
                    };
                    let task = open.message.task;
                    let has_result = self.broker.results.contains_key(&task);
                    let in_journal = self.agent_of(life).is_some_and(|agent| agent.accepted.contains(&task));
                    self.broker.acknowledged.insert(task);
                    self.checkers.acknowledged(task, has_result, in_journal);
                }
            }
            ChannelUse::Requeue { tag, refreshed } => {
                if let Some(mut open) = channel.unacknowledged.remove(&tag) {
                    open.message.refreshed += u64::from(refreshed);
                    self.requeue(open.message);
                }
            }
            ChannelUse::Consume { window } => {
                channel.consumers += 1;
                channel.consumer = Some(Consumer {
                    number: channel.consumers,
                    window,
                });
            }
            ChannelUse::Cancel => channel.consumer = None,
            ChannelUse::Depth => {
                let ready = Some(self.broker.ready.len() as u64);
                let (latency, via) = (self.latency(), Via::Channel(epoch));
                self.after(
                    latency,
                    Happening::ToAgent {
                        life,
                        via,
                        input: Input::QueueDepth { ready },
                    },
                );
            }
        }
        self.pump();
    }

    pub(crate) fn consumer_timeout(&mut self, epoch: u64, tag: u64) {
        let Some(channel) = self.broker.channels.get(&epoch) else {
            return;
        };
        if !channel.unacknowledged.contains_key(&tag) {
            return;
        }
        let life = channel.life;
        let known = self
            .agent_of(life)
            .is_some_and(|agent| agent.knows_timeout && !agent.stopping);
        self.checkers.consumer_timeout(known);
        if let Some(agent) = self.agent_of_mut(life) {
            agent.knows_timeout = true;
        }
        self.break_channel(epoch, Some(self.options.consumer_timeout));
    }

    pub(crate) fn connect_publisher(&mut self, life: u64) {
        if !self.turn_to(life) || self.agent.publisher.is_some() {
            return;
        }
        if !self.broker.up {
            let pause = self.chance.millis(100, 1000);
            self.after(pause, Happening::ConnectPublisher { life });
            return;
        }
        let publisher = self.number();
        self.broker.publishers.insert(publisher, life);
        self.agent.publisher = Some(publisher);
        self.give(Input::PublisherStarted);
    }

    pub(crate) fn break_publisher(&mut self, publisher: u64) {
        let Some(life) = self.broker.publishers.remove(&publisher) else {
            return;
        };
        let (via, seen) = (Via::Publisher(publisher), self.latency());
        self.after(
            seen,
            Happening::ToAgent {
                life,
                via,
                input: Input::PublisherLost,
            },
        );
    }

    pub(crate) fn publish(&mut self, publisher: u64, publish: PublishId, task: TaskId, body: Bytes) {
        let Some(&life) = self.broker.publishers.get(&publisher) else {
            return;
        };
        let outcome = if self.goes_wrong(Fault::Refusal) {
            let all = [
                PublishOutcome::Returned,
                PublishOutcome::Nacked,
                PublishOutcome::Unknown,
            ];
            self.chance.choose(&all).unwrap_or(PublishOutcome::Unknown)
        } else {
            PublishOutcome::Confirmed
        };
        let taken =
            outcome == PublishOutcome::Confirmed || outcome == PublishOutcome::Unknown && self.chance.happens(500);
        if taken {
            self.result_taken(life, task, &body);
            self.broker.results.entry(task).or_default().push(body);
        }
        let (via, latency) = (Via::Publisher(publisher), self.latency());
        self.after(
            latency,
            Happening::ToAgent {
                life,
                via,
                input: Input::PublishOutcome { publish, outcome },
            },
        );
    }
}
