//! `rtm-bridge sandbox`

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::{Failure, asked_to_end, print};
use crate::runtime;
use rtm_sandbox::{BOT_ID, Options, Sandbox};

/// Run the simulated platform alone, for your own tests. Ctrl-C ends it.
///
/// It knows one app, `cs-sandbox` with the secret `sandbox-secret`, and one bot, `st-sandbox`, unless others
/// are named. Send the bot `/help` to learn what else it can do. It is for tests: do not open it to others.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    rtm-bridge sandbox --listen 127.0.0.1:4000\n  \
    rtm-bridge sandbox --listen 127.0.0.1:4000 --load --workers 2")]
pub(super) struct Simulate {
    /// Where it listens; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4000")]
    listen: SocketAddr,
    /// The id of a bot that it knows; may be given several times.
    #[arg(long = "bot", value_name = "ID", default_value = BOT_ID, value_parser = NonEmptyStringValueParser::new())]
    bots: Vec<String>,
    /// Messages that a user may send in any 60 s before the socket is closed with 1008; 0: no limit.
    #[arg(long, value_name = "N", default_value_t = 60)]
    rate_per_minute: u32,
    /// How long a token is good for, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30 * 24 * 60 * 60, value_parser = clap::value_parser!(u64).range(1..))]
    token_ttl: u64,
    /// For load tests: no send rate, no end of idle sockets and sessions, no history, nothing recorded.
    #[arg(long, conflicts_with = "rate_per_minute")]
    load: bool,
    /// Worker threads.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: u16,
}

impl Simulate {
    pub(super) fn run(self) -> Result<(), Failure> {
        // Where it stays low, fewer sockets fit.
        let _stays = runtime::raise_open_files();
        runtime::block_on(async {
            let address = self.listen;
            let failed = |source| Failure::Sandbox { address, option: "--listen", source };
            let sandbox = Sandbox::start(self.options()).await.map_err(failed)?;
            print(&format!("The simulated platform listens on {}\n", sandbox.url()))?;
            let ended = asked_to_end().await.map_err(Failure::Runtime);
            sandbox.stop().await;
            ended
        })
        .map_err(Failure::Runtime)?
    }

    fn options(self) -> Options {
        let (workers, bots) = (self.workers.into(), self.bots);
        let base = if self.load {
            Options::for_load(workers)
        } else {
            // Nobody reads the record of a process of its own.
            Options { rate_per_minute: self.rate_per_minute, record: false, workers, ..Options::default() }
        };
        Options { listen: self.listen, token_ttl: Duration::from_secs(self.token_ttl), bots, ..base }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        simulate: Simulate,
    }

    fn bots(arguments: &[&str]) -> Vec<String> {
        Alone::parse_from([&["sandbox"], arguments].concat()).simulate.options().bots
    }

    #[test]
    fn it_knows_the_bots_that_are_named_or_one() {
        for load in [&[][..], &["--load"]] {
            assert_eq!(bots(load), [BOT_ID]);
            assert_eq!(bots(&[load, &["--bot", "st-a", "--bot", "st-b"]].concat()), ["st-a", "st-b"]);
            assert!(Alone::try_parse_from([&["sandbox"], load, &["--bot", ""]].concat()).is_err());
        }
    }
}
