use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use waypost_engine::{Input, WorkerId};
use waypost_link::{
    DEAD_AFTER, HEARTBEAT, Hello, Incoming, Limits, LinkError, LinkReader, LinkWriter, Stream, ToAgent, ToWorker, split,
};

use super::registry::{Admission, Registry};
use super::translate::{self, Translated};
use super::{HubEvent, WorkerHandle};

/// What a stranger has from its connection to its hello.
const HELLO_PATIENCE: Duration = Duration::from_secs(10);
/// Messages taken from the loop in one go.
const BATCH: usize = 256;

type Reader = LinkReader<ToAgent, tokio::io::ReadHalf<Stream>>;
type Writer = LinkWriter<tokio::io::WriteHalf<Stream>>;

/// One connection's life, from its handshake to its end.
pub(super) async fn run(incoming: Incoming, registry: Arc<Registry>) {
    let opened = timeout(HELLO_PATIENCE, open(incoming)).await;
    let (mut reader, mut writer, hello) = match opened {
        Ok(Ok(opened)) => opened,
        Ok(Err(error)) => return tracing::debug!(%error, "a connection to the hub came to nothing"),
        Err(_) => return tracing::debug!("a connection to the hub said nothing"),
    };
    let admission = match Registry::admit(&registry, &hello) {
        Ok(admission) => admission,
        Err((code, text)) => {
            tracing::info!(block = %hello.block, user_endpoint = %hello.endpoint, %text, "a worker was turned away");
            let refusal = ToWorker::Refused { code, text };
            let refuse = async {
                writer.push(&refusal)?;
                writer.close().await
            };
            let _ = timeout(HELLO_PATIENCE, refuse).await;
            return;
        }
    };
    reader.set_limits(Limits::TRUSTED);
    let worker = admission.worker;
    let (outgoing, messages) = mpsc::unbounded_channel();
    let joined = HubEvent::Hello {
        worker: WorkerHandle { id: worker, outgoing },
        block: admission.block,
        slots: hello.slots,
        held: translate::held(&hello),
        python_version: hello.python_version,
        sdk_version: hello.sdk_version,
    };
    let events = admission.events.clone();
    let welcome = ToWorker::Welcome {
        version: admission.version,
        result_credit: 0,
    };
    if writer.push(&welcome).is_err() || events.send(joined).await.is_err() {
        return;
    }
    let why = match serve(&mut reader, &mut writer, messages, admission).await {
        Ok(why) => why,
        Err(error) => error.to_string(),
    };
    let _ = events.send(HubEvent::Lost { worker, why }).await;
}

async fn open(incoming: Incoming) -> Result<(Reader, Writer, Hello), LinkError> {
    let stream = incoming.complete().await?;
    let (mut reader, writer) = split::<ToAgent, _>(stream, Limits::STRANGER);
    match reader.next().await? {
        Some(ToAgent::Hello(hello)) => Ok((reader, writer, *hello)),
        Some(_) => Err(waypost_link::CodecError::Rule("the first message is not a hello").into()),
        None => Err(LinkError::Truncated),
    }
}

/// Carries messages both ways until the session is over; says why it is.
async fn serve(
    reader: &mut Reader,
    writer: &mut Writer,
    mut messages: mpsc::UnboundedReceiver<waypost_engine::ToWorker>,
    mut admission: Admission,
) -> Result<String, LinkError> {
    let worker = admission.worker;
    let events = admission.events.clone();
    // Grows with what there is to say: most sessions say little.
    let mut batch = Vec::new();
    let mut said = Instant::now();
    let mut goodbye = None;
    loop {
        let heard = reader.heard();
        tokio::select! {
            message = reader.next() => {
                let Some(message) = message? else {
                    return Ok(goodbye.unwrap_or_else(|| "the worker closed the connection".to_owned()));
                };
                let mut inputs = Vec::new();
                let mut next = Some(message);
                while let Some(message) = next {
                    take(worker, message, &mut inputs, &mut goodbye);
                    next = reader.next_received()?;
                }
                if !inputs.is_empty() && events.send(HubEvent::Said(inputs)).await.is_err() {
                    return Ok("the user endpoint has ended".to_owned());
                }
            }
            count = messages.recv_many(&mut batch, BATCH) => {
                if count == 0 {
                    return Ok("the user endpoint has ended".to_owned());
                }
                for message in batch.drain(..) {
                    match translate::to_worker(message) {
                        Translated::Message(message) => writer.push(&message)?,
                        Translated::Close => {
                            let _ = timeout(HELLO_PATIENCE, writer.close()).await;
                            return Ok("another agent has taken over".to_owned());
                        }
                    }
                }
                said = Instant::now();
            }
            written = writer.write_some(), if !writer.is_idle() => written?,
            () = sleep_until(said + HEARTBEAT) => {
                writer.push(&ToWorker::Heartbeat)?;
                said = Instant::now();
            }
            () = sleep_until(heard + DEAD_AFTER) => {
                // A part of a message may have come meanwhile.
                if reader.heard() == heard {
                    return Ok(format!("the worker said nothing for {DEAD_AFTER:?}"));
                }
            }
            // The sender is dropped when another session takes this one's place, or the user endpoint ends.
            _ = admission.ended.changed() => {
                let _ = timeout(HELLO_PATIENCE, writer.close()).await;
                return Ok("the session was replaced or its user endpoint has ended".to_owned());
            }
        }
    }
}

fn take(worker: WorkerId, message: ToAgent, inputs: &mut Vec<Input>, goodbye: &mut Option<String>) {
    if let ToAgent::Goodbye { reason } = &message {
        *goodbye = Some(reason.clone());
    }
    inputs.extend(translate::to_engine(worker, message));
}
