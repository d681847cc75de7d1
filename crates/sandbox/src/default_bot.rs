//! The bot that people meet: a small dialog about orders.
//!
//! It is pure: what it says follows from what was said in the session before. Acks and
//! `waiting_for_user_input` are put where [`Behaviour`] wants them.

use super::behaviour::{AckOrder, Behaviour, Waiting};
use super::message_elements;
use super::step::Step;

/// What the bot remembers of a session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Dialog {
    asks: Asks,
    /// The order that was talked about last.
    order: Option<String>,
}

/// What the bot has asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Asks {
    #[default]
    Nothing,
    OrderNumber,
    AnythingElse,
}

impl Dialog {
    /// Whether a dialog runs: only then responses carry a `contextId`.
    pub(super) fn runs(&self) -> bool {
        self.asks == Asks::OrderNumber
    }
}

/// What is said when a session begins.
pub(super) fn welcome() -> Vec<Step> {
    say("Hello! I am the sandbox bot. Ask me \"Where is my order?\", or type /help to see what I can do.")
}

/// What the bot answers, acks not included.
pub(super) fn answer(dialog: &mut Dialog, text: &str) -> Vec<Step> {
    let text = text.trim();
    let words = text.to_lowercase();
    let has =
        |any: &[&str]| any.iter().any(|word| words.split(|c: char| !c.is_alphanumeric()).any(|w| w == *word));
    let asked = std::mem::take(&mut dialog.asks);

    if text.is_empty() {
        return Vec::new();
    }
    if has(&["bye", "goodbye"]) {
        *dialog = Dialog::default();
        return say("Goodbye! Come back whenever you like.");
    }
    if has(&["thanks", "thank"]) {
        return say("You are welcome!");
    }
    if has(&["help"]) {
        return say(
            "I can tell you where an order is: ask \"Where is my order?\". Type /help for the commands that make me misbehave.",
        );
    }
    if let Some(order) = order_number(text)
        && (asked == Asks::OrderNumber || has(&["order", "parcel", "where", "track", "status"]))
    {
        return status(dialog, order);
    }
    match asked {
        Asks::OrderNumber if has(&["cancel", "stop", "no"]) => say("All right, no order then."),
        Asks::OrderNumber if !has(&["where", "order"]) => {
            dialog.asks = Asks::OrderNumber;
            ask("I did not find a number in that. An order number has at least three digits, such as 4711.")
        }
        Asks::AnythingElse if has(&["no", "nope"]) => say("Fine. Have a nice day!"),
        Asks::AnythingElse if has(&["yes"]) => {
            dialog.asks = Asks::OrderNumber;
            ask("Gladly. What is the number of the order?")
        }
        _ if has(&["again", "it"]) && dialog.order.is_some() => {
            let order = dialog.order.clone().unwrap_or_default();
            status(dialog, order)
        }
        _ if has(&["order", "orders", "parcel", "delivery", "package"]) => {
            dialog.asks = Asks::OrderNumber;
            ask("Let me look that up. What is your order number?")
        }
        _ if has(&["hi", "hello", "hey"]) => say("Hello! What can I do for you?"),
        _ => say(&format!(
            "You said: {text}\nI know about orders only. Ask \"Where is my order?\" or type /help."
        )),
    }
}

/// The first run of three or more digits.
fn order_number(text: &str) -> Option<String> {
    text.split(|c: char| !c.is_ascii_digit()).find(|digits| digits.len() >= 3).map(str::to_owned)
}

fn status(dialog: &mut Dialog, order: String) -> Vec<Step> {
    let where_it_is = match order.bytes().last() {
        Some(b'0'..=b'2') => "arrives today between 14:00 and 16:00",
        Some(b'3'..=b'6') => "left our warehouse this morning and arrives tomorrow",
        _ => "is being packed and leaves tomorrow",
    };
    let steps = vec![
        Step::Say(format!("Thank you. Order {order} {where_it_is}.")),
        Step::Message(vec![message_elements::quick_replies(
            "Do you want to ask about another order?",
            &["Yes", "No"],
        )]),
        Step::WaitingForInput,
    ];
    dialog.asks = Asks::AnythingElse;
    dialog.order = Some(order);
    steps
}

