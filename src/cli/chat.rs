//! `rtm-bridge chat`

mod api;
mod feed;
mod input;
mod pause;
mod sse;
mod talk;
mod told;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use self::api::{Bridge, Fault};
use self::feed::{Fed, Feed};
use self::input::Line;
use self::talk::{Printed, Talk};
use self::told::Told;
use super::{CommandError, print};
use crate::domain::{BotName, UserId};
use crate::tls::TlsError;
use crate::{config, runtime};

/// The variable that holds the caller's key.
const KEY: &str = "RTM_BRIDGE_KEY";
/// A file that is longer than that holds no key.
const KEY_MAX: usize = 4096;
/// Lines are read ahead of the bot's answers up to so many.
const OPEN_MAX: usize = 8;

/// Talk to a bot through a running bridge: type a line to send it; replies are printed as they come.
///
/// Ctrl-D ends it, once everything that was sent is answered. In a pipe, standard output has the replies and nothing
/// else; the exit code is 1 where a message failed. The caller's key, if the bridge asks for one, is taken from the
/// environment (`RTM_BRIDGE_KEY`) or from a file, and needs the scopes `send` and `read`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    rtm-bridge chat --user me\n  \
    rtm-bridge chat --user me 'Where is my order?'\n  \
    echo 'Where is my order?' | rtm-bridge chat --user me\n  \
    rtm-bridge chat --user me --url https://bridge.example --bot support --key-file key.txt")]
pub(super) struct ChatCommand {
    /// Who talks: the user's identity, as in `/conversations/{user}`.
    #[arg(long, value_name = "NAME", value_parser = user)]
    user: UserId,
    /// Where the bridge is; a path is kept.
    #[arg(long, value_parser = base, default_value = "http://127.0.0.1:8080")]
    url: Url,
    /// Which bot, where the bridge has several and no default.
    #[arg(long, value_name = "NAME", value_parser = bot)]
    bot: Option<BotName>,
    /// What to say, one message each, instead of reading lines from standard input.
    #[arg(value_name = "TEXT", value_parser = said)]
    texts: Vec<String>,
    /// A file that holds the caller's key. Without it the environment's `RTM_BRIDGE_KEY` is taken, if there is one.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

/// Why a conversation could not be had, or not to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChatError {
    #[error("the key in {origin} cannot be read")]
    KeyFile { origin: String, source: io::Error },
    #[error(
        "{0} holds no key: one line of visible characters is expected, such as `rtm-bridge key new` prints"
    )]
    NotAKey(String),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("{url}: {fault}{}", next_step(.fault))]
    Bridge { url: Box<str>, fault: Box<Fault> },
    #[error("standard input cannot be read")]
    Input(#[source] io::Error),
    #[error("{0} of your messages failed")]
    Failed(usize),
}

/// What to do about a fault.
fn next_step(fault: &Fault) -> &'static str {
    match fault {
        Fault::Unreachable(_) | Fault::Slow | Fault::Broken => {
            "; is the bridge running there? `rtm-bridge dev` starts one to try, --url names another"
        }
        Fault::Strange(_) => "; is this the address of its API (server.listen), and not the admin_listen?",
        Fault::Refused { status: 401, .. } => "; give the caller's key with --key-file, or in RTM_BRIDGE_KEY",
        Fault::Refused { status: 403, .. } => {
            "; the key needs the scopes `send` and `read`, for this user and bot (--user, --bot)"
        }
        Fault::Refused { status: 400 | 404, .. } => "; --bot names one of the bridge's bots",
        Fault::Refused { .. } => "",
    }
}

fn user(text: &str) -> Result<UserId, String> {
    UserId::new(text).map_err(|error| error.to_string())
}

fn bot(text: &str) -> Result<BotName, String> {
    BotName::new(text).map_err(|error| error.to_string())
}

fn said(text: &str) -> Result<String, &'static str> {
    if text.trim().is_empty() { Err("says nothing") } else { Ok(text.to_owned()) }
}

fn base(text: &str) -> Result<Url, &'static str> {
    const WANTED: &str = "should be a URL such as http://127.0.0.1:8080, without user, query and fragment";
    let url = Url::parse(text).map_err(|_| WANTED)?;
    let plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if matches!(url.scheme(), "http" | "https") && url.has_host() && plain { Ok(url) } else { Err(WANTED) }
}

impl ChatCommand {
    pub(super) fn run(self) -> Result<(), CommandError> {
        runtime::block_on(self.talk()).map_err(CommandError::Runtime)?
    }

