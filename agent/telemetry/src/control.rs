//! The socket on which a running endpoint takes the word of other commands: `status`, `stop` or `start`, and answers
//! with one text.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;

/// A path to the socket that is short enough for the system (108 bytes), whatever the folder is called.
fn short(path: &Path) -> io::Result<(fs::File, PathBuf)> {
    let folder = fs::File::open(path.parent().unwrap_or_else(|| Path::new(".")))?;
    let short =
        PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(path.file_name().unwrap_or_default());
    Ok((folder, short))
}

/// No request is longer.
const REQUEST_MAX: u64 = 64;
/// Who connects has so long to say what for.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// An answer takes no longer, unless something is wrong.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Answers on the socket, with what `answer` gives for a request, for as long as this is polled.
///
/// # Errors
/// If the socket can not be made.
pub fn serve_control(
    path: &Path,
    answer: impl Fn(String) -> BoxFuture<'static, String> + Send + Sync + 'static,
) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    // What an endpoint that was killed has left; a live one holds the lock that the caller has.
    if fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
        fs::remove_file(path)?;
    }
    let (_folder, short) = short(path)?;
    let listener = UnixListener::bind(short)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    let answer = std::sync::Arc::new(answer);
    Ok(async move {
        loop {
            match listener.accept().await {
                Ok((mut stream, _)) => {
                    let answer = std::sync::Arc::clone(&answer);
                    tokio::spawn(async move {
                        let mut request = String::new();
                        let mut limited = (&mut stream).take(REQUEST_MAX);
                        let read = limited.read_to_string(&mut request);
                        if !matches!(tokio::time::timeout(REQUEST_TIMEOUT, read).await, Ok(Ok(_))) {
                            return;
                        }
                        let text = answer(request.trim().to_owned()).await;
                        // Who does not read is left alone.
                        let _ = tokio::time::timeout(REQUEST_TIMEOUT, stream.write_all(text.as_bytes())).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a request of another command could not be taken");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    })
}

/// Asks the endpoint that answers on the socket.
///
/// # Errors
/// If none answers in time: 5 s for `status`, a minute for anything else.
pub fn ask_control(path: &Path, request: &str) -> io::Result<String> {
    let (_folder, short) = short(path)?;
    let mut stream = UnixStream::connect(short)?;
    let patience = if request == "status" {
        REQUEST_TIMEOUT
    } else {
        ANSWER_TIMEOUT
    };
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(request.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_asks_is_told_even_in_a_folder_with_a_long_name() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("x".repeat(120));
        fs::create_dir(&folder).unwrap();
        let path = folder.join("control.sock");
        let served = tokio::spawn(
            serve_control(&path, |request| Box::pin(async move { format!("{request} is fine") })).unwrap(),
        );
        let asked = path.clone();
        assert_eq!(
            tokio::task::spawn_blocking(move || ask_control(&asked, "status"))
                .await
                .unwrap()
                .unwrap(),
            "status is fine"
        );
        served.abort();
        // A socket that was left behind is in nobody's way.
        drop(serve_control(&path, |_| Box::pin(async { String::new() })).unwrap());
    }

    #[test]
    fn nobody_answers_where_nothing_runs() {
        let base = tempfile::tempdir().unwrap();
        assert!(ask_control(&base.path().join("control.sock"), "status").is_err());
    }
}
