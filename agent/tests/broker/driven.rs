use std::time::Duration;

use endpoint::broker::{Broker, Event};
use waypost_engine::{Delivery, PublishOutcome};

use crate::support::{Topology, soon};

/// Drives a broker and remembers what it said.
pub(crate) struct Driven {
    pub(crate) broker: Broker,
    pub(crate) events: std::collections::VecDeque<Event>,
}

impl Driven {
    pub(crate) fn new(topology: &Topology, window: u16) -> Self {
        Self::with(topology.credentials(), window)
    }

    pub(crate) fn with(credentials: waypost_protocol::AmqpCredentials, window: u16) -> Self {
        Self {
            broker: Broker::new(credentials, "test".to_owned(), window),
            events: Default::default(),
        }
    }

    /// The next event of a kind. Others are dropped.
    pub(crate) async fn wait<T>(&mut self, what: &str, mut is: impl FnMut(Event) -> Option<T>) -> T {
        soon(what, async {
            loop {
                while let Some(event) = self.events.pop_front() {
                    if let Some(found) = is(event) {
                        return found;
                    }
                }
                let mut events = Vec::new();
                self.broker.next(&mut events).await;
                self.events.extend(events);
            }
        })
        .await
    }

    pub(crate) async fn consuming(&mut self) -> u64 {
        self.wait("a consumer", |event| match event {
            Event::Consuming { channel } => Some(channel),
            _ => None,
        })
        .await
    }

    pub(crate) async fn delivery(&mut self) -> Delivery {
        self.wait("a delivery", |event| match event {
            Event::Delivery(delivery) => Some(delivery),
            Event::Lost { reason, .. } => panic!("the connection was lost: {reason}"),
            _ => None,
        })
        .await
    }

    pub(crate) async fn deliveries(&mut self, count: usize) -> Vec<Delivery> {
        let mut deliveries = Vec::new();
        while deliveries.len() < count {
            deliveries.push(self.delivery().await);
        }
        deliveries
    }

    pub(crate) async fn outcome(&mut self) -> (u64, PublishOutcome) {
        self.wait("a publish's outcome", |event| match event {
            Event::Published { publish, outcome } => Some((publish.0, outcome)),
            _ => None,
        })
        .await
    }

    /// Lets it work for a while, in which nothing of a kind may happen.
    pub(crate) async fn quiet(&mut self, forbidden: impl Fn(&Event) -> bool) {
        let working = async {
            loop {
                let mut events = Vec::new();
                self.broker.next(&mut events).await;
                for event in events {
                    assert!(!forbidden(&event), "{event:?}");
                    self.events.push_back(event);
                }
            }
        };
        let _ = tokio::time::timeout(Duration::from_millis(300), working).await;
    }
}
