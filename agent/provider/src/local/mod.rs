//! Blocks as processes of this machine.
//!
//! A block is `bash -c "<worker_init>; exec worker ..."` in a session of its own, so that it lives on when the agent is
//! killed. What is known of it stands in a folder of its own: its token, and a file into which the shell writes its
//! `/proc/self/stat` before anything else. Process id and start time in it name the process for certain, `exec` changes
//! neither, and so the next agent finds the block again.

mod process;
mod session;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use waypost_engine::{BlockEnd, BlockEndKind, BlockId, BlockState, ProcessExit, StartOutcome};
use waypost_link::BlockToken;

use super::{BlockNames, ListError, Provider, ProviderEvent};
use process::Process;

/// The file into which a block's shell writes what identifies it.
const RECORD: &str = "process";
/// What the endpoint logs in with, if its environment holds it.
const CREDENTIALS: [&str; 4] = [
    "GLOBUS_COMPUTE_CLIENT_ID",
    "GLOBUS_COMPUTE_CLIENT_SECRET",
    "FUNCX_SDK_CLIENT_ID",
    "FUNCX_SDK_CLIENT_SECRET",
];
const TOKEN: &str = "token";
/// How long a block whose agent died while it was being launched may take to write its record.
const RECORD_PATIENCE: Duration = Duration::from_millis(500);
/// How long a block that is to end has between SIGTERM and SIGKILL.
const TERM_PATIENCE: Duration = Duration::from_secs(3);
/// Logs of ended blocks that are kept.
const LOGS_KEPT: usize = 20;

/// How blocks are launched.
#[derive(Clone)]
pub struct LocalSettings {
    /// What its blocks are called.
    pub names: BlockNames,
    /// The user endpoint's folder.
    pub directory: PathBuf,
    /// Shell commands to run before the worker.
    pub worker_init: String,
    /// The worker's executable and its arguments, but for `--block` and `--token-file`.
    pub worker: Vec<String>,
    /// Environment variables of the block beyond the agent's.
    pub environment: BTreeMap<String, String>,
    /// Makes a block's token.
    pub token: Arc<dyn Fn(&str) -> BlockToken + Send + Sync>,
}

/// The blocks of one user endpoint on this machine.
pub struct LocalProvider {
    settings: Arc<LocalSettings>,
    events: mpsc::UnboundedSender<ProviderEvent>,
    running: BTreeMap<BlockId, Arc<Process>>,
}

impl LocalProvider {
    /// A provider that says what it sees to `events`.
    #[must_use]
    pub fn new(settings: LocalSettings, events: mpsc::UnboundedSender<ProviderEvent>) -> Self {
        Self {
            settings: Arc::new(settings),
            events,
            running: BTreeMap::new(),
        }
    }

    fn say(&self, event: ProviderEvent) {
        // Nobody listens any more when the user endpoint has ended.
        let _ = self.events.send(event);
    }

    fn launch(&mut self, block: BlockId) -> Result<(), BlockEnd> {
        let name = self.settings.names.name(block);
        let (process, child) = spawn(&self.settings, &name).map_err(|error| {
            BlockEnd::new(
                BlockEndKind::CannotStart,
                format!("its process can not be started: {error}"),
            )
        })?;
        let process = Arc::new(process);
        self.running.insert(block, Arc::clone(&process));
        let (settings, events) = (Arc::clone(&self.settings), self.events.clone());
        tokio::spawn(async move {
            let exit = process.reaped(child).await;
            ended(&settings, &events, block, exit);
        });
        Ok(())
    }

    fn adopt(&mut self, block: BlockId, process: Process) {
        let process = Arc::new(process);
        self.running.insert(block, Arc::clone(&process));
        let (settings, events) = (Arc::clone(&self.settings), self.events.clone());
        tokio::spawn(async move {
            process.gone().await;
            ended(&settings, &events, block, ProcessExit::Unknown);
        });
    }
}

impl Provider for LocalProvider {
    fn list(&mut self) -> BoxFuture<'_, Result<Vec<BlockId>, ListError>> {
        async move {
            let blocks = blocks_directory(&self.settings.directory);
            let failed = |source: io::Error| ListError::new(blocks.display().to_string(), source);
            let mut found = Vec::new();
            for (block, directory) in folders(&blocks, &self.settings.names).map_err(failed)? {
                if let Some(process) = self.running.get(&block) {
                    if process.is_alive() {
                        found.push(block);
                    }
                    continue;
                }
                match recorded(&directory).await {
                    Some(process) => {
                        self.adopt(block, process);
                        found.push(block);
                    }
                    None => {
                        let _ = std::fs::remove_dir_all(&directory);
                    }
                }
            }
            Ok(found)
        }
        .boxed()
    }

    fn start(&mut self, block: BlockId) {
        let outcome = match self.launch(block) {
            Ok(()) => StartOutcome::Started,
            Err(end) => {
                let name = self.settings.names.name(block);
                let _ = std::fs::remove_dir_all(blocks_directory(&self.settings.directory).join(name));
                StartOutcome::Failed(end)
            }
        };
        let running = outcome == StartOutcome::Started;
        self.say(ProviderEvent::Started { block, outcome });
        if running {
            self.say(ProviderEvent::Observed {
                block,
                state: BlockState::Running,
            });
        }
    }

    fn delete(&mut self, block: BlockId) {
        let Some(process) = self.running.get(&block).cloned() else {
            self.say(ProviderEvent::Deleted { block, done: true });
            let end = BlockEnd::new(BlockEndKind::Unknown, "no such process exists");
            self.say(ProviderEvent::Observed {
                block,
                state: BlockState::Ended(end),
            });
            return;
        };
        self.say(ProviderEvent::Deleted { block, done: true });
        tokio::spawn(async move { process.end(TERM_PATIENCE).await });
    }
}

