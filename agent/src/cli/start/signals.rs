use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::cli::exit_code;

/// Turns `stop` true at the first SIGTERM or SIGINT, and ends the process at the second.
pub(super) fn watch_signals(stop: watch::Sender<bool>) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Without a terminal to hang up from, a hangup means nothing.
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        let mut asked = false;
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
                _ = hangup.recv() => {
                    tracing::info!("SIGHUP is ignored");
                    continue;
                }
            };
            if asked {
                tracing::warn!(
                    signal = name,
                    "ending at once; workers that still run end when nobody answers them"
                );
                std::process::exit(i32::from(exit_code::FAILED));
            }
            asked = true;
            tracing::info!(
                signal = name,
                "stopping: running tasks end first; a second signal ends at once"
            );
            stop.send_replace(true);
        }
    });
    Ok(())
}
