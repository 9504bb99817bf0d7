use std::path::PathBuf;

use clap::builder::styling::Styles;
use clap::{Args, Parser, Subcommand};
use uuid::Uuid;

/// Run Globus Compute endpoints.
#[derive(Debug, Parser)]
#[command(
    name = "endpoint",
    version,
    styles = Styles::plain(),
    after_help = "Environment:\n  \
        GLOBUS_COMPUTE_USER_DIR      where endpoints are kept; `--config-dir` goes first\n  \
        GLOBUS_COMPUTE_CLIENT_ID     the client that the endpoint belongs to\n  \
        GLOBUS_COMPUTE_CLIENT_SECRET its secret\n  \
        WAYPOST_CREDENTIALS_DIR      a folder with files of these names, or a storage.db: it goes first\n  \
        GLOBUS_SDK_ENVIRONMENT       `local`: the service is at http://localhost:5000\n  \
        WAYPOST_SERVICE_URL          the address of the service, wherever it is\n  \
        WAYPOST_AUTH_URL             the address of its Globus Auth, if it is another\n  \
        WAYPOST_CA_BUNDLE            a PEM file of certificates to believe, beside the machine's own\n  \
        WAYPOST_HTTP                 serve /metrics, /livez and /readyz there, such as 127.0.0.1:9464\n  \
        WAYPOST_WORKER               the worker executable; else the one beside this one\n  \
        WAYPOST_LINK_LISTEN          listen for workers in pods there, such as 0.0.0.0:5800\n  \
        WAYPOST_LINK_SERVICE         the Service by which they reach that; or WAYPOST_LINK_ADDRESS, host:port\n  \
        WAYPOST_STATE_SECRET         keep the state in this Secret of the agent's namespace, not in the folder\n  \
        WAYPOST_NAMESPACE            that namespace, where it is not the service account's\n  \
        WAYPOST_ANCHOR               the ConfigMap in the workers' namespace that owns their pods\n  \
        WAYPOST_RELEASE              what the names of pods begin with\n  \
        WAYPOST_POD_NAME, _POD_UID   the agent's own pod, for Events\n  \
        WAYPOST_WORKER_IMAGE         the image that brings the worker into pods\n  \
        WAYPOST_TERMINATION_GRACE    the pod's terminationGracePeriodSeconds, if not 30\n  \
        WAYPOST_LOG                  which lines are logged, such as endpoint=debug\n\n\
        Exit codes: 0 ok; 1 an error; 2 wrong usage; 65 the service refuses the endpoint's data; 66 no such file; 69 the\n\
        endpoint is locked, unknown or in use; 70 the service's answer does not fit; 73 another instance runs; 75 the network fails,\n\
        try again; 77 the credentials are refused; 78 endpoint_setup failed, or `validate` found a problem; 255 it could\n\
        not be stopped or deleted."
)]
pub(super) struct Arguments {
    /// The folder that holds all endpoints [default: ~/.globus_compute]
    #[arg(short, long, global = true, value_name = "FOLDER")]
    pub(super) config_dir: Option<PathBuf>,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Configure an endpoint
    Configure(ConfigureOptions),
    /// Start an endpoint
    Start(StartOptions),
    /// Stop an endpoint
    Stop(StopOptions),
    /// Restart an endpoint
    Restart(StartOptions),
    /// Show what an endpoint is doing
    Status(StatusOptions),
    /// List all endpoints
    List,
    /// Delete an endpoint and its configuration
    Delete(DeleteOptions),
    /// Log in with Globus
    Login(LoginOptions),
    /// Revoke and forget all tokens of the login
    Logout(LogoutOptions),
    /// Show who is logged in
    Whoami(WhoamiOptions),
    /// Check a configuration without starting anything
    Validate(ValidateOptions),
    /// Show the version
    Version,
}

