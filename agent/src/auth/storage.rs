//! `storage.db`: the SQLite file in which the Globus SDK keeps the tokens of logins, and in which we keep ours, so that
//! one login serves both.
//!
//! Both schemas of the SDK are read and written: version 1 (`SQLiteAdapter` of SDK 3) has one table more, which we leave
//! alone. A file that we make has version 2 (`SQLiteTokenStorage`).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::zeroize::Zeroizing;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{Connection as _, Row as _};

use super::token_data::TokenData;

/// As long as the SDK (Python's `sqlite3`) waits for others that write.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The schema of SDK 4.
const SCHEMA: &str = "
    CREATE TABLE token_storage (
        namespace VARCHAR NOT NULL,
        resource_server VARCHAR NOT NULL,
        token_data_json VARCHAR NOT NULL,
        PRIMARY KEY (namespace, resource_server)
    );
    CREATE TABLE sdk_storage_adapter_internal (
        attribute VARCHAR NOT NULL,
        value VARCHAR NOT NULL,
        PRIMARY KEY (attribute)
    );
    INSERT INTO sdk_storage_adapter_internal(attribute, value) VALUES
        ('globus-sdk.version', '4.9.1'),
        ('globus-sdk.database_schema_version', '2');
";

/// Why stored tokens can not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// Others may read the file.
    #[error(
        "{path} holds tokens, and others than its owner may read or write it (mode {mode:04o}): it is not used; `chmod 600 \
         {path}` mends that"
    )]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file can not be read or written.
    #[error("the tokens in {path} can not be {verb}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What was to be done.
        verb: &'static str,
        /// Why it was not.
        reason: String,
    },
    /// The file is a mounted one.
    #[error(
        "{0} is mounted to be read only: log in on another machine, and put its storage.db into the Secret that is mounted"
    )]
    Mounted(PathBuf),
}

/// One `storage.db`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Storage {
    path: PathBuf,
    /// The file is a mounted one, of whoever mounted it: it is only read, whatever its mode.
    mounted: bool,
}

impl Storage {
    /// The file of a user; it need not be there.
    pub(super) const fn at(path: PathBuf) -> Self {
        Self { path, mounted: false }
    }

    /// A file that is only read, such as one of a mounted Secret.
    pub(super) const fn mounted(path: PathBuf) -> Self {
        Self { path, mounted: true }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) const fn is_mounted(&self) -> bool {
        self.mounted
    }

    /// The whole file, to see whether it is another by now.
    pub(super) fn content(&self) -> Result<Zeroizing<Vec<u8>>, StorageError> {
        fs::read(&self.path)
            .map(Zeroizing::new)
            .map_err(|error| self.failed("read", &error))
    }

    /// The tokens in a namespace, by resource server. None if there is no file.
    pub(super) async fn read(&self, namespace: &str) -> Result<BTreeMap<String, TokenData>, StorageError> {
        if !self.is_there()? {
            return Ok(BTreeMap::new());
        }
        let mut connection = self.connect("read", true).await?;
        let rows = sqlx::query("SELECT resource_server, token_data_json FROM token_storage WHERE namespace = ?")
            .bind(namespace)
            .fetch_all(&mut connection)
            .await;
        let _ = connection.close().await;
        let mut tokens = BTreeMap::new();
        for row in rows.map_err(|error| self.failed("read", &error))? {
            let resource_server: String = row.try_get(0).map_err(|error| self.failed("read", &error))?;
            let json: String = row.try_get(1).map_err(|error| self.failed("read", &error))?;
            let json = Zeroizing::new(json);
            // What is wrong is not quoted: it is in the middle of tokens.
            let data = serde_json::from_str(&json)
                .map_err(|_| self.failed("read", &format!("what is kept for {resource_server} is damaged")))?;
            tokens.insert(resource_server, data);
        }
        Ok(tokens)
    }

    /// Keeps tokens in a namespace, in place of those for the same resource servers. Makes the file if need be.
    pub(super) async fn write(&self, namespace: &str, tokens: &[TokenData]) -> Result<(), StorageError> {
        self.check_writable()?;
        if !self.is_there()? {
            self.make().await?;
        }
        let mut connection = self.connect("written", false).await?;
        let written = async {
            let mut transaction = connection.begin().await?;
            for data in tokens {
                // Only a map whose keys are not text could fail.
                let json = Zeroizing::new(serde_json::to_string(data).unwrap_or_default());
                sqlx::query("REPLACE INTO token_storage(namespace, resource_server, token_data_json) VALUES (?, ?, ?)")
                    .bind(namespace)
                    .bind(&data.resource_server)
                    .bind(json.as_str())
                    .execute(&mut *transaction)
                    .await?;
            }
            transaction.commit().await
        };
        let written = written.await;
        let _ = connection.close().await;
        written.map_err(|error: sqlx::Error| self.failed("written", &error))
    }

