//! The real `endpoint` program, in a folder of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Folders and environment of a user.
pub(crate) struct User {
    folder: TempDir,
    variables: Vec<(String, String)>,
}

impl User {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            variables: Vec::new(),
        }
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With a login, and a service at `url`.
    pub(crate) fn of(url: &str) -> Self {
        Self::new()
            .with("GLOBUS_COMPUTE_CLIENT_ID", "5334a9a1-6fd2-4a4f-9f50-0d6ff5ddbb43")
            .with("GLOBUS_COMPUTE_CLIENT_SECRET", "hidden-secret")
            .with("WAYPOST_SERVICE_URL", url)
    }

    pub(crate) fn base(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn file(&self, endpoint: &str, name: &str) -> PathBuf {
        self.base().join(endpoint).join(name)
    }

    /// Configures an endpoint with this text as its `config.yaml`.
    pub(crate) fn configure(&self, endpoint: &str, config: &str) {
        let output = self.run(&["configure", endpoint]);
        assert!(output.status.success(), "{}", text(&output));
        fs::write(self.file(endpoint, "config.yaml"), config).unwrap();
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_endpoint"));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var("PATH").unwrap_or_default())
            .env("HOME", self.base())
            .env("GLOBUS_COMPUTE_USER_DIR", self.base())
            // Nothing of these tests runs a task.
            .env("WAYPOST_WORKER", "/bin/true")
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Starts a command that stays.
    pub(crate) fn spawn(&self, arguments: &[&str]) -> Running {
        let log = self
            .base()
            .join(format!("log-{}", arguments.join("-").replace('/', "_")));
        let file = fs::File::create(&log).unwrap();
        let child = self
            .command(arguments)
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Running { child, log }
    }

    pub(crate) fn status(&self, endpoint: &str) -> serde_json::Value {
        let output = self.run(&["status", endpoint, "--json"]);
        assert!(output.status.success(), "{}", text(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

/// A process that is killed when the test ends.
pub(crate) struct Running {
    pub(crate) child: Child,
    log: PathBuf,
}

impl Running {
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// Waits for its end; its exit code, or `None` for a signal.
    pub(crate) fn end(&mut self) -> Option<i32> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "it does not end: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until `ready` gives something.
pub(crate) fn eventually<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{what} does not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// All that a command said.
pub(crate) fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
