//! The same conversations over a Unix socket and over TLS.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::timeout;
use uuid::Uuid;
use waypost_link::codec::CHUNK;
use waypost_link::tls::{Authority, client_config};
use waypost_link::{Address, Limits, LinkError, Listener, Stream, ToAgent, ToWorker, split};

use crate::{finished, hello};

struct Ends {
    agent: Stream,
    worker: Stream,
    _folder: tempfile::TempDir,
}

async fn connect(kind: &str) -> Ends {
    let folder = tempfile::tempdir().unwrap();
    let (listener, address, client) = match kind {
        "unix" => {
            let path = folder.path().join("agent.sock");
            (Listener::unix(&path).unwrap(), Address::Unix(path), None)
        }
        _ => {
            let authority = Authority::generate().unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = Address::Tls(listener.local_addr().unwrap().to_string());
            let client = client_config(&authority.certificate_pem().unwrap()).unwrap();
            (
                Listener::tls(listener, authority.server_config().unwrap()),
                address,
                Some(client),
            )
        }
    };
    let (agent, worker) = tokio::join!(
        async { listener.accept().await.unwrap().complete().await.unwrap() },
        async { Stream::connect(&address, client.as_ref()).await.unwrap() },
    );
    Ends {
        agent,
        worker,
        _folder: folder,
    }
}

/// Runs a conversation over both kinds of connection; none of them may take longer than a minute.
macro_rules! over_both {
    ($($name:ident)*) => {
        mod over_a_unix_socket { $(#[tokio::test] async fn $name() {
            let ends = super::connect("unix").await;
            super::timeout(super::Duration::from_secs(60), super::$name(ends)).await.unwrap();
        })* }
        mod over_tls { $(#[tokio::test] async fn $name() {
            let ends = super::connect("tls").await;
            super::timeout(super::Duration::from_secs(60), super::$name(ends)).await.unwrap();
        })* }
    };
}

over_both! {
    a_worker_says_hello_and_is_welcomed
    a_batch_is_read_in_one_go
    ten_megabytes_do_not_hold_up_a_heartbeat
    both_sides_may_send_much_at_the_same_time
    a_part_of_a_message_counts_as_heard
    a_write_that_is_given_up_midway_loses_nothing
    a_peer_that_closes_between_messages_is_a_clean_end
    a_peer_that_is_gone_in_the_middle_of_a_message_is_an_error
}

async fn a_worker_says_hello_and_is_welcomed(ends: Ends) {
    let (mut from_worker, mut to_worker) = split::<ToAgent, _>(ends.agent, Limits::STRANGER);
    let (mut from_agent, mut to_agent) = split::<ToWorker, _>(ends.worker, Limits::TRUSTED);
    let sent = ToAgent::Hello(Box::new(hello()));
    to_agent.push(&sent).unwrap();
    to_agent.flush().await.unwrap();
    assert_eq!(from_worker.next().await.unwrap(), Some(sent));
    let welcome = ToWorker::Welcome {
        version: 1,
        result_credit: 7,
    };
    to_worker.push(&welcome).unwrap();
    to_worker.flush().await.unwrap();
    assert_eq!(from_agent.next().await.unwrap(), Some(welcome));
}

async fn a_batch_is_read_in_one_go(ends: Ends) {
    let (mut from_worker, _to_worker) = split::<ToAgent, _>(ends.agent, Limits::TRUSTED);
    let (_from_agent, mut to_agent) = split::<ToWorker, _>(ends.worker, Limits::TRUSTED);
    for id in 0..50 {
        to_agent.push(&finished(id, vec![1; 100])).unwrap();
    }
    to_agent.flush().await.unwrap();
    assert_eq!(from_worker.next().await.unwrap(), Some(finished(0, vec![1; 100])));
    let mut received = 1;
    while from_worker.next_received().unwrap().is_some() {
        received += 1;
    }
    // TLS may cut the 8 KiB into several records; a Unix socket gives them as they were written.
    assert!(received > 10, "only {received} came with the first");
}

async fn ten_megabytes_do_not_hold_up_a_heartbeat(ends: Ends) {
    let (mut from_worker, _to_worker) = split::<ToAgent, _>(ends.agent, Limits::TRUSTED);
    let (_from_agent, mut to_agent) = split::<ToWorker, _>(ends.worker, Limits::TRUSTED);
    to_agent.push(&finished(1, vec![1; 10 * 1024 * 1024])).unwrap();
    to_agent.write_some().await.unwrap();
    to_agent.push(&ToAgent::Heartbeat).unwrap();
    let (_, first) = tokio::join!(async { to_agent.flush().await.unwrap() }, async {
        let first = from_worker.next().await.unwrap();
        assert_eq!(
            from_worker.next().await.unwrap(),
            Some(finished(1, vec![1; 10 * 1024 * 1024]))
        );
        first
    });
    assert_eq!(first, Some(ToAgent::Heartbeat));
}

