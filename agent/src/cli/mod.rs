//! The commands. Texts and exit codes are those of `globus-compute-endpoint`.

mod arguments;
mod configure;
mod delete;
mod error;
mod instance;
mod list;
mod session;
mod start;
mod status;
mod stop;
mod validate;

use std::process::ExitCode;

use clap::Parser as _;

use arguments::{Arguments, Command};
pub use error::{CliError, exit_code};

/// Runs the command that the process was given, and returns how the process is to end.
#[must_use]
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    match execute(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.print();
            ExitCode::from(error.exit_code())
        }
    }
}

fn execute(arguments: Arguments) -> Result<(), CliError> {
    let base = crate::config::base_directory(arguments.config_dir, variable);
    match arguments.command {
        Command::Configure(options) => configure::configure(&base, options),
        Command::Start(options) => start::start(&base, options),
        Command::Stop(options) => stop::stop(&base, options),
        Command::Restart(options) => stop::restart(&base, options),
        Command::Status(options) => status::status(&base, options),
        Command::List => list::list(&base),
        Command::Delete(options) => delete::delete(&base, options),
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
