//! The default bot: a small dialog about orders.
//!
//! It is pure: its answers follow from the earlier messages of the session. [`Behaviour`] decides the place of acks
//! and `waiting_for_user_input`.

use super::behaviour::{AckOrder, Behaviour, WaitingOrder};
use super::message_elements;
use super::step::Step;

/// The bot's memory of a session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct OrderDialog {
    pending: PendingQuestion,
    /// The last order of the dialog.
    order: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum PendingQuestion {
    #[default]
    Nothing,
    OrderNumber,
    AnythingElse,
}

impl OrderDialog {
    /// Returns whether a dialog runs. Only then do responses carry a `contextId`.
    pub(super) fn runs(&self) -> bool {
        self.pending == PendingQuestion::OrderNumber
    }
}

/// Returns the welcome of a new session. It repeats the context that the client gave.
pub(super) fn welcome(context: Option<&str>) -> Vec<Step> {
    const WELCOME: &str =
        "Hello! I am the sandbox bot. Ask me \"Where is my order?\", or type /help to see what I can do.";
    match context {
        Some(context) => say(&format!("{WELCOME}\n{context}")),
        None => say(WELCOME),
    }
}

/// Returns the bot's answer, without acks.
pub(super) fn answer(dialog: &mut OrderDialog, text: &str) -> Vec<Step> {
    let text = text.trim();
    let words = text.to_lowercase();
    let has =
        |any: &[&str]| any.iter().any(|word| words.split(|c: char| !c.is_alphanumeric()).any(|w| w == *word));
    let asked = std::mem::take(&mut dialog.pending);

    if text.is_empty() {
        return Vec::new();
    }
    if has(&["bye", "goodbye"]) {
        *dialog = OrderDialog::default();
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
        && (asked == PendingQuestion::OrderNumber || has(&["order", "parcel", "where", "track", "status"]))
    {
        return status(dialog, order);
    }
    match asked {
        PendingQuestion::OrderNumber if has(&["cancel", "stop", "no"]) => say("All right, no order then."),
        PendingQuestion::OrderNumber if !has(&["where", "order"]) => {
            dialog.pending = PendingQuestion::OrderNumber;
            ask("I did not find a number in that. An order number has at least three digits, such as 4711.")
        }
        PendingQuestion::AnythingElse if has(&["no", "nope"]) => say("Fine. Have a nice day!"),
        PendingQuestion::AnythingElse if has(&["yes"]) => {
            dialog.pending = PendingQuestion::OrderNumber;
            ask("Gladly. What is the number of the order?")
        }
        _ if has(&["again", "it"]) && dialog.order.is_some() => {
            let order = dialog.order.clone().unwrap_or_default();
            status(dialog, order)
        }
        _ if has(&["order", "orders", "parcel", "delivery", "package"]) => {
            dialog.pending = PendingQuestion::OrderNumber;
            ask("Let me look that up. What is your order number?")
        }
        _ if has(&["hi", "hello", "hey"]) => say("Hello! What can I do for you?"),
        _ => say(&format!(
            "You said: {text}\nI know about orders only. Ask \"Where is my order?\" or type /help."
        )),
    }
}

/// Returns the first run of three or more digits.
fn order_number(text: &str) -> Option<String> {
    text.split(|c: char| !c.is_ascii_digit()).find(|digits| digits.len() >= 3).map(str::to_owned)
}

fn status(dialog: &mut OrderDialog, order: String) -> Vec<Step> {
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
    dialog.pending = PendingQuestion::AnythingElse;
    dialog.order = Some(order);
    steps
}

fn say(text: &str) -> Vec<Step> {
    vec![Step::Say(text.to_owned())]
}

fn ask(text: &str) -> Vec<Step> {
    vec![Step::Say(text.to_owned()), Step::WaitingForInput]
}

/// Adds the ack, and moves `waiting_for_user_input` to the place that the behaviour names.
pub(super) fn place_ack_and_waiting(mut steps: Vec<Step>, behaviour: &Behaviour) -> Vec<Step> {
    if behaviour.waiting != WaitingOrder::AfterLast {
        let waits = steps.iter().any(|step| matches!(step, Step::WaitingForInput));
        steps.retain(|step| !matches!(step, Step::WaitingForInput));
        if waits && behaviour.waiting == WaitingOrder::BeforeLast {
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
    use super::{AckOrder as A, WaitingOrder as W};

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
    fn dialog_finds_an_order() {
        let mut dialog = OrderDialog::default();
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
        assert_eq!(dialog, OrderDialog::default());
        assert_eq!(brief(&answer(&mut dialog, " ")), "");
        assert_eq!(brief(&answer(&mut dialog, "lovely weather")), "You");
    }

    #[test]
    fn behaviour_places_acks_and_waiting() {
        let arranged = |ack, waiting, thinking| {
            let behaviour = Behaviour { ack, waiting, thinking, ..Behaviour::default() };
            brief(&place_ack_and_waiting(answer(&mut OrderDialog::default(), "track 4711"), &behaviour))
        };
        let now = Duration::ZERO;
        assert_eq!(arranged(A::Before, W::AfterLast, now), "ack Thank message waiting");
        assert_eq!(arranged(A::After, W::Off, now), "Thank message ack");
        assert_eq!(arranged(A::Never, W::BeforeLast, now), "Thank waiting message");
        assert_eq!(arranged(A::Twice, W::Off, Duration::from_secs(1)), "ack ack wait Thank message");
        assert_eq!(arranged(A::WithoutReplyTo, W::Off, now), "ack? Thank message");
    }
}