fn say(text: &str) -> Vec<Step> {
    vec![Step::Say(text.to_owned())]
}

fn ask(text: &str) -> Vec<Step> {
    vec![Step::Say(text.to_owned()), Step::WaitingForInput]
}

/// Adds the ack and moves `waiting_for_user_input` to where the behaviour wants them.
pub(super) fn arrange(mut steps: Vec<Step>, behaviour: &Behaviour) -> Vec<Step> {
    if behaviour.waiting != Waiting::AfterLast {
        let waits = steps.iter().any(|step| matches!(step, Step::WaitingForInput));
        steps.retain(|step| !matches!(step, Step::WaitingForInput));
        if waits && behaviour.waiting == Waiting::BeforeLast {
            let last = steps.iter().rposition(|step| matches!(step, Step::Say(_) | Step::Message(_)));
            steps.insert(last.unwrap_or(steps.len()), Step::WaitingForInput);
        }
    }
    if !behaviour.thinking.is_zero() {
        steps.insert(0, Step::Wait(behaviour.thinking));
    }
    match behaviour.ack {
        AckOrder::Before => steps.insert(0, Step::Ack),
        AckOrder::WithoutReplyTo => steps.insert(0, Step::AckWithoutReplyTo),
        AckOrder::Twice => {
            steps.insert(0, Step::Ack);
            steps.insert(0, Step::Ack);
        }
        AckOrder::After => steps.push(Step::Ack),
        AckOrder::Never => {}
    }
    steps
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use super::{AckOrder as A, Waiting as W};

    fn brief(steps: &[Step]) -> String {
        let word = |step: &Step| match step {
            Step::Ack => "ack".to_owned(),
            Step::AckWithoutReplyTo => "ack?".to_owned(),
            Step::Say(text) => text.split([' ', '.', '!', ',']).next().unwrap_or_default().to_owned(),
            Step::Message(_) => "message".to_owned(),
            Step::WaitingForInput => "waiting".to_owned(),
            Step::Wait(_) => "wait".to_owned(),
            other => format!("{other:?}"),
        };
        steps.iter().map(word).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn tells_where_an_order_is() {
        let mut dialog = Dialog::default();
        assert_eq!(brief(&answer(&mut dialog, "Where is my order?")), "Let waiting");
        assert!(dialog.runs());
        assert_eq!(brief(&answer(&mut dialog, "the red one")), "I waiting");
        assert_eq!(brief(&answer(&mut dialog, "4711")), "Thank message waiting");
        assert!(!dialog.runs());
        assert_eq!(brief(&answer(&mut dialog, "No")), "Fine");
        assert_eq!(brief(&answer(&mut dialog, "Is it on its way?")), "Thank message waiting");
        assert_eq!(brief(&answer(&mut dialog, "thanks")), "You");
        assert_eq!(brief(&answer(&mut dialog, "Where is order 12345?")), "Thank message waiting");
        assert_eq!(brief(&answer(&mut dialog, "bye")), "Goodbye");
        assert_eq!(dialog, Dialog::default());
        assert_eq!(brief(&answer(&mut dialog, " ")), "");
        assert_eq!(brief(&answer(&mut dialog, "lovely weather")), "You");
    }

    #[test]
    fn acks_and_waiting_go_where_the_behaviour_wants_them() {
        let arranged = |ack, waiting, thinking| {
            let behaviour = Behaviour { ack, waiting, thinking, ..Behaviour::default() };
            brief(&arrange(answer(&mut Dialog::default(), "track 4711"), &behaviour))
        };
        let now = Duration::ZERO;
        assert_eq!(arranged(A::Before, W::AfterLast, now), "ack Thank message waiting");
        assert_eq!(arranged(A::After, W::Off, now), "Thank message ack");
        assert_eq!(arranged(A::Never, W::BeforeLast, now), "Thank waiting message");
        assert_eq!(arranged(A::Twice, W::Off, Duration::from_secs(1)), "ack ack wait Thank message");
        assert_eq!(arranged(A::WithoutReplyTo, W::Off, now), "ack? Thank message");
    }
}
