//! The load side of the benchmark: a task generator and the echo agent, both straight on AMQP.
//!
//! `waypost-bench load` publishes tasks to an endpoint's queue as the interchange would, takes the results off the
//! results exchange and prints one line of JSON. `waypost-bench echo` is an endpoint that does no work: it receives,
//! publishes a result, and acks once that is confirmed. No agent that keeps the promise of late acks can be faster.
//! `waypost-bench links` is the workers of pods on hollow nodes, for `tests/bench/kubernetes.py --hollow`.
//! `tests/bench/run.py` starts everything and compares.

mod amqp;
mod echo;
mod links;
mod load;

use clap::Parser;

/// Load generator and echo agent for the benchmark.
#[derive(Parser)]
#[command(version)]
enum Command {
    /// Publish tasks, await their results, print the figures as JSON.
    Load(load::Arguments),
    /// Answer every task at once with the same result.
    Echo(echo::Arguments),
    /// Be the workers of pods that run nothing.
    Links(links::Arguments),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Load(arguments) => load::run(arguments).await,
        Command::Echo(arguments) => echo::run(arguments).await,
        Command::Links(arguments) => links::run(arguments).await,
    }
}
