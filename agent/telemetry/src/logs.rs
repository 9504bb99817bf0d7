//! Logs: for people on a terminal, JSON otherwise, never a password.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Where log lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard error.
    Stderr,
    /// The end of a file.
    File(PathBuf),
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// A line for people.
    Human,
    /// A JSON object on a line.
    Json,
}

impl LogFormat {
    /// For people if they look at it, JSON otherwise.
    #[must_use]
    pub fn for_target(target: &LogTarget) -> Self {
        match target {
            LogTarget::Stderr if io::stderr().is_terminal() => Self::Human,
            LogTarget::Stderr | LogTarget::File(_) => Self::Json,
        }
    }
}

/// Starts logging for the process. `WAYPOST_LOG` may hold directives of `tracing-subscriber`, such as `endpoint=debug`.
///
/// # Errors
/// If the file can not be opened.
pub fn start_logs(target: &LogTarget, format: LogFormat, debug: bool, color: bool) -> io::Result<()> {
    let level = if debug { DEBUG } else { "info" };
    let chosen = std::env::var("WAYPOST_LOG").unwrap_or_else(|_| level.to_owned());
    let writer: Box<dyn Write + Send> = match target {
        LogTarget::Stderr => Box::new(io::stderr()),
        LogTarget::File(path) => Box::new(OpenOptions::new().create(true).append(true).mode(0o600).open(path)?),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(&chosen))
        .with_writer(Redacting(Mutex::new(writer)));
    match format {
        LogFormat::Human => builder.with_target(false).with_ansi(color).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}

/// Everything of the endpoint. A directive is for every target that begins as it does: this one is for the crates
/// `endpoint_provider` and so on as well as for `endpoint`.
const DEBUG: &str = "endpoint=debug,info";

/// What is logged where these directives are chosen.
fn filter(chosen: &str) -> EnvFilter {
    // lapin logs the bodies of returned messages; what matters of it is logged by the broker room.
    let fixed = "lapin=off,kube_client=off,hyper_util=warn,reqwest=warn,rustls=warn";
    EnvFilter::builder().parse_lossy(format!("{chosen},{fixed}"))
}

/// A writer that takes passwords out of addresses: the last line of defence, for texts of libraries.
struct Redacting(Mutex<Box<dyn Write + Send>>);

struct Line<'a>(&'a Mutex<Box<dyn Write + Send>>);

impl<'a> MakeWriter<'a> for Redacting {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        Line(&self.0)
    }
}

impl Write for Line<'_> {
    // The subscriber writes each event in one call.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut writer = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match std::str::from_utf8(line) {
            Ok(text) if text.contains("://") => writer.write_all(redact(text).as_bytes())?,
            _ => writer.write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).flush()
    }
}

/// Replaces the password in every address of a text: `amqp://me:***@host`.
#[must_use]
pub fn redact(text: &str) -> String {
    let mut redacted = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("://") {
        let (before, after) = rest.split_at(start + 3);
        redacted.push_str(before);
        let end = after
            .find(|c: char| c.is_whitespace() || matches!(c, '/' | '?' | '#' | '"' | '\'' | '\\' | '<' | '>'))
            .unwrap_or(after.len());
        let authority = &after[..end];
        if let Some((credentials, host)) = authority.rsplit_once('@') {
            let user = credentials.split_once(':').map_or(credentials, |(user, _)| user);
            redacted.push_str(user);
            redacted.push_str(":***@");
            redacted.push_str(host);
        } else {
            redacted.push_str(authority);
        }
        rest = &after[end..];
    }
    redacted.push_str(rest);
    redacted
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::{DEBUG, filter, redact};

    #[test]
    fn what_is_chosen_for_the_endpoint_is_chosen_for_all_of_its_crates() {
        struct Lines(Arc<Mutex<Vec<u8>>>);
        impl io::Write for Lines {
            fn write(&mut self, line: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(line);
                Ok(line.len())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let lines = Arc::new(Mutex::new(Vec::new()));
        let writer = Arc::clone(&lines);
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter(DEBUG))
            .with_writer(move || Lines(Arc::clone(&writer)))
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!(target: "endpoint::hub", "of the endpoint");
            tracing::debug!(target: "endpoint_provider::kubernetes", "of its provider");
            tracing::debug!(target: "waypost_link", "of what it uses");
            tracing::error!(target: "lapin", "of a library that talks");
        });
        let text = String::from_utf8(lines.lock().unwrap().clone()).unwrap();
        assert!(
            text.contains("of the endpoint") && text.contains("of its provider"),
            "{text}"
        );
        assert!(
            !text.contains("of what it uses") && !text.contains("of a library"),
            "{text}"
        );
    }

    #[test]
    fn passwords_are_taken_out_of_addresses() {
        assert_eq!(
            redact("can not reach amqp://me:p%40ss@host:5672/%2F?x=1, nor \"amqps://a:b@c\""),
            "can not reach amqp://me:***@host:5672/%2F?x=1, nor \"amqps://a:***@c\""
        );
        assert_eq!(redact("http://host/a@b ://"), "http://host/a@b ://");
        assert_eq!(redact("amqp://me:with@sign@host"), "amqp://me:***@host");
    }
}
