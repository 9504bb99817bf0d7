use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;
use waypost_engine::{ChannelEpoch, Delivery, DeliveryTag, FunctionId, Input, PublishId, PublishOutcome, TaskId};

use crate::Fault;
use crate::happening::{ChannelUse, Happening, Via};
use crate::state::{Channel, Consumer, Message, Unacknowledged};
use crate::world::World;

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
            let Some(channel) = &mut self.broker.channel else {
                return;
            };
            let Some(consumer) = channel.consumer else { return };
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
            let (epoch, tag) = (channel.epoch, channel.next_tag);
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
            let at = self.broker.channel.as_mut().map_or(self.now, |channel| {
                channel.clock = channel.clock.max(self.now + latency);
                channel.clock
            });
            let (life, via) = (self.agent.life, Via::Channel(epoch));
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
        if life != self.agent.life || self.agent.engine.is_none() || self.agent.channel.is_some() {
            return;
        }
        if self.broker.held_by_other.is_some_and(|until| until > self.now) {
            self.fence_agent();
            return;
        }
        if !self.broker.up {
            let pause = self.chance.millis(100, 1000);
            self.after(pause, Happening::ConnectConsumer { life });
            return;
        }
        self.close_channel();
        let epoch = self.number();
        self.agent.channel = Some(epoch);
        let consumer = Consumer {
            number: 0,
            window: self.options.settings.prefetch.initial,
        };
        self.broker.channel = Some(Channel {
            epoch,
            unacknowledged: BTreeMap::new(),
            next_tag: 0,
            consumer: Some(consumer),
            consumers: 1,
            clock: self.now,
        });
        self.give(Input::ConsumerStarted {
            channel: ChannelEpoch(epoch),
        });
        self.pump();
    }

    /// The broker's side of a channel is gone: everything unacknowledged goes back, the newest first, so that the
    /// oldest is delivered first again.
    pub(crate) fn close_channel(&mut self) -> Option<u64> {
        let channel = self.broker.channel.take()?;
        for open in channel.unacknowledged.into_values().rev() {
            self.requeue(open.message);
        }
        Some(channel.epoch)
    }

    fn requeue(&mut self, message: Message) {
        if !self.broker.requeue(message) {
            self.trace(|| format!("the broker drops task {}: {message:?}", message.task));
            self.mark("dropped by the broker");
            self.checkers
                .dropped(message.task, message.refreshed, message.deliveries);
        }
    }

    /// A channel closes, and after a while the agent sees it, and tries again.
    pub(crate) fn break_channel(&mut self, timeout: Option<Duration>) {
        let Some(epoch) = self.close_channel() else { return };
        let (life, via) = (self.agent.life, Via::Channel(epoch));
        let seen = self.latency();
        if let Some(timeout) = timeout {
            self.after(
                seen,
                Happening::ToAgent {
                    life,
                    via,
                    input: Input::ConsumerTimeout { timeout },
                },
            );
        }
        self.after(
            seen,
            Happening::ToAgent {
                life,
                via,
                input: Input::ConsumerLost {
                    channel: ChannelEpoch(epoch),
                },
            },
        );
    }

    pub(crate) fn use_channel(&mut self, epoch: u64, what: ChannelUse) {
        let Some(channel) = self.broker.channel.as_mut().filter(|channel| channel.epoch == epoch) else {
            return;
        };
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
                    let in_journal = self.agent.accepted.contains(&task);
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
                let (life, latency) = (self.agent.life, self.latency());
                let via = Via::Channel(epoch);
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
        let overdue = self
            .broker
            .channel
            .as_ref()
            .is_some_and(|channel| channel.epoch == epoch && channel.unacknowledged.contains_key(&tag));
        if overdue {
            self.checkers
                .consumer_timeout(self.agent.knows_timeout && !self.agent.stopping);
            self.agent.knows_timeout = true;
            self.break_channel(Some(self.options.consumer_timeout));
        }
    }

    pub(crate) fn connect_publisher(&mut self, life: u64) {
        if life != self.agent.life || self.agent.engine.is_none() || self.agent.publisher.is_some() {
            return;
        }
        if !self.broker.up {
            let pause = self.chance.millis(100, 1000);
            self.after(pause, Happening::ConnectPublisher { life });
            return;
        }
        let publisher = self.number();
        self.broker.publisher = Some(publisher);
        self.agent.publisher = Some(publisher);
        self.give(Input::PublisherStarted);
    }

    pub(crate) fn break_publisher(&mut self) {
        let Some(publisher) = self.broker.publisher.take() else {
            return;
        };
        let (life, via, seen) = (self.agent.life, Via::Publisher(publisher), self.latency());
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
        if self.broker.publisher != Some(publisher) {
            return;
        }
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
            self.result_taken(task, &body);
            self.broker.results.entry(task).or_default().push(body);
        }
        let (life, via, latency) = (self.agent.life, Via::Publisher(publisher), self.latency());
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
