//! `rtm-bridge sandbox`

use std::fmt;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use secrecy::{ExposeSecret as _, SecretString};

use super::{CommandError, print, stop_signal, warn_of_open_file};
use crate::{config, runtime};
use rtm_sandbox::{BOT_ID, BotScript, Sandbox, SandboxOptions, ScriptMistake};

/// The environment variable that holds the control key.
const KEY_VARIABLE: &str = "RTM_BRIDGE_SANDBOX_KEY";

/// Run the simulated platform alone, for your own tests. Ctrl-C stops it.
///
/// It has one app, `cs-sandbox` with the secret `sandbox-secret`, and one bot, `st-sandbox`, unless --bot or --script
/// names others. Send the bot `/help` for its other commands. A test controls it by /sandbox/next, /sandbox/faults and
/// /sandbox/heard (docs/sandbox.md). It protects nothing else, so keep it private.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    rtm-bridge sandbox --listen 127.0.0.1:4000\n  \
    rtm-bridge sandbox --script bot.yaml\n  \
    rtm-bridge sandbox --listen 127.0.0.1:4000 --load --workers 2")]
pub(super) struct SandboxCommand {
    /// The address to listen on; port 0 chooses a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4000")]
    listen: SocketAddr,
    /// The id of a bot; may be given several times.
    #[arg(long = "bot", value_name = "ID", default_value = BOT_ID, value_parser = NonEmptyStringValueParser::new())]
    bots: Vec<String>,
    /// A script with bots, apps and faults, as YAML. Its mistakes are told with line and column.
    #[arg(long, value_name = "FILE", conflicts_with = "bots")]
    script: Option<PathBuf>,
    /// Print the JSON Schema of scripts, for editors, and exit.
    #[arg(long, exclusive = true)]
    schema: bool,
    /// A file with the key for /sandbox/…, a bearer token. Without it, `RTM_BRIDGE_SANDBOX_KEY` holds the key. An address
    /// that other hosts can reach gets a random key if there is none.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// The most messages of a user in any 60 s; more close the socket with 1008. 0 sets no limit. Default: 60.
    #[arg(long, value_name = "N")]
    rate_per_minute: Option<u32>,
    /// How long a token is valid, in seconds. Default: 30 days.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    token_ttl: Option<u64>,
    /// Run without rate limit, idle timeouts, history and recording, for load tests.
    #[arg(long, conflicts_with = "rate_per_minute")]
    load: bool,
    /// The number of worker threads.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: u16,
}

impl SandboxCommand {
    pub(super) fn run(self) -> Result<(), CommandError> {
        if self.schema {
            return Ok(print(BotScript::SCHEMA)?);
        }
        // With the usual limit, fewer sockets fit.
        let _refused = runtime::raise_open_files();
        let address = self.listen;
        let (key, is_new) = self.control_key()?;
        let options = SandboxOptions { control_key: key.clone(), ..self.options()? };
        if let Some(warning) = exposure_warning(address) {
            // A closed standard error leaves no other place for the warning.
            let _closed = writeln!(io::stderr(), "rtm-bridge: {warning}");
        }
        runtime::block_on(async {
            let failed = |source| CommandError::SandboxListen { address, option: "--listen", source };
            let sandbox = Sandbox::start(options).await.map_err(failed)?;
            print(&format!("The simulated platform listens on {}\n", sandbox.url()))?;
            if let Some(key) = key.filter(|_| is_new) {
                print(&format!("Control it with the key {}\n", key.expose_secret()))?;
            }
            let stopped = stop_signal().await.map_err(CommandError::Runtime);
            sandbox.stop().await;
            stopped
        })
        .map_err(CommandError::Runtime)?
    }

    fn options(self) -> Result<SandboxOptions, CommandError> {
        let workers = self.workers.into();
        let mut options = if self.load {
            SandboxOptions::for_load(workers)
        } else {
            // A process of its own offers no access to these observations, but to `/sandbox/heard`.
            SandboxOptions { observe: false, workers, ..SandboxOptions::default() }
        };
        options.listen = self.listen;
        options.bots = self.bots;
        if let Some(path) = &self.script {
            script(path)?.apply(&mut options);
        }
        // An option that is given wins over the script.
        if let Some(limit) = self.rate_per_minute {
            options.rate_per_minute = limit;
        }
        if let Some(seconds) = self.token_ttl {
            options.token_ttl = Duration::from_secs(seconds);
        }
        Ok(options)
    }

    /// Returns the control key, if the sandbox needs one, and whether it is a new one.
    fn control_key(&self) -> Result<(Option<SecretString>, bool), CommandError> {
        let given = match &self.key_file {
            Some(path) => {
                warn_of_open_file(path);
                let unreadable = |source| SandboxCommandError::File { path: path.clone(), source };
                Some(std::fs::read_to_string(path).map_err(unreadable)?)
            }
            None => config::environment()
                .find(|(name, value)| name == KEY_VARIABLE && !value.is_empty())
                .map(|(_, value)| value.to_string_lossy().into_owned()),
        };
        let given = given.map(|key| key.trim().to_owned());
        match given {
            Some(key) if key.is_empty() => Err(SandboxCommandError::EmptyKey.into()),
            Some(key) => Ok((Some(key.into()), false)),
            None if is_reachable(self.listen) => Ok((Some(random_key()?), true)),
            None => Ok((None, false)),
        }
    }
}

