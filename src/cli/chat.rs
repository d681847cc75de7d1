//! `rtm-bridge chat`

mod client;
mod event_source;
mod transcript;

use std::io::{self, IsTerminal as _};

use clap::Args;
use tokio::sync::mpsc;

use self::client::ChatClient;
use self::event_source::{EventSource, SourceItem};
use self::transcript::Transcript;
use super::api_client::{ApiCallError, ApiClient, ApiClientError, BridgeArgs};
use super::{CommandError, print};
use crate::domain::{BotName, UserId};
use crate::runtime;

/// Talk to a bot through a running bridge. Type a line to send it; replies are printed as they arrive.
///
/// The choices that a bot offers have numbers. Type a number to send what the choice sends.
///
/// Ctrl-D ends the chat after every message has ended. In a pipe, standard output holds the replies only, and the exit
/// code is 1 if a message failed. If the bridge asks for a key, set `RTM_BRIDGE_KEY` or give --key-file. The key needs
/// the scopes `send` and `read`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    rtm-bridge chat --user me\n  \
    rtm-bridge chat --user me 'Where is my order?'\n  \
    echo 'Where is my order?' | rtm-bridge chat --user me\n  \
    rtm-bridge chat --user me --url https://bridge.example --bot support --key-file key.txt")]
pub(super) struct ChatCommand {
    /// The user who talks, as in `/conversations/{user}`.
    #[arg(long, value_name = "NAME", value_parser = |text: &str| UserId::new(text))]
    user: UserId,
    #[command(flatten)]
    bridge: BridgeArgs,
    /// The bot to talk to. Needed if the bridge has several bots and no default.
    #[arg(long, value_name = "NAME", value_parser = |text: &str| BotName::new(text))]
    bot: Option<BotName>,
    /// Let the bot speak first, as if the user had just opened the chat.
    #[arg(long)]
    connect: bool,
    /// Messages to send instead of the lines of standard input.
    #[arg(value_name = "TEXT", value_parser = message_text)]
    texts: Vec<String>,
}

/// Why a chat failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChatError {
    #[error(transparent)]
    Client(#[from] ApiClientError),
    #[error("{0}: {1}{next_step}", next_step = next_step(.1))]
    Call(Box<str>, ApiCallError),
    #[error("cannot read standard input")]
    Input(#[source] io::Error),
    #[error("{0} of your messages failed")]
    MessagesFailed(usize),
}

fn next_step(error: &ApiCallError) -> &'static str {
    error.next_step(
        "; use a key with the scopes `send` and `read` for this user and bot (--user, --bot)",
        "; name one of the bridge's bots with --bot",
    )
}

fn message_text(text: &str) -> Result<String, &'static str> {
    if text.trim().is_empty() { Err("the message is empty") } else { Ok(text.to_owned()) }
}

impl ChatCommand {
    pub(super) fn run(self) -> Result<(), CommandError> {
        runtime::block_on(self.chat()).map_err(CommandError::Runtime)?
    }

    async fn chat(self) -> Result<(), CommandError> {
        let api = ApiClient::new(&self.bridge).map_err(ChatError::Client)?;
        let client = ChatClient::new(api, &self.user, self.bot.as_ref());
        let url = self.bridge.url;
        let call_failed = |error| ChatError::Call(url.as_str().into(), error);
        let mut source = EventSource::connect(&client).await.map_err(call_failed)?;
        let mut transcript = Transcript::new(io::stdout().is_terminal());
        if self.texts.is_empty() && io::stdin().is_terminal() {
            transcript.note(&format!("you are {} at {}; Ctrl-D ends", self.user.as_str(), url))?;
        }
        if self.connect {
            transcript.open = Some(client.connect().await.map_err(call_failed)?);
        }
        let mut lines = read_lines(self.texts).map_err(CommandError::Runtime)?;
        loop {
            tokio::select! {
                biased;
                item = source.next() => match item.map_err(call_failed)? {
                    SourceItem::Note(text) => transcript.note(text)?,
                    SourceItem::Event(kind, data) => match &*kind {
                        "reply" => print(&transcript.reply(&data))?,
                        "chunk" => print(&transcript.chunk(&data))?,
                        "message.answered" | "message.failed" => transcript.message_ended(&data)?,
                        "gap" => {
                            transcript.note("replies may be missing here; the bridge did not recover all")?;
                            // The event of the message's end may be missing too.
                            if let Some(id) = transcript.open.clone() {
                                transcript.message_ended(&client.message(&id).await.map_err(call_failed)?)?;
                            }
                        }
                        _ => {}
                    },
                },
                // The bridge sends a user's messages one by one, so the next line can wait.
                line = lines.recv(), if transcript.open.is_none() => match line {
                    Some(Ok(line)) => {
                        let choice = transcript.choose(&line);
                        let (text, shown) = match &choice {
                            Some(choice) => (&choice.payload, Some(choice.title.as_str())),
                            None => (&line, None),
                        };
                        match client.send(text, shown).await {
                            Ok(id) => transcript.open = Some(id),
                            Err(error) => {
                                transcript.failures += 1;
                                transcript.note(&format!("not sent: {error}{}", next_step(&error)))?;
                            }
                        }
                    }
                    Some(Err(error)) => return Err(ChatError::Input(error).into()),
                    None if transcript.failures == 0 => return Ok(()),
                    None => return Err(ChatError::MessagesFailed(transcript.failures).into()),
                },
            }
        }
    }
}

/// Reads the messages to send, on a thread of its own: reading from a terminal blocks until the process ends.
fn read_lines(texts: Vec<String>) -> io::Result<mpsc::Receiver<io::Result<String>>> {
    let (sender, lines) = mpsc::channel(1);
    runtime::spawn_named("chat-input", move || {
        let pass = |line: io::Result<String>| {
            let is_blank = line.as_ref().is_ok_and(|text| text.trim().is_empty());
            if is_blank { Ok(()) } else { sender.blocking_send(line) }
        };
        // Sending fails only while the chat ends.
        let _ended = if texts.is_empty() {
            io::stdin().lines().try_for_each(pass)
        } else {
            texts.into_iter().map(Ok).try_for_each(pass)
        };
    })?;
    Ok(lines)
}
