//! The command `endpoint`.

use std::process::ExitCode;

fn main() -> ExitCode {
    // One TLS provider for every connection; the first to install it wins, and there is only this one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    endpoint::cli::run()
}
