//! A small agent: listens, welcomes, and lets a test say and hear what it likes.

use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tempfile::TempDir;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::TcpListener;
use tokio::time::timeout;
use uuid::Uuid;
use waypost_link::tls::Authority;
use waypost_link::{
    Failure, Hello, Limits, LinkReader, LinkWriter, Listener, Outcome, Stream, ToAgent, ToWorker, TokenKey, split,
};

use crate::PATIENCE;
use crate::tasks::{message, python};

pub(crate) const ENDPOINT: Uuid = Uuid::from_u128(0xe);
pub(crate) const USER_ENDPOINT: Uuid = Uuid::from_u128(0xa);
const BLOCK: &str = "block-1";

/// Where workers dial, and their files.
pub(crate) struct Agent {
    pub(crate) listener: Listener,
    pub(crate) folder: TempDir,
    pub(crate) connect: String,
    key: TokenKey,
    tls: bool,
}

/// A worker process; killed when it is dropped.
pub(crate) struct WorkerProcess {
    child: Child,
    log: PathBuf,
}

/// A worker that has said hello.
pub(crate) struct Session {
    reader: LinkReader<ToAgent, ReadHalf<Stream>>,
    writer: LinkWriter<WriteHalf<Stream>>,
    pub(crate) hello: Box<Hello>,
    /// Tasks that it has asked for and not been given.
    pub(crate) credit: u32,
    /// What came while something else was waited for.
    early: Vec<ToAgent>,
}

/// How a task came back.
#[derive(Debug)]
pub(crate) enum Back {
    Finished(Outcome, Bytes),
    Failed(Failure),
}

impl Agent {
    pub(crate) fn unix() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        let connect = format!("unix:{}", path.display());
        Self::new(Listener::unix(&path).unwrap(), folder, connect, false)
    }

    pub(crate) async fn tls() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::generate().unwrap();
        std::fs::write(folder.path().join("ca.pem"), authority.certificate_pem().unwrap()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connect = format!("tls:{}", listener.local_addr().unwrap());
        Self::new(
            Listener::tls(listener, authority.server_config().unwrap()),
            folder,
            connect,
            true,
        )
    }

    fn new(listener: Listener, folder: TempDir, connect: String, tls: bool) -> Self {
        let key = TokenKey::from_bytes([5; 32]);
        let token = key.token(ENDPOINT, USER_ENDPOINT, BLOCK);
        std::fs::write(folder.path().join("token"), token.reveal()).unwrap();
        Self {
            listener,
            folder,
            connect,
            key,
            tls,
        }
    }

    /// The command that starts a worker for this agent.
    pub(crate) fn command(&self, more: &[&str]) -> Command {
        let mut command = self.command_without_address(more);
        command.args(["--connect", &self.connect]);
        command
    }

    pub(crate) fn command_without_address(&self, more: &[&str]) -> Command {
        let folder = self.folder.path();
        let mut command = Command::new(env!("CARGO_BIN_EXE_worker"));
        command
            .args(["--block", BLOCK, "--endpoint-id", &USER_ENDPOINT.to_string()])
            .args(["--log-format", "json"])
            .arg("--token-file")
            .arg(folder.join("token"))
            .arg("--working-directory")
            .arg(folder.join("work"))
            .args(more)
            .env_remove("GC_TASK_TIMEOUT");
        if !more.contains(&"--python") {
            command.args(["--python", &python()]);
        }
        if self.tls {
            command.arg("--ca-file").arg(folder.join("ca.pem"));
        }
        command
    }

    pub(crate) fn start(&self, more: &[&str]) -> WorkerProcess {
        self.start_command(&mut self.command(more))
    }

    pub(crate) fn start_command(&self, command: &mut Command) -> WorkerProcess {
        let log = self.folder.path().join("log");
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        WorkerProcess { child, log }
    }

    /// Waits for a worker's hello.
    pub(crate) async fn greet(&self) -> Session {
        let greet = async {
            let stream = self.listener.accept().await.unwrap().complete().await.unwrap();
            let (mut reader, writer) = split::<ToAgent, _>(stream, Limits::STRANGER);
            let Some(ToAgent::Hello(hello)) = reader.next().await.unwrap() else {
                panic!("the first message is a hello");
            };
            assert!(self.key.verify(ENDPOINT, hello.endpoint, &hello.block, &hello.token));
            reader.set_limits(Limits::TRUSTED);
            Session {
                reader,
                writer,
                hello,
                credit: 0,
                early: Vec::new(),
            }
        };
        timeout(PATIENCE, greet).await.expect("a worker says hello in time")
    }

    /// Waits for a worker and welcomes it.
    pub(crate) async fn welcome(&self) -> Session {
        self.welcome_with(1 << 30).await
    }

    pub(crate) async fn welcome_with(&self, result_credit: u64) -> Session {
        let mut session = self.greet().await;
        let version = waypost_link::VERSION;
        session.say(ToWorker::Welcome { version, result_credit }).await;
        session
    }
}

impl Session {
    pub(crate) async fn say(&mut self, message: ToWorker) {
        self.writer.push(&message).unwrap();
        timeout(PATIENCE, self.writer.flush())
            .await
            .expect("the worker reads")
            .unwrap();
    }

