//! What the bridge costs: turns per second, CPU and latency beside the same turns spoken directly; what it asks of Redis;
//! how long users wait when a replica goes; what idle conversations take; and what readers and webhooks cost.
//!
//! Everything runs over loopback in processes of its own: the sandbox, the bridges, Redis, two baselines that do half of
//! the bridge's work each (the roles of [`baseline`]), and this process, which only makes load. Rates on a machine
//! that all of them share are noisy; CPU per turn is the robust figure. So each round measures all contenders one
//! after the other, and the median of the rounds counts.
//!
//! `scripts/bench` runs it. It prints a Markdown table and writes nothing.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]
#![expect(
    clippy::disallowed_methods,
    reason = "a load generator reads the clock and starts threads; it is not part of the service"
)]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

mod baseline;
mod child;
mod failure;
mod fleet;
mod forwarder;
mod growth;
mod http;
mod load;
mod meter;
mod monitor;
mod platform;
mod reader;
mod readers;
mod receiver;
mod report;
mod sayers;
mod setup;
mod socket;
mod speed;
mod store;
mod takeover;
mod trips;
mod turns;
mod webhooks;

use std::time::Duration;

use clap::Parser;
use failure::Failure;
use report::Report;
use setup::Sizes;
use tokio::task::LocalSet;

// As in the bridge, so that the baselines are measured under the same terms.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures the bridge.
#[derive(Parser)]
struct Arguments {
    /// Small numbers: shows that everything works, and nothing else.
    #[arg(long)]
    quick: bool,
    /// This part only; may be given several times.
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// The rtm-bridge to measure, if not the one beside this program.
    #[arg(long)]
    binary: Option<std::path::PathBuf>,
    /// What this process is; for its own children.
    #[arg(long, value_enum, hide = true)]
    role: Option<baseline::Role>,
    /// Where the role `bare-http` listens.
    #[arg(long, hide = true, default_value = "127.0.0.1:0")]
    listen: std::net::SocketAddr,
    /// How long a round of the role `bare-socket` takes, in milliseconds.
    #[arg(long, hide = true, default_value_t = 1000)]
    millis: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Turns per second, CPU and latency.
    Speed,
    /// Commands and round trips to Redis.
    Trips,
    /// A replica goes.
    Takeover,
    /// Idle conversations, more and more.
    Growth,
    /// Readers of events.
    Readers,
    /// Deliveries.
    Webhooks,
}

fn main() -> std::process::ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.role {
        Some(baseline::Role::BareHttp) => baseline::serve_http(arguments.listen),
        Some(baseline::Role::BareSocket) => baseline::speak(Duration::from_millis(arguments.millis)),
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

fn measure(arguments: &Arguments) -> Result<(), Failure> {
    let sizes = if arguments.quick { Sizes::QUICK } else { Sizes::FULL };
    // Soft limits are often 1024; children inherit this one.
    let files = rtm_bridge::runtime::raise_open_files()?;
    if files < sizes.files_needed() {
        return Err(Failure::Files { have: files, need: sizes.files_needed() });
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let asked = |part| arguments.only.is_empty() || arguments.only.contains(&part);
    let binary = &match &arguments.binary {
        Some(binary) => binary.clone(),
        None => std::env::current_exe()?.with_file_name("rtm-bridge"),
    };
    let mut report = Report::default();
    if asked(Part::Speed) {
        report.speed = Some(LocalSet::new().block_on(&runtime, speed::measure(binary, sizes))?);
    }
    if asked(Part::Trips) {
        report.trips = Some(LocalSet::new().block_on(&runtime, trips::measure(binary, sizes))?);
    }
    if asked(Part::Takeover) {
        report.takeover = LocalSet::new().block_on(&runtime, takeover::measure(binary, sizes))?;
    }
    if asked(Part::Growth) {
        report.growth = LocalSet::new().block_on(&runtime, growth::measure(binary, sizes))?;
    }
    if asked(Part::Readers) {
        report.reading = Some(LocalSet::new().block_on(&runtime, readers::measure(binary, sizes))?);
    }
    if asked(Part::Webhooks) {
        report.hooked = Some(LocalSet::new().block_on(&runtime, webhooks::measure(binary, sizes))?);
    }
    println!("{report}");
    Ok(())
}
