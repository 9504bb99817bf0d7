//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use secrecy::SecretString;
use serde::Deserialize;
use url::Url;
use uuid::Uuid;

/// A self-hosted interchange for Globus Compute: unmodified SDKs submit to it, unmodified endpoints run its tasks.
#[derive(Debug, Parser)]
#[command(name = "interchange", version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serves the Compute API until SIGTERM or Ctrl-C.
    #[command(after_long_help = SERVE_HELP)]
    Serve(Box<ServeArguments>),
    /// Makes, lists and revokes the credentials that SDKs and endpoints log in with.
    Client {
        #[command(subcommand)]
        command: ClientCommand,
    },
    /// Adds, lists and removes the people who sign in by name and password.
    User {
        #[command(subcommand)]
        command: UserCommand,
    },
    /// Goes a client's way through an interchange that runs: logs in, registers a function, reads it and deletes it, and
    /// connects to the broker as that client. Nothing of it is left. `helm test` runs this.
    Check(CheckArguments),
}

const SERVE_HELP: &str = "\
Every option can stand in the file named by --config as well (TOML, the option's name without the dashes:
`listen = \"0.0.0.0:5000\"`), and in the environment. A flag goes before the environment, the environment before the file.

Exit codes: 0 stopped by a signal; 1 could not start or go on, with the reason on standard error; 2 wrong usage.";