    /// Forgets the token for a resource server.
    pub(super) async fn remove(&self, namespace: &str, resource_server: &str) -> Result<(), StorageError> {
        self.check_writable()?;
        if !self.is_there()? {
            return Ok(());
        }
        let mut connection = self.connect("removed", false).await?;
        let removed = sqlx::query("DELETE FROM token_storage WHERE namespace = ? AND resource_server = ?")
            .bind(namespace)
            .bind(resource_server)
            .execute(&mut connection)
            .await;
        let _ = connection.close().await;
        removed.map(drop).map_err(|error| self.failed("removed", &error))
    }

    fn check_writable(&self) -> Result<(), StorageError> {
        if self.mounted {
            return Err(StorageError::Mounted(self.path.clone()));
        }
        Ok(())
    }

    /// Whether there is a file, of which nobody else knows the content.
    fn is_there(&self) -> Result<bool, StorageError> {
        let metadata = match fs::metadata(&self.path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(self.failed("read", &error)),
        };
        let mode = metadata.permissions().mode() & 0o7777;
        if !self.mounted && mode & 0o077 != 0 {
            return Err(StorageError::Mode {
                path: self.path.clone(),
                mode,
            });
        }
        Ok(true)
    }

    async fn connect(&self, verb: &'static str, read_only: bool) -> Result<SqliteConnection, StorageError> {
        let options = SqliteConnectOptions::new()
            .filename(&self.path)
            .read_only(read_only)
            // Beside a mounted file there is no room for the files that SQLite locks with.
            .immutable(self.mounted)
            .busy_timeout(BUSY_TIMEOUT);
        SqliteConnection::connect_with(&options)
            .await
            .map_err(|error| self.failed(verb, &error))
    }

    /// Makes the file: it appears whole, with its tables, and for its owner only.
    async fn make(&self) -> Result<(), StorageError> {
        let folder = self.path.parent().unwrap_or_else(|| Path::new("."));
        fs::create_dir_all(folder).map_err(|error| self.failed("written", &error))?;
        // Such a file has mode 0600.
        let file = tempfile::Builder::new()
            .prefix(".storage-")
            .tempfile_in(folder)
            .map_err(|error| self.failed("written", &error))?;
        let new = Self::at(file.path().to_owned());
        let mut connection = new.connect("written", false).await?;
        let made = sqlx::raw_sql(SCHEMA).execute(&mut connection).await;
        let _ = connection.close().await;
        made.map_err(|error| self.failed("written", &error))?;
        match file.persist_noclobber(&self.path) {
            Ok(_) => Ok(()),
            // Another was faster; its file is as good.
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(self.failed("written", &error.error)),
        }
    }

    fn failed(&self, verb: &'static str, error: &dyn std::fmt::Display) -> StorageError {
        StorageError::File {
            path: self.path.clone(),
            verb,
            reason: error.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(json: &str) -> TokenData {
        serde_json::from_str(json).unwrap()
    }

    #[tokio::test]
    async fn what_is_written_is_read_again_by_its_namespace() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::at(folder.path().join("deeper/storage.db"));
        assert!(storage.read("user/production").await.unwrap().is_empty());
        let first = data(
            r#"{"resource_server": "a", "scope": "x y", "access_token": "t", "refresh_token": "r",
            "expires_at_seconds": 7, "token_type": "Bearer", "kept": {"by": "another SDK"}}"#,
        );
        storage
            .write("user/production", std::slice::from_ref(&first))
            .await
            .unwrap();
        let mode = fs::metadata(storage.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let read = storage.read("user/production").await.unwrap();
        assert_eq!(
            serde_json::to_value(&read["a"]).unwrap(),
            serde_json::to_value(&first).unwrap()
        );
        assert!(storage.read("user/local").await.unwrap().is_empty());
        storage.remove("user/production", "a").await.unwrap();
        assert!(storage.read("user/production").await.unwrap().is_empty());
        assert_eq!(fs::read_dir(folder.path().join("deeper")).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn a_file_that_others_may_read_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("storage.db");
        let storage = Storage::at(path.clone());
        storage.write("n", &[]).await.unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = storage.read("n").await.unwrap_err();
        assert!(matches!(error, StorageError::Mode { mode: 0o644, .. }), "{error}");
        assert!(error.to_string().contains("chmod 600"), "{error}");
        assert!(storage.write("n", &[]).await.is_err());
        assert!(Storage::mounted(path).read("n").await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_mounted_file_is_read_and_never_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("storage.db");
        let token = data(r#"{"resource_server": "a", "access_token": "t", "expires_at_seconds": 7}"#);
        Storage::at(path.clone()).write("n", &[token]).await.unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o555)).unwrap();
        let storage = Storage::mounted(path);
        assert_eq!(storage.read("n").await.unwrap().len(), 1);
        assert!(matches!(storage.write("n", &[]).await, Err(StorageError::Mounted(_))));
        assert!(matches!(storage.remove("n", "a").await, Err(StorageError::Mounted(_))));
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[tokio::test]
    async fn a_damaged_file_is_named_and_its_content_is_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("storage.db");
        fs::write(&path, "hidden, and no database".repeat(100)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let error = Storage::at(path).read("n").await.unwrap_err().to_string();
        assert!(error.contains("storage.db") && !error.contains("hidden"), "{error}");
    }
}
