//! What tests of the whole need: a bridge with a simulated platform of its own, and a caller.

mod bridge;
mod caller;
mod program;

use std::future::Future;
use std::time::Duration;

pub(crate) use bridge::{TestBridge, bot, quiet_platform, spawn_bridge, spawn_bridge_on};
pub(crate) use caller::{Answer, Caller, Request};
pub(crate) use program::Program;

/// A test that waits for something that never comes fails after this time.
const GUARD: Duration = Duration::from_secs(30);

/// Runs a test on a runtime of its own.
pub(crate) fn run(test: impl Future<Output = ()>) {
    // The program does it in `main`; it fails where another test was first.
    let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    rtm_bridge::runtime::block_on(async {
        tokio::time::timeout(GUARD, test).await.expect("the test waits in vain");
    })
    .unwrap();
}
