//! Commands that a user types to try the platform's faults and features. `/help` lists them.

use std::time::Duration;

use serde_json::json;

use self::CommandAnswer::{Exact, Usual};
use super::faults::{Endpoint, Fault, RetryAfter};
use super::message_elements;
use super::step::{CutMode, ReceiptKind, ReceiptScope, Step, StreamEndMarker};

/// Answer to a command.
#[derive(Debug)]
pub(super) enum CommandAnswer {
    /// Steps that get acks and waiting like the default bot's answers, as [`Behaviour`](super::Behaviour) says.
    Usual(Vec<Step>),
    /// Exactly these steps.
    Exact(Vec<Step>),
}

/// The list of commands for `/help`.
pub(super) const HELP: &str = "\
Say something about an order, or type one of these:
/echo TEXT - says TEXT
/several N [GAP] - says N messages, GAP milliseconds apart
/slow MS - answers after MS milliseconds
/silent - acknowledges and says nothing
/noack [TEXT] - answers without an ack
/stream TEXT - streams TEXT word by word
/buttons, /carousel, /quick - a template
/template [NAME] - any shape of message; without NAME lists them
/html - text with HTML entities and markup
/quot - text with &quot; in it
/push MS TEXT - says TEXT unsolicited after MS milliseconds
/late MS TEXT - answers now, and once more after MS milliseconds
/wait - says that it waits for your input
/agent - hands you over to a person; /bot brings the bot back
/id - tells the clientMessageId of your message
/exact [MS] TEXT - says TEXT, perhaps MS milliseconds later, and which message it answers
/bin - answers in a binary frame
/junk - sends a frame that is not JSON, one of an unknown type, then answers
/endsession - ends the session
/close CODE - closes the socket with CODE; 1005 closes without a code
/drop [TEXT] - drops the connection after the ack; TEXT is in the history only
/missed N [MS] - drops the connection and says N messages after MS milliseconds, in the history only
/forget - the history forgets all that was said before
/reset - resets the connection
/hang - the socket stays open and does nothing any more
/expire - makes all tokens expire
/ratelimit [N] - the next N requests for a grant or a socket get 429";

/// Returns the answer to a text that begins with a slash, or `None` for another text. `id` is the message's
/// `clientMessageId` as JSON.
pub(super) fn command(text: &str, id: &str) -> Option<CommandAnswer> {
    let text = text.trim();
    let line = text.strip_prefix('/')?;
    let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    Some(match name.to_lowercase().as_str() {
        "help" => usual(HELP),
        "echo" => usual(rest),
        "several" => several(rest),
        "slow" => with_number(rest, "/slow MS", |ms, _| {
            vec![wait(ms), Step::Say(format!("That took {ms} ms."))]
        }),
        "silent" => Usual(Vec::new()),
        "noack" => Exact(vec![Step::Say(or(rest, "You get this without an ack."))]),
        "stream" => stream(&or(rest, "This answer comes word by word.")),
        "buttons" => shape("buttons"),
        "carousel" => shape("carousel"),
        "quick" => shape("quick_replies"),
        "template" if rest.is_empty() => usual(&format!("I know: {}", message_elements::NAMES.join(", "))),
        "template" => shape(rest),
        "html" => usual("<b>5 &lt; 7</b> &amp; caf&eacute; &quot;Zur Post&quot;<br/>*bold* :smile: "),
        "quot" => shape("quot"),
        "push" => with_number(rest, "/push MS TEXT", |ms, text| {
            vec![Step::Say("It will come.".to_owned()), wait(ms), Step::Say(or(text, "Here I am, unasked."))]
        }),
        "late" => with_number(rest, "/late MS TEXT", |ms, text| {
            vec![Step::Say("A second part will follow.".to_owned()), wait(ms), Step::Say(or(text, "The second part."))]
        }),
        "wait" => Usual(vec![Step::Say("I wait for your input.".to_owned()), Step::WaitingForInput]),
        "agent" => Usual(vec![
            Step::Say("I hand you over to a person. Type /bot to come back to me.".to_owned()),
            Step::AgentStart,
            Step::AgentReceipt(ReceiptKind::Read, ReceiptScope::All),
            Step::AgentSay("Hi, this is Alex. How can I help?".to_owned()),
        ]),
        "bot" => Usual(vec![Step::AgentEnd, Step::Say("I am back.".to_owned())]),
        "id" => Usual(vec![identified(&format!("Your message has the clientMessageId {id}."), id)]),
        "exact" => exact(rest, id),
        "bin" => Exact(vec![
            Step::Ack,
            Step::Binary(
                json!({"type": "bot_response", "from": "bot", "message": [message_elements::text("From a binary frame")]})
                    .to_string()
                    .into_bytes(),
            ),
        ]),
        "junk" => Usual(vec![
            Step::Raw("this is not JSON".to_owned()),
            Step::Event("never_heard_of".to_owned()),
            Step::Say("There were two strange frames before this one.".to_owned()),
        ]),
        "endsession" => Usual(vec![Step::Say("This session ends.".to_owned()), Step::EndSession]),
        "close" => with_number(rest, "/close CODE, with 1000 to 4999", |code, _| vec![close(code)]),
        "drop" => {
            let mut steps = vec![Step::Ack, Step::Drop(CutMode::Fin)];
            if !rest.is_empty() {
                steps.push(Step::OnlyHistory(rest.to_owned()));
            }
            Exact(steps)
        }
        "missed" => missed(rest),
        "forget" => Usual(vec![Step::Forget, Step::Say("I remember nothing from before.".to_owned())]),
        "reset" => Exact(vec![Step::Drop(CutMode::Reset)]),
        "hang" => Exact(vec![Step::Hang]),
        "expire" => Usual(vec![Step::ExpireTokens, Step::Say("All tokens are expired.".to_owned())]),
        "ratelimit" => rate_limit(rest),
        other => usual(&format!("I do not know /{other}. Type /help to see what I know.")),
    })
}