impl std::fmt::Debug for LocalProvider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalProvider")
            .field("user_endpoint", &self.settings.names.user_endpoint())
            .field("running", &self.running.keys())
            .finish_non_exhaustive()
    }
}

fn blocks_directory(directory: &Path) -> PathBuf {
    directory.join("blocks")
}

/// Where the output of a block goes.
fn log_path(directory: &Path, name: &str) -> PathBuf {
    directory.join("logs").join(format!("block-{name}.log"))
}

/// The folders of blocks of this user endpoint.
fn folders(blocks: &Path, names: &BlockNames) -> io::Result<Vec<(BlockId, PathBuf)>> {
    let entries = match std::fs::read_dir(blocks) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let block = entry.file_name().to_str().and_then(|name| names.parse(name));
        found.extend(block.map(|block| (block, entry.path())));
    }
    found.sort_unstable();
    Ok(found)
}

/// The process that a block's folder names, if it lives.
async fn recorded(directory: &Path) -> Option<Process> {
    let path = directory.join(RECORD);
    let deadline = tokio::time::Instant::now() + RECORD_PATIENCE;
    loop {
        match std::fs::read_to_string(&path) {
            Ok(text) if text.ends_with('\n') => return Process::from_stat(&text),
            Ok(_) if tokio::time::Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(20)).await,
            Ok(_) | Err(_) => return None,
        }
    }
}

/// Starts a block's process.
fn spawn(settings: &LocalSettings, name: &str) -> io::Result<(Process, tokio::process::Child)> {
    let directory = blocks_directory(&settings.directory).join(name);
    let private = |path: &Path| DirBuilder::new().recursive(true).mode(0o700).create(path);
    private(&directory)?;
    let log = log_path(&settings.directory, name);
    if let Some(parent) = log.parent() {
        private(parent)?;
    }
    write_private(&directory.join(TOKEN), (settings.token)(name).reveal())?;
    write_private(&directory.join(RECORD), "")?;
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&log)?;
    let mut command = std::process::Command::new("bash");
    // Tasks are other people's code.
    for name in CREDENTIALS {
        command.env_remove(name);
    }
    command
        .arg("-c")
        .arg(script(settings, name, &directory))
        .envs(&settings.environment)
        .current_dir(&settings.directory)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    session::lead(&mut command);
    let child = tokio::process::Command::from(command).spawn()?;
    let pid = child.id().ok_or_else(|| io::Error::other("it ended at once"))?;
    Ok((Process::of_child(pid)?, child))
}

/// What bash runs. The record is complete when its line is.
fn script(settings: &LocalSettings, name: &str, directory: &Path) -> String {
    let record = quote(&directory.join(RECORD).display().to_string());
    let mut script =
        format!("IFS= read -r waypost_stat < /proc/$$/stat && printf '%s\\n' \"$waypost_stat\" > {record}\n");
    script.push_str("unset waypost_stat\n");
    script.push_str(&settings.worker_init);
    script.push_str("\nexec");
    for argument in &settings.worker {
        let _ = write!(script, " {}", quote(argument));
    }
    let token = directory.join(TOKEN).display().to_string();
    let _ = write!(script, " --block {} --token-file {}", quote(name), quote(&token));
    script
}

/// A word as the shell reads it back.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())
}

/// Says that a block has ended, and removes what is left of it but for its log.
fn ended(settings: &LocalSettings, events: &mpsc::UnboundedSender<ProviderEvent>, block: BlockId, exit: ProcessExit) {
    let name = settings.names.name(block);
    let log = log_path(&settings.directory, &name);
    let output = last_lines(&log);
    let (kind, message) = match exit {
        ProcessExit::Code(0) => (BlockEndKind::Completed, "its worker ended".to_owned()),
        ProcessExit::Code(code) => (BlockEndKind::Crashed, format!("its worker ended with exit code {code}")),
        ProcessExit::Signal(signal) => (
            BlockEndKind::Crashed,
            format!("its worker was ended by signal {signal}"),
        ),
        ProcessExit::Unknown => (
            BlockEndKind::Unknown,
            "its worker, started by an earlier agent, is gone".to_owned(),
        ),
    };
    let end = BlockEnd {
        exit,
        output,
        ..BlockEnd::new(kind, message)
    };
    let _ = std::fs::remove_dir_all(blocks_directory(&settings.directory).join(name));
    if let Some(logs) = log.parent() {
        forget_old_logs(logs);
    }
    let _ = events.send(ProviderEvent::Observed {
        block,
        state: BlockState::Ended(end),
    });
}

/// The last lines of a log, at most 20 of them and 4 KiB.
fn last_lines(path: &Path) -> String {
    use std::io::{Read as _, Seek as _, SeekFrom};
    const BYTES: u64 = 4096;
    const LINES: usize = 20;
    let read = || -> io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// Removes the oldest logs of blocks beyond those that are kept.
fn forget_old_logs(logs: &Path) {
    let Ok(entries) = std::fs::read_dir(logs) else { return };
    let mut files: Vec<_> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("block-"))
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    files.sort_unstable();
    let excess = files.len().saturating_sub(LOGS_KEPT);
    for (_, path) in files.into_iter().take(excess) {
        let _ = std::fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests;
