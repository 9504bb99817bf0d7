//! The broker room against a real RabbitMQ.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]
#![expect(clippy::wildcard_enum_match_arm, reason = "a test names the event that it waits for")]

mod driven;
mod fence;
#[path = "../support/mod.rs"]
mod support;

use bytes::Bytes;
use driven::Driven;
use endpoint::broker::{BrokerError, BrokerState, Event};
use lapin::BasicProperties;
use support::{PATIENCE, Proxy, Topology};
use uuid::Uuid;
use waypost_engine::{PublishId, PublishOutcome};

#[tokio::test]
async fn a_task_comes_with_its_headers_and_goes_when_it_is_acknowledged() {
    let topology = Topology::create().await;
    let task = Uuid::new_v4();
    topology.send_task_with_wishes(task, b"\x01task").await;
    let mut driven = Driven::new(&topology, 10);
    let channel = driven.consuming().await;
    let delivery = driven.delivery().await;
    assert_eq!(delivery.task.0, task);
    assert_eq!(delivery.function.0, Uuid::nil());
    assert_eq!(delivery.tag.channel.0, channel);
    assert!(!delivery.redelivered);
    assert_eq!(delivery.resource_specification.as_deref(), Some("{\"a\": 1}"));
    assert_eq!(delivery.result_serializers.as_deref(), Some(&["x.Y".to_owned()][..]));
    assert_eq!(delivery.body, Bytes::from_static(b"\x01task"));
    assert_eq!(driven.broker.state(), BrokerState::Consuming);

    // Not acknowledged: it comes again to the next consumer.
    driven.broker.close().await;
    assert_eq!(driven.broker.state(), BrokerState::Closed);
    let mut driven = Driven::new(&topology, 10);
    let delivery = driven.delivery().await;
    assert!(delivery.redelivered);
    driven.broker.ack(delivery.tag, false);
    driven.broker.close().await;
    assert_eq!(topology.ready("tasks").await, 0);
    topology.remove().await;
}

/// All headers of a message come in one frame, which RabbitMQ cuts to nobody's size.
#[tokio::test]
async fn a_task_with_large_headers_comes_and_does_not_end_the_connection() {
    let topology = Topology::create().await;
    let (large, next) = (Uuid::new_v4(), Uuid::new_v4());
    topology.send_task_with_large_wishes(large, 120_000).await;
    topology.send_task(next, b"\x01task").await;
    let mut driven = Driven::new(&topology, 10);
    driven.consuming().await;
    let deliveries = driven.deliveries(2).await;
    assert_eq!(deliveries[0].task.0, large);
    assert_eq!(
        deliveries[0].resource_specification.as_deref().map(str::len),
        Some(120_000)
    );
    assert_eq!(deliveries[1].task.0, next);
    driven.broker.close().await;
    topology.remove().await;
}

#[tokio::test]
async fn results_are_published_as_the_service_asked_and_confirmed_each_by_its_id() {
    let topology = Topology::create().await;
    let mut driven = Driven::new(&topology, 10);
    driven.consuming().await;
    for id in 0..500 {
        driven
            .broker
            .publish(PublishId(id), Bytes::from(format!("result {id}")));
    }
    let mut confirmed = std::collections::BTreeSet::new();
    while confirmed.len() < 500 {
        let (id, outcome) = driven.outcome().await;
        assert_eq!(outcome, PublishOutcome::Confirmed);
        assert!(confirmed.insert(id));
    }
    assert!(driven.broker.is_flushed());
    topology.wait_ready("results", 500).await;
    let message = topology.take("results").await.unwrap();
    assert_eq!(message.delivery.data, b"result 0");
    assert_eq!(
        message.delivery.properties,
        BasicProperties::default().with_delivery_mode(2)
    );
    driven.broker.close().await;
    topology.remove().await;
}

#[tokio::test]
async fn a_result_without_a_queue_is_told_as_returned_and_only_that() {
    let topology = Topology::create().await;
    let mut driven = Driven::new(&topology, 10);
    driven.consuming().await;
    // Unbound while results are under way: each is told as what became of it, which the queue's count proves.
    let mut outcomes = std::collections::BTreeMap::new();
    for round in 0..10_u64 {
        let publish = |driven: &mut Driven, ids: std::ops::Range<u64>| {
            for id in ids {
                driven
                    .broker
                    .publish(PublishId(id), Bytes::from(format!("result {id}")));
            }
        };
        publish(&mut driven, round * 100..round * 100 + 50);
        // The first answer shows that the others are under way.
        let (id, outcome) = driven.outcome().await;
        outcomes.insert(id, outcome);
        topology.unbind("results").await;
        publish(&mut driven, round * 100 + 50..round * 100 + 100);
        while outcomes.len() < usize::try_from(round + 1).unwrap() * 100 {
            let (id, outcome) = driven.outcome().await;
            assert!(outcomes.insert(id, outcome).is_none(), "{id} has two outcomes");
        }
        topology.bind("results").await;
    }
    for (id, outcome) in &outcomes {
        let allowed: &[PublishOutcome] = match id % 100 {
            0..50 => &[PublishOutcome::Confirmed, PublishOutcome::Returned],
            _ => &[PublishOutcome::Returned],
        };
        assert!(allowed.contains(outcome), "{id}: {outcome:?}");
    }
    let confirmed = outcomes
        .values()
        .filter(|outcome| **outcome == PublishOutcome::Confirmed)
        .count();
    topology.wait_ready("results", u32::try_from(confirmed).unwrap()).await;
    driven.broker.close().await;
    topology.remove().await;
}

