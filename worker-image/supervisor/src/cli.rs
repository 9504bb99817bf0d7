use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use uuid::Uuid;
use waypost_link::Address;

const EXIT_CODES: &str = "\
Exit codes:
  0  drained: every task was finished and its result settled
  1  something went wrong that the log names
  2  the command line is wrong, or a file that it names cannot be read
  3  this Python cannot run tasks (globus-compute-sdk missing, for one)
  4  the agent refuses this worker for good (token, link version, or the block is not wanted any more)
  5  no agent answered for the orphan timeout
  6  the grace was over with results that no agent had settled";

/// Runs Globus Compute tasks for an agent: dials it, keeps one Python executor per slot, and hands results back.
///
/// SIGTERM and SIGINT drain: what runs may finish within the grace, nothing more is taken.
#[derive(Debug, Parser)]
#[command(
    name = "worker",
    version,
    after_help = EXIT_CODES,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// Absent only if there is a command.
    #[command(flatten)]
    pub(crate) arguments: Option<Arguments>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Copies this program into a folder, for containers whose own image has none
    Install {
        /// The folder; made if it is not there
        #[arg(long, value_name = "FOLDER")]
        to: PathBuf,
    },
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Arguments {
    /// Where the agent listens: unix:PATH or tls:HOST:PORT. May be repeated: they are tried in this order each time
    #[arg(long, value_name = "ADDRESS", required = true)]
    pub(crate) connect: Vec<Address>,

    /// The name of this worker's block
    #[arg(long, value_name = "NAME")]
    pub(crate) block: String,

    /// The file that holds the block's token
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: PathBuf,

    /// The file that holds the agent's CA certificate in PEM; needed with tls:
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,

    /// How many tasks run at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) slots: u32,

    /// The user endpoint that this worker runs tasks for
    #[arg(long, value_name = "UUID")]
    pub(crate) endpoint_id: Uuid,

    /// Where tasks run; made if it is not there
    #[arg(long, value_name = "FOLDER")]
    pub(crate) working_directory: PathBuf,

    /// The Python that runs tasks; it must have globus-compute-sdk
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    pub(crate) python: String,

    /// Run each task in a folder of its own, WORKING_DIRECTORY/TASK_ID
    #[arg(long)]
    pub(crate) sandbox: bool,

    /// Import paths of the serializers that tasks may use, separated by commas; any if not given
    #[arg(long, value_name = "PATHS", value_delimiter = ',')]
    pub(crate) allowed_serializers: Vec<String>,

    /// The names of accelerators, separated by spaces: the tasks of slot I see the Ith alone, by CUDA_VISIBLE_DEVICES,
    /// ROCR_VISIBLE_DEVICES and ZE_AFFINITY_MASK. A name may be of several ("0,1"), and may be given again
    #[arg(long, value_name = "NAMES", value_delimiter = ' ')]
    pub(crate) accelerators: Vec<String>,

    /// The most that a serialized result may have, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 10 * 1024 * 1024,
          value_parser = clap::value_parser!(u64).range(128..))]
    pub(crate) result_size_limit: u64,

    /// What one slot may have of the memory, in bytes; by default the limit, less 64 MiB, by slots
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) memory_per_slot: Option<u64>,

    /// What this worker may have of the memory, in bytes; by default the limit of its cgroup. Near it, the executor
    /// furthest over its share is ended, before the kernel ends them all
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) memory_limit: Option<u64>,

    /// With more than this in results that wait for the agent, no further tasks are asked for, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 256 * 1024 * 1024)]
    pub(crate) held_bytes_max: usize,

    /// How long running tasks may take after SIGTERM, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 50)]
    grace: u64,

    /// After this long without an answer from any agent the worker ends, with its tasks, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 15 * 60)]
    orphan_timeout: u64,

    /// The file that is told in a sentence why the worker ended, if there is such a file
    #[arg(long, value_name = "FILE", default_value = "/dev/termination-log")]
    pub(crate) termination_log: PathBuf,

    /// How long the process that forks executors may take over one before it is made anew, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    fork_timeout: u64,

    /// The form of the log; by default human on a terminal, json otherwise
    #[arg(long, value_name = "FORM")]
    pub(crate) log_format: Option<LogFormat>,
}

/// The form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people.
    Human,
    /// One JSON object a line.
    Json,
}

impl Arguments {
    pub(crate) fn grace(&self) -> Duration {
        Duration::from_secs(self.grace)
    }

    pub(crate) fn fork_timeout(&self) -> Duration {
        Duration::from_secs(self.fork_timeout)
    }

    pub(crate) fn orphan_timeout(&self) -> Duration {
        Duration::from_secs(self.orphan_timeout)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn several_addresses_are_kept_in_order() {
        let line = "worker --connect tls:agent.svc:5800 --connect tls:10.0.0.1:5800 --block b --token-file t \
                    --endpoint-id 00000000-0000-0000-0000-000000000001 --working-directory /w";
        let parsed = CommandLine::try_parse_from(line.split_whitespace()).unwrap();
        let addresses: Vec<_> = parsed
            .arguments
            .unwrap()
            .connect
            .iter()
            .map(Address::to_string)
            .collect();
        assert_eq!(addresses, ["tls:agent.svc:5800", "tls:10.0.0.1:5800"]);
    }

    #[test]
    fn accelerators_are_separated_by_spaces_for_a_name_may_be_of_several() {
        let line = [
            "worker",
            "--connect",
            "tls:a:1",
            "--block",
            "b",
            "--token-file",
            "t",
            "--endpoint-id",
        ];
        let more = [
            "00000000-0000-0000-0000-000000000001",
            "--working-directory",
            "/w",
            "--accelerators",
            "0,1 2,3",
        ];
        let parsed = CommandLine::try_parse_from(line.into_iter().chain(more)).unwrap();
        assert_eq!(parsed.arguments.unwrap().accelerators, ["0,1", "2,3"]);
    }

    #[test]
    fn a_command_needs_none_of_the_options_and_options_are_needed_without_one() {
        let install = CommandLine::try_parse_from(["worker", "install", "--to", "/waypost/bin"]).unwrap();
        assert!(matches!(install.command, Some(Command::Install { .. })));
        let error = CommandLine::try_parse_from(["worker", "--slots", "2"]).unwrap_err();
        assert!(error.to_string().contains("--connect <ADDRESS>"), "{error}");
        assert!(CommandLine::try_parse_from(["worker"]).is_err());
    }
}
