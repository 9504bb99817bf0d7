//! One agent of an endpoint serves, on each type of queue.

use bytes::Bytes;
use endpoint::broker::{BrokerState, Event};
use uuid::Uuid;
use waypost_engine::{PublishId, PublishOutcome};

use crate::driven::Driven;
use crate::support::refusal::refusing;
use crate::support::{Proxy, QueueType, Topology, soon};

async fn standing_by(driven: &mut Driven) {
    driven
        .wait("standby", |event| match event {
            Event::Standby => Some(()),
            Event::Consuming { .. } | Event::Delivery(_) => panic!("it serves"),
            _ => None,
        })
        .await;
    assert_eq!(driven.broker.state(), BrokerState::Standby);
}

#[tokio::test]
async fn a_second_agent_stands_by_until_the_first_is_gone() {
    for queue_type in [QueueType::Classic, QueueType::Quorum] {
        let topology = Topology::create_with(queue_type).await;
        let mut first = Driven::new(&topology, 10);
        first.consuming().await;
        let mut second = Driven::new(&topology, 10);
        standing_by(&mut second).await;
        for number in 0..20_u128 {
            topology.send_task(Uuid::from_u128(number), b"x").await;
        }
        // The window of the first is full, and what waits is not for the second.
        assert_eq!(first.deliveries(10).await.len(), 10);
        second
            .quiet(|event| matches!(event, Event::Delivery(_) | Event::Consuming { .. }))
            .await;
        // It may publish meanwhile: results in hand are not the fence's matter.
        second.broker.publish(PublishId(7), Bytes::from_static(b"in hand"));
        assert_eq!(second.outcome().await, (7, PublishOutcome::Confirmed));
        first.broker.close().await;
        second.consuming().await;
        assert_eq!(second.broker.state(), BrokerState::Consuming);
        assert_eq!(second.deliveries(10).await.len(), 10);
        second.broker.close().await;
        topology.remove().await;
    }
}

#[tokio::test]
async fn who_stands_by_and_is_told_to_consume_no_more_leaves_the_queue_to_others() {
    let topology = Topology::create_with(QueueType::Classic).await;
    let mut first = Driven::new(&topology, 10);
    first.consuming().await;
    let mut second = Driven::new(&topology, 10);
    standing_by(&mut second).await;
    second.broker.set_prefetch(0);
    second.broker.publish(PublishId(7), Bytes::from_static(b"in hand"));
    assert_eq!(second.outcome().await, (7, PublishOutcome::Confirmed));
    first.broker.close().await;
    topology.send_task(Uuid::from_u128(1), b"x").await;
    let mut third = Driven::new(&topology, 10);
    tokio::select! {
        delivery = third.delivery() => assert_eq!(delivery.task.0.as_u128(), 1),
        () = second.wait("nothing", |event| match event {
            Event::Delivery(delivery) => panic!("{delivery:?}"),
            _ => None,
        }) => {}
    }
    third.broker.close().await;
    second.broker.close().await;
    topology.remove().await;
}

#[tokio::test]
async fn of_two_agents_that_come_at_once_one_serves_and_the_other_is_given_nothing() {
    for queue_type in [QueueType::Classic, QueueType::Quorum] {
        for round in 0..10 {
            let topology = Topology::create_with(queue_type).await;
            topology.send_task(Uuid::from_u128(1), b"x").await;
            let (mut one, mut other) = (Driven::new(&topology, 10), Driven::new(&topology, 10));
            let first = soon("the first", async {
                tokio::select! {
                    _ = one.consuming() => 1,
                    _ = other.consuming() => 2,
                }
            });
            let (mut serving, mut waiting) = match first.await {
                1 => (one, other),
                _ => (other, one),
            };
            assert_eq!(serving.delivery().await.task.0.as_u128(), 1, "round {round}");
            // It may have been told already.
            if waiting.broker.state() != BrokerState::Standby {
                standing_by(&mut waiting).await;
            }
            serving.broker.close().await;
            assert_eq!(waiting.delivery().await.task.0.as_u128(), 1, "round {round}");
            waiting.broker.close().await;
            topology.remove().await;
        }
    }
}

#[tokio::test]
async fn who_changes_its_window_with_tasks_in_hand_keeps_a_quorum_queue() {
    let topology = Topology::create_with(QueueType::Quorum).await;
    for number in 0..40_u128 {
        topology.send_task(Uuid::from_u128(number), b"x").await;
    }
    let mut serving = Driven::new(&topology, 2);
    let mut deliveries = serving.deliveries(2).await;
    let mut waiting = Driven::new(&topology, 10);
    standing_by(&mut waiting).await;
    let second = tokio::spawn(async move {
        waiting
            .wait("the queue", |event| match event {
                Event::Delivery(delivery) => panic!("{delivery:?}"),
                Event::Consuming { .. } => Some(()),
                _ => None,
            })
            .await;
        waiting
    });
    for window in 3..10 {
        serving.broker.set_prefetch(window);
        // The window is each consumer's own: those before have all that they may have.
        deliveries.extend(serving.deliveries(usize::from(window)).await);
        if deliveries.len() >= 20 {
            serving.broker.ack(deliveries[deliveries.len() - 1].tag, true);
        }
        if deliveries.len() > 30 {
            break;
        }
    }
    serving.quiet(|event| matches!(event, Event::Lost { .. })).await;
    assert!(!second.is_finished(), "two serve");
    serving.broker.close().await;
    let mut second = soon("the second", second).await.unwrap();
    second.broker.close().await;
    topology.remove().await;
}

#[tokio::test]
async fn an_agent_that_was_cut_off_comes_back_to_its_quorum_queue_without_standing_by() {
    let topology = Topology::create_with(QueueType::Quorum).await;
    topology.send_task(Uuid::from_u128(1), b"x").await;
    let proxy = Proxy::to(&topology.url).await;
    let mut driven = Driven::with(topology.credentials_by(&proxy.url), 10);
    let first = driven.consuming().await;
    driven.delivery().await;
    proxy.cut();
    let again = driven.wait("the queue again", |event| match event {
        Event::Standby => panic!("it waits for itself"),
        Event::Consuming { channel } => Some(channel),
        _ => None,
    });
    assert!(again.await > first);
    assert!(driven.delivery().await.redelivered);
    driven.broker.close().await;
    topology.remove().await;
}

#[tokio::test]
async fn where_consumers_may_not_be_counted_the_wish_to_be_the_only_one_still_counts() {
    let topology = Topology::create_with(QueueType::Classic).await;
    topology.send_task(Uuid::from_u128(1), b"x").await;
    let (url, mut refusals) = refusing(&topology.url, topology.queue("tasks")).await;
    let mut first = Driven::with(topology.credentials_by(&url), 10);
    first.delivery().await;
    refusals.recv().await.unwrap();
    let mut second = Driven::with(topology.credentials_by(&url), 10);
    standing_by(&mut second).await;
    first.broker.close().await;
    assert!(second.delivery().await.redelivered);
    // Asked once on each connection, however often the second tried.
    refusals.recv().await.unwrap();
    assert!(refusals.try_recv().is_err());
    second.broker.close().await;
    topology.remove().await;
}
