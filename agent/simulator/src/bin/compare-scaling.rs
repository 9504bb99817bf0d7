//! Compares our rules of scaling with those before them, and writes what comes of it into `docs`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use waypost_simulator::scaling::{page, plot};

/// Plays loads under each rule of scaling, prints the table, and writes `scaling.md` and `scaling.svg`.
#[derive(Debug, Parser)]
struct Arguments {
    /// The folder to write into.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs"))]
    directory: PathBuf,
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a command's output")]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let page = page();
    println!("{page}");
    for (name, text) in [("scaling.md", page), ("scaling.svg", plot())] {
        if let Err(error) = write(&arguments.directory, name, &text) {
            eprintln!(
                "{name} can not be written into {}: {error}",
                arguments.directory.display()
            );
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn write(directory: &Path, name: &str, text: &str) -> std::io::Result<()> {
    std::fs::write(directory.join(name), text)
}
