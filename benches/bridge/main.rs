//! What the bridge costs: turns per second, CPU and latency beside the same turns spoken directly, and memory of idle
//! conversations.
//!
//! Everything runs over loopback in processes of its own: the sandbox, the bridge, two baselines that do half of
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
mod http;
mod load;
mod memory;
mod platform;
mod report;
mod setup;
mod socket;
mod turns;

use std::time::Duration;

use child::Child;
use clap::Parser;
use failure::Failure;
use report::{Report, Run, Speed};
use setup::Sizes;

// As in the bridge, so that the baselines are measured under the same terms.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures the bridge.
#[derive(Parser)]
struct Arguments {
    /// Small numbers: shows that everything works, and nothing else.
    #[arg(long)]
    quick: bool,
    /// Leaves out the memory of idle conversations, or everything else.
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Another build of rtm-bridge, to compare with.
    #[arg(long, default_value = env!("CARGO_BIN_EXE_rtm-bridge"))]
    binary: std::path::PathBuf,
    /// What this process is; for its own children.
    #[arg(long, value_enum, hide = true)]
    role: Option<baseline::Role>,
    /// Where the role `bare-http` listens.
    #[arg(long, hide = true, default_value = "127.0.0.1:0")]
    listen: std::net::SocketAddr,
    /// How long a round of the role `bare-socket` takes, in milliseconds.
    #[arg(long, hide = true, default_value_t = 1000)]
    millis: u64,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Speed,
    Memory,
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
    let files = rlimit::increase_nofile_limit(u64::MAX)?;
    if files < sizes.files_needed() {
        return Err(Failure::Files { have: files, need: sizes.files_needed() });
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut report = Report::new(sizes);
    if arguments.only != Some(Part::Memory) {
        let speed = tokio::task::LocalSet::new().block_on(&runtime, speed(arguments, sizes))?;
        report.speed = Some(speed);
    }
    if arguments.only != Some(Part::Speed) {
        let steps =
            tokio::task::LocalSet::new().block_on(&runtime, memory::measure(&arguments.binary, sizes))?;
        report.memory = steps;
    }
    println!("{report}");
    Ok(())
}

/// All contenders, round after round.
async fn speed(arguments: &Arguments, sizes: Sizes) -> Result<Speed, Failure> {
    let sandbox = setup::sandbox(&arguments.binary).await?;
    let bridge = setup::bridge(&arguments.binary, sandbox.address).await?;
    let bare_http = baseline::start_http().await?;
    let mut bare_socket = baseline::BareSocket::start(sandbox.address, sizes).await?;

    eprintln!(
        "opening {} conversations through the bridge and {} sockets beside it",
        sizes.users, sizes.users
    );
    let mut through = turns::Http::connect(bridge.address, sizes.callers, sizes.users).await?;
    load::each(&mut through, 0..sizes.users).await?;
    let mut direct = turns::Direct::connect(sandbox.address, sizes.callers, sizes.users).await?;
    load::each(&mut direct, 0..sizes.users).await?;
    let mut plain = turns::Http::connect(bare_http.address, sizes.callers, sizes.users).await?;
    load::each(&mut plain, 0..sizes.users).await?;

    let mut speed = Speed::default();
    for round in 1..=sizes.rounds {
        eprintln!("round {round} of {}: saturation", sizes.rounds);
        let run =
            metered(&bridge, &sandbox, load::saturate(&mut through, sizes.users, sizes.saturation)).await?;
        speed.bridge.push(run);
        let run =
            metered(&sandbox, &sandbox, load::saturate(&mut direct, sizes.users, sizes.saturation)).await?;
        speed.direct.push(run);
        let run =
            metered(&bare_http, &sandbox, load::saturate(&mut plain, sizes.users, sizes.saturation)).await?;
        speed.bare_http.push(run);
        speed.bare_socket.push(bare_socket.round(&sandbox)?);

        eprintln!("round {round} of {}: {} turns a second", sizes.rounds, sizes.rate);
        let run = metered(&bridge, &sandbox, load::pace(&mut through, sizes.users, sizes.rate, sizes.paced))
            .await?;
        speed.bridge_paced.push(run);
        let run = metered(&sandbox, &sandbox, load::pace(&mut direct, sizes.users, sizes.rate, sizes.paced))
            .await?;
        speed.direct_paced.push(run);
    }
    Ok(speed)
}

/// A run, with what the process under test and the sandbox spent on it.
async fn metered(
    subject: &Child,
    sandbox: &Child,
    run: impl Future<Output = Result<Run, Failure>>,
) -> Result<report::Metered, Failure> {
    let before = (subject.cpu()?, sandbox.cpu()?);
    let run = run.await?;
    let after = (subject.cpu()?, sandbox.cpu()?);
    Ok(report::Metered {
        run,
        cpu: after.0.saturating_sub(before.0),
        sandbox: after.1.saturating_sub(before.1),
    })
}
