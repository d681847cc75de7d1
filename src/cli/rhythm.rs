//! `rtm-bridge rhythm`

use std::fmt::Write as _;
use std::io;

use awc::http::Method;
use clap::Args;
use clap::builder::styling::Style;
use serde::Deserialize;
use serde_json::Value;

use super::api_client::{ApiCallError, ApiClient, ApiClientError, BridgeArgs, answer_body};
use super::{CommandError, print, style_on};
use crate::domain::BotName;
use crate::runtime;
use crate::telemetry::{escaped_json, masked_line};

/// Show what a running bridge has learned of a bot's rhythm: its kinds of replies, and how long a turn waits after each.
///
/// A bridge learns with `bots.quiet = "auto"`. If it asks for a key, set `RTM_BRIDGE_KEY` or give --key-file. The key needs
/// the scope `admin`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    rtm-bridge rhythm --bot sandbox\n  \
    rtm-bridge rhythm --bot support --url https://bridge.example --key-file key.txt\n  \
    rtm-bridge rhythm --bot support --forget")]
pub(super) struct RhythmCommand {
    /// The bot, by its name in the configuration.
    #[arg(long, value_name = "NAME", value_parser = |text: &str| BotName::new(text))]
    bot: BotName,
    #[command(flatten)]
    bridge: BridgeArgs,
    /// Print the answer of the bridge as it is, in JSON.
    #[arg(long, conflicts_with = "forget")]
    json: bool,
    /// Forget what was learned. The bridge learns the rhythm anew.
    #[arg(long)]
    forget: bool,
}

/// Why a rhythm could not be shown or forgotten.
#[derive(Debug, thiserror::Error)]
pub(super) enum RhythmCommandError {
    #[error(transparent)]
    Client(#[from] ApiClientError),
    #[error("{0}: {1}{next_step}", next_step = next_step(.1))]
    Call(Box<str>, ApiCallError),
}

fn next_step(error: &ApiCallError) -> &'static str {
    error.next_step(
        "; use a key with the scope `admin` for this bot (--bot)",
        "; name one of the bridge's bots with --bot",
    )
}

/// The rhythm of a bot, as far as it is shown.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ShownRhythm {
    auto: bool,
    turns: u64,
    early_cuts: u64,
    longest_first_reply_ms: Option<u64>,
    kinds: Vec<ShownKind>,
}

#[derive(Deserialize)]
struct ShownKind {
    kind: String,
    observations: f64,
    followed: f64,
    quiet: ShownQuiet,
}

#[derive(Deserialize)]
struct ShownQuiet {
    ms: u64,
    by: String,
}

impl RhythmCommand {
    pub(super) fn run(self) -> Result<(), CommandError> {
        runtime::block_on(self.show_or_forget()).map_err(CommandError::Runtime)?
    }

    async fn show_or_forget(self) -> Result<(), CommandError> {
        let api = ApiClient::new(&self.bridge).map_err(RhythmCommandError::Client)?;
        // Bot names have no character that needs an escape.
        let target = format!("/bots/{}/rhythm", self.bot);
        let method = if self.forget { Method::DELETE } else { Method::GET };
        let failed = |error| RhythmCommandError::Call(self.bridge.url.as_str().into(), error);
        let (status, body) = answer_body(api.request(method, &target).send()).await.map_err(failed)?;
        if self.forget {
            return Ok(print(&format!("the bridge has forgotten the rhythm of {}\n", self.bot))?);
        }
        let foreign = || failed(ApiCallError::NotBridge(status));
        if self.json {
            let value: Value = serde_json::from_slice(&body).map_err(|_| foreign())?;
            return Ok(print(&(escaped_json(&format!("{value:#}")).into_owned() + "\n"))?);
        }
        let rhythm: ShownRhythm = serde_json::from_slice(&body).map_err(|_| foreign())?;
        Ok(print(&table(&self.bot, &rhythm, style_on(&io::stdout(), Style::new().bold())))?)
    }
}

/// Returns the lines for a person.
fn table(bot: &BotName, rhythm: &ShownRhythm, head: Style) -> String {
    if !rhythm.auto {
        return format!("{bot}: the quiet time is fixed; bots.quiet = \"auto\" learns it\n");
    }
    let mut text = format!("{bot}: {} turns, {} early cuts", rhythm.turns, rhythm.early_cuts);
    // Writing to a `String` cannot fail.
    if let Some(ms) = rhythm.longest_first_reply_ms {
        let _ = write!(text, ", a first reply after {ms} ms at the latest");
    }
    let _ = write!(
        text,
        "\n{head}{:<16}  {:>12}  {:>8}  {:>9}  by{head:#}\n",
        "kind", "observations", "followed", "wait"
    );
    for ShownKind { kind, observations, followed, quiet } in &rhythm.kinds {
        let (kind, by, followed) = (masked_line(kind), masked_line(&quiet.by), followed * 100.0);
        let _ =
            writeln!(text, "{kind:<16}  {observations:>12.1}  {followed:>6.1} %  {:>6} ms  {by}", quiet.ms);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(json: &str) -> String {
        let rhythm = serde_json::from_str(json).unwrap();
        table(&BotName::new("support").unwrap(), &rhythm, Style::new())
    }

    #[test]
    fn rhythm_is_a_table() {
        let text = shown(
            r#"{"bot": "support", "auto": true, "turns": 5120, "earlyCuts": 3, "longestFirstReplyMs": 2140, "kinds": [
                {"kind": "00000000000000f1", "observations": 812.4, "followed": 0.98, "quiet": {"ms": 140, "by": "learned"}},
                {"kind": "ffffffffffffffff", "observations": 1, "followed": 0, "quiet": {"ms": 1000, "by": "default"}}]}"#,
        );
        assert_eq!(
            text,
            "support: 5120 turns, 3 early cuts, a first reply after 2140 ms at the latest\n\
             kind              observations  followed       wait  by\n\
             00000000000000f1         812.4    98.0 %     140 ms  learned\n\
             ffffffffffffffff           1.0     0.0 %    1000 ms  default\n"
        );
    }

    #[test]
    fn fixed_quiet_time_has_no_table() {
        let fixed =
            r#"{"auto": false, "turns": 0, "earlyCuts": 0, "longestFirstReplyMs": null, "kinds": []}"#;
        assert_eq!(shown(fixed), "support: the quiet time is fixed; bots.quiet = \"auto\" learns it\n");
    }
}
