//! The harness for tests of the whole: a bridge with its own simulated platform, and a caller.

mod bridge;
mod caller;
mod connect_proxy;
mod fleet;
mod kore_client;
mod ledger;
mod process;
mod program;
mod proxy;
mod receiver;
mod redis;
mod seeds;
mod served_replica;
mod stream;
mod tests;
mod tls;

use std::future::Future;
use std::time::Duration;

pub(crate) use bridge::{TestBridge, bot, quiet_platform, spawn_bridge, spawn_bridge_on};
pub(crate) use caller::{Answer, Caller, Request};
pub(crate) use connect_proxy::{ConnectProxy, ProxyRules};
pub(crate) use fleet::{Fleet, Replica};
pub(crate) use kore_client::{KoreClient, V1, V2};
pub(crate) use ledger::{Bot, Ledger, LedgerSummary};
pub(crate) use process::Process;
pub(crate) use program::Program;
pub(crate) use proxy::Proxy;
pub(crate) use receiver::{OTHER_SECRET, ReceivedRequest, Receiver, ReceiverAnswer, SECRET};
pub(crate) use redis::{
    Cluster, RedisOptions, RedisServer, Resp, Sentinels, Servers, find_text, free_port, keys, nothing_left,
    shift,
};
pub(crate) use seeds::{chosen_seeds, number_in, on_all_processors};
pub(crate) use served_replica::{MountedFiles, ServedReplica};
pub(crate) use tls::{TlsCaller, pem};

/// The timeout of a test.
const GUARD: Duration = Duration::from_secs(30);

/// Runs a test on its own runtime.
pub(crate) fn run(test: impl Future<Output = ()>) {
    run_for(GUARD, test);
}

/// Runs a test with this timeout.
pub(crate) fn run_for(guard: Duration, test: impl Future<Output = ()>) {
    // The program installs it in `main`. A second installation fails harmlessly.
    let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    rtm_bridge::runtime::block_on(async {
        tokio::time::timeout(guard, test).await.expect("the test waits in vain");
    })
    .unwrap();
}

/// Polls until the condition holds, for facts of other processes.
pub(crate) async fn until(what: &str, is_so: impl AsyncFnMut() -> bool) {
    within(Duration::from_secs(20), what, is_so).await;
}

/// Polls until the condition holds, at most for this time.
pub(crate) async fn within(span: Duration, what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let asking = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(span, asking).await.is_ok(), "waited {span:?} in vain until {what}");
}
