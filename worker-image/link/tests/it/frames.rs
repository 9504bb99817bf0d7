use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use uuid::Uuid;
use waypost_link::codec::{CHUNK, Decoder, Encoder};
use waypost_link::{Cause, CodecError, Failure, HelloRefusal, Limits, Message, Outcome, Refusal, ToAgent, ToWorker};

use crate::{bytes_of, drain, finished, hello};

fn decode_all<M: Message>(bytes: &[u8], step: usize) -> Vec<M> {
    let mut decoder = Decoder::new(Limits::TRUSTED);
    let mut buffer = BytesMut::new();
    let mut messages = Vec::new();
    for part in bytes.chunks(step) {
        buffer.extend_from_slice(part);
        while let Some(message) = decoder.decode(&mut buffer).unwrap() {
            messages.push(message);
        }
    }
    assert!(buffer.is_empty() && decoder.is_between_messages());
    messages
}

fn to_agent() -> impl Strategy<Value = ToAgent> {
    let task = any::<u128>().prop_map(Uuid::from_u128);
    let cause = prop_oneof![
        any::<i32>().prop_map(|number| Cause::Signal { number }),
        any::<i32>().prop_map(|code| Cause::Exit { code }),
        any::<(u64, u64)>().prop_map(|(peak, limit)| Cause::OutOfMemory { peak, limit }),
        Just(Cause::Cancelled),
        Just(Cause::GraceOver),
        any::<String>().prop_map(|reason| Cause::CannotStart { reason }),
    ];
    let size = prop_oneof![0..64usize, Just(16 * 1024), Just(CHUNK), CHUNK..3 * CHUNK];
    prop_oneof![
        Just(ToAgent::Hello(Box::new(hello()))),
        any::<u32>().prop_map(|tasks| ToAgent::Credit { tasks }),
        (task.clone(), any::<(u32, u32)>()).prop_map(|(task, (attempt, slot))| ToAgent::Started {
            task,
            attempt,
            slot
        }),
        (task.clone(), any::<(u32, u64, u8)>(), size).prop_map(|(task, (attempt, run_time_ns, fill), size)| {
            ToAgent::Finished {
                task,
                attempt,
                outcome: Outcome::Raised,
                run_time_ns,
                body: Bytes::from(vec![fill; size]),
            }
        }),
        (task.clone(), any::<u32>(), cause, any::<String>()).prop_map(|(task, attempt, cause, output)| {
            ToAgent::Failed {
                task,
                attempt,
                failure: Box::new(Failure { cause, output }),
            }
        }),
        (task, any::<u32>()).prop_map(|(task, attempt)| ToAgent::Refused {
            task,
            attempt,
            reason: Refusal::NoCredit
        }),
        Just(ToAgent::Heartbeat),
        any::<u64>().prop_map(|grace_ms| ToAgent::Draining { grace_ms }),
        any::<String>().prop_map(|reason| ToAgent::Goodbye { reason }),
    ]
}