impl Command {
    /// The name or id of the endpoint that the service is called for.
    pub(super) fn endpoint(&self) -> Option<&str> {
        match self {
            Self::Start(options) | Self::Restart(options) if !options.detached => Some(&options.name),
            Self::Stop(options) => Some(&options.name),
            Self::Delete(options) => Some(&options.name),
            Self::Start(_)
            | Self::Restart(_)
            | Self::Configure(_)
            | Self::Status(_)
            | Self::List
            | Self::Login(_)
            | Self::Logout(_)
            | Self::Whoami(_)
            | Self::Validate(_)
            | Self::Version => None,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct ConfigureOptions {
    /// The endpoint's name
    #[arg(default_value = "default")]
    pub(super) name: String,
    /// The name that people see
    #[arg(long)]
    pub(super) display_name: Option<String>,
    /// The Globus authentication policy that users must meet
    #[arg(long, value_name = "UUID")]
    pub(super) auth_policy: Option<Uuid>,
    /// The Globus subscription of this endpoint
    #[arg(long, value_name = "UUID")]
    pub(super) subscription_id: Option<Uuid>,
    /// Whom to write to about the endpoint
    #[arg(long)]
    pub(super) contact_email: Option<String>,
    /// A file to use as config.yaml
    #[arg(long, alias = "core-config", alias = "endpoint-config", value_name = "FILE")]
    pub(super) manager_config: Option<PathBuf>,
    /// A file to use as user_config_template.yaml.j2
    #[arg(long, value_name = "FILE")]
    pub(super) template_config: Option<PathBuf>,
    /// A file to use as user_config_schema.json
    #[arg(long, value_name = "FILE")]
    pub(super) schema_config: Option<PathBuf>,
    /// A file to use as user_environment.yaml
    #[arg(long, value_name = "FILE")]
    pub(super) user_env_config: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub(super) struct StartOptions {
    /// The endpoint's name or id
    #[arg(value_name = "NAME|UUID", default_value = "default")]
    pub(super) name: String,
    /// Register under this id, for an endpoint that was registered elsewhere before
    #[arg(long, value_name = "UUID")]
    pub(super) endpoint_uuid: Option<Uuid>,
    /// Run in the background; logs go to endpoint.log
    #[arg(long)]
    pub(super) detach: bool,
    /// Log more
    #[arg(long)]
    pub(super) debug: bool,
    /// Log to the console (which it does anyway, unless detached)
    #[arg(long, hide = true)]
    pub(super) log_to_console: bool,
    /// Log without colors
    #[arg(long)]
    pub(super) no_color: bool,
    /// What a detached endpoint is started with by `--detach`
    #[arg(long, hide = true)]
    pub(super) detached: bool,
}

#[derive(Debug, Args)]
pub(super) struct StopOptions {
    /// The endpoint's name or id
    #[arg(value_name = "NAME|UUID", default_value = "default")]
    pub(super) name: String,
    /// Have the service stop it, wherever it runs
    #[arg(long)]
    pub(super) remote: bool,
}

#[derive(Debug, Args)]
pub(super) struct StatusOptions {
    /// The endpoint's name or id
    #[arg(value_name = "NAME|UUID", default_value = "default")]
    pub(super) name: String,
    /// Print JSON, for programs
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct DeleteOptions {
    /// The endpoint's name or id
    #[arg(value_name = "NAME|UUID", default_value = "default")]
    pub(super) name: String,
    /// Stop it if it runs, and go on whatever fails
    #[arg(long)]
    pub(super) force: bool,
    /// Do not ask
    #[arg(long)]
    pub(super) yes: bool,
}

#[derive(Debug, Args)]
pub(super) struct LoginOptions {
    /// Log in even if already logged in
    #[arg(long)]
    pub(super) force: bool,
}

#[derive(Debug, Args)]
pub(super) struct LogoutOptions {
    /// Revoke tokens even while endpoints run
    #[arg(long)]
    pub(super) force: bool,
}

#[derive(Debug, Args)]
pub(super) struct WhoamiOptions {
    /// Also show the identities that are linked with it
    #[arg(long)]
    pub(super) linked_identities: bool,
}

#[derive(Debug, Args)]
pub(super) struct ValidateOptions {
    /// A config.yaml, or the folder of an endpoint
    #[arg(value_name = "FILE|FOLDER", required = true)]
    pub(super) paths: Vec<PathBuf>,
    /// A JSON file with options as a submitter may give them (`user_endpoint_config`), to try a folder's template with;
    /// without it, it is tried with none
    #[arg(long, value_name = "FILE")]
    pub(super) user_options: Option<PathBuf>,
}
