//! The state as files in the endpoint's folder.

use std::path::{Path, PathBuf};

use super::{StateError, files, keys};

/// Where each key is a file. The lock on `daemon.pid` keeps other processes from it.
#[derive(Debug)]
pub(super) struct FolderMedium {
    folder: PathBuf,
}

impl FolderMedium {
    pub(super) fn open(directory: &Path) -> Result<Self, StateError> {
        let folder = directory.join("state");
        let saved = folder.join("user_endpoints");
        files::make_folder(&saved).map_err(|source| StateError::File {
            path: saved,
            verb: "made",
            source,
        })?;
        Ok(Self { folder })
    }

    /// The file of a key. What belongs to a user endpoint has a folder of its own.
    pub(super) fn path(&self, key: &str) -> PathBuf {
        match keys::user_endpoint_id(key) {
            Some(id) => self.folder.join("user_endpoints").join(format!("{id}.json")),
            None => self.folder.join(key),
        }
    }

    pub(super) fn read(&self, key: &str) -> Result<Option<Vec<u8>>, StateError> {
        let path = self.path(key);
        files::read(&path).map_err(|source| StateError::File {
            path,
            verb: "read",
            source,
        })
    }

    pub(super) fn write(&self, key: &str, content: Option<&[u8]>) -> Result<(), StateError> {
        let path = self.path(key);
        let (done, verb) = match content {
            Some(content) => (files::replace(&path, content), "written"),
            None => (files::remove(&path), "removed"),
        };
        done.map_err(|source| StateError::File { path, verb, source })
    }

    /// The keys of all saved user endpoints.
    pub(super) fn user_endpoints(&self) -> Result<Vec<String>, StateError> {
        let folder = self.folder.join("user_endpoints");
        let failed = |source| StateError::File {
            path: folder.clone(),
            verb: "read",
            source,
        };
        let mut keys = Vec::new();
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let id = path
                .file_name()
                .and_then(|name| name.to_str())
                .and_then(|name| name.strip_suffix(".json"));
            keys.extend(id.map(keys::user_endpoint));
        }
        Ok(keys)
    }
}
