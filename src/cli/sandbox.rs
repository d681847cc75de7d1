//! `rtm-bridge sandbox`

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::{CommandError, print, stop_signal};
use crate::runtime;
use rtm_sandbox::{BOT_ID, Sandbox, SandboxOptions};

/// Run the simulated platform alone, for your own tests. Ctrl-C stops it.
///
/// It has one app, `cs-sandbox` with the secret `sandbox-secret`, and one bot, `st-sandbox`, unless --bot names others.
/// Send the bot `/help` for its other commands. It protects nothing, so keep it private.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    rtm-bridge sandbox --listen 127.0.0.1:4000\n  \
    rtm-bridge sandbox --listen 127.0.0.1:4000 --load --workers 2")]
pub(super) struct SandboxCommand {
    /// The address to listen on; port 0 chooses a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4000")]
    listen: SocketAddr,
    /// The id of a bot; may be given several times.
    #[arg(long = "bot", value_name = "ID", default_value = BOT_ID, value_parser = NonEmptyStringValueParser::new())]
    bots: Vec<String>,
    /// The most messages of a user in any 60 s; more close the socket with 1008. 0 sets no limit.
    #[arg(long, value_name = "N", default_value_t = 60)]
    rate_per_minute: u32,
    /// How long a token is valid, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30 * 24 * 60 * 60, value_parser = clap::value_parser!(u64).range(1..))]
    token_ttl: u64,
    /// Run without rate limit, idle timeouts, history and recording, for load tests.
    #[arg(long, conflicts_with = "rate_per_minute")]
    load: bool,
    /// The number of worker threads.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: u16,
}

impl SandboxCommand {
    pub(super) fn run(self) -> Result<(), CommandError> {
        // With the usual limit, fewer sockets fit.
        let _refused = runtime::raise_open_files();
        let address = self.listen;
        if let Some(warning) = exposure_warning(address) {
            // A closed standard error leaves no other place for the warning.
            let _closed = writeln!(io::stderr(), "rtm-bridge: {warning}");
        }
        runtime::block_on(async {
            let failed = |source| CommandError::SandboxListen { address, option: "--listen", source };
            let sandbox = Sandbox::start(self.options()).await.map_err(failed)?;
            print(&format!("The simulated platform listens on {}\n", sandbox.url()))?;
            let stopped = stop_signal().await.map_err(CommandError::Runtime);
            sandbox.stop().await;
            stopped
        })
        .map_err(CommandError::Runtime)?
    }

    fn options(self) -> SandboxOptions {
        let (workers, bots) = (self.workers.into(), self.bots);
        let base = if self.load {
            SandboxOptions::for_load(workers)
        } else {
            // A process of its own offers no access to its observations.
            SandboxOptions {
                rate_per_minute: self.rate_per_minute,
                observe: false,
                workers,
                ..SandboxOptions::default()
            }
        };
        SandboxOptions { listen: self.listen, token_ttl: Duration::from_secs(self.token_ttl), bots, ..base }
    }
}

/// Returns the warning for an address that other hosts can reach.
fn exposure_warning(address: SocketAddr) -> Option<String> {
    (!address.ip().to_canonical().is_loopback()).then(|| {
        format!(
            "{address} is reachable from other hosts, and the simulated platform protects nothing: every host can read \
             conversations and speak as the bot (POST /sandbox/push); --listen 127.0.0.1:4000 keeps them out"
        )
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct TestCommandLine {
        #[command(flatten)]
        command: SandboxCommand,
    }

    fn bots(arguments: &[&str]) -> Vec<String> {
        TestCommandLine::parse_from([&["sandbox"], arguments].concat()).command.options().bots
    }

    #[test]
    fn sandbox_that_others_can_reach_is_warned_of() {
        for (address, warned) in [
            ("127.0.0.1:4000", false),
            ("[::1]:0", false),
            ("[::ffff:127.0.0.1]:1", false),
            ("0.0.0.0:4000", true),
            ("[::]:4000", true),
            ("10.0.0.1:1", true),
        ] {
            let warning = exposure_warning(address.parse().unwrap());
            assert_eq!(warning.is_some_and(|text| text.contains("/sandbox/push")), warned, "{address}");
        }
    }

    #[test]
    fn sandbox_has_the_named_bots_or_the_default() {
        for load in [&[][..], &["--load"]] {
            assert_eq!(bots(load), [BOT_ID]);
            assert_eq!(bots(&[load, &["--bot", "st-a", "--bot", "st-b"]].concat()), ["st-a", "st-b"]);
            assert!(TestCommandLine::try_parse_from([&["sandbox"], load, &["--bot", ""]].concat()).is_err());
        }
    }
}
