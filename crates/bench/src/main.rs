//! The cost of the bridge: turns per second, CPU and latency beside direct turns, and commands to Redis. Further parts
//! measure the delay of a failover, idle conversations, readers, webhooks, attacks, learned quiet times and doors.
//!
//! All processes run over loopback: the sandbox, the bridges, Redis, two baselines (the roles of [`baseline`]), and this
//! process, which only makes load. Each baseline does half of the bridge's work. Rates on a shared machine are noisy, and
//! CPU per turn is the robust figure. So each round measures all contenders in sequence, and the median of the rounds
//! counts.
//!
//! `scripts/bench` runs it. It prints a Markdown table and writes no file.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]
#![expect(
    clippy::disallowed_methods,
    reason = "a load generator reads the clock and starts threads; it is not part of the service"
)]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

mod attacker;
mod attacks;
mod baseline;
mod bench_error;
mod bot_load;
mod child_process;
mod comparison;
mod contender;
mod doors;
mod failover;
mod fleet;
mod forwarder;
mod growth;
mod http;
mod load;
mod monitor;
mod platform;
mod readers;
mod receiver;
mod report;
mod rhythm;
mod round_trips;
mod run_meter;
mod setup;
mod socket;
mod speed;
mod store;
mod stream_load;
mod turns;
mod webhooks;

use std::path::PathBuf;
use std::time::Duration;

use attacker::Attack;
use bench_error::BenchError;
use clap::Parser;
use comparison::{BuildPair, ComparisonFigures};
use report::BenchReport;
use setup::BenchSizes;
use tokio::task::LocalSet;

// The allocator of the bridge, so that the baselines run under the same terms.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures the bridge.
#[derive(Parser)]
struct BenchArguments {
    /// Use small numbers: only shows that all parts work.
    #[arg(long)]
    quick: bool,
    /// Measure only this part (may be given several times).
    #[arg(long, value_enum)]
    only: Vec<BenchPart>,
    /// Measure only this attack (may be given several times).
    #[arg(long, value_enum)]
    attack: Vec<Attack>,
    /// The rtm-bridge to measure, instead of the one beside this program.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Another rtm-bridge to compare it with: all tables are replaced by one, with ratios.
    #[arg(long)]
    before: Option<PathBuf>,
    /// The role of this process, for its own children.
    #[arg(long, value_enum, hide = true)]
    role: Option<baseline::ChildRole>,
    /// The address of the role `bare-http`.
    #[arg(long, hide = true, default_value = "127.0.0.1:0")]
    listen: std::net::SocketAddr,
    /// The duration of a round of the role `bare-socket`, in milliseconds.
    #[arg(long, hide = true, default_value_t = 1000)]
    millis: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum BenchPart {
    /// Turns per second, CPU and latency.
    Speed,
    /// Commands and round trips to Redis.
    RoundTrips,
    /// The loss of a replica.
    Failover,
    /// A growing number of idle conversations.
    Growth,
    /// Readers of events.
    Readers,
    /// Deliveries of webhooks.
    Webhooks,
    /// The latency of others beside an attack of one caller.
    Attacks,
    /// The CPU time of learned quiet times.
    Rhythm,
    /// Callers by token, and the platform's webhook channel.
    Doors,
}

fn main() -> std::process::ExitCode {
    let arguments = BenchArguments::parse();
    let result = match arguments.role {
        Some(baseline::ChildRole::BareHttp) => baseline::serve_http(arguments.listen),
        Some(baseline::ChildRole::BareSocket) => baseline::speak(Duration::from_millis(arguments.millis)),
        None => measure(&arguments),
    };
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("bench: {failure}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &BenchArguments) -> Result<(), BenchError> {
    let sizes = if arguments.quick { BenchSizes::QUICK } else { BenchSizes::FULL };
    // Soft limits are often 1024. Children inherit this one.
    let files = rtm_bridge::runtime::raise_open_files()?;
    if files < sizes.files_needed() {
        return Err(BenchError::Files { have: files, need: sizes.files_needed() });
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let asked = |part| arguments.only.is_empty() || arguments.only.contains(&part);
    let binary = &match &arguments.binary {
        Some(binary) => binary.clone(),
        None => std::env::current_exe()?.with_file_name("rtm-bridge"),
    };
    let mut report = BenchReport::default();
    if let Some(before) = &arguments.before {
        let builds = BuildPair { before, after: binary };
        let comparison = compare(builds, &arguments.only, sizes);
        report.comparison = Some(LocalSet::new().block_on(&runtime, comparison)?);
        println!("{report}");
        return Ok(());
    }
    if asked(BenchPart::Speed) {
        report.speed = Some(LocalSet::new().block_on(&runtime, speed::measure(binary, sizes))?);
    }
    if asked(BenchPart::RoundTrips) {
        report.round_trips = Some(LocalSet::new().block_on(&runtime, round_trips::measure(binary, sizes))?);
    }
    if asked(BenchPart::Failover) {
        report.failovers = LocalSet::new().block_on(&runtime, failover::measure(binary, sizes))?;
    }
    if asked(BenchPart::Growth) {
        report.growth = LocalSet::new().block_on(&runtime, growth::measure(binary, binary, sizes))?;
    }
    if asked(BenchPart::Readers) {
        report.readers = Some(LocalSet::new().block_on(&runtime, readers::measure(binary, sizes))?);
    }
    if asked(BenchPart::Webhooks) {
        report.webhooks = Some(LocalSet::new().block_on(&runtime, webhooks::measure(binary, sizes))?);
    }
    if asked(BenchPart::Attacks) {
        report.attacks =
            Some(LocalSet::new().block_on(&runtime, attacks::measure(binary, &arguments.attack, sizes))?);
    }
    if asked(BenchPart::Rhythm) {
        report.rhythm = Some(rhythm::measure());
    }
    if asked(BenchPart::Doors) {
        report.doors = Some(LocalSet::new().block_on(&runtime, doors::measure(binary, sizes))?);
    }
    println!("{report}");
    Ok(())
}

/// Compares two builds in these parts, or in all that can be compared.
async fn compare(
    builds: BuildPair<'_>,
    only: &[BenchPart],
    sizes: BenchSizes,
) -> Result<ComparisonFigures, BenchError> {
    const ALL: [BenchPart; 4] =
        [BenchPart::Speed, BenchPart::RoundTrips, BenchPart::Growth, BenchPart::Webhooks];
    if only.iter().any(|part| !ALL.contains(part)) {
        return Err(BenchError::Incomparable);
    }
    let mut comparison = ComparisonFigures::default();
    for part in if only.is_empty() { &ALL[..] } else { only } {
        match part {
            BenchPart::Speed => comparison.compare_speed(builds, sizes).await?,
            BenchPart::RoundTrips => comparison.compare_commands(builds, sizes).await?,
            BenchPart::Growth => comparison.compare_memory(builds, sizes).await?,
            BenchPart::Webhooks => comparison.compare_deliveries(builds, sizes).await?,
            BenchPart::Failover
            | BenchPart::Readers
            | BenchPart::Attacks
            | BenchPart::Rhythm
            | BenchPart::Doors => {}
        }
    }
    Ok(comparison)
}
