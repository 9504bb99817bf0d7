//! The options in their final form: flags before environment before file before defaults.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use crate::cli::{DatabaseArguments, LogFormat, ManagementArguments, ServeArguments, TaskQueueType};

/// Why the options can't be used. No variant holds a value that may be secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file could not be read.
    #[error("the configuration file {path} could not be read: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file holds something else than the options.
    #[error("the configuration file {path} is not understood: {message}")]
    Parse {
        /// Which file.
        path: PathBuf,
        /// What is wrong; a TOML error without its excerpt, which could show a secret.
        message: String,
    },
    /// A URL is not of the kind needed.
    #[error("--{option} must be a URL like {example}: {message}")]
    Url {
        /// The option.
        option: &'static str,
        /// What it should be like.
        example: &'static str,
        /// What is wrong.
        message: String,
    },
}

/// How the service runs.
pub(crate) struct Settings {
    pub(crate) listen: SocketAddr,
    pub(crate) database: SecretString,
    /// With user and password.
    pub(crate) broker_url: SecretString,
    /// With user and password.
    pub(crate) broker_management_url: SecretString,
    /// Without user and password.
    pub(crate) broker_public_url: Url,
    /// The broker's virtual host.
    pub(crate) vhost: String,
    pub(crate) key_file: PathBuf,
    /// None: the virtual host's default.
    pub(crate) task_queue_type: Option<TaskQueueType>,
    /// As clients and browsers reach the service, ending with a slash. None: as each call names it.
    pub(crate) public_url: Option<Url>,
    pub(crate) token_lifetime: Duration,
    pub(crate) refresh_token_life: Duration,
    pub(crate) max_tasks_per_submit: usize,
    pub(crate) max_payload_bytes: usize,
    pub(crate) max_request_bytes: usize,
    pub(crate) result_queue_expiry: Duration,
    pub(crate) idle_queue_life: Duration,
    pub(crate) task_life: Duration,
    pub(crate) unread_task_life: Duration,
    pub(crate) lock_duration: Duration,
    pub(crate) housekeeping_period: Duration,
    pub(crate) log_format: Option<LogFormat>,
    pub(crate) log: String,
}

const DEFAULT_DATABASE: &str = "sqlite://interchange.db";

impl Settings {
    /// Adds the file and the defaults to flags and environment.
    ///
    /// # Errors
    /// [`ConfigError`] names the option or file at fault.
    pub(crate) fn resolve(flags: ServeArguments) -> Result<Self, ConfigError> {
        let file = match &flags.config {
            None => ServeArguments::default(),
            Some(path) => read(path)?,
        };
        let secret = |value: Option<SecretString>, default: &str| value.unwrap_or_else(|| SecretString::from(default));
        let seconds =
            |flag: Option<u64>, file: Option<u64>, default: u64| Duration::from_secs(flag.or(file).unwrap_or(default));

        let broker_url = secret(
            flags.broker_url.or(file.broker_url),
            "amqp://guest:guest@127.0.0.1:5672/%2F",
        );
        let broker = amqp_url("broker-url", broker_url.expose_secret())?;
        let mut broker_public_url = match flags.broker_public_url.or(file.broker_public_url) {
            None => broker.clone(),
            Some(text) => amqp_url("broker-public-url", &text)?,
        };
        let _ = broker_public_url.set_username("");
        let _ = broker_public_url.set_password(None);
        let vhost = match broker.path() {
            "" => "/".to_owned(),
            path => percent_decode(path.trim_start_matches('/')),
        };
        let broker_management_url = secret(
            flags.broker_management_url.or(file.broker_management_url),
            "http://guest:guest@127.0.0.1:15672",
        );
        management_url(broker_management_url.expose_secret())?;
        let public_url = flags.public_url.or(file.public_url);
        Ok(Self {
            listen: flags
                .listen
                .or(file.listen)
                .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 5000))),
            database: secret(flags.database.or(file.database), DEFAULT_DATABASE),
            broker_url,
            broker_management_url,
            broker_public_url,
            vhost,
            key_file: flags
                .key_file
                .or(file.key_file)
                .unwrap_or_else(|| PathBuf::from("interchange.key")),
            task_queue_type: flags.task_queue_type.or(file.task_queue_type),
            public_url: public_url.as_deref().map(public_url_of).transpose()?,
            token_lifetime: seconds(flags.token_lifetime, file.token_lifetime, 172_800),
            refresh_token_life: seconds(flags.refresh_token_life, file.refresh_token_life, 180 * 86_400),
            max_tasks_per_submit: flags
                .max_tasks_per_submit
                .or(file.max_tasks_per_submit)
                .unwrap_or(5_000),
            max_payload_bytes: flags.max_payload_bytes.or(file.max_payload_bytes).unwrap_or(10 << 20),
            max_request_bytes: flags.max_request_bytes.or(file.max_request_bytes).unwrap_or(256 << 20),
            result_queue_expiry: seconds(flags.result_queue_expiry, file.result_queue_expiry, 1_800),
            idle_queue_life: seconds(flags.idle_queue_life, file.idle_queue_life, 60),
            task_life: seconds(flags.task_life, file.task_life, 14 * 86_400),
            unread_task_life: seconds(flags.unread_task_life, file.unread_task_life, 60 * 86_400),
            lock_duration: seconds(flags.lock_duration, file.lock_duration, 30),
            housekeeping_period: seconds(flags.housekeeping_period, file.housekeeping_period, 15),
            log_format: flags.log_format.or(file.log_format),
            log: flags.log.or(file.log).unwrap_or_else(|| "info".to_owned()),
        })
    }
}

