//! The link as both of its users see it: frames, hostile bytes, and connections over a Unix socket and over TLS.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod connections;
mod frames;
mod fuzz;
mod trust;

use bytes::{Buf, Bytes};
use uuid::Uuid;
use waypost_link::codec::Encoder;
use waypost_link::{BlockToken, Held, HeldState, Hello, Message, Outcome, ToAgent, VERSIONS};

pub(crate) fn hello() -> Hello {
    Hello {
        versions: VERSIONS,
        worker_version: "0.1.0".to_owned(),
        instance: Uuid::from_u128(9),
        endpoint: Uuid::from_u128(8),
        block: "block-1".to_owned(),
        token: BlockToken::from_text("secret"),
        slots: 4,
        pid: 1,
        hostname: "node".to_owned(),
        python_version: "3.11.2".to_owned(),
        sdk_version: "4.19.0".to_owned(),
        held: vec![Held {
            task: Uuid::from_u128(1),
            attempt: 2,
            state: HeldState::Running,
        }],
        settled: vec![Uuid::from_u128(3), Uuid::from_u128(4)],
    }
}

pub(crate) fn finished(id: u128, body: impl Into<Bytes>) -> ToAgent {
    ToAgent::Finished {
        task: Uuid::from_u128(id),
        attempt: 0,
        outcome: Outcome::Success,
        run_time_ns: 5,
        body: body.into(),
    }
}

/// The bytes that messages become.
pub(crate) fn bytes_of<M: Message>(messages: &[M]) -> Vec<u8> {
    let mut encoder = Encoder::default();
    for message in messages {
        encoder.push(message).unwrap();
    }
    drain(&mut encoder, usize::MAX)
}

/// Takes what the encoder has, at most `limit` bytes.
pub(crate) fn drain(encoder: &mut Encoder, limit: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !encoder.is_empty() && bytes.len() < limit {
        let ready = encoder.ready();
        let count = ready.chunk().len().min(limit - bytes.len());
        bytes.extend_from_slice(&ready.chunk()[..count]);
        ready.advance(count);
    }
    bytes
}