    /// Says something with the next [`Session::flush`].
    pub(crate) fn queue(&mut self, message: ToWorker) {
        self.writer.push(&message).unwrap();
    }

    pub(crate) async fn flush(&mut self) {
        timeout(PATIENCE, self.writer.flush())
            .await
            .expect("the worker reads")
            .unwrap();
    }

    /// All that has come, at least one message; credits are counted.
    pub(crate) async fn hear_all(&mut self) -> Vec<ToAgent> {
        let mut heard = vec![self.hear_or_credit().await];
        while let Some(message) = self.reader.next_received().unwrap() {
            if let ToAgent::Credit { tasks } = &message {
                self.credit += tasks;
            }
            heard.push(message);
        }
        heard
    }

    /// The next message that is neither a heartbeat nor a credit, which is counted.
    pub(crate) async fn hear(&mut self) -> ToAgent {
        self.hear_within(PATIENCE)
            .await
            .expect("the worker says something in time")
    }

    pub(crate) async fn hear_within(&mut self, patience: Duration) -> Option<ToAgent> {
        if !self.early.is_empty() {
            return Some(self.early.remove(0));
        }
        timeout(patience, async {
            loop {
                match self.reader.next().await.unwrap().expect("the worker stays connected") {
                    ToAgent::Heartbeat => {}
                    ToAgent::Credit { tasks } => self.credit += tasks,
                    message => return message,
                }
            }
        })
        .await
        .ok()
    }

    /// The next message, a credit included.
    pub(crate) async fn hear_or_credit(&mut self) -> ToAgent {
        if !self.early.is_empty() {
            return self.early.remove(0);
        }
        let message = timeout(PATIENCE, self.reader.next())
            .await
            .expect("the worker says something in time");
        let message = message.unwrap().expect("the worker stays connected");
        if let ToAgent::Credit { tasks } = &message {
            self.credit += tasks;
        }
        message
    }

    /// True when the worker has closed the connection.
    pub(crate) async fn is_closed(&mut self) -> bool {
        loop {
            match timeout(PATIENCE, self.reader.next()).await {
                Ok(Ok(Some(_))) => {}
                Ok(Ok(None) | Err(_)) => return true,
                Err(_) => return false,
            }
        }
    }

    /// Waits until the worker has asked for as many tasks.
    pub(crate) async fn wait_for_credit(&mut self, tasks: u32) {
        let asked = timeout(PATIENCE, async {
            while self.credit < tasks {
                match self.reader.next().await.unwrap().expect("the worker stays connected") {
                    ToAgent::Heartbeat => {}
                    ToAgent::Credit { tasks } => self.credit += tasks,
                    message => self.early.push(message),
                }
            }
        });
        assert!(
            asked.await.is_ok(),
            "it has asked for {} tasks, not {tasks}",
            self.credit
        );
    }

    /// Gives a task to the worker, which must have asked for it.
    pub(crate) async fn run(&mut self, task: Uuid, buffer: &str) {
        self.run_with(task, buffer, &[]).await;
    }

    pub(crate) async fn run_with(&mut self, task: Uuid, buffer: &str, serializers: &[&str]) {
        self.wait_for_credit(1).await;
        self.credit -= 1;
        self.say(ToWorker::Run {
            task,
            attempt: 0,
            result_serializers: serializers.iter().map(|text| (*text).to_owned()).collect(),
            body: message(task, buffer),
        })
        .await;
    }

    /// Waits for the end of a task; what is said of others meanwhile is kept.
    pub(crate) async fn back(&mut self, wanted: Uuid) -> Back {
        let mut others = Vec::new();
        let back = loop {
            match self.hear().await {
                ToAgent::Finished {
                    task, outcome, body, ..
                } if task == wanted => break Back::Finished(outcome, body),
                ToAgent::Failed { task, failure, .. } if task == wanted => break Back::Failed(*failure),
                ToAgent::Started { task, .. } if task == wanted => {}
                other => others.push(other),
            }
        };
        others.append(&mut self.early);
        self.early = others;
        back
    }

    /// The Result of a task that must have finished.
    pub(crate) async fn result_of(&mut self, task: Uuid) -> Bytes {
        match self.back(task).await {
            Back::Finished(_, body) => body,
            Back::Failed(failure) => panic!("task {task} {}: {}", failure.cause, failure.output),
        }
    }

    /// How a task failed that must have.
    pub(crate) async fn failure_of(&mut self, task: Uuid) -> Failure {
        match self.back(task).await {
            Back::Failed(failure) => failure,
            Back::Finished(outcome, body) => panic!("{outcome:?}: {}", String::from_utf8_lossy(&body)),
        }
    }

    /// Runs a task to its Result.
    pub(crate) async fn result(&mut self, buffer: &str) -> Bytes {
        let task = Uuid::new_v4();
        self.run(task, buffer).await;
        self.result_of(task).await
    }
}

impl WorkerProcess {
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "the worker does not end:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the worker ended with {:?}", self.child.try_wait());
            eprintln!("the worker's log:\n{}", self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "it did not come about that {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// True while there is a process with this id that has not ended.
pub(crate) fn is_alive(process: i64) -> bool {
    std::fs::read_to_string(format!("/proc/{process}/stat"))
        .is_ok_and(|stat| !stat.rsplit(") ").next().unwrap_or_default().starts_with(['Z', 'X']))
}
