//! The hub against the link's own client side, over a Unix socket and over TLS.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test fails by it")]

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes};
use endpoint::hub::{Hub, HubEvent, Registration, WorkerHandle};
use endpoint_provider::BlockNames;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use uuid::Uuid;
use waypost_engine::{BlockId, HeldState, Input, TaskId, TaskOutcome};
use waypost_link::codec::Encoder;
use waypost_link::tls::{Authority, client_config};
use waypost_link::{
    Address, BlockToken, DEAD_AFTER, Held, Hello, HelloRefusal, Limits, LinkReader, LinkWriter, Listener, Outcome,
    Stream, ToAgent, ToWorker, TokenKey, VERSIONS, VersionRange, split,
};

const PATIENCE: Duration = Duration::from_secs(60);
const USER_ENDPOINT: Uuid = Uuid::from_u128(0xabc << 96);
const BLOCK: BlockId = BlockId { epoch: 3, number: 1 };

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("{what} did not come within {PATIENCE:?}"))
}

/// A hub that listens both ways, and one user endpoint in it.
struct Setting {
    hub: Hub,
    unix: Address,
    tls: Address,
    client: Arc<rustls::ClientConfig>,
    registration: Option<Registration>,
    events: mpsc::Receiver<HubEvent>,
    _directory: tempfile::TempDir,
}

async fn setting() -> Setting {
    let directory = tempfile::tempdir().unwrap();
    let mut hub = Hub::listen(Uuid::nil(), directory.path(), TokenKey::from_bytes([9; 32])).unwrap();
    let authority = Authority::generate().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tls = Address::Tls(listener.local_addr().unwrap().to_string());
    hub.serve(Listener::tls(listener, authority.server_config().unwrap()));
    let client = client_config(&authority.certificate_pem().unwrap()).unwrap();
    let (sender, events) = mpsc::channel(8);
    let registration = Some(hub.register(BlockNames::new(USER_ENDPOINT), sender));
    let unix = hub.address().parse().unwrap();
    Setting {
        hub,
        unix,
        tls,
        client,
        registration,
        events,
        _directory: directory,
    }
}

type Reader = LinkReader<ToWorker, tokio::io::ReadHalf<Stream>>;
type Writer = LinkWriter<tokio::io::WriteHalf<Stream>>;

impl Setting {
    fn hello(&self) -> Hello {
        let block = BlockNames::new(USER_ENDPOINT).name(BLOCK);
        Hello {
            versions: VERSIONS,
            worker_version: "0".to_owned(),
            instance: Uuid::from_u128(1),
            endpoint: USER_ENDPOINT,
            token: self.hub.token(USER_ENDPOINT, &block),
            block,
            slots: 2,
            pid: 1,
            hostname: "here".to_owned(),
            python_version: "3.11.2".to_owned(),
            sdk_version: "4.19.0".to_owned(),
            held: Vec::new(),
            settled: Vec::new(),
        }
    }

    async fn dial(&self, address: &Address, hello: Hello) -> (Reader, Writer, ToWorker) {
        let stream = Stream::connect(address, Some(&self.client)).await.unwrap();
        let (mut reader, mut writer) = split::<ToWorker, _>(stream, Limits::TRUSTED);
        writer.push(&ToAgent::Hello(Box::new(hello))).unwrap();
        writer.flush().await.unwrap();
        let answer = soon("an answer", reader.next())
            .await
            .unwrap()
            .expect("an answer before the end");
        (reader, writer, answer)
    }

    async fn refusal(&self, hello: Hello) -> HelloRefusal {
        let unix = self.unix.clone();
        match self.dial(&unix, hello).await {
            (mut reader, _writer, ToWorker::Refused { code, text }) => {
                assert!(!text.is_empty());
                assert!(
                    soon("the end", reader.next()).await.unwrap().is_none(),
                    "the connection is closed after it"
                );
                code
            }
            (_, _, other) => panic!("{other:?}"),
        }
    }

