//! From nothing to a welcome: dialling the agent and saying hello.

use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{ReadHalf, WriteHalf};
use tokio::time::timeout;
use waypost_link::{
    Address, BlockToken, Hello, HelloRefusal, Limits, LinkReader, LinkWriter, Stream, ToAgent, ToWorker, VERSIONS,
    split,
};

/// How long a connection and the answer to a hello may take.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) type Reader = LinkReader<ToWorker, ReadHalf<Stream>>;
pub(crate) type Writer = LinkWriter<WriteHalf<Stream>>;

/// How dialling went.
pub(crate) enum Dialled {
    /// The agent said welcome.
    Welcome {
        address: Address,
        reader: Box<Reader>,
        writer: Box<Writer>,
        result_credit: u64,
    },
    /// The agent said no.
    Refused { code: HelloRefusal, text: String },
    /// There was no answer.
    Failed(String),
}

/// Dials one address after the other until somebody answers the hello.
pub(crate) async fn dial(
    addresses: Vec<Address>,
    tls: Option<Arc<rustls::ClientConfig>>,
    hello: Box<Hello>,
) -> Dialled {
    let mut failures = Vec::new();
    for address in addresses {
        let reason = match timeout(PATIENCE, greet(&address, tls.as_ref(), hello.clone())).await {
            Ok(Ok(dialled)) => return dialled,
            Ok(Err(error)) => error,
            Err(_) => format!("there was no answer within {} s", PATIENCE.as_secs()),
        };
        failures.push(format!("{address}: {reason}"));
    }
    Dialled::Failed(failures.join("; "))
}

async fn greet(
    address: &Address,
    tls: Option<&Arc<rustls::ClientConfig>>,
    hello: Box<Hello>,
) -> Result<Dialled, String> {
    let stream = Stream::connect(address, tls).await.map_err(|error| error.to_string())?;
    let (mut reader, mut writer) = split::<ToWorker, _>(stream, Limits::TRUSTED);
    writer.push(&ToAgent::Hello(hello)).map_err(|error| error.to_string())?;
    writer.flush().await.map_err(|error| error.to_string())?;
    match reader.next().await.map_err(|error| error.to_string())? {
        Some(ToWorker::Welcome { version, result_credit }) => {
            if VERSIONS.oldest <= version && version <= VERSIONS.newest {
                return Ok(Dialled::Welcome {
                    address: address.clone(),
                    reader: Box::new(reader),
                    writer: Box::new(writer),
                    result_credit,
                });
            }
            let text = format!("the agent chose link version {version}, which this worker did not offer");
            let code = HelloRefusal::Version;
            Ok(Dialled::Refused { code, text })
        }
        Some(ToWorker::Refused { code, text }) => Ok(Dialled::Refused { code, text }),
        Some(_) => Err("the agent answered the hello with something else".to_owned()),
        None => Err("the agent closed the connection without an answer".to_owned()),
    }
}

/// The token in its file, read anew for each hello because it may be rotated.
///
/// # Errors
/// A sentence that names the file.
pub(crate) fn read_token(file: &Path) -> Result<BlockToken, String> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("the token file {} cannot be read: {error}", file.display()))?;
    if text.trim().is_empty() {
        return Err(format!("the token file {} is empty", file.display()));
    }
    Ok(BlockToken::from_text(&text))
}

/// When to dial again.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// The pause before the next attempt, `since` the connection was lost: 50 ms, then longer and at random, at most
    /// 1 s in the first minute and 5 s after.
    pub(crate) fn next(&mut self, since: Duration) -> Duration {
        let first = Duration::from_millis(50);
        let most = Duration::from_secs(if since < Duration::from_secs(60) { 1 } else { 5 });
        self.attempts += 1;
        if self.attempts == 1 {
            return first;
        }
        let pause = (first * 2u32.saturating_pow(self.attempts.min(10) - 1)).min(most);
        // Each RandomState is seeded at random: enough for workers not to come all at once.
        let random = u32::try_from(RandomState::new().hash_one(self.attempts) % 512).unwrap_or_default();
        pause / 2 + pause / 1024 * random
    }

    /// A connection was made.
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_redial_is_at_once_and_the_rest_stays_within_a_second_for_a_minute() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.next(Duration::ZERO), Duration::from_millis(50));
        for _ in 0..100 {
            let pause = backoff.next(Duration::from_secs(59));
            assert!(
                pause >= Duration::from_millis(50) && pause <= Duration::from_secs(1),
                "{pause:?}"
            );
        }
        for _ in 0..100 {
            let pause = backoff.next(Duration::from_secs(61));
            assert!(
                pause >= Duration::from_secs(2) && pause <= Duration::from_secs(5),
                "{pause:?}"
            );
        }
        backoff.reset();
        assert_eq!(backoff.next(Duration::from_secs(61)), Duration::from_millis(50));
    }
}
