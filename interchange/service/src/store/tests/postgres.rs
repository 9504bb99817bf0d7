//! A PostgreSQL server for the tests of this process.

use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;

use uuid::Uuid;

/// PostgreSQL refuses to run as root; then the server runs as this user and group, nobody.
const NOBODY: u32 = 65_534;

struct Server {
    /// Keeps the server up: its end of the pipe closes with this process, however that ends.
    _lifeline: ChildStdin,
    _child: Child,
    directory: PathBuf,
}

static SERVER: OnceLock<Server> = OnceLock::new();

/// The URL of a new, empty database. It is on the server that `WAYPOST_TEST_POSTGRES` names, or on one of the tests' own.
pub(super) async fn new_database() -> String {
    let name = format!("waypost_{}", Uuid::new_v4().simple());
    let (admin, url) = match std::env::var("WAYPOST_TEST_POSTGRES") {
        Ok(text) => {
            let mut url = url::Url::parse(&text).expect("WAYPOST_TEST_POSTGRES is a URL");
            url.set_path(&name);
            (text, url.to_string())
        }
        Err(_) => {
            let directory = SERVER.get_or_init(start).directory.display().to_string();
            let of = |database: &str| format!("postgres:///{database}?host={directory}&user=postgres");
            (of("postgres"), of(&name))
        }
    };
    let mut attempts = 0;
    let pool = loop {
        match sqlx::PgPool::connect(&admin).await {
            Ok(pool) => break pool,
            Err(error) => {
                attempts += 1;
                assert!(attempts < 100, "PostgreSQL does not answer: {error}");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    };
    sqlx::query(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}")))
        .execute(&pool)
        .await
        .unwrap();
    pool.close().await;
    url
}

fn programs() -> PathBuf {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .expect("PostgreSQL is installed (Debian: postgresql), or WAYPOST_TEST_POSTGRES names a server")
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|path| path.join("initdb").exists())
        .collect();
    found.sort();
    found
        .pop()
        .expect("there is a version of PostgreSQL in /usr/lib/postgresql")
}

fn start() -> Server {
    let directory = tempfile::Builder::new()
        .prefix("waypost-postgres-")
        .tempdir()
        .unwrap()
        .keep();
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    let run_as = |program: &Path| {
        let mut command = Command::new(program);
        command.current_dir(&directory);
        if is_root {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    };
    if is_root {
        chown(&directory, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let bin = programs();
    let data = directory.join("data");
    let made = run_as(&bin.join("initdb"))
        .args([
            "--username=postgres",
            "--auth=trust",
            "--no-sync",
            "--encoding=UTF8",
            "--locale=C",
            "--pgdata",
        ])
        .arg(&data)
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(made.success(), "initdb failed: {made}");
    // The server ends when standard input does, that is, when this process is gone.
    let script = r#""$1" -D "$2" -k "$3" -c listen_addresses= -c fsync=off >"$3/log" 2>&1 & cat; kill -INT $!; wait; rm -rf "$3""#;
    let mut child = run_as(Path::new("/bin/sh"))
        .args(["-c", script, "sh"])
        .arg(bin.join("postgres"))
        .arg(&data)
        .arg(&directory)
        .stdin(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let lifeline = child.stdin.take().unwrap();
    Server {
        _lifeline: lifeline,
        _child: child,
        directory,
    }
}