    async fn joined(&mut self) -> WorkerHandle {
        match soon("a hello", self.events.recv()).await.unwrap() {
            HubEvent::Hello {
                worker, block, slots, ..
            } => {
                assert_eq!((block, slots), (BLOCK, 2));
                worker
            }
            other => panic!("{other:?}"),
        }
    }
}

fn welcomed(answer: &ToWorker) {
    assert!(matches!(answer, ToWorker::Welcome { version: 1, .. }), "{answer:?}");
}

#[tokio::test]
async fn a_worker_is_let_in_and_both_ways_are_open_on_either_kind_of_listener() {
    for tls in [false, true] {
        let mut setting = setting().await;
        let address = if tls { setting.tls.clone() } else { setting.unix.clone() };
        let (running, settled) = (Uuid::from_u128(5), Uuid::from_u128(6));
        let hello = Hello {
            held: vec![Held {
                task: running,
                attempt: 1,
                state: waypost_link::HeldState::Running,
            }],
            settled: vec![settled],
            ..setting.hello()
        };
        let (mut reader, mut writer, answer) = setting.dial(&address, hello).await;
        welcomed(&answer);
        let HubEvent::Hello {
            worker,
            held,
            python_version,
            sdk_version,
            ..
        } = soon("a hello", setting.events.recv()).await.unwrap()
        else {
            panic!("the first event is the hello")
        };
        let held: Vec<_> = held
            .iter()
            .map(|held| (held.task.0, held.attempt, held.state))
            .collect();
        assert_eq!(
            held,
            [(running, 1, HeldState::Running), (settled, 0, HeldState::Settled)]
        );
        assert_eq!((python_version.as_str(), sdk_version.as_str()), ("3.11.2", "4.19.0"));

        // Both ways at once, larger than any buffer between the two: nobody waits for the other.
        let body = Bytes::from(vec![b'x'; 3 << 20]);
        for number in 0..8 {
            worker.send(waypost_engine::ToWorker::Run {
                task: TaskId(Uuid::from_u128(number)),
                function: waypost_engine::FunctionId(Uuid::nil()),
                attempt: 0,
                resource_specification: None,
                result_serializers: None,
                body: body.clone(),
            });
            let finished = ToAgent::Finished {
                task: Uuid::from_u128(number),
                attempt: 0,
                outcome: Outcome::Success,
                run_time_ns: 1,
                body: body.clone(),
            };
            writer.push(&finished).unwrap();
        }
        let sending = tokio::spawn(async move {
            writer.flush().await.unwrap();
            writer
        });
        let mut results = 0;
        let mut tasks = 0;
        while results < 8 || tasks < 8 {
            tokio::select! {
                event = setting.events.recv() => {
                    let Some(HubEvent::Said(inputs)) = event else { panic!("{event:?}") };
                    for input in inputs {
                        let Input::TaskFinished { body: came, outcome: TaskOutcome::Succeeded, .. } = input else {
                            panic!("{input:?}")
                        };
                        assert_eq!(came, body);
                        results += 1;
                    }
                }
                message = reader.next() => match message.unwrap().unwrap() {
                    ToWorker::Run { body: came, .. } => {
                        assert_eq!(came, body);
                        tasks += 1;
                    }
                    ToWorker::Heartbeat => {}
                    other => panic!("{other:?}"),
                },
                () = tokio::time::sleep(PATIENCE) => panic!("{results} results and {tasks} tasks came"),
            }
        }
        drop(sending.await.unwrap());
        drop(reader);
        let lost = soon("the loss", setting.events.recv()).await.unwrap();
        assert!(
            matches!(lost, HubEvent::Lost { worker: id, .. } if id == worker.id),
            "{lost:?}"
        );
    }
}

