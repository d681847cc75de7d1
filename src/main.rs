//! The program: installs the allocator and the TLS provider, then runs the command line.

use std::process::ExitCode;

use clap::Parser as _;
use rtm_bridge::cli::CommandLine;

/// mimalloc is fast at many small, short-lived buffers of many threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    disable_huge_pages();
    // Before every TLS configuration. It fails only if a provider is installed already, and this is the only place.
    let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    CommandLine::parse().run()
}

/// Disables transparent huge pages, which cost 6 KiB more memory for each connection (docs/benchmarks.md).
///
/// A connection touches only the start of its buffers. With huge pages the whole buffers would be resident. A turn takes
/// the same CPU time either way.
fn disable_huge_pages() {
    // A refusal costs memory only.
    #[cfg(target_os = "linux")]
    let _refused = rustix::thread::disable_transparent_huge_pages(true);
}