#[derive(Debug, Subcommand)]
pub(crate) enum ClientCommand {
    /// Makes a client and prints its id and secret. The secret is shown this once and kept as a hash.
    Create {
        #[command(flatten)]
        database: DatabaseArguments,
        /// A name for people.
        #[arg(long)]
        name: String,
        /// A program on its users' machines, which can keep no secret: users sign in for it, and it has none.
        #[arg(long)]
        native: bool,
        /// Where the codes of users who sign in for it may be sent; can be given more than once. A native client may
        /// have them sent to its own machine's loopback address as well, and shown to its user.
        #[arg(long, value_name = "URL")]
        redirect_uri: Vec<Url>,
        /// Prints a JSON object instead of two lines.
        #[arg(long)]
        json: bool,
    },
    /// Lists all clients.
    List {
        #[command(flatten)]
        database: DatabaseArguments,
        /// Prints a JSON array instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Revokes a client: its tokens end at once, and so do its connections to the broker and those of its endpoints, if
    /// the broker's management is named and can be reached; else a running interchange ends them in its next round of
    /// cleaning up.
    Revoke {
        #[command(flatten)]
        database: DatabaseArguments,
        #[command(flatten)]
        management: ManagementArguments,
        /// The client's id.
        client_id: Uuid,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Adds a user. The password is asked for, or read from standard input if that is no terminal; it is kept as a hash.
    Add {
        #[command(flatten)]
        database: DatabaseArguments,
        /// Prints a JSON object instead of a line.
        #[arg(long)]
        json: bool,
        /// The name to sign in with, such as `ada` or `ada@example.org`. Upper and lower case are the same.
        name: String,
    },
    /// Lists all users.
    List {
        #[command(flatten)]
        database: DatabaseArguments,
        /// Prints a JSON array instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Changes a user's password, asked for as by `add`, and ends what was signed in with the old one.
    Password {
        #[command(flatten)]
        database: DatabaseArguments,
        /// The user's name.
        name: String,
    },
    /// Removes a user, as `client revoke` revokes a client. Somebody who is added with the name again is another one, and
    /// owns nothing of the first.
    Remove {
        #[command(flatten)]
        database: DatabaseArguments,
        #[command(flatten)]
        management: ManagementArguments,
        /// The user's name.
        name: String,
    },
}

/// The options of `interchange check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArguments {
    #[command(flatten)]
    pub(crate) database: DatabaseArguments,
    #[command(flatten)]
    pub(crate) management: ManagementArguments,
    /// The interchange that is to be checked, which works on the same database.
    #[arg(long, default_value = "http://127.0.0.1:5000", value_name = "URL")]
    pub(crate) url: Url,
}

/// Where the broker's users are removed.
#[derive(Debug, Args)]
pub(crate) struct ManagementArguments {
    /// RabbitMQ's management plugin, as an administrator, as for `interchange serve` [default: none]
    #[arg(
        long,
        env = "WAYPOST_INTERCHANGE_BROKER_MANAGEMENT_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub(crate) broker_management_url: Option<SecretString>,
}

/// Where the database is.
#[derive(Debug, Args)]
pub(crate) struct DatabaseArguments {
    /// The database: sqlite:///absolute/file.db or postgres://user:password@host/name [default: sqlite://interchange.db]
    #[arg(
        long,
        env = "WAYPOST_INTERCHANGE_DATABASE",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub(crate) database: Option<SecretString>,
    /// A TOML file with options, as for `interchange serve`.
    #[arg(long, env = "WAYPOST_INTERCHANGE_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// The kind of queue that tasks wait in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TaskQueueType {
    /// Kept by one node of the broker.
    Classic,
    /// Kept by a majority of the broker's nodes.
    Quorum,
}

/// The options of `interchange serve`; also what its file may hold.
#[derive(Debug, Default, Args, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct ServeArguments {
    /// A TOML file with options.
    #[arg(long, env = "WAYPOST_INTERCHANGE_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub(crate) config: Option<PathBuf>,

    /// The address to serve on [default: 127.0.0.1:5000]
    #[arg(long, env = "WAYPOST_INTERCHANGE_LISTEN", value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<SocketAddr>,

    /// The database: sqlite:///absolute/file.db or postgres://user:password@host/name [default: sqlite://interchange.db]
    #[arg(
        long,
        env = "WAYPOST_INTERCHANGE_DATABASE",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub(crate) database: Option<SecretString>,

    /// RabbitMQ, as a user with the tag `administrator` and all permissions on the virtual host
    /// [default: amqp://guest:guest@127.0.0.1:5672/%2F]
    #[arg(
        long,
        env = "WAYPOST_INTERCHANGE_BROKER_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub(crate) broker_url: Option<SecretString>,

    /// RabbitMQ's management plugin, as the same user [default: http://guest:guest@127.0.0.1:15672]
    #[arg(
        long,
        env = "WAYPOST_INTERCHANGE_BROKER_MANAGEMENT_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub(crate) broker_management_url: Option<SecretString>,

    /// RabbitMQ as clients and endpoints reach it, without a user: amqp://host:port/vhost or amqps://...
    /// [default: as in --broker-url]
    #[arg(long, env = "WAYPOST_INTERCHANGE_BROKER_PUBLIC_URL", value_name = "URL")]
    pub(crate) broker_public_url: Option<String>,

    /// The key from which broker passwords are derived; made if absent. Replicas need the same [default: interchange.key]
    #[arg(long, env = "WAYPOST_INTERCHANGE_KEY_FILE", value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,

    /// The kind of queue that tasks wait in [default: the virtual host's own, which is classic unless set]
    #[arg(long, env = "WAYPOST_INTERCHANGE_TASK_QUEUE_TYPE", value_enum)]
    pub(crate) task_queue_type: Option<TaskQueueType>,

    /// The address of this service as clients and browsers reach it, such as https://compute.example.org/: the issuer of
    /// id_tokens, and where users sign in [default: as each call names it, over plain HTTP]
    #[arg(long, env = "WAYPOST_INTERCHANGE_PUBLIC_URL", value_name = "URL")]
    pub(crate) public_url: Option<String>,

    /// Seconds for which an access token is good [default: 172800, two days]
    #[arg(long, env = "WAYPOST_INTERCHANGE_TOKEN_LIFETIME", value_name = "SECONDS")]
    pub(crate) token_lifetime: Option<u64>,

    /// Seconds after which a refresh token is over that was not used [default: 15552000, 180 days]
    #[arg(long, env = "WAYPOST_INTERCHANGE_REFRESH_TOKEN_LIFE", value_name = "SECONDS")]
    pub(crate) refresh_token_life: Option<u64>,

    /// The most tasks in one submit [default: 5000]
    #[arg(long, env = "WAYPOST_INTERCHANGE_MAX_TASKS_PER_SUBMIT", value_name = "COUNT")]
    pub(crate) max_tasks_per_submit: Option<usize>,

    /// The most bytes in one task's arguments [default: 10485760, 10 MiB]
    #[arg(long, env = "WAYPOST_INTERCHANGE_MAX_PAYLOAD_BYTES", value_name = "BYTES")]
    pub(crate) max_payload_bytes: Option<usize>,

    /// The most bytes in one request [default: 268435456, 256 MiB]
    #[arg(long, env = "WAYPOST_INTERCHANGE_MAX_REQUEST_BYTES", value_name = "BYTES")]
    pub(crate) max_request_bytes: Option<usize>,

    /// Seconds after which the broker removes a result queue that nobody uses [default: 1800]
    #[arg(long, env = "WAYPOST_INTERCHANGE_RESULT_QUEUE_EXPIRY", value_name = "SECONDS")]
    pub(crate) result_queue_expiry: Option<u64>,

    /// Seconds after which a result queue is removed that is empty, without a consumer and without tasks to wait for
    /// [default: 60]
    #[arg(long, env = "WAYPOST_INTERCHANGE_IDLE_QUEUE_LIFE", value_name = "SECONDS")]
    pub(crate) idle_queue_life: Option<u64>,

    /// Seconds for which a task and its result are kept after a client has read the result [default: 1209600, 14 days]
    #[arg(long, env = "WAYPOST_INTERCHANGE_TASK_LIFE", value_name = "SECONDS")]
    pub(crate) task_life: Option<u64>,

    /// Seconds for which a task is kept whose result nobody reads, or that gets none [default: 5184000, 60 days]
    #[arg(long, env = "WAYPOST_INTERCHANGE_UNREAD_TASK_LIFE", value_name = "SECONDS")]
    pub(crate) unread_task_life: Option<u64>,

    /// Seconds for which an endpoint that was stopped remotely may not register again [default: 30]
    #[arg(long, env = "WAYPOST_INTERCHANGE_LOCK_DURATION", value_name = "SECONDS")]
    pub(crate) lock_duration: Option<u64>,

    /// Seconds between two rounds of cleaning up [default: 15]
    #[arg(long, env = "WAYPOST_INTERCHANGE_HOUSEKEEPING_PERIOD", value_name = "SECONDS")]
    pub(crate) housekeeping_period: Option<u64>,

    /// How logs are written [default: human on a terminal, json otherwise]
    #[arg(long, env = "WAYPOST_INTERCHANGE_LOG_FORMAT", value_enum)]
    pub(crate) log_format: Option<LogFormat>,

    /// What is logged, such as `info` or `interchange=debug,warn` [default: info]
    #[arg(long, env = "WAYPOST_INTERCHANGE_LOG", value_name = "FILTER")]
    pub(crate) log: Option<String>,
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// Lines for people.
    Human,
    /// A JSON object per line.
    Json,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_option_of_serve_is_documented_with_its_variable() {
        let command = Cli::command();
        let serve = command.find_subcommand("serve").unwrap();
        for option in serve
            .get_arguments()
            .filter(|option| option.get_id() != "help" && option.get_id() != "version")
        {
            assert!(option.get_help().is_some(), "{} has no help", option.get_id());
            assert!(option.get_env().is_some(), "{} has no variable", option.get_id());
        }
    }
}
