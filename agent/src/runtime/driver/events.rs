//! What the broker, the workers and the provider say, into the engine's words.

use endpoint_provider::ProviderEvent;
use endpoint_telemetry::{self as telemetry, TaskOutcome};
use waypost_engine::{BlockState, ChannelEpoch, Input};

use super::{Driver, Worker};
use crate::broker;
use crate::hub::HubEvent;

impl Driver {
    pub(super) async fn broker_event(&mut self, event: broker::Event) {
        match event {
            broker::Event::Delivery(delivery) => self.delivery(delivery),
            broker::Event::Published { publish, outcome } => self.input(Input::PublishOutcome { publish, outcome }),
            broker::Event::Connected => {
                self.observer.clear_broker_error();
                self.broker_share.set(telemetry::Connection::Tasks, 1);
                self.touch_status();
                self.send_heartbeat(true);
                self.input(Input::PublisherStarted);
            }
            broker::Event::Consuming { channel } => {
                self.touch_status();
                if self.fenced {
                    if self.stopping.is_some() {
                        // It was on its way when the stop was ordered, and ends by that.
                        return;
                    }
                    if let Err(error) = self.begin_again().await {
                        tracing::error!(user_endpoint = %self.specification.name, %error, "the queue is let go again: the blocks can not be listed");
                        self.observer.note_error(error.to_string());
                        self.broker.let_go();
                        return;
                    }
                    self.fenced = false;
                }
                self.registration.set_open(true);
                self.provider.hold(true);
                tracing::info!(user_endpoint = %self.specification.name, channel, "consuming tasks");
                self.input(Input::ConsumerStarted {
                    channel: ChannelEpoch(channel),
                });
            }
            broker::Event::Standby => {
                tracing::warn!(user_endpoint = %self.specification.name, "another agent consumes the tasks: standing by");
                self.touch_status();
                self.registration.set_open(false);
                self.provider.hold(false);
                if self.stopping.is_none() {
                    self.provider.stand_by();
                }
                self.fenced = true;
                self.input(Input::Fenced);
            }
            broker::Event::Lost { channel, reason } => self.broker_lost(channel, reason),
            broker::Event::Refused(why) => {
                tracing::error!(user_endpoint = %self.specification.name, %why, "the broker refuses the credentials");
                self.observer
                    .note_error(format!("the broker refuses the credentials: {why}"));
                self.touch_status();
            }
            broker::Event::Malformed(why) => {
                tracing::warn!(user_endpoint = %self.specification.name, %why, "a message that is no task was rejected");
                self.environment
                    .settings()
                    .metrics
                    .task_results
                    .increment(TaskOutcome::Refused);
            }
            broker::Event::Depth { ready } => {
                self.input(Input::QueueDepth {
                    ready: Some(u64::from(ready)),
                });
            }
            broker::Event::Heartbeat(sent) => {
                if let Err(error) = &sent {
                    tracing::warn!(user_endpoint = %self.specification.name, %error, "a heartbeat could not be sent");
                }
                self.environment.settings().metrics.heartbeats.increment((&sent).into());
            }
            broker::Event::DepthRefused => self.input(Input::QueueDepth { ready: None }),
        }
    }

    fn broker_lost(&mut self, channel: Option<u64>, reason: broker::BrokerError) {
        if !matches!(reason, broker::BrokerError::Refused(_)) {
            tracing::warn!(user_endpoint = %self.specification.name, %reason, "the broker is not connected");
            self.observer.note_broker_error(reason.to_string());
        }
        self.environment
            .settings()
            .metrics
            .broker_reconnects
            .increment(telemetry::Connection::Tasks);
        self.broker_share.set(telemetry::Connection::Tasks, 0);
        self.touch_status();
        self.input(Input::PublisherLost);
        if let broker::BrokerError::ConsumerTimeout { limit } = reason {
            self.input(Input::ConsumerTimeout { timeout: limit });
        }
        if let Some(channel) = channel {
            self.provider.hold(false);
            self.input(Input::ConsumerLost {
                channel: ChannelEpoch(channel),
            });
        }
    }

    fn delivery(&mut self, delivery: waypost_engine::Delivery) {
        let allowed = self.specification.config.base.allowed_functions.as_ref();
        if allowed.is_some_and(|allowed| !allowed.contains(&delivery.function.0)) {
            self.input(Input::Denied(delivery));
        } else {
            self.input(Input::Delivery(delivery));
        }
    }

    pub(super) fn hub_event(&mut self, event: HubEvent) {
        match event {
            HubEvent::Said(inputs) => {
                for input in inputs {
                    self.input(input);
                }
            }
            HubEvent::Hello {
                worker,
                block,
                slots,
                held,
                python_version,
                sdk_version,
            } => {
                let id = worker.id;
                self.workers.insert(
                    id,
                    Worker {
                        handle: worker,
                        block,
                        python_version,
                        sdk_version,
                    },
                );
                self.input(Input::WorkerHello {
                    worker: id,
                    block,
                    slots,
                    held,
                });
            }
            HubEvent::Lost { worker, why } => {
                if self.workers.remove(&worker).is_some() {
                    tracing::debug!(%worker, %why, "a worker's session is over");
                    self.input(Input::WorkerLost { worker });
                }
            }
        }
    }

    pub(super) fn provider_event(&mut self, event: ProviderEvent) {
        let input = match event {
            ProviderEvent::Started { block, outcome } => Input::BlockStarted { block, outcome },
            ProviderEvent::Deleted { block, done } => Input::BlockDeleted { block, done },
            ProviderEvent::Observed { block, state } => {
                if state == BlockState::Running {
                    self.observer.runs(block);
                }
                Input::BlockObserved { block, state }
            }
            ProviderEvent::Located { block, details } => {
                self.observer.locate(self.clock.now(), block, details);
                self.touch_status();
                return;
            }
        };
        self.input(input);
        self.ebb.blocks(self.observer.block_count());
    }
}