async fn both_sides_may_send_much_at_the_same_time(ends: Ends) {
    let (mut from_worker, mut to_worker) = split::<ToAgent, _>(ends.agent, Limits::TRUSTED);
    let (mut from_agent, mut to_agent) = split::<ToWorker, _>(ends.worker, Limits::TRUSTED);
    for id in 0..20 {
        to_agent.push(&finished(id, vec![1; 3 * CHUNK])).unwrap();
        to_worker
            .push(&ToWorker::Run {
                task: Uuid::from_u128(id),
                attempt: 0,
                result_serializers: Vec::new(),
                body: vec![2; 3 * CHUNK].into(),
            })
            .unwrap();
    }
    tokio::join!(
        async { to_agent.flush().await.unwrap() },
        async { to_worker.flush().await.unwrap() },
        async {
            for _ in 0..20 {
                assert!(matches!(
                    from_worker.next().await.unwrap(),
                    Some(ToAgent::Finished { .. })
                ));
            }
        },
        async {
            for _ in 0..20 {
                assert!(matches!(from_agent.next().await.unwrap(), Some(ToWorker::Run { .. })));
            }
        },
    );
    assert!(to_agent.is_idle() && to_agent.queued_bytes() == 0);
}

async fn a_part_of_a_message_counts_as_heard(ends: Ends) {
    let (mut from_worker, _to_worker) = split::<ToAgent, _>(ends.agent, Limits::TRUSTED);
    let (_from_agent, mut to_agent) = split::<ToWorker, _>(ends.worker, Limits::TRUSTED);
    let before = from_worker.heard();
    to_agent.push(&finished(1, vec![1; 4 * CHUNK])).unwrap();
    to_agent.write_some().await.unwrap();
    // All that was written has come when there is nothing to read for a moment, and it was no whole message.
    while from_worker.heard() == before {
        let message = timeout(Duration::from_millis(5), from_worker.next()).await;
        assert!(message.is_err(), "{message:?}");
    }
    let heard = from_worker.heard();
    let (_, message) = tokio::join!(async { to_agent.flush().await.unwrap() }, from_worker.next());
    assert_eq!(message.unwrap(), Some(finished(1, vec![1; 4 * CHUNK])));
    assert!(from_worker.heard() > heard);
}

async fn a_write_that_is_given_up_midway_loses_nothing(ends: Ends) {
    let (mut from_worker, _to_worker) = split::<ToAgent, _>(ends.agent, Limits::TRUSTED);
    let (_from_agent, mut to_agent) = split::<ToWorker, _>(ends.worker, Limits::TRUSTED);
    let body: Vec<u8> = (0..40_000_000u32).map(|number| number.to_le_bytes()[1]).collect();
    to_agent.push(&finished(1, body.clone())).unwrap();
    // Nobody reads, so the write gets stuck (a TCP connection holds some 12 MB) and is given up.
    let stuck = timeout(Duration::from_millis(50), to_agent.flush()).await;
    assert!(stuck.is_err());
    to_agent.push(&ToAgent::Heartbeat).unwrap();
    let (_, messages) = tokio::join!(async { to_agent.flush().await.unwrap() }, async {
        [from_worker.next().await.unwrap(), from_worker.next().await.unwrap()]
    });
    assert_eq!(messages, [Some(ToAgent::Heartbeat), Some(finished(1, body))]);
}

async fn a_peer_that_closes_between_messages_is_a_clean_end(ends: Ends) {
    let (mut from_worker, _to_worker) = split::<ToAgent, _>(ends.agent, Limits::TRUSTED);
    let (_from_agent, mut to_agent) = split::<ToWorker, _>(ends.worker, Limits::TRUSTED);
    to_agent.push(&ToAgent::Heartbeat).unwrap();
    to_agent.close().await.unwrap();
    assert_eq!(from_worker.next().await.unwrap(), Some(ToAgent::Heartbeat));
    assert_eq!(from_worker.next().await.unwrap(), None);
}

async fn a_peer_that_is_gone_in_the_middle_of_a_message_is_an_error(ends: Ends) {
    let (mut from_worker, _to_worker) = split::<ToAgent, _>(ends.agent, Limits::TRUSTED);
    {
        let (_from_agent, mut to_agent) = split::<ToWorker, _>(ends.worker, Limits::TRUSTED);
        to_agent.push(&finished(1, vec![1; 3 * CHUNK])).unwrap();
        to_agent.write_some().await.unwrap();
    }
    assert!(matches!(
        from_worker.next().await,
        Err(LinkError::Truncated | LinkError::Io(_))
    ));
}

#[tokio::test]
async fn a_silent_peer_does_not_hold_up_the_next_one() {
    let authority = Authority::generate().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let listener = Listener::tls(listener, authority.server_config().unwrap());
    let _silent = tokio::net::TcpStream::connect(address).await.unwrap();
    let first = tokio::spawn(listener.accept().await.unwrap().complete());
    let client = client_config(&authority.certificate_pem().unwrap()).unwrap();
    let address = Address::Tls(address.to_string());
    let (second, dialled) = tokio::join!(
        async { listener.accept().await.unwrap().complete().await },
        Stream::connect(&address, Some(&client)),
    );
    assert!(second.is_ok() && dialled.is_ok());
    assert!(!first.is_finished());
    first.abort();
}

#[tokio::test]
async fn a_tls_address_without_a_ca_is_a_clear_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::Tls(listener.local_addr().unwrap().to_string());
    let error = Stream::connect(&address, None::<&Arc<_>>).await.unwrap_err();
    assert_eq!(error.to_string(), "a TLS address needs the agent's CA certificate");
}