#[tokio::test]
async fn who_shows_a_wrong_token_or_an_unknown_version_is_turned_away() {
    let setting = setting().await;
    let wrong = Hello {
        token: BlockToken::from_text("00"),
        ..setting.hello()
    };
    assert_eq!(setting.refusal(wrong).await, HelloRefusal::Token);
    // The token of another block of the same user endpoint.
    let other = BlockNames::new(USER_ENDPOINT).name(BlockId { epoch: 3, number: 2 });
    let swapped = Hello {
        block: other,
        ..setting.hello()
    };
    assert_eq!(setting.refusal(swapped).await, HelloRefusal::Token);
    let future = Hello {
        versions: VersionRange { oldest: 90, newest: 91 },
        ..setting.hello()
    };
    assert_eq!(setting.refusal(future).await, HelloRefusal::Version);
    let nameless = "not a block".to_owned();
    let token = setting.hub.token(USER_ENDPOINT, &nameless);
    let nameless = Hello {
        block: nameless,
        token,
        ..setting.hello()
    };
    assert_eq!(setting.refusal(nameless).await, HelloRefusal::Unwanted);
}

#[tokio::test]
async fn a_second_worker_with_the_same_token_is_refused_and_the_same_worker_takes_its_place_again() {
    let mut setting = setting().await;
    let unix = setting.unix.clone();
    let (mut first, _first_writer, answer) = setting.dial(&unix, setting.hello()).await;
    welcomed(&answer);
    let before = setting.joined().await;
    let thief = Hello {
        instance: Uuid::from_u128(2),
        ..setting.hello()
    };
    assert_eq!(setting.refusal(thief).await, HelloRefusal::AlreadyConnected);

    let (_second, _second_writer, answer) = setting.dial(&unix, setting.hello()).await;
    welcomed(&answer);
    let after = setting.joined().await;
    assert!(after.id > before.id);
    let ended = async { while let Ok(Some(_)) = first.next().await {} };
    soon("the end of the old session", ended).await;

    // Once the place is free, another worker may have it.
    drop((_second, _second_writer));
    loop {
        let lost = soon("the loss", setting.events.recv()).await.unwrap();
        if matches!(lost, HubEvent::Lost { worker, .. } if worker == after.id) {
            break;
        }
    }
    let next = Hello {
        instance: Uuid::from_u128(2),
        ..setting.hello()
    };
    let (_third, _third_writer, answer) = setting.dial(&unix, next).await;
    welcomed(&answer);
}

#[tokio::test]
async fn a_user_endpoint_that_does_not_run_here_or_stands_by_has_its_workers_dial_again() {
    let mut setting = setting().await;
    setting.registration.as_ref().unwrap().set_open(false);
    assert_eq!(setting.refusal(setting.hello()).await, HelloRefusal::NotMe);
    setting.registration.as_ref().unwrap().set_open(true);
    let unix = setting.unix.clone();
    let (mut reader, _writer, answer) = setting.dial(&unix, setting.hello()).await;
    welcomed(&answer);
    let worker = setting.joined().await;
    // The engine says Close when another agent has the queue.
    worker.send(waypost_engine::ToWorker::Close);
    assert!(soon("the end", reader.next()).await.unwrap().is_none());
    setting.registration = None;
    assert_eq!(setting.refusal(setting.hello()).await, HelloRefusal::NotMe);
}

#[tokio::test]
async fn the_workers_of_a_user_endpoint_that_failed_are_refused_for_good_until_it_starts_anew() {
    let mut setting = setting().await;
    setting.registration = None;
    setting.hub.give_up(USER_ENDPOINT);
    assert_eq!(setting.refusal(setting.hello()).await, HelloRefusal::Unwanted);
    let (sender, events) = mpsc::channel(8);
    setting.events = events;
    setting.registration = Some(setting.hub.register(BlockNames::new(USER_ENDPOINT), sender));
    let unix = setting.unix.clone();
    let (_reader, _writer, answer) = setting.dial(&unix, setting.hello()).await;
    welcomed(&answer);
    setting.registration = None;
    assert_eq!(setting.refusal(setting.hello()).await, HelloRefusal::NotMe);
}

