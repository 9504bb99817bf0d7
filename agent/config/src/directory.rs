//! The folder of an endpoint and the files in it, by upstream's names.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::endpoint::ManagerConfig;
use super::parse::{ConfigError, Configuration, Read, endpoint_config};
use super::{ProcessConfig, defaults};

/// One endpoint's folder: `<base>/<name>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointDirectory {
    path: PathBuf,
    name: String,
}

/// Why an endpoint's files can not be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The name can not be a folder's.
    #[error("Invalid endpoint name: {0}")]
    Name(String),
    /// There is no such folder.
    #[error(
        "There is no endpoint configuration on this machine at {path}\n\n1. Please create a configuration template with:\n\tendpoint configure{argument}\n2. Update the configuration\n3. Try again\n"
    )]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
        /// The name to configure, with a space before it.
        argument: String,
    },
    /// No endpoint in the base folder has this id.
    #[error("There is no endpoint on this machine with ID '{0}'")]
    UnknownId(Uuid),
    /// `configure` was asked for an endpoint that is there.
    #[error("{path}\nconfig dir <{name}> already exists")]
    Exists {
        /// The folder.
        path: PathBuf,
        /// The endpoint's name.
        name: String,
    },
    /// A file can not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// `endpoint.json` is not what it should be.
    #[error("{0} does not hold an endpoint's id; restore the file, or delete it to register a new endpoint")]
    EndpointJson(PathBuf),
    /// `config.py` can not be read here.
    #[error("{0} is a Python program, which Waypost does not run: write its settings into config.yaml and remove it")]
    Python(PathBuf),
    /// The configuration has problems.
    #[error("{path}: {source}")]
    Config {
        /// The file.
        path: PathBuf,
        /// The problems.
        source: ConfigError,
    },
}

/// The folder that holds all endpoints: the option, `GLOBUS_COMPUTE_USER_DIR`, or `~/.globus_compute`.
#[must_use]
pub fn base_directory(option: Option<PathBuf>, variable: impl Fn(&str) -> Option<String>) -> PathBuf {
    let path = option
        .or_else(|| {
            variable("GLOBUS_COMPUTE_USER_DIR")
                .filter(|path| !path.is_empty())
                .map(PathBuf::from)
        })
        .or_else(|| std::env::home_dir().map(|home| home.join(".globus_compute")))
        .unwrap_or_else(|| PathBuf::from(".globus_compute"));
    std::path::absolute(&path).unwrap_or(path)
}

/// Checks a name by upstream's rules.
///
/// # Errors
/// [`DirectoryError::Name`] with the rule that it breaks.
pub fn check_name(name: &str) -> Result<(), DirectoryError> {
    let bad = |what: String| Err(DirectoryError::Name(what));
    if name.is_empty() {
        return bad("Received no endpoint name".to_owned());
    }
    let length = name.chars().count();
    if length > 128 {
        return bad(format!("must be less than 129 characters (length: {length})"));
    }
    if name.contains('/') || name == "." || name == ".." {
        return bad(format!("no '..' or '/' characters\n  Requested:  {name}"));
    }
    let reduced: String = name
        .chars()
        .filter(|c| !c.is_whitespace() && !matches!(c, '\\' | '\'' | '"'))
        .collect();
    let reduced = reduced.trim_start_matches('.');
    if reduced != name {
        return bad(format!(
            "no whitespace (spaces, newlines, tabs), slashes, or prefixed '.'\n  Requested:  {name}\n  Reduced to: {reduced} (*potentially* valid)"
        ));
    }
    Ok(())
}

/// Sources that `configure` copies instead of its defaults.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// For `config.yaml`.
    pub config: Option<PathBuf>,
    /// For `user_config_template.yaml.j2`.
    pub template: Option<PathBuf>,
    /// For `user_config_schema.json`.
    pub schema: Option<PathBuf>,
    /// For `user_environment.yaml`.
    pub environment: Option<PathBuf>,
    /// Lines `key: value` to put before the configuration.
    pub settings: Vec<(&'static str, String)>,
}

impl EndpointDirectory {
    /// The folder of `name_or_id` in `base`: by name, or by the id in its `endpoint.json`.
    ///
    /// # Errors
    /// [`DirectoryError::Name`], or [`DirectoryError::UnknownId`].
    pub fn find(base: &Path, name_or_id: &str) -> Result<Self, DirectoryError> {
        if let Ok(id) = Uuid::try_parse(name_or_id) {
            return Self::list(base)
                .into_iter()
                .find(|directory| directory.endpoint_id().ok().flatten() == Some(id))
                .ok_or(DirectoryError::UnknownId(id));
        }
        check_name(name_or_id)?;
        Ok(Self {
            path: base.join(name_or_id),
            name: name_or_id.to_owned(),
        })
    }

