//! A bot that follows a script: its rules, its dialogs and its answers (docs/sandbox.md).
//!
//! It is pure: an answer follows from the running dialog, the user, the text, and the moment. Chance follows from a seed.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_saphyr::Spanned;

use super::behaviour::AckOrder;
use super::placeholders::Placeholders;
use super::random_sequence::RandomSequence;
use super::script_progress::BotMoment;
use super::script_step::StepList;
use super::script_values::{TextPattern, optional_span};
use super::step::Step;

/// A bot of a [`BotScript`](super::BotScript).
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScriptedBot {
    /// Id of the bot (`st-…`).
    #[cfg_attr(test, schemars(with = "String"))]
    pub(super) id: Spanned<String>,
    /// Name of the bot.
    #[serde(default)]
    name: Option<String>,
    /// Greeting in a new session.
    #[serde(default)]
    welcome: StepList,
    /// Rules for messages. The first that fits answers.
    #[serde(default)]
    rules: Vec<AnswerRule>,
    /// Rules of dialogs by their names. They are tried first while their dialog runs.
    #[serde(default)]
    dialogs: BTreeMap<String, Vec<AnswerRule>>,
    /// Answer to a message that no rule fits. Without it, the bot is silent.
    #[serde(default)]
    otherwise: StepList,
    /// Whether the bot knows the commands of `/help` too.
    #[serde(default)]
    commands: bool,
    /// Seed of the bot's chance. With the same seed, a user's messages get the same random waits again.
    #[serde(default)]
    seed: u64,
}

/// A rule: its condition on a message, and the answer.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AnswerRule {
    /// Regular expression for the user's identity.
    #[serde(default)]
    user: Option<TextPattern>,
    /// Regular expression for the text.
    #[serde(default)]
    text: Option<TextPattern>,
    /// Moment from which the rule counts, for bots that change.
    #[serde(default)]
    after: Option<DriftPoint>,
    /// Steps of the answer.
    #[serde(default)]
    reply: StepList,
    /// Dialog that runs from now on. Without it, the running dialog ends.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    goto: Option<Spanned<String>>,
    /// Whether the running dialog goes on.
    #[serde(default)]
    stay: bool,
    /// Place of the ack.
    #[serde(default)]
    ack: Option<AckOrder>,
}

/// A moment from which a rule counts. If it has both members, both have to be over.
#[derive(Debug, Clone, Copy, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DriftPoint {
    /// Messages that the bot got before, of all users.
    #[serde(default)]
    messages: u64,
    /// Time since the start of the sandbox.
    #[serde(default, deserialize_with = "optional_span")]
    #[cfg_attr(test, schemars(with = "Option<crate::script_values::SpanText>"))]
    time: Option<Duration>,
}

impl DriftPoint {
    fn is_over(self, moment: BotMoment) -> bool {
        moment.message > self.messages && self.time.is_none_or(|time| moment.time >= time)
    }
}

/// A user's message to a bot.
#[derive(Debug, Clone, Copy)]
pub(super) struct AskedMessage<'a> {
    pub(super) user: &'a str,
    pub(super) text: &'a str,
    /// Number among the user's messages, from 1.
    pub(super) number: u64,
    pub(super) moment: BotMoment,
}

/// A bot's answer to a message.
pub(super) struct BotAnswer {
    pub(super) steps: Vec<Step>,
    pub(super) ack: Option<AckOrder>,
}

impl ScriptedBot {
    pub(super) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.id.value)
    }

    pub(super) fn has_commands(&self) -> bool {
        self.commands
    }

    pub(super) fn welcome(&self, user: &str) -> Vec<Step> {
        let random = RandomSequence::of_message(self.seed, user, 0);
        self.welcome.steps(&Placeholders { user, random, ..Placeholders::default() })
    }

    /// Returns the answer to a message, and moves the user to the dialog that runs next.
    pub(super) fn answer(&self, dialog: &mut Option<Box<str>>, asked: AskedMessage<'_>) -> BotAnswer {
        let AskedMessage { user, text, number, .. } = asked;
        let random = RandomSequence::of_message(self.seed, user, number);
        let running = dialog.as_deref().and_then(|name| self.dialogs.get(name)).into_iter().flatten();
        let found = running.chain(&self.rules).find_map(|rule| rule.fits(asked).map(|groups| (rule, groups)));
        let Some((rule, groups)) = found else {
            let values = Placeholders { text, user, random, ..Placeholders::default() };
            return BotAnswer { steps: self.otherwise.steps(&values), ack: None };
        };
        if !rule.stay {
            *dialog = rule.goto.as_ref().map(|name| name.value.as_str().into());
        }
        let values = Placeholders { text, user, groups, random };
        BotAnswer { steps: rule.reply.steps(&values), ack: rule.ack }
    }

    /// Returns the dialogs that rules go to and that the script lacks.
    pub(super) fn unknown_dialogs(&self) -> impl Iterator<Item = &Spanned<String>> {
        let rules = self.rules.iter().chain(self.dialogs.values().flatten());
        rules.filter_map(|rule| rule.goto.as_ref()).filter(|name| !self.dialogs.contains_key(&name.value))
    }
}