    async fn talk(self) -> Result<(), CommandError> {
        let key = key(self.key_file.as_deref(), config::environment())?;
        let bridge = Bridge::new(&self.url, &self.user, self.bot.clone(), key).map_err(ChatError::Tls)?;
        let failed = |fault| ChatError::Bridge { url: self.url.as_str().into(), fault: Box::new(fault) };
        let after = bridge.latest().await.map_err(failed)?;
        let mut feed = Feed::new(&bridge, after);
        // From here on nothing is missed, pieces of streamed replies included.
        feed.next().await.map_err(failed)?;

        let mut talk = Talk::new(io::stdout().is_terminal());
        if self.texts.is_empty() && io::stdin().is_terminal() {
            let words = format!("you are {} at {}; Ctrl-D ends", self.user.as_str(), self.url);
            show(&talk.note(&words))?;
        }
        let mut lines = input::lines(self.texts).map_err(CommandError::Runtime)?;
        let mut typing = true;
        while typing || talk.open() > 0 {
            tokio::select! {
                biased;
                next = feed.next() => match next.map_err(failed)? {
                    Fed::Event(event) => hear(&bridge, &mut talk, Told::of(&event)).await?,
                    Fed::Lost => show(&talk.note("the connection is lost; trying again"))?,
                    Fed::Open => show(&talk.note("connected again"))?,
                },
                line = lines.recv(), if typing && talk.open() < OPEN_MAX => match line {
                    // No event is read meanwhile, so none tells of a message before its id is known.
                    Some(Line::Text(text)) => match bridge.send(&text).await {
                        Ok(message) => talk.accepted(message.id),
                        Err(fault) => show(&talk.unsent(&format!("{fault}{}", next_step(&fault))))?,
                    },
                    Some(Line::Unsendable(why)) => show(&talk.unsent(why))?,
                    Some(Line::Broken(error)) => return Err(ChatError::Input(error).into()),
                    None => typing = false,
                },
            }
        }
        match talk.failed() {
            0 => Ok(()),
            failed => Err(ChatError::Failed(failed).into()),
        }
    }
}

/// Prints what is told. Behind a gap the ends of messages may be missing: they are asked for.
async fn hear(bridge: &Bridge, talk: &mut Talk, told: Told) -> Result<(), CommandError> {
    let ends = if matches!(told, Told::Gap) { talk.ids() } else { Vec::new() };
    show(&talk.hear(told))?;
    for id in ends {
        match bridge.message(&id).await {
            Ok(message) => show(&talk.ended(&message))?,
            Err(fault) => show(&talk.note(&format!("message {id} cannot be read: {fault}")))?,
        }
    }
    Ok(())
}

fn show(printed: &Printed) -> io::Result<()> {
    if !printed.out.is_empty() {
        print(&printed.out)?;
    }
    if !printed.note.is_empty() {
        writeln!(io::stderr(), "{}", printed.note)?;
    }
    Ok(())
}

/// The caller's key: from the file, else from the environment.
fn key(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
) -> Result<Option<SecretString>, ChatError> {
    let (origin, bytes) = if let Some(path) = file {
        let origin = path.display().to_string();
        match std::fs::read(path) {
            Ok(bytes) => (origin, bytes),
            Err(source) => return Err(ChatError::KeyFile { origin, source }),
        }
    } else {
        let value = environment.into_iter().find(|(name, value)| name == KEY && !value.is_empty());
        let Some((_, value)) = value else { return Ok(None) };
        (KEY.to_owned(), value.into_encoded_bytes())
    };
    let key = SecretString::from(String::from_utf8(bytes).unwrap_or_default().trim());
    let text = key.expose_secret();
    let fits = !text.is_empty() && text.len() <= KEY_MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(Some(key)) } else { Err(ChatError::NotAKey(origin)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_environment(value: &str) -> Result<Option<String>, ChatError> {
        let all = [("PATH".into(), "/bin".into()), (KEY.into(), value.into())];
        key(None, all).map(|key| key.map(|key| key.expose_secret().to_owned()))
    }

    #[test]
    fn a_key_comes_from_the_file_or_the_environment() {
        assert_eq!(from_environment("rtmb_x").unwrap().as_deref(), Some("rtmb_x"));
        assert_eq!(from_environment("").unwrap(), None);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "rtmb_file\n").unwrap();
        let both = key(Some(file.path()), [(KEY.into(), "rtmb_environment".into())]).unwrap().unwrap();
        assert_eq!(both.expose_secret(), "rtmb_file");
    }

    #[test]
    fn what_is_no_key_is_said_and_not_shown() {
        for bad in [" ", "two words", "r\u{e9}sum\u{e9}", &"x".repeat(KEY_MAX + 1)] {
            let error = from_environment(bad).unwrap_err().to_string();
            assert!(error.starts_with("RTM_BRIDGE_KEY holds no key"), "{error}");
        }
        let error = key(Some(Path::new("/nowhere/key")), []).unwrap_err().to_string();
        assert!(error.contains("/nowhere/key"), "{error}");
    }

    #[test]
    fn a_bridge_is_named_by_a_plain_url() {
        for good in ["http://127.0.0.1:8080", "https://bridge.example/rtm/"] {
            assert!(base(good).is_ok(), "{good}");
        }
        for bad in ["127.0.0.1:8080", "ftp://x", "http://key@x", "http://x/?bot=a", "http://x/#a", "http:"] {
            assert!(base(bad).is_err(), "{bad}");
        }
    }
}