#[tokio::test]
async fn the_window_changes_and_old_tags_stay_valid() {
    let topology = Topology::create().await;
    for number in 0..40_u128 {
        topology.send_task(Uuid::from_u128(number), b"x").await;
    }
    let mut driven = Driven::new(&topology, 4);
    let mut deliveries = driven.deliveries(4).await;
    driven.quiet(|event| matches!(event, Event::Delivery(_))).await;
    driven.broker.set_prefetch(10);
    deliveries.extend(driven.deliveries(10).await);
    driven.broker.set_prefetch(3);
    driven.broker.set_prefetch(30);
    deliveries.extend(driven.deliveries(26).await);
    // In the order of the queue, with rising tags of one channel.
    for (number, delivery) in deliveries.iter().enumerate() {
        assert_eq!(delivery.task.0.as_u128(), number as u128);
        assert_eq!(delivery.tag.tag, number as u64 + 1);
        assert_eq!(delivery.tag.channel, deliveries[0].tag.channel);
    }
    driven.broker.ack(deliveries[19].tag, true);
    driven.broker.give_back(deliveries[39].tag);
    let again = driven.delivery().await;
    assert!(again.redelivered);
    assert_eq!(again.task, deliveries[39].task);
    driven.broker.ack(again.tag, true);
    driven.broker.close().await;
    assert_eq!(topology.ready("tasks").await, 0);
    topology.remove().await;
}

#[tokio::test]
async fn a_window_of_nothing_stops_deliveries_and_keeps_acknowledging() {
    let topology = Topology::create().await;
    topology.send_task(Uuid::from_u128(1), b"x").await;
    let mut driven = Driven::new(&topology, 10);
    let delivery = driven.delivery().await;
    driven.broker.set_prefetch(0);
    driven.quiet(|_| false).await;
    topology.send_task(Uuid::from_u128(2), b"x").await;
    driven.quiet(|event| matches!(event, Event::Delivery(_))).await;
    driven.broker.ack(delivery.tag, false);
    driven.broker.set_prefetch(10);
    assert_eq!(driven.delivery().await.task.0.as_u128(), 2);
    driven.broker.close().await;
    topology.wait_ready("tasks", 1).await;
    topology.remove().await;
}

#[tokio::test]
async fn a_cut_connection_is_made_again_and_tags_of_the_old_one_are_dropped() {
    let topology = Topology::create().await;
    topology.send_task(Uuid::from_u128(1), b"x").await;
    let proxy = Proxy::to(&topology.url).await;
    let mut driven = Driven::with(topology.credentials_by(&proxy.url), 10);
    let first = driven.consuming().await;
    let old = driven.delivery().await;
    proxy.cut();
    let lost = driven.wait("the loss", |event| match event {
        Event::Lost { channel, .. } => Some(channel),
        _ => None,
    });
    assert_eq!(lost.await, Some(first));
    // Without a connection an acknowledgement is dropped; with the next one it still is.
    driven.broker.ack(old.tag, true);
    let second = driven.consuming().await;
    assert!(second > first);
    let new = driven.delivery().await;
    assert!(new.redelivered);
    driven.broker.ack(old.tag, true);
    driven.quiet(|event| matches!(event, Event::Lost { .. })).await;
    driven.broker.close().await;
    topology.wait_ready("tasks", 1).await;
    topology.remove().await;
}

#[tokio::test]
async fn a_connection_that_is_cut_under_publishes_tells_of_the_loss_once_and_of_no_publish_wrongly() {
    let topology = Topology::create().await;
    let proxy = Proxy::to(&topology.url).await;
    let mut driven = Driven::with(topology.credentials_by(&proxy.url), 10);
    driven.consuming().await;
    for id in 0..300 {
        driven.broker.publish(PublishId(id), Bytes::from(vec![b'x'; 10_000]));
    }
    let (first, _) = driven.outcome().await;
    proxy.cut();
    let mut confirmed = std::collections::BTreeSet::from([first]);
    driven
        .wait("the loss", |event| match event {
            Event::Published {
                publish,
                outcome: PublishOutcome::Confirmed,
            } => {
                assert!(confirmed.insert(publish.0));
                None
            }
            Event::Published { outcome, .. } => panic!("{outcome:?}"),
            Event::Lost { .. } => Some(()),
            _ => None,
        })
        .await;
    driven.consuming().await;
    let arrived = topology.ready("results").await as usize;
    assert!(
        arrived >= confirmed.len(),
        "{} were confirmed, and {arrived} arrived",
        confirmed.len()
    );
    assert!(
        driven.broker.is_flushed(),
        "what was under way is not sent by itself: whoever wants it publishes again"
    );
    driven.broker.close().await;
    topology.remove().await;
}