    /// The folder at `path`, whatever its name is.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self {
            name: path
                .file_name()
                .map_or_else(|| "default".to_owned(), |name| name.to_string_lossy().into_owned()),
            path: path.to_owned(),
        }
    }

    /// All folders in `base` that hold a configuration of an endpoint, by name.
    #[must_use]
    pub fn list(base: &Path) -> Vec<Self> {
        let mut found: Vec<Self> = fs::read_dir(base)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.path().join("config.yaml").exists() || entry.path().join("config.py").exists())
            .filter_map(|entry| {
                Some(Self {
                    path: entry.path(),
                    name: entry.file_name().to_str()?.to_owned(),
                })
            })
            .collect();
        found.sort_by(|left, right| left.name.cmp(&right.name));
        found
    }

    /// The endpoint's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `config.yaml`.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.path.join("config.yaml")
    }

    /// The template: where the configuration says, else `user_config_template.yaml.j2`, else the same without `.j2`.
    #[must_use]
    pub fn template_file(&self, config: Option<&ManagerConfig>) -> PathBuf {
        if let Some(path) = config.and_then(|config| config.user_config_template_path.clone()) {
            return path;
        }
        let path = self.path.join("user_config_template.yaml.j2");
        let plain = self.path.join("user_config_template.yaml");
        if !path.exists() && plain.exists() { plain } else { path }
    }

    /// The schema: where the configuration says, else `user_config_schema.json`.
    #[must_use]
    pub fn schema_file(&self, config: Option<&ManagerConfig>) -> PathBuf {
        config
            .and_then(|config| config.user_config_schema_path.clone())
            .unwrap_or_else(|| self.path.join("user_config_schema.json"))
    }

    /// `user_environment.yaml`.
    #[must_use]
    pub fn environment_file(&self) -> PathBuf {
        self.path.join("user_environment.yaml")
    }

    /// `endpoint.json`.
    #[must_use]
    pub fn id_file(&self) -> PathBuf {
        self.path.join("endpoint.json")
    }

    /// `daemon.pid`.
    #[must_use]
    pub fn pid_file(&self) -> PathBuf {
        self.path.join("daemon.pid")
    }

    /// `endpoint.log`.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.path.join("endpoint.log")
    }

    /// The socket on which a running endpoint answers `endpoint status`.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.path.join("control.sock")
    }

    /// Whether the endpoint was configured.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.path.is_dir()
    }

    /// The id in `endpoint.json`, if the endpoint was registered before.
    ///
    /// # Errors
    /// [`DirectoryError`] if the file is there and can not be read.
    pub fn endpoint_id(&self) -> Result<Option<Uuid>, DirectoryError> {
        #[derive(serde::Deserialize)]
        struct Info {
            endpoint_id: Uuid,
        }
        let path = self.id_file();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(DirectoryError::File { path, source }),
        };
        serde_json::from_str(&text)
            .map(|info: Info| Some(info.endpoint_id))
            .map_err(|_| DirectoryError::EndpointJson(path))
    }

    /// Reads `config.yaml`; a missing one is an empty one. Gives its text, too.
    ///
    /// # Errors
    /// [`DirectoryError`] with every problem.
    pub fn read(&self) -> Result<(Read<(Configuration, ProcessConfig)>, String), DirectoryError> {
        if !self.exists() {
            let argument = if self.name == "default" {
                String::new()
            } else {
                format!(" {}", self.name)
            };
            return Err(DirectoryError::Missing {
                path: self.path.clone(),
                argument,
            });
        }
        let python = self.path.join("config.py");
        if python.exists() {
            return Err(DirectoryError::Python(python));
        }
        let path = self.config_file();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(DirectoryError::File { path, source }),
        };
        match endpoint_config(&text, Some(&self.path)) {
            Ok(read) => Ok((read, text)),
            Err(source) => Err(DirectoryError::Config { path, source }),
        }
    }

    /// Makes the folder and its files. Nothing is left of it if that fails.
    ///
    /// # Errors
    /// [`DirectoryError::Exists`] if it is there, [`DirectoryError::File`] if a file can not be read or written.
    pub fn configure(&self, sources: &Sources) -> Result<(), DirectoryError> {
        if self.path.exists() {
            return Err(DirectoryError::Exists {
                path: self.path.clone(),
                name: self.name.clone(),
            });
        }
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.path)
            .map_err(|source| self.failed(&self.path, source))?;
        let written = self.write_files(sources);
        if written.is_err() {
            let _ = fs::remove_dir_all(&self.path);
        }
        written
    }

    fn write_files(&self, sources: &Sources) -> Result<(), DirectoryError> {
        let text = |source: &Option<PathBuf>, default: &str| match source {
            Some(path) => fs::read_to_string(path).map_err(|error| self.failed(path, error)),
            None => Ok(default.to_owned()),
        };
        let mut config = text(&sources.config, defaults::CONFIG)?;
        if !sources.settings.is_empty() {
            let keys: Vec<&str> = sources.settings.iter().map(|(key, _)| *key).collect();
            config = config
                .lines()
                .filter(|line| !keys.iter().any(|key| line.starts_with(&format!("{key}:"))))
                .map(|line| format!("{line}\n"))
                .collect();
            for (key, value) in &sources.settings {
                // A JSON string is a YAML string.
                config += &format!("{key}: {}\n", serde_json::Value::from(value.as_str()));
            }
        }
        self.write(&self.config_file(), &config)?;
        self.write(&self.template_file(None), &text(&sources.template, defaults::TEMPLATE)?)?;
        self.write(&self.schema_file(None), &text(&sources.schema, defaults::SCHEMA)?)?;
        self.write(
            &self.environment_file(),
            &text(&sources.environment, defaults::ENVIRONMENT)?,
        )
    }

    fn write(&self, path: &Path, text: &str) -> Result<(), DirectoryError> {
        fs::write(path, text)
            .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o600)))
            .map_err(|error| self.failed(path, error))
    }

    #[expect(clippy::unused_self, reason = "it reads as part of the folder's work")]
    fn failed(&self, path: &Path, source: io::Error) -> DirectoryError {
        DirectoryError::File {
            path: path.to_owned(),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_upstream_s_rules() {
        for good in ["nice_normal_name", "91239anothervalidname", "a.b", &"a".repeat(128)] {
            check_name(good).unwrap();
        }
        for bad in [
            "",
            " has_a_space",
            "has a_space",
            "has/../relative",
            ".hidden",
            "..",
            "/absolute",
            "a\tb",
            "a\\b",
            "a'b",
            "a\"b",
            &"a".repeat(129),
        ] {
            let error = check_name(bad).unwrap_err().to_string();
            assert!(error.starts_with("Invalid endpoint name: "), "{error}");
        }
    }

    #[test]
    fn a_configured_endpoint_is_found_by_name_and_by_id() {
        let base = tempfile::tempdir().unwrap();
        let directory = EndpointDirectory::find(base.path(), "mine").unwrap();
        assert!(matches!(directory.read(), Err(DirectoryError::Missing { .. })));
        directory.configure(&Sources::default()).unwrap();
        assert!(matches!(
            directory.configure(&Sources::default()),
            Err(DirectoryError::Exists { .. })
        ));
        let (read, _) = directory.read().unwrap();
        assert!(matches!(read.config.0, Configuration::Template(_)));
        assert!(read.remarks.is_empty());
        let id = Uuid::from_u128(7);
        assert!(matches!(
            EndpointDirectory::find(base.path(), &id.to_string()),
            Err(DirectoryError::UnknownId(_))
        ));
        fs::write(directory.id_file(), format!("{{\"endpoint_id\": \"{id}\"}}")).unwrap();
        assert_eq!(
            EndpointDirectory::find(base.path(), &id.to_string()).unwrap(),
            directory
        );
    }

    #[test]
    fn a_source_that_can_not_be_read_leaves_no_folder_behind() {
        let base = tempfile::tempdir().unwrap();
        let directory = EndpointDirectory::find(base.path(), "mine").unwrap();
        let sources = Sources {
            schema: Some(PathBuf::from("/no/such/file")),
            ..Sources::default()
        };
        assert!(matches!(
            directory.configure(&sources),
            Err(DirectoryError::File { .. })
        ));
        assert!(!directory.exists());
    }

    #[test]
    fn settings_of_configure_replace_those_of_the_source() {
        let base = tempfile::tempdir().unwrap();
        let directory = EndpointDirectory::find(base.path(), "mine").unwrap();
        directory
            .configure(&Sources {
                settings: vec![("display_name", "it's: \"mine\"".to_owned())],
                ..Sources::default()
            })
            .unwrap();
        let (read, _) = directory.read().unwrap();
        assert_eq!(read.config.0.base().display_name.as_deref(), Some("it's: \"mine\""));
    }

    #[test]
    fn a_program_as_configuration_is_refused_by_name() {
        let base = tempfile::tempdir().unwrap();
        let directory = EndpointDirectory::find(base.path(), "mine").unwrap();
        directory.configure(&Sources::default()).unwrap();
        fs::write(directory.path().join("config.py"), "config = 1").unwrap();
        assert!(matches!(directory.read(), Err(DirectoryError::Python(_))));
    }
}
