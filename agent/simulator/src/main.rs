//! Plays seeds: one, with everything that decides it printed first, or many.

use std::process::ExitCode;

use clap::Parser;
use waypost_simulator::{FAULTS, Marks, Options, Verdict, run};

/// Plays a seeded world around the real engine of the endpoint.
///
/// Exit codes: 0 all was well; 2 bad usage; 3 the engine crashed; 4 something happened that must not; 5 something did not
/// happen that must.
#[derive(Debug, Parser)]
struct Arguments {
    /// The seed to play, or the first of many.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds to play.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Submit so many tasks instead of what the seed says.
    #[arg(long)]
    tasks: Option<u32>,
    /// Leave these faults out: channel, publisher, refusal, outage, link, silence, block, kill, handover, fence, start,
    /// delete, executor, journal, double, terminate, cancel, room, image, never, crash, mute, evict, node, api, move, stop,
    /// second, cut, freeze.
    #[arg(long, value_delimiter = ',')]
    without: Vec<String>,
    /// Print everything that happens.
    #[arg(long)]
    trace: bool,
}

#[expect(clippy::print_stdout, reason = "a command's output")]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut without = Vec::new();
    for name in &arguments.without {
        let Some((fault, _, _)) = FAULTS.iter().find(|(_, known, _)| known == name) else {
            println!("There is no fault `{name}`. There are:");
            for (_, name, what) in FAULTS {
                println!("  {name:10} {what}");
            }
            return ExitCode::from(2);
        };
        without.push(*fault);
    }
    let (mut worst, mut failed, mut steps, mut excused) = (0, 0_u64, 0, 0);
    let mut marks = Marks::new();
    for seed in arguments.seed..arguments.seed.saturating_add(arguments.seeds) {
        let mut options = Options::draw(seed);
        options.trace = arguments.trace;
        options.tasks = arguments.tasks.unwrap_or(options.tasks);
        for fault in &without {
            options.without(*fault);
        }
        if arguments.seeds == 1 {
            println!("{options}");
        }
        let verdict = run(&options, &|_| {});
        worst = worst.max(verdict.exit_code());
        match verdict {
            Verdict::Passed(report) => {
                for (name, count) in &report.marks {
                    *marks.entry(*name).or_insert(0) += count;
                }
                steps += report.steps;
                excused += report.excused;
            }
            Verdict::Crash(what) | Verdict::Safety(what) | Verdict::Liveness(what) => {
                failed += 1;
                println!("seed {seed}: {what}");
            }
        }
    }
    for (name, count) in marks {
        println!("{count:10} {name}");
    }
    println!(
        "{} seeds, {failed} failed, {steps} steps, {excused} excused",
        arguments.seeds
    );
    ExitCode::from(worst)
}
