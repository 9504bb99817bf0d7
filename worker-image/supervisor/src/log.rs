//! The log. Written by a thread of its own, so that a reader that stalls holds up no task; what does not fit into its
//! queue meanwhile is dropped and counted.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::cli::LogFormat;

const QUEUE: usize = 8 * 1024;

#[derive(Clone)]
struct Queue {
    lines: Arc<Mutex<Option<SyncSender<Vec<u8>>>>>,
    dropped: Arc<AtomicU64>,
}

/// Writes what is left of the log when it is dropped.
pub(crate) struct Guard {
    queue: Queue,
    thread: Option<JoinHandle<()>>,
}

/// Starts the log on standard output. `RUST_LOG` chooses what is in it; `info` by default.
pub(crate) fn start(format: Option<LogFormat>) -> Guard {
    let (sender, receiver) = sync_channel(QUEUE);
    let queue = Queue {
        lines: Arc::new(Mutex::new(Some(sender))),
        dropped: Arc::default(),
    };
    let dropped = Arc::clone(&queue.dropped);
    let thread = std::thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || write(&receiver, &dropped))
        .ok();
    let terminal = io::stdout().is_terminal();
    let format = format.unwrap_or(if terminal { LogFormat::Human } else { LogFormat::Json });
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(queue.clone());
    match format {
        LogFormat::Human => builder.with_ansi(terminal).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Guard { queue, thread }
}

fn write(receiver: &Receiver<Vec<u8>>, dropped: &AtomicU64) {
    let mut output = io::stdout().lock();
    while let Ok(line) = receiver.recv() {
        let missing = dropped.swap(0, Ordering::Relaxed);
        // Nobody can be told that the log cannot be written.
        let _ = output.write_all(&line);
        if missing > 0 {
            let _ = writeln!(
                output,
                "{{\"level\":\"WARN\",\"message\":\"{missing} lines were dropped: the log is read too slowly\"}}"
            );
        }
        let _ = output.flush();
    }
}

struct Line {
    queue: Queue,
    text: Vec<u8>,
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let lines = self.queue.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = lines
            .as_ref()
            .is_some_and(|lines| lines.try_send(std::mem::take(&mut self.text)).is_ok());
        if !sent {
            self.queue.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line {
            queue: self.clone(),
            text: Vec::new(),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // The thread ends when the sender is gone and the queue is written.
        self.queue.lines.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = self.thread.take() else {
            return;
        };
        for _ in 0..100 {
            if thread.is_finished() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