impl AnswerRule {
    /// Returns the groups of the patterns if the rule fits. A rule without a pattern fits every message.
    fn fits<'a>(&self, asked: AskedMessage<'a>) -> Option<Vec<regex::Captures<'a>>> {
        if self.after.is_some_and(|after| !after.is_over(asked.moment)) {
            return None;
        }
        let patterns = [(&self.text, asked.text), (&self.user, asked.user)];
        let named = patterns.into_iter().filter_map(|(pattern, value)| Some((pattern.as_ref()?, value)));
        named.map(|(pattern, value)| pattern.0.captures(value)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDERS: &str = r"
id: st-orders
name: Orders
welcome: Hello ${user}!
rules:
  - user: ^vip-
    text: (?i)help
    reply: At once.
  - text: (?i)where is my order
    reply: [Which one?]
    goto: number
dialogs:
  number:
    - text: (?P<order>\d{3,})
      reply: Order ${order} arrives today.
    - text: (?i)later
      reply: [Take your time.]
      stay: true
      ack: after
otherwise: You said ${text}.
";

    fn said(steps: &[Step]) -> String {
        let texts = steps.iter().map(|step| match step {
            Step::Say(text) => text.clone(),
            other => format!("{other:?}"),
        });
        texts.collect::<Vec<_>>().join("|")
    }

    #[test]
    fn dialog_goes_where_its_rules_say() {
        let bot: ScriptedBot = serde_saphyr::from_str(ORDERS).unwrap();
        let mut dialog = None;
        let mut answer = |user: &str, text: &str| {
            let asked = AskedMessage { user, text, number: 1, moment: BotMoment::default() };
            let answer = bot.answer(&mut dialog, asked);
            (said(&answer.steps), answer.ack, dialog.as_deref().map(str::to_owned))
        };
        assert_eq!(answer("ann", "help"), ("You said help.".into(), None, None));
        assert_eq!(answer("vip-ann", "Help!"), ("At once.".into(), None, None));
        let number = || Some("number".to_owned());
        assert_eq!(answer("ann", "Where is my order?"), ("Which one?".into(), None, number()));
        assert_eq!(answer("ann", "Later"), ("Take your time.".into(), Some(AckOrder::After), number()));
        assert_eq!(answer("ann", "hm"), ("You said hm.".into(), None, number()));
        assert_eq!(answer("ann", "it is 4711"), ("Order 4711 arrives today.".into(), None, None));
        assert_eq!(answer("ann", "4711"), ("You said 4711.".into(), None, None));
        assert_eq!((said(&bot.welcome("ann")), bot.name()), ("Hello ann!".into(), "Orders"));
    }

    fn answer_at(bot: &ScriptedBot, user: &str, number: u64, moment: BotMoment) -> String {
        said(&bot.answer(&mut None, AskedMessage { user, text: "hi", number, moment }).steps)
    }

    #[test]
    fn bot_changes_after_messages_and_after_a_time() {
        let bot: ScriptedBot = serde_saphyr::from_str(
            r"
id: st-drift
rules:
  - {after: {messages: 3, time: 1m}, reply: third}
  - {after: {messages: 2}, reply: second}
otherwise: first
",
        )
        .unwrap();
        for (message, seconds, expected) in
            [(1, 0, "first"), (2, 90, "first"), (3, 90, "second"), (4, 59, "second"), (4, 60, "third")]
        {
            let moment = BotMoment { message, time: Duration::from_secs(seconds) };
            assert_eq!(answer_at(&bot, "ann", 1, moment), expected, "{moment:?}");
        }
    }

    #[test]
    fn same_seed_gives_the_same_chance() {
        let bot = |seed: u64| -> ScriptedBot {
            let yaml = format!("id: st-1\nseed: {seed}\notherwise: [{{wait: {{from: 0, to: 1h}}}}]\n");
            serde_saphyr::from_str(&yaml).unwrap()
        };
        let waits =
            |seed, user| [1, 2].map(|number| answer_at(&bot(seed), user, number, BotMoment::default()));
        let [first, second] = waits(7, "ann");
        assert_eq!(waits(7, "ann"), [first.clone(), second.clone()]);
        assert_ne!(first, second, "each message has its own");
        assert_ne!(waits(8, "ann"), [first.clone(), second.clone()]);
        assert_ne!(waits(7, "bob"), [first, second]);
    }
}