fn to_worker() -> impl Strategy<Value = ToWorker> {
    let task = any::<u128>().prop_map(Uuid::from_u128);
    prop_oneof![
        any::<(u16, u64)>().prop_map(|(version, result_credit)| ToWorker::Welcome { version, result_credit }),
        any::<String>().prop_map(|text| ToWorker::Refused {
            code: HelloRefusal::NotMe,
            text
        }),
        (task.clone(), any::<u32>(), any::<Vec<String>>(), 0..2 * CHUNK).prop_map(
            |(task, attempt, result_serializers, size)| ToWorker::Run {
                task,
                attempt,
                result_serializers,
                body: Bytes::from(vec![1; size])
            }
        ),
        (task.clone(), any::<u32>()).prop_map(|(task, attempt)| ToWorker::Cancel { task, attempt }),
        (task.clone(), any::<u32>()).prop_map(|(task, attempt)| ToWorker::Recall { task, attempt }),
        (task.clone(), any::<u32>()).prop_map(|(task, attempt)| ToWorker::Forget { task, attempt }),
        prop::collection::vec(task, 0..100).prop_map(|tasks| ToWorker::Settled { tasks }),
        any::<u64>().prop_map(|bytes| ToWorker::ResultCredit { bytes }),
        any::<u64>().prop_map(|grace_ms| ToWorker::Drain { grace_ms }),
        Just(ToWorker::Heartbeat),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_message_to_an_agent_comes_out_as_it_went_in(
        message in to_agent(), step in prop_oneof![Just(7usize), Just(8192), Just(usize::MAX)],
    ) {
        let bytes = bytes_of(std::slice::from_ref(&message));
        prop_assert_eq!(decode_all::<ToAgent>(&bytes, step), vec![message]);
    }

    #[test]
    fn every_message_to_a_worker_comes_out_as_it_went_in(
        message in to_worker(), step in prop_oneof![Just(7usize), Just(8192), Just(usize::MAX)],
    ) {
        let bytes = bytes_of(std::slice::from_ref(&message));
        prop_assert_eq!(decode_all::<ToWorker>(&bytes, step), vec![message]);
    }

    #[test]
    fn messages_of_any_mix_of_sizes_all_arrive_once(sizes in prop::collection::vec(0..5 * CHUNK, 1..8)) {
        let sent: Vec<_> = sizes.iter().enumerate().map(|(id, size)| finished(id as u128, vec![7; *size])).collect();
        let mut received = decode_all::<ToAgent>(&bytes_of(&sent), 100_000);
        received.sort_by_key(|message| {
            let ToAgent::Finished { task, .. } = message else { panic!("only results were sent, not {message:?}") };
            task.as_u128()
        });
        prop_assert_eq!(received, sent);
    }
}

#[test]
fn a_heartbeat_overtakes_a_large_result_that_is_on_its_way() {
    let mut encoder = Encoder::default();
    encoder.push(&finished(1, vec![0; 10 * CHUNK])).unwrap();
    let mut bytes = drain(&mut encoder, 3 * CHUNK);
    encoder.push(&ToAgent::Heartbeat).unwrap();
    // No more than the chunk that had begun may come before it.
    bytes.extend(drain(&mut encoder, CHUNK + 200));
    let mut decoder = Decoder::<ToAgent>::new(Limits::TRUSTED);
    let mut buffer = BytesMut::from(&bytes[..]);
    assert_eq!(decoder.decode(&mut buffer).unwrap(), Some(ToAgent::Heartbeat));
}

#[test]
fn a_steady_flow_of_small_messages_does_not_hold_up_a_large_one() {
    let mut encoder = Encoder::default();
    encoder.push(&finished(1, vec![0; 4 * CHUNK])).unwrap();
    let mut decoder = Decoder::<ToAgent>::new(Limits::TRUSTED);
    let mut buffer = BytesMut::new();
    for round in 0..100 {
        // There is always a small message more than is written.
        encoder.push(&ToAgent::Credit { tasks: 1 }).unwrap();
        encoder.push(&ToAgent::Credit { tasks: 2 }).unwrap();
        buffer.extend_from_slice(&drain(&mut encoder, CHUNK / 2));
        while let Some(message) = decoder.decode(&mut buffer).unwrap() {
            if let ToAgent::Finished { body, .. } = message {
                assert_eq!(body.len(), 4 * CHUNK);
                assert!(round <= 10, "it took {round} rounds");
                return;
            }
        }
    }
    panic!("the large message never came");
}

#[test]
fn large_payloads_take_turns() {
    let sent = [finished(1, vec![1; 20 * CHUNK]), finished(2, vec![2; 2 * CHUNK])];
    let received = decode_all::<ToAgent>(&bytes_of(&sent), usize::MAX);
    assert_eq!(received[0], sent[1], "the shorter one is not held up by the longer one");
    assert_eq!(received[1], sent[0]);
}

#[test]
fn more_large_payloads_than_a_receiver_takes_at_once_wait_for_their_turn() {
    let sent: Vec<_> = (0..40).map(|id| finished(id, vec![1; 2 * CHUNK])).collect();
    assert_eq!(decode_all::<ToAgent>(&bytes_of(&sent), usize::MAX).len(), 40);
}

#[test]
fn a_large_payload_is_not_copied_to_be_sent() {
    let body = Bytes::from(vec![3; 200_000]);
    let mut encoder = Encoder::default();
    encoder.push(&finished(1, body.clone())).unwrap();
    let ready = encoder.ready();
    let mut slices = [std::io::IoSlice::new(&[]); 4];
    let count = bytes::Buf::chunks_vectored(ready, &mut slices);
    assert!(slices[..count].iter().any(|slice| slice.as_ptr() == body.as_ptr()));
}

#[test]
fn what_no_receiver_would_take_is_refused_before_it_is_sent() {
    let mut encoder = Encoder::default();
    let error = encoder.push(&finished(1, vec![0; 64 * 1024 * 1024 + 1])).unwrap_err();
    assert!(matches!(error, CodecError::TooLarge { what: "a payload", .. }));
    let reason = "x".repeat(2 * 1024 * 1024);
    let error = encoder.push(&ToAgent::Goodbye { reason }).unwrap_err();
    assert!(matches!(
        error,
        CodecError::TooLarge {
            what: "a frame's header",
            ..
        }
    ));
    assert!(encoder.is_empty());
    encoder.push(&ToAgent::Heartbeat).unwrap();
    assert_eq!(
        decode_all::<ToAgent>(&drain(&mut encoder, usize::MAX), 3),
        [ToAgent::Heartbeat]
    );
}

#[test]
fn a_hundred_thousand_settled_ids_fit_into_a_hello() {
    let mut hello = hello();
    hello.settled = (0..100_000).map(Uuid::from_u128).collect();
    let bytes = bytes_of(&[ToAgent::Hello(Box::new(hello.clone()))]);
    let mut decoder = Decoder::<ToAgent>::new(Limits::STRANGER);
    let received = decoder.decode(&mut BytesMut::from(&bytes[..])).unwrap();
    assert_eq!(received, Some(ToAgent::Hello(Box::new(hello))));
}

#[test]
fn fields_that_a_later_release_adds_are_ignored() {
    // {"Credit": {"tasks": 3, "new": "thing"}} in a whole frame, as rmp writes it.
    let mut header = vec![0x93, 0x00, 0x00, 0x81, 0xa6];
    header.extend_from_slice(b"Credit");
    header.push(0x82);
    header.extend_from_slice(b"\xa5tasks\x03\xa3new\xa5thing");
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&u32::try_from(header.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(&u32::try_from(header.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(&header);
    assert_eq!(
        decode_all::<ToAgent>(&bytes, usize::MAX),
        [ToAgent::Credit { tasks: 3 }]
    );
}
