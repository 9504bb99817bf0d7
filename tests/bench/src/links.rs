//! Workers for pods that run nothing: to each block's pod that runs, a link to its agent, with that block's own token.
//!
//! A hollow node says of a container that it runs, and runs none. Here is what the agent sees of its worker: it dials
//! once the pod runs, says hello with the token of the block's Secret, asks for a task at a time, and answers each at
//! once with the same result. It ends when it is drained or its pod is to end.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use futures_util::TryStreamExt;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{ReadHalf, WriteHalf};
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;
use uuid::Uuid;
use waypost_link::{
    Address, BlockToken, HEARTBEAT, Hello, Limits, LinkReader, LinkWriter, Outcome, Stream, ToAgent, ToWorker,
    VERSIONS, split, tls,
};
use waypost_protocol::{Message, TaskResult, encode};

/// Secrets that are read and links that are dialled at once, at most.
const AT_ONCE: usize = 16;
/// Before a block that could not be linked is tried again.
const PAUSE: Duration = Duration::from_secs(1);
/// How often the figures are printed while they change.
const PRINT_EVERY: Duration = Duration::from_millis(500);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The namespace of the workers' pods. The cluster is that of KUBECONFIG.
    #[arg(long)]
    namespace: String,
    /// Where the agent listens for workers: `tls:HOST:PORT`.
    #[arg(long)]
    connect: Address,
    /// The user endpoint that the blocks are of.
    #[arg(long)]
    user_endpoint: Uuid,
    /// What every task returns, as the SDK packs it.
    #[arg(long, default_value = "")]
    data: String,
    /// Tasks are answered only once there are so many links.
    #[arg(long, default_value_t = 0)]
    hold: u64,
}

/// What all links share.
struct Shared {
    arguments: Arguments,
    secrets: Api<Secret>,
    dialling: Semaphore,
    links: watch::Sender<u64>,
    /// True once there have been as many links as were waited for.
    released: watch::Sender<bool>,
    dialled: AtomicU64,
    tasks: AtomicU64,
    failures: AtomicU64,
}

/// Links every pod that runs, and prints a line of JSON whenever the figures have changed, until it is ended.
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    // Each link is a file descriptor, and the usual limit is a thousand.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let client = Client::try_default().await.context("KUBECONFIG names no cluster")?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), &arguments.namespace);
    let shared = Arc::new(Shared {
        secrets: Api::namespaced(client, &arguments.namespace),
        dialling: Semaphore::new(AT_ONCE),
        links: watch::Sender::new(0),
        released: watch::Sender::new(arguments.hold == 0),
        dialled: AtomicU64::new(0),
        tasks: AtomicU64::new(0),
        failures: AtomicU64::new(0),
        arguments,
    });
    tokio::spawn(print(Arc::clone(&shared)));
    let selector = format!("waypost.dev/user-endpoint={}", shared.arguments.user_endpoint);
    let mut seen = std::pin::pin!(watcher::watcher(pods, watcher::Config::default().labels(&selector)));
    let mut links: HashMap<String, (watch::Sender<bool>, AbortHandle)> = HashMap::new();
    while let Some(event) = seen.try_next().await.context("the pods can not be watched")? {
        match event {
            Event::Apply(pod) | Event::InitApply(pod) => {
                let name = pod.name_any();
                if pod.metadata.deletion_timestamp.is_some() {
                    // As SIGTERM would tell the worker.
                    if let Some((ending, _)) = links.get(&name) {
                        ending.send_replace(true);
                    }
                } else if runs(&pod) && !links.contains_key(&name) {
                    let (ending, ended) = watch::channel(false);
                    let link = tokio::spawn(keep(Arc::clone(&shared), name.clone(), ended));
                    links.insert(name, (ending, link.abort_handle()));
                }
            }
            Event::Delete(pod) => {
                if let Some((_, link)) = links.remove(&pod.name_any()) {
                    link.abort();
                }
            }
            Event::Init | Event::InitDone => {}
        }
    }
    bail!("the watch of pods has ended")
}

fn runs(pod: &Pod) -> bool {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_deref());
    statuses
        .unwrap_or_default()
        .iter()
        .any(|status| status.name == "worker" && status.state.as_ref().is_some_and(|state| state.running.is_some()))
}

async fn print(shared: Arc<Shared>) {
    let mut last = String::new();
    let mut tick = tokio::time::interval(PRINT_EVERY);
    loop {
        tick.tick().await;
        let line = serde_json::json!({
            "links": *shared.links.borrow(),
            "dialled": shared.dialled.load(Ordering::Relaxed),
            "tasks": shared.tasks.load(Ordering::Relaxed),
            "failures": shared.failures.load(Ordering::Relaxed),
        })
        .to_string();
        if line != last {
            #[expect(clippy::print_stdout, reason = "the figures are this program's output")]
            {
                println!("{line}");
            }
            last = line;
        }
    }
}

