//! `interchange`: the self-hosted web service of Globus Compute.
//!
//! Unmodified SDKs register functions and submit tasks over HTTP; the tasks go to endpoints over RabbitMQ, and their
//! results come back to the SDK's own queue. See [`broker`] for the topology, [`store`] for what is kept, and [`app`] for
//! the rooms and which may use which.
//!
//! A task's way: `api::submit` writes it to the store with an outbox entry, publishes it with confirm and answers;
//! `intake` takes the result, `results` stores it and forwards it to the task group's queue, and only then is it acknowledged.

mod api;
mod app;
mod auth;
mod broker;
mod check;
mod cli;
mod clients;
mod clock;
mod config;
mod error;
mod housekeeping;
mod intake;
mod listener;
mod lost_queues;
mod metrics;
mod outbox;
mod results;
mod revocation;
mod secrets;
mod serve;
mod signing;
mod store;
mod user_endpoints;
mod users;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Two TLS libraries could be in the tree; this names the one to use.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| {
            runtime.block_on(async {
                match cli.command {
                    Command::Serve(arguments) => serve::run(*arguments).await,
                    Command::Client { command } => clients::run(command).await,
                    Command::User { command } => users::run(command).await,
                    Command::Check(arguments) => check::run(arguments).await,
                }
            })
        });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "the last words of a command go to standard error")]
fn report(error: &anyhow::Error) {
    eprintln!("interchange: {error:#}");
}
