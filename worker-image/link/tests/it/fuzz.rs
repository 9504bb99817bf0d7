//! Hostile bytes against every decoder: they may be refused, and must neither panic nor take memory that was not sent.
//!
//! `WAYPOST_FUZZ_CASES` sets how many inputs are tried (2,000 if it is not set).

use bytes::BytesMut;
use proptest::prelude::*;
use proptest::test_runner::{TestCaseResult, TestRunner};
use uuid::Uuid;
use waypost_link::codec::{CHUNK, Decoder, HEADER_MAX};
use waypost_link::{BlockToken, CodecError, Limits, Message, ToAgent, ToWorker, TokenKey, tls};

use crate::{bytes_of, finished, hello};

fn fuzz<S: Strategy>(strategy: &S, check: impl Fn(S::Value) -> TestCaseResult) {
    let cases = std::env::var("WAYPOST_FUZZ_CASES").map_or(2_000, |text| text.parse().expect("a number of cases"));
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    TestRunner::new(config)
        .run(strategy, check)
        .unwrap_or_else(|error| panic!("{error}"));
}

/// Feeds bytes as a connection would; ends at the first error, as a connection does.
fn feed<M: Message>(bytes: &[u8], limits: Limits) -> TestCaseResult {
    let mut decoder = Decoder::<M>::new(limits);
    let mut buffer = BytesMut::new();
    for part in bytes.chunks(4096) {
        buffer.extend_from_slice(part);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => {
                    prop_assert!(!error.to_string().is_empty());
                    return Ok(());
                }
            }
        }
        prop_assert!(
            buffer.capacity() <= 2 * (HEADER_MAX + CHUNK) + 8192,
            "{} bytes held",
            buffer.capacity()
        );
    }
    Ok(())
}

fn feed_both(bytes: &[u8]) -> TestCaseResult {
    feed::<ToAgent>(bytes, Limits::STRANGER)?;
    feed::<ToWorker>(bytes, Limits::TRUSTED)
}

#[test]
fn random_bytes_are_refused_or_waited_for() {
    fuzz(&prop::collection::vec(any::<u8>(), 0..600), |bytes| feed_both(&bytes));
}

#[test]
fn random_headers_of_true_lengths_are_refused() {
    let strategy = (
        prop::collection::vec(any::<u8>(), 0..200),
        prop::collection::vec(any::<u8>(), 0..50),
    );
    fuzz(&strategy, |(header, payload)| {
        let length = |size: usize| u32::try_from(size).expect("a few bytes").to_be_bytes();
        let mut bytes = Vec::from(length(header.len() + payload.len()));
        bytes.extend(length(header.len()));
        bytes.extend(&header);
        bytes.extend(&payload);
        feed_both(&bytes)
    });
}

#[test]
fn real_frames_with_some_bytes_changed_are_refused_or_read() {
    let to_agent = bytes_of(&[
        ToAgent::Hello(Box::new(hello())),
        ToAgent::Credit { tasks: 7 },
        finished(1, vec![1; 300]),
        finished(2, vec![2; 2 * CHUNK + 5]),
        ToAgent::Heartbeat,
    ]);
    let to_worker = bytes_of(&[
        ToWorker::Welcome {
            version: 1,
            result_credit: 1 << 20,
        },
        ToWorker::Run {
            task: Uuid::from_u128(1),
            attempt: 0,
            result_serializers: vec!["a.b".to_owned()],
            body: vec![9; CHUNK + 1].into(),
        },
        ToWorker::Settled {
            tasks: vec![Uuid::from_u128(1)],
        },
    ]);
    // Most changes go where the headers are: at the beginning of the first frames.
    let change = (prop_oneof![3 => 0..500usize, 1 => 0..2 * CHUNK], any::<u8>());
    fuzz(&prop::collection::vec(change, 1..6), |changes| {
        let (mut to_agent, mut to_worker) = (to_agent.clone(), to_worker.clone());
        for (position, byte) in changes {
            for bytes in [&mut to_agent, &mut to_worker] {
                let position = position % bytes.len();
                bytes[position] = byte;
            }
        }
        feed::<ToAgent>(&to_agent, Limits::TRUSTED)?;
        feed::<ToWorker>(&to_worker, Limits::TRUSTED)
    });
}

