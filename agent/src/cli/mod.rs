//! The commands. Texts and exit codes are those of `globus-compute-endpoint`.

mod arguments;
mod configure;
mod delete;
mod error;
mod instance;
mod list;
mod login;
mod session;
mod start;
mod status;
mod stop;
mod table;
mod validate;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser as _;
use endpoint_config::{Configuration, EndpointDirectory};

use crate::auth::LoginRequirements;
use arguments::{Arguments, Command};
pub use error::{CliError, exit_code};

/// Runs the command that the process was given, and returns how the process is to end.
#[must_use]
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let base = endpoint_config::base_directory(arguments.config_dir, variable);
    let endpoint = arguments.command.endpoint().map(str::to_owned);
    let outcome = execute(&base, arguments.command).or_else(|error| match (endpoint, error.wants_login()) {
        (Some(name), Some(wanted)) if login::can_log_in() => {
            error.print();
            login_and_go_on(&base, &name, &wanted)
        }
        (Some(_) | None, _) => Err(error),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.print();
            ExitCode::from(error.exit_code())
        }
    }
}

/// Has the person at the terminal log in, then runs the command anew.
fn login_and_go_on(base: &Path, name: &str, wanted: &LoginRequirements) -> Result<(), CliError> {
    let directory = EndpointDirectory::find(base, name)?;
    let config = directory.read().ok().map(|(read, _)| read.config.0);
    login::login_again(base, config.as_ref().map(Configuration::base), wanted)?;
    run_anew()
}

/// Runs the same command in the same process, with nothing of what was before.
fn run_anew() -> Result<(), CliError> {
    use std::os::unix::process::CommandExt as _;
    let mut arguments = std::env::args_os();
    let named = arguments.next().unwrap_or_default();
    let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from(&named));
    let error = std::process::Command::new(program).arg0(named).args(arguments).exec();
    Err(CliError::said(
        format!("the endpoint can not be started again: {error}"),
        exit_code::ERROR,
    ))
}

fn execute(base: &Path, command: Command) -> Result<(), CliError> {
    match command {
        Command::Configure(options) => configure::configure(base, options),
        Command::Start(options) => start::start(base, options),
        Command::Stop(options) => stop::stop(base, options),
        Command::Restart(options) => stop::restart(base, options),
        Command::Status(options) => status::status(base, options),
        Command::List => list::list(base),
        Command::Delete(options) => delete::delete(base, options),
        Command::Login(options) => login::login(base, &options),
        Command::Logout(options) => login::logout(base, &options),
        Command::Whoami(options) => login::whoami(base, &options),
        Command::Validate(options) => validate::validate(&options),
        Command::Version => {
            print(&format!(
                "Waypost endpoint version: {} (Globus Compute endpoint protocol {})",
                env!("CARGO_PKG_VERSION"),
                waypost_protocol::TEMPLATE_PROTOCOL_VERSION
            ));
            Ok(())
        }
    }
}

/// Runs something short that waits.
fn on_a_runtime<T>(work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::said(format!("the event loop can not be made: {error}"), exit_code::ERROR))?
        .block_on(work)
}

/// An environment variable of the process.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Writes a line to standard output. Who closed it does not want to read on.
fn print(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Writes a line to standard error.
fn complain(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{line}");
}