#[tokio::test]
async fn a_stranger_that_talks_nonsense_is_cut_off_and_others_are_served() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut setting = setting().await;
    let Address::Unix(path) = setting.unix.clone() else {
        panic!("a Unix socket")
    };
    let mut stranger = tokio::net::UnixStream::connect(path).await.unwrap();
    stranger.write_all(&[0xff; 64]).await.unwrap();
    let mut nothing = Vec::new();
    soon("the end", stranger.read_to_end(&mut nothing)).await.ok();
    assert!(nothing.is_empty());
    let unix = setting.unix.clone();
    let (_reader, _writer, answer) = setting.dial(&unix, setting.hello()).await;
    welcomed(&answer);
    setting.joined().await;
}

#[tokio::test]
async fn a_result_may_take_longer_than_a_silent_worker_would_be_waited_for() {
    use tokio::io::AsyncWriteExt as _;
    let mut setting = setting().await;
    let stream = Stream::connect(&setting.unix, None).await.unwrap();
    let (reader, mut writer) = tokio::io::split(stream);
    let mut reader = LinkReader::<ToWorker, _>::new(reader, Limits::TRUSTED);
    writer
        .write_all(&encoded(&ToAgent::Hello(Box::new(setting.hello()))))
        .await
        .unwrap();
    welcomed(&soon("an answer", reader.next()).await.unwrap().unwrap());
    let _worker = setting.joined().await;
    let body = Bytes::from(vec![b'x'; 1 << 20]);
    let result = encoded(&ToAgent::Finished {
        task: Uuid::from_u128(1),
        attempt: 0,
        outcome: Outcome::Success,
        run_time_ns: 1,
        body: body.clone(),
    });
    // A slow connection: no whole message comes for longer than a silent worker is waited for.
    for (number, part) in result.chunks(result.len().div_ceil(3)).enumerate() {
        if number > 0 {
            tokio::time::sleep(DEAD_AFTER * 2 / 3).await;
        }
        writer.write_all(part).await.unwrap();
    }
    let event = soon("the result", setting.events.recv()).await.unwrap();
    let HubEvent::Said(inputs) = event else {
        panic!("{event:?}")
    };
    let [Input::TaskFinished { body: came, .. }] = &inputs[..] else {
        panic!("{inputs:?}")
    };
    assert_eq!(*came, body);
}

/// A message as it stands on the connection.
fn encoded(message: &ToAgent) -> Vec<u8> {
    let mut encoder = Encoder::default();
    encoder.push(message).unwrap();
    let mut bytes = Vec::new();
    while !encoder.is_empty() {
        bytes.put(encoder.ready());
    }
    bytes
}

#[tokio::test]
async fn a_loop_that_does_not_keep_up_makes_the_worker_wait_instead_of_filling_memory() {
    let mut setting = setting().await;
    let unix = setting.unix.clone();
    let (_reader, mut writer, answer) = setting.dial(&unix, setting.hello()).await;
    welcomed(&answer);
    let body = Bytes::from(vec![b'x'; 1 << 20]);
    let mut sent = 0_u32;
    let flooding = async {
        loop {
            let finished = ToAgent::Finished {
                task: Uuid::from_u128(u128::from(sent)),
                attempt: 0,
                outcome: Outcome::Success,
                run_time_ns: 1,
                body: body.clone(),
            };
            writer.push(&finished).unwrap();
            writer.flush().await.unwrap();
            sent += 1;
        }
    };
    // Nobody takes events: after what the queue and the buffers hold, nothing more is taken.
    let stopped = tokio::time::timeout(Duration::from_secs(2), flooding).await;
    assert!(stopped.is_err());
    assert!(sent < 100, "{sent} MiB were taken while nobody listened");
    setting.joined().await;
}