#[test]
fn real_frames_that_are_cut_or_mixed_are_refused_or_waited_for() {
    let frames = bytes_of(&[
        finished(1, vec![1; 2 * CHUNK]),
        ToAgent::Heartbeat,
        finished(3, vec![1; 10]),
    ]);
    fuzz(&(0..frames.len(), 0..frames.len()), |(end, begin)| {
        let mut bytes = frames[..end].to_vec();
        bytes.extend(&frames[begin..]);
        feed::<ToAgent>(&bytes, Limits::TRUSTED)
    });
}

#[test]
fn tokens_addresses_and_keys_of_any_text_are_refused_without_a_panic() {
    let key = TokenKey::from_bytes([1; 32]);
    fuzz(&any::<String>(), |text| {
        prop_assert!(!key.verify(Uuid::nil(), Uuid::nil(), &text, &BlockToken::from_text(&text)));
        let _ = text.parse::<waypost_link::Address>();
        prop_assert!(tls::client_config(&text).is_err());
        prop_assert!(tls::Authority::from_key_pem(&text).is_err());
        Ok(())
    });
}

fn refused<M: Message + std::fmt::Debug>(length: u32, header_length: u32) -> CodecError {
    let mut buffer = BytesMut::new();
    buffer.extend_from_slice(&length.to_be_bytes());
    buffer.extend_from_slice(&header_length.to_be_bytes());
    let error = Decoder::<M>::new(Limits::TRUSTED).decode(&mut buffer).unwrap_err();
    assert!(
        buffer.capacity() < 1024,
        "nothing is allocated for a length that is refused"
    );
    error
}

#[test]
fn lengths_that_no_peer_sends_are_refused_before_anything_is_allocated() {
    assert!(matches!(
        refused::<ToAgent>(u32::MAX, u32::MAX),
        CodecError::TooLarge { .. }
    ));
    assert!(matches!(refused::<ToAgent>(u32::MAX, 10), CodecError::TooLarge { .. }));
    assert!(matches!(refused::<ToWorker>(10, 11), CodecError::Rule(_)));
}

#[test]
fn a_payload_that_claims_to_be_huge_is_refused() {
    let mut decoder = Decoder::<ToAgent>::new(Limits::STRANGER);
    let mut buffer = BytesMut::from(&bytes_of(&[finished(1, vec![0; 5 * 1024 * 1024])])[..]);
    let error = decoder.decode(&mut buffer).unwrap_err();
    assert!(matches!(error, CodecError::TooLarge { what: "a payload", .. }));
}

#[test]
fn a_stranger_may_have_one_large_payload_under_way_and_no_more() {
    let mut decoder = Decoder::<ToAgent>::new(Limits::STRANGER);
    let mut buffer = BytesMut::from(&bytes_of(&[finished(1, vec![0; 3 * CHUNK]), finished(2, vec![0; 3 * CHUNK])])[..]);
    let error = decoder.decode(&mut buffer).unwrap_err();
    assert!(matches!(
        error,
        CodecError::Rule("too many payloads are under way at once")
    ));
}

#[test]
fn a_payload_with_a_message_that_has_none_is_refused() {
    let mut bytes = bytes_of(&[ToAgent::Heartbeat]);
    bytes[3] += 1;
    bytes.push(0);
    let error = Decoder::<ToAgent>::new(Limits::TRUSTED)
        .decode(&mut BytesMut::from(&bytes[..]))
        .unwrap_err();
    assert!(matches!(error, CodecError::Rule(_)), "{error}");
}
