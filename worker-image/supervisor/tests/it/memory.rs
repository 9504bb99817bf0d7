//! The executor that takes too much memory is ended before the kernel ends them all.

use serde_json::json;
use uuid::Uuid;
use waypost_link::Cause;

use crate::agent::Agent;
use crate::tasks::{pack, returned};

#[tokio::test]
async fn the_executor_furthest_over_its_share_is_ended_and_its_neighbour_goes_on() {
    let agent = Agent::unix();
    let limit = 700 << 20;
    let _worker = agent.start(&["--slots", "2", "--memory-limit", &limit.to_string()]);
    let mut session = agent.welcome().await;
    let gate = agent.folder.path().join("gate");
    let buffers = pack(&[
        ("small", "wait_for", json!([gate])),
        ("large", "grow", json!([650, 60])),
    ]);
    let (small, large) = (Uuid::new_v4(), Uuid::new_v4());
    session.run(small, &buffers[0]).await;
    session.run(large, &buffers[1]).await;
    let Cause::OutOfMemory { peak, limit: share } = session.failure_of(large).await.cause else {
        panic!("it ran out of memory")
    };
    assert!(peak > 500 << 20 && peak < 800 << 20, "{peak}");
    assert_eq!(share, (limit - (64 << 20)) / 2);
    std::fs::write(&gate, "").unwrap();
    assert_eq!(returned(&session.result_of(small).await), "saw it");
}

#[tokio::test]
async fn a_share_may_be_exceeded_while_there_is_room() {
    let agent = Agent::unix();
    let _worker = agent.start(&[
        "--slots",
        "2",
        "--memory-limit",
        "1500000000",
        "--memory-per-slot",
        "10000000",
    ]);
    let mut session = agent.welcome().await;
    let body = session.result(&pack(&[("large", "grow", json!([200, 0.5]))])[0]).await;
    assert_eq!(returned(&body), 200 << 20);
}