fn usual(text: &str) -> CommandAnswer {
    Usual(vec![Step::Say(text.to_owned())])
}

fn or(text: &str, default: &str) -> String {
    if text.is_empty() { default.to_owned() } else { text.to_owned() }
}

/// Waits an hour at most. A longer span is a typing error.
fn wait(ms: u64) -> Step {
    Step::Wait(Duration::from_millis(ms.min(3_600_000)))
}

fn close(code: u64) -> Step {
    match u16::try_from(code) {
        Ok(1005) => Step::CloseWithoutCode,
        Ok(1006) => Step::Drop(CutMode::Fin),
        Ok(code @ 1000..5000) => Step::Close(code),
        _ => Step::Say("A close code is a number from 1000 to 4999.".to_owned()),
    }
}

fn with_number(rest: &str, usage: &str, steps: impl FnOnce(u64, &str) -> Vec<Step>) -> CommandAnswer {
    let (number, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    match number.parse() {
        Ok(number) => Usual(steps(number, rest.trim())),
        Err(_) => usual(&format!("Type {usage}.")),
    }
}

fn several(rest: &str) -> CommandAnswer {
    with_number(rest, "/several N [GAP]", |n, gap| {
        let n = n.min(100);
        let gap = gap.parse().unwrap_or(0);
        let mut steps = Vec::new();
        for part in 1..=n {
            if part > 1 && gap > 0 {
                steps.push(wait(gap));
            }
            steps.push(Step::Say(format!("Message {part} of {n}")));
        }
        steps
    })
}

/// Drops the connection, then puts messages into the history.
fn missed(rest: &str) -> CommandAnswer {
    let (n, ms) = rest.split_once(char::is_whitespace).unwrap_or((rest, "0"));
    let (Ok(n), Ok(ms)) = (n.parse::<u64>(), ms.trim().parse()) else { return usual("Type /missed N [MS].") };
    let n = n.min(200);
    let mut steps =
        vec![Step::Ack, Step::Say("You will miss something.".to_owned()), Step::Drop(CutMode::Fin)];
    if ms > 0 {
        steps.push(wait(ms));
    }
    steps.extend((1..=n).map(|part| Step::OnlyHistory(format!("Missed message {part} of {n}"))));
    Exact(steps)
}

fn stream(text: &str) -> CommandAnswer {
    let chunks = text.split_inclusive(' ').map(str::to_owned).collect();
    Usual(vec![Step::Stream { chunks, gap: Duration::from_millis(20), end: StreamEndMarker::Complete }])
}

fn shape(name: &str) -> CommandAnswer {
    match message_elements::named(name) {
        Some(elements) => Usual(vec![Step::Message(elements)]),
        None => {
            usual(&format!("I do not know the shape {name}. I know: {}", message_elements::NAMES.join(", ")))
        }
    }
}

/// Answers with the id of the message, like a bot prepared for exact correlation (protocol.md 6.1).
fn identified(text: &str, id: &str) -> Step {
    let id: serde_json::Value = serde_json::from_str(id).unwrap_or_default();
    let mut element = message_elements::text(text);
    if let Some(payload) = element.pointer_mut("/component/payload") {
        payload["clientMessageId"] = id;
    }
    Step::Message(vec![element])
}

fn exact(rest: &str, id: &str) -> CommandAnswer {
    let (first, text) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let default = "You know what this answers.";
    Usual(match first.parse() {
        Ok(ms) => {
            vec![Step::Say("It will come.".to_owned()), wait(ms), identified(&or(text.trim(), default), id)]
        }
        Err(_) => vec![identified(&or(rest, default), id)],
    })
}

fn rate_limit(rest: &str) -> CommandAnswer {
    let times = rest.parse().unwrap_or(1);
    let fault = |endpoint| Step::Fault(endpoint, times, Fault::RateLimited(RetryAfter::Seconds(1)));
    Usual(vec![
        fault(Endpoint::Grant),
        fault(Endpoint::Start),
        Step::Say(format!("The next {times} requests for a grant or a socket get 429.")),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Vec<String> {
        let Some(Usual(steps) | Exact(steps)) = command(text, "7") else {
            return Vec::new();
        };
        steps
            .into_iter()
            .filter_map(|step| if let Step::Say(text) = step { Some(text) } else { None })
            .collect()
    }

    #[test]
    fn command_named_by_help_exists() {
        for line in HELP.lines().skip(1) {
            for name in line.split(" - ").next().unwrap().split(", ") {
                let name = name.split(' ').next().unwrap();
                let answers = said(&format!("{name} 1 x"));
                assert!(!answers.iter().any(|text| text.contains("do not know /")), "{name}: {answers:?}");
            }
        }
        assert_eq!(said("/nonsense"), ["I do not know /nonsense. Type /help to see what I know."]);
        assert!(command("no slash", "7").is_none());
    }

    #[test]
    fn bad_argument_returns_the_usage() {
        assert_eq!(said("/slow soon"), ["Type /slow MS."]);
        assert_eq!(said("/several"), ["Type /several N [GAP]."]);
        assert_eq!(said("/missed"), ["Type /missed N [MS]."]);
        assert_eq!(said("/missed 2 soon"), ["Type /missed N [MS]."]);
        assert_eq!(said("/close 99999"), ["A close code is a number from 1000 to 4999."]);
        assert!(said("/template nope")[0].contains("quick_replies"));
        assert_eq!(said("/several 2"), ["Message 1 of 2", "Message 2 of 2"]);
    }
}