#[tokio::test]
async fn a_deleted_queue_cancels_the_consumer_and_it_comes_back_with_the_queue() {
    let topology = Topology::create().await;
    let mut driven = Driven::new(&topology, 10);
    let first = driven.consuming().await;
    topology.delete("tasks").await;
    driven
        .wait("the cancel", |event| match event {
            Event::Lost {
                channel,
                reason: BrokerError::Cancelled,
            } => {
                assert_eq!(channel, Some(first));
                Some(())
            }
            _ => None,
        })
        .await;
    topology.declare_tasks().await;
    assert!(driven.consuming().await > first);
    driven.broker.close().await;
    topology.remove().await;
}

#[tokio::test]
async fn refused_credentials_are_told_as_such_and_newer_ones_are_taken_at_once() {
    let topology = Topology::create().await;
    let mut url = url::Url::parse(&topology.url).unwrap();
    url.set_password(Some("wrong")).unwrap();
    let mut driven = Driven::with(topology.credentials_by(url.as_str()), 10);
    let why = driven.wait("the refusal", |event| match event {
        Event::Refused(why) => Some(why),
        _ => None,
    });
    let why = why.await;
    assert!(why.contains("ACCESS_REFUSED"), "{why}");
    assert!(!why.contains("wrong"), "a password does not reach an error text");
    assert_eq!(driven.broker.state(), BrokerState::Refused);
    let asked = std::time::Instant::now();
    driven.broker.replace_credentials(topology.credentials());
    driven.consuming().await;
    assert!(asked.elapsed() < PATIENCE / 2);
    driven.broker.close().await;
    topology.remove().await;
}

#[tokio::test]
async fn the_same_credentials_again_change_nothing_and_others_reconnect() {
    let topology = Topology::create().await;
    let proxy = Proxy::to(&topology.url).await;
    let mut driven = Driven::new(&topology, 10);
    let first = driven.consuming().await;
    driven.broker.replace_credentials(topology.credentials());
    driven.quiet(|event| matches!(event, Event::Lost { .. })).await;
    driven.broker.replace_credentials(topology.credentials_by(&proxy.url));
    assert!(driven.consuming().await > first);
    driven.broker.close().await;
    topology.remove().await;
}

#[tokio::test]
async fn a_message_that_is_no_task_is_rejected_and_named() {
    let topology = Topology::create().await;
    topology.send(BasicProperties::default(), b"no headers").await;
    topology.send_task(Uuid::from_u128(1), b"x").await;
    let mut driven = Driven::new(&topology, 10);
    let why = driven.wait("the rejection", |event| match event {
        Event::Malformed(why) => Some(why),
        _ => None,
    });
    assert_eq!(why.await, "the header task_uuid is missing");
    let delivery = driven.delivery().await;
    driven.broker.ack(delivery.tag, true);
    driven.broker.close().await;
    assert_eq!(topology.ready("tasks").await, 0);
    topology.remove().await;
}

#[tokio::test]
async fn the_depth_of_the_queue_is_what_waits_beyond_the_window() {
    let topology = Topology::create().await;
    for number in 0..12_u128 {
        topology.send_task(Uuid::from_u128(number), b"x").await;
    }
    let mut driven = Driven::new(&topology, 5);
    driven.deliveries(5).await;
    driven.broker.ask_depth();
    let depth = driven.wait("the depth", |event| match event {
        Event::Depth { ready } => Some(ready),
        _ => None,
    });
    assert_eq!(depth.await, 7);
    driven.broker.close().await;
    topology.remove().await;
}

#[tokio::test]
async fn heartbeats_go_out_and_the_last_one_goes_before_the_connection() {
    let topology = Topology::create().await;
    let mut driven = Driven::new(&topology, 5);
    driven.consuming().await;
    driven.broker.heartbeat(Bytes::from_static(b"first"));
    driven.quiet(|_| false).await;
    driven.broker.heartbeat(Bytes::from_static(b"last"));
    driven.broker.close().await;
    for expected in [&b"first"[..], b"last"] {
        assert_eq!(topology.take("heartbeats").await.unwrap().delivery.data, expected);
    }
    topology.remove().await;
}
