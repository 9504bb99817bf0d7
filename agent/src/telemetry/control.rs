//! The socket on which a running endpoint answers `endpoint status`: who connects is given one text.

use std::fs;
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixListener;

/// A path to the socket that is short enough for the system (108 bytes), whatever the folder is called.
fn short(path: &Path) -> io::Result<(fs::File, PathBuf)> {
    let folder = fs::File::open(path.parent().unwrap_or_else(|| Path::new(".")))?;
    let short =
        PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(path.file_name().unwrap_or_default());
    Ok((folder, short))
}

/// Answers on the socket, with what `text` gives at that moment, for as long as this is polled.
///
/// # Errors
/// If the socket can not be made.
pub fn serve_control(
    path: &Path,
    text: impl Fn() -> String + Send + 'static,
) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    // What an endpoint that was killed has left; a live one holds the lock that the caller has.
    if fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
        fs::remove_file(path)?;
    }
    let (_folder, short) = short(path)?;
    let listener = UnixListener::bind(short)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(async move {
        loop {
            match listener.accept().await {
                Ok((mut stream, _)) => {
                    let text = text();
                    tokio::spawn(async move {
                        let write = async { stream.write_all(text.as_bytes()).await };
                        // Who does not read is left alone.
                        let _ = tokio::time::timeout(Duration::from_secs(5), write).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a question for the status could not be taken");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    })
}

/// Asks the endpoint that answers on the socket.
///
/// # Errors
/// If none answers within 5 s.
pub fn ask_control(path: &Path) -> io::Result<String> {
    let (_folder, short) = short(path)?;
    let mut stream = UnixStream::connect(short)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
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
        let served = tokio::spawn(serve_control(&path, || "fine".to_owned()).unwrap());
        let asked = path.clone();
        assert_eq!(
            tokio::task::spawn_blocking(move || ask_control(&asked))
                .await
                .unwrap()
                .unwrap(),
            "fine"
        );
        served.abort();
        // A socket that was left behind is in nobody's way.
        drop(serve_control(&path, String::new).unwrap());
    }

    #[test]
    fn nobody_answers_where_nothing_runs() {
        let base = tempfile::tempdir().unwrap();
        assert!(ask_control(&base.path().join("control.sock")).is_err());
    }
}
