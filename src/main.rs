//! The program: picks the allocator and the TLS implementation, then does what the command line says.

use std::process::ExitCode;

use clap::Parser as _;
use rtm_bridge::cli::Cli;

/// Many small, short-lived buffers from many threads: what mimalloc is for.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    without_huge_pages();
    // First, so that every TLS configuration is made with it. It fails only where one is installed already,
    // and nobody else does.
    let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Cli::parse().run()
}

/// Thousands of connections have buffers that are touched at their beginning only: with huge pages all of each would
/// be resident, which is 6 KiB more for every connection. It makes no turn dearer (docs/benchmarks.md).
fn without_huge_pages() {
    // Where that is refused it takes more memory, and that is all.
    #[cfg(target_os = "linux")]
    let _refused = rustix::thread::disable_transparent_huge_pages(true);
}
