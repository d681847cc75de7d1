//! A bot that follows a script: its rules, its dialogs and its answers (docs/sandbox.md).
//!
//! It is pure: an answer follows from the running dialog, the user and the text.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_saphyr::Spanned;

use super::behaviour::AckOrder;
use super::script_step::{Placeholders, StepList};
use super::script_values::TextPattern;
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
        self.welcome.steps(&Placeholders { user, ..Placeholders::default() })
    }

    /// Returns the answer to a message, and moves the user to the dialog that runs next.
    pub(super) fn answer(&self, dialog: &mut Option<Box<str>>, user: &str, text: &str) -> BotAnswer {
        let running = dialog.as_deref().and_then(|name| self.dialogs.get(name)).into_iter().flatten();
        let found = running
            .chain(&self.rules)
            .find_map(|rule| rule.fits(user, text).map(|groups| (rule, Placeholders { text, user, groups })));
        let Some((rule, values)) = found else {
            let values = Placeholders { text, user, ..Placeholders::default() };
            return BotAnswer { steps: self.otherwise.steps(&values), ack: None };
        };
        if !rule.stay {
            *dialog = rule.goto.as_ref().map(|name| name.value.as_str().into());
        }
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
    fn fits<'a>(&self, user: &'a str, text: &'a str) -> Option<Vec<regex::Captures<'a>>> {
        let patterns = [(&self.text, text), (&self.user, user)];
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
            let answer = bot.answer(&mut dialog, user, text);
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
}