/// Reads a script.
pub(super) fn script(path: &Path) -> Result<BotScript, SandboxCommandError> {
    let unreadable = |source| SandboxCommandError::File { path: path.to_owned(), source };
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    BotScript::parse(&text)
        .map_err(|mistakes| SandboxCommandError::Script(PlacedMistakes { path: path.to_owned(), mistakes }))
}

fn random_key() -> Result<SecretString, CommandError> {
    use fmt::Write as _;

    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| CommandError::NoRandomBytes)?;
    let mut key = String::new();
    for byte in bytes {
        let _infallible = write!(key, "{byte:02x}");
    }
    Ok(key.into())
}

/// Why the simulated platform was not started.
#[derive(Debug, thiserror::Error)]
pub(super) enum SandboxCommandError {
    #[error("cannot read {}; check its path and rights", .path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("the control key is empty; put a long random text into the file or into {KEY_VARIABLE}")]
    EmptyKey,
    #[error("the script has mistakes; correct them and start again{0}")]
    Script(PlacedMistakes),
    #[error("the bridge can sign for no app of the script; give one a secret, and leave out enforceJwe")]
    NoSecret,
    #[error(
        "the bridge cannot name a bot {0:?}; an id has 1 to 64 of the characters a-z, A-Z, 0-9, '.', '_' and '-' here"
    )]
    BotName(String),
}

/// Mistakes of a script, each on a line of its own that editors understand.
#[derive(Debug)]
pub(super) struct PlacedMistakes {
    path: PathBuf,
    mistakes: Vec<ScriptMistake>,
}

impl fmt::Display for PlacedMistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.mistakes.iter().try_for_each(|mistake| write!(f, "\n{}:{mistake}", self.path.display()))
    }
}

/// Returns whether other hosts can reach an address.
fn is_reachable(address: SocketAddr) -> bool {
    !address.ip().to_canonical().is_loopback()
}

/// Returns the warning for an address that other hosts can reach.
fn exposure_warning(address: SocketAddr) -> Option<String> {
    is_reachable(address).then(|| {
        format!(
            "{address} is reachable from other hosts, and the simulated platform protects only its control (such as \
             POST /sandbox/push), by a key: every host can talk to the bot as any user; --listen 127.0.0.1:4000 keeps \
             them out"
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
        options(arguments).unwrap().bots
    }

    fn options(arguments: &[&str]) -> Result<SandboxOptions, CommandError> {
        TestCommandLine::parse_from([&["sandbox"], arguments].concat()).command.options()
    }

    fn key(arguments: &[&str]) -> Result<(Option<SecretString>, bool), CommandError> {
        TestCommandLine::parse_from([&["sandbox"], arguments].concat()).command.control_key()
    }

    #[test]
    fn script_is_read_and_options_win() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bot.yaml");
        let path = path.to_str().unwrap();
        std::fs::write(path, "bots: [{id: st-a}]\ntokenTtl: 5s\nratePerMinute: 7\n").unwrap();
        let given = options(&["--script", path]).unwrap();
        assert_eq!(
            (given.bots, given.token_ttl.as_secs(), given.rate_per_minute),
            (vec!["st-a".to_owned()], 5, 7)
        );
        let given = options(&["--script", path, "--token-ttl", "9", "--rate-per-minute", "0"]).unwrap();
        assert_eq!((given.token_ttl.as_secs(), given.rate_per_minute), (9, 0));
        assert!(TestCommandLine::try_parse_from(["sandbox", "--script", path, "--bot", "st-b"]).is_err());

        std::fs::write(path, "bots:\n  - id: st-a\n    rules: [{text: '('}]\n").unwrap();
        let told = options(&["--script", path]).unwrap_err().to_string();
        assert!(told.contains(&format!("{path}:3:20: ")), "{told}");
        let told = options(&["--script", "/nowhere/bot.yaml"]).unwrap_err().to_string();
        assert!(told.contains("cannot read /nowhere/bot.yaml"), "{told}");
    }

    #[test]
    fn reachable_sandbox_has_a_control_key() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let path = path.to_str().unwrap();
        std::fs::write(path, "my key\n").unwrap();
        let given = key(&["--key-file", path]).unwrap();
        assert_eq!((given.0.unwrap().expose_secret(), given.1), ("my key", false));
        std::fs::write(path, "\n").unwrap();
        assert!(key(&["--key-file", path]).is_err());
        assert!(key(&[]).unwrap().0.is_none(), "loopback needs none");
        let (new, is_new) = key(&["--listen", "0.0.0.0:4000"]).unwrap();
        assert!(is_new && new.unwrap().expose_secret().len() == 32);
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