/// The worker of one block: dials until it was drained.
async fn keep(shared: Arc<Shared>, block: String, mut ending: watch::Receiver<bool>) {
    while !*ending.borrow() {
        match link(&shared, &block, &mut ending).await {
            Ok(()) => return,
            Err(error) => {
                shared.failures.fetch_add(1, Ordering::Relaxed);
                #[expect(clippy::print_stderr, reason = "this program's log")]
                {
                    eprintln!("{block}: {error:#}");
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Counts itself among the links for as long as it lives.
struct Counted<'a>(&'a Shared);

impl<'a> Counted<'a> {
    fn new(shared: &'a Shared) -> Self {
        let hold = shared.arguments.hold;
        shared.dialled.fetch_add(1, Ordering::Relaxed);
        shared.links.send_modify(|links| *links += 1);
        if *shared.links.borrow() >= hold {
            shared.released.send_replace(true);
        }
        Self(shared)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.links.send_modify(|links| *links -= 1);
    }
}

struct Session {
    reader: LinkReader<ToWorker, ReadHalf<Stream>>,
    writer: LinkWriter<WriteHalf<Stream>>,
    /// A task that is not answered yet.
    held: Option<(Uuid, u32)>,
}

async fn link(shared: &Shared, block: &str, ending: &mut watch::Receiver<bool>) -> anyhow::Result<()> {
    let mut session = {
        let _turn = shared.dialling.acquire().await?;
        dial(shared, block).await?
    };
    let _counted = Counted::new(shared);
    let mut released = shared.released.subscribe();
    let mut pulse = tokio::time::interval(HEARTBEAT);
    session.writer.push(&ToAgent::Credit { tasks: 1 })?;
    loop {
        session.writer.flush().await?;
        tokio::select! {
            message = session.reader.next() => {
                let message = message?.context("the agent closed the link")?;
                if session.hear(shared, message)? {
                    break;
                }
            }
            changed = released.wait_for(|released| *released), if session.held.is_some() => {
                drop(changed?);
                session.answer(shared)?;
            }
            changed = ending.wait_for(|ending| *ending) => {
                drop(changed?);
                session.writer.push(&ToAgent::Draining { grace_ms: 0 })?;
                break;
            }
            _ = pulse.tick() => session.writer.push(&ToAgent::Heartbeat)?,
        }
    }
    session.writer.push(&ToAgent::Goodbye {
        reason: "nothing is left to do".to_owned(),
    })?;
    Ok(session.writer.close().await?)
}

async fn dial(shared: &Shared, block: &str) -> anyhow::Result<Session> {
    let secret = shared.secrets.get(block).await.context("its Secret can not be read")?;
    let data = secret.data.unwrap_or_default();
    let text = |key: &str| -> anyhow::Result<String> {
        let value = data.get(key).with_context(|| format!("its Secret has no {key:?}"))?;
        Ok(String::from_utf8(value.0.clone())?)
    };
    let tls = tls::client_config(&text("ca.crt")?)?;
    let stream = Stream::connect(&shared.arguments.connect, Some(&tls)).await?;
    let (mut reader, mut writer) = split::<ToWorker, _>(stream, Limits::TRUSTED);
    writer.push(&ToAgent::Hello(Box::new(Hello {
        versions: VERSIONS,
        worker_version: env!("CARGO_PKG_VERSION").to_owned(),
        instance: Uuid::new_v4(),
        endpoint: shared.arguments.user_endpoint,
        block: block.to_owned(),
        token: BlockToken::from_text(&text("token")?),
        slots: 1,
        pid: 1,
        hostname: block.to_owned(),
        python_version: String::new(),
        sdk_version: String::new(),
        held: Vec::new(),
        settled: Vec::new(),
    })))?;
    writer.flush().await?;
    match reader.next().await? {
        Some(ToWorker::Welcome { .. }) => Ok(Session {
            reader,
            writer,
            held: None,
        }),
        Some(ToWorker::Refused { text, .. }) => bail!("the agent refuses it: {text}"),
        Some(_) | None => bail!("the agent did not answer the hello"),
    }
}

impl Session {
    /// Handles a message; true if the worker is to end.
    fn hear(&mut self, shared: &Shared, message: ToWorker) -> anyhow::Result<bool> {
        match message {
            ToWorker::Run { task, attempt, .. } => {
                let slot = 0;
                self.writer.push(&ToAgent::Started { task, attempt, slot })?;
                self.held = Some((task, attempt));
                if *shared.released.borrow() {
                    self.answer(shared)?;
                }
            }
            ToWorker::Drain { .. } => {
                self.answer(shared)?;
                return Ok(true);
            }
            // What is asked of a task that has begun, or has its answer, changes nothing.
            ToWorker::Cancel { .. }
            | ToWorker::Recall { .. }
            | ToWorker::Forget { .. }
            | ToWorker::Settled { .. }
            | ToWorker::ResultCredit { .. }
            | ToWorker::Heartbeat => {}
            ToWorker::Welcome { .. } | ToWorker::Refused { .. } => bail!("the agent greets twice"),
        }
        Ok(false)
    }

    fn answer(&mut self, shared: &Shared) -> anyhow::Result<()> {
        let Some((task, attempt)) = self.held.take() else {
            return Ok(());
        };
        let result = TaskResult {
            task_id: task,
            data: shared.arguments.data.clone(),
            details: None,
            error_details: None,
            task_statuses: Vec::new(),
        };
        self.writer.push(&ToAgent::Finished {
            task,
            attempt,
            outcome: Outcome::Success,
            run_time_ns: 0,
            body: Bytes::from(encode(&Message::Result(result))),
        })?;
        self.writer.push(&ToAgent::Credit { tasks: 1 })?;
        shared.tasks.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}