/// The database that the `client` and `user` commands work on.
///
/// # Errors
/// [`ConfigError`] names the file at fault.
pub(crate) fn database_of(arguments: DatabaseArguments) -> Result<SecretString, ConfigError> {
    if let Some(database) = arguments.database {
        return Ok(database);
    }
    let file = match &arguments.config {
        None => None,
        Some(path) => read(path)?.database,
    };
    Ok(file.unwrap_or_else(|| SecretString::from(DEFAULT_DATABASE)))
}

/// The broker's management as the commands beside `serve` are to use it, if it is named anywhere.
///
/// # Errors
/// [`ConfigError`] names the file or option at fault.
pub(crate) fn management_of(
    flag: ManagementArguments,
    database: &DatabaseArguments,
) -> Result<Option<Url>, ConfigError> {
    let url = match (flag.broker_management_url, &database.config) {
        (Some(url), _) => Some(url),
        (None, Some(path)) => read(path)?.broker_management_url,
        (None, None) => None,
    };
    url.map(|url| management_url(url.expose_secret())).transpose()
}

fn management_url(text: &str) -> Result<Url, ConfigError> {
    url_of(
        "broker-management-url",
        "http://user:password@host:15672",
        text,
        &["http", "https"],
    )
}

/// With a slash at its end, so that paths can be put after it.
fn public_url_of(text: &str) -> Result<Url, ConfigError> {
    const OPTION: (&str, &str) = ("public-url", "https://compute.example.org/");
    let mut url = url_of(OPTION.0, OPTION.1, text, &["http", "https"])?;
    if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
        return Err(ConfigError::Url {
            option: OPTION.0,
            example: OPTION.1,
            message: "it has a user, a query or a fragment".to_owned(),
        });
    }
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url)
}

fn read(path: &Path) -> Result<ServeArguments, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    toml::from_str(&text).map_err(|error| ConfigError::Parse {
        path: path.to_owned(),
        message: error.message().to_owned(),
    })
}

fn amqp_url(option: &'static str, text: &str) -> Result<Url, ConfigError> {
    url_of(option, "amqp://user:password@host:5672/%2F", text, &["amqp", "amqps"])
}

fn url_of(option: &'static str, example: &'static str, text: &str, schemes: &[&str]) -> Result<Url, ConfigError> {
    let wrong = |message: String| ConfigError::Url {
        option,
        example,
        message,
    };
    let url = Url::parse(text).map_err(|error| wrong(error.to_string()))?;
    if !schemes.contains(&url.scheme()) {
        return Err(wrong(format!("the scheme is {:?}", url.scheme())));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(wrong("it names no host".to_owned()));
    }
    Ok(url)
}

/// Decodes `%XX` in a URL's user or password.
pub(crate) fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let hex = (first == b'%')
            .then(|| tail.get(..2))
            .flatten()
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match hex {
            Some(byte) => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_with_reserved_characters_is_decoded() {
        assert_eq!(percent_decode("a%2Fb%40c%"), "a/b@c%");
    }

    fn resolve(flags: ServeArguments, file: &str) -> Result<Settings, ConfigError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("interchange.toml");
        std::fs::write(&path, file).unwrap();
        Settings::resolve(ServeArguments {
            config: Some(path),
            ..flags
        })
    }

    #[test]
    fn a_flag_goes_before_the_file_and_the_file_before_the_default() {
        let flags = ServeArguments {
            max_tasks_per_submit: Some(7),
            ..ServeArguments::default()
        };
        let settings = resolve(flags, "max-tasks-per-submit = 8\ntask-queue-type = \"quorum\"\n").unwrap();
        assert_eq!(settings.max_tasks_per_submit, 7);
        assert_eq!(settings.task_queue_type, Some(TaskQueueType::Quorum));
        assert_eq!(settings.listen.port(), 5000);
    }

    #[test]
    fn the_public_broker_url_has_no_password() {
        let settings = resolve(
            ServeArguments::default(),
            "broker-url = \"amqp://admin:pw@broker:5673/a%2Fb\"\n",
        )
        .unwrap();
        assert_eq!(settings.broker_public_url.as_str(), "amqp://broker:5673/a%2Fb");
        assert_eq!(settings.vhost, "a/b");
    }

    #[test]
    fn the_public_url_ends_with_a_slash_and_is_nothing_but_an_address() {
        let public_url = |text: &str| {
            resolve(ServeArguments::default(), &format!("public-url = {text:?}\n")).map(|found| found.public_url)
        };
        let url = public_url("https://compute.example.org/a").unwrap().unwrap();
        assert_eq!(url.as_str(), "https://compute.example.org/a/");
        for wrong in [
            "https://me@example.org",
            "https://example.org/?a=b",
            "ftp://example.org",
            "example.org",
        ] {
            assert!(public_url(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_unknown_option_in_the_file_is_named() {
        let Err(error) = resolve(ServeArguments::default(), "lissen = 1\n") else {
            panic!("it was taken")
        };
        assert!(error.to_string().contains("lissen"), "{error}");
    }

    #[test]
    fn a_wrong_broker_url_names_the_option_and_shows_no_password() {
        let Err(error) = resolve(ServeArguments::default(), "broker-url = \"http://admin:pw@broker\"\n") else {
            panic!("it was taken")
        };
        let text = error.to_string();
        assert!(text.contains("--broker-url") && !text.contains("pw@"), "{text}");
    }
}
