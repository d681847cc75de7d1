//! The printed conversation: replies go to standard output, notes about them to standard error.
//!
//! On a terminal a streamed reply grows with its chunks. It is printed again as a whole if chunks were missing, or if
//! another line came in between. A pipe gets whole replies only.
//!
//! Behind a reply stand the choices that the bot offers, each with a number. The numbers go on until the user sends a
//! message.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write as _};

use clap::builder::styling::Style;
use serde_json::Value;

use crate::cli::{print, style_on};
use crate::telemetry::{masked, masked_line};

/// The most choices that are remembered. Numbers begin anew behind them.
const CHOICES_MAX: usize = 1000;

/// An answer that the bot offers.
pub(super) struct OfferedChoice {
    pub(super) title: String,
    pub(super) payload: String,
}

pub(super) struct Transcript {
    /// The id of the message that has not ended.
    pub(super) open: Option<String>,
    /// The number of messages that failed or were not sent.
    pub(super) failures: usize,
    /// Whether standard output is a terminal.
    terminal: bool,
    /// The start of a reply's line.
    speaker: String,
    /// The id and the printed text of a streamed reply, on a line without an end.
    growing: Option<(Value, String)>,
    /// The choices that were offered since the last message of the user.
    choices: Vec<OfferedChoice>,
}

impl Transcript {
    pub(super) fn new(terminal: bool) -> Self {
        let style = style_on(&io::stdout(), Style::new().bold());
        let speaker = if terminal { format!("{style}bot:{style:#} ") } else { String::new() };
        Self { open: None, failures: 0, terminal, speaker, growing: None, choices: Vec::new() }
    }

    /// Prints a note on a line of its own. Standard error may be a terminal if standard output is none.
    pub(super) fn note(&mut self, text: &str) -> io::Result<()> {
        print(self.end_line())?;
        let style = style_on(&io::stderr(), Style::new().dimmed());
        writeln!(io::stderr(), "{style}({}){style:#}", masked_line(text))
    }

    /// Closes the open message if this is its end, and prints what its replies do not tell.
    pub(super) fn message_ended(&mut self, message: &Value) -> io::Result<()> {
        let has_ended = message["status"] == "answered" || message["status"] == "failed";
        if !has_ended || message["id"].as_str() != self.open.as_deref() {
            return Ok(());
        }
        self.open = None;
        self.failures += usize::from(message["status"] == "failed");
        let rule = message["endedBy"].as_str().unwrap_or("unknown");
        let error = &message["error"];
        let problem = |field: &str| error[field].as_str().unwrap_or("no reason given");
        if message["status"] == "failed" {
            self.note(&format!("failed: {}: {}", problem("title"), problem("detail")))
        } else if message["complete"] == false {
            self.note(&format!("more replies may follow; the turn was cut off by its {rule}"))
        } else if message["replies"].as_array().is_some_and(Vec::is_empty) {
            self.note(&format!("no reply; the turn ended by {rule}"))
        } else {
            Ok(())
        }
    }

    /// Takes the choices, because the user sends a line. Returns the one whose number the line is.
    pub(super) fn choose(&mut self, line: &str) -> Option<OfferedChoice> {
        let number = line.trim().parse::<usize>().ok();
        let chosen = number.and_then(|number| number.checked_sub(1));
        std::mem::take(&mut self.choices).into_iter().nth(chosen?)
    }

    /// Returns the text to print for a reply and its choices.
    pub(super) fn reply(&mut self, reply: &Value) -> String {
        let choices = reply["choices"].as_array().map(Vec::as_slice).unwrap_or_default();
        let choices: Vec<OfferedChoice> = choices.iter().filter_map(OfferedChoice::read).collect();
        let text = words_of(reply["text"].as_str().unwrap_or_default(), &choices);
        self.words(reply, text) + &self.offer(choices)
    }

    /// Numbers the choices, and returns a line for each.
    fn offer(&mut self, choices: Vec<OfferedChoice>) -> String {
        if self.choices.len() + choices.len() > CHOICES_MAX {
            self.choices.clear();
        }
        let mut lines = String::new();
        for choice in choices {
            let number = self.choices.len() + 1;
            // Writing to a `String` cannot fail.
            let _ = writeln!(lines, "  {number}) {}", self.printable(&choice.title));
            self.choices.push(choice);
        }
        lines
    }

    fn words(&mut self, reply: &Value, text: &str) -> String {
        let grown = self.growing.as_ref().filter(|(id, _)| *id == reply["messageId"]);
        if let Some(rest) = grown.and_then(|(_, printed)| text.strip_prefix(&**printed)) {
            return self.printable(rest).into_owned() + self.end_line();
        }
        let mut line = [self.end_line(), &self.speaker].concat();
        for (applies, mark) in [
            (reply["agent"] == true, "[agent] "),
            (reply["correlation"] == "unsolicited", "[unsolicited] "),
            (reply["correlation"] == "history", "[from history] "),
            (reply["late"] == true, "[late] "),
        ] {
            line.push_str(if applies { mark } else { "" });
        }
        let text = if text.is_empty() { "(a reply without text)" } else { text };
        line + &self.printable(text) + "\n"
    }

    /// Returns the text to print for a chunk of a streamed reply.
    pub(super) fn chunk(&mut self, chunk: &Value) -> String {
        let (id, text) = (&chunk["messageId"], chunk["text"].as_str().unwrap_or_default());
        if !self.terminal {
            return String::new();
        }
        let (start, printed) = match self.growing.take_if(|(growing, _)| growing == id) {
            Some((_, printed)) => (String::new(), printed),
            None => ([self.end_line(), &self.speaker].concat(), String::new()),
        };
        self.growing = Some((id.clone(), printed + text));
        start + &self.printable(text)
    }

    fn end_line(&mut self) -> &'static str {
        if self.growing.take().is_some() { "\n" } else { "" }
    }

    /// Returns the text as a terminal may get it, and unchanged for a pipe.
    fn printable<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.terminal { masked(text) } else { text.into() }
    }
}

impl OfferedChoice {
    fn read(choice: &Value) -> Option<Self> {
        let member = |name: &str| choice[name].as_str().map(str::to_owned);
        Some(Self { title: member("title")?, payload: member("payload")? })
    }
}

/// Returns the text without the titles of the choices at its end, which the numbered lines repeat.
fn words_of<'t>(text: &'t str, choices: &[OfferedChoice]) -> &'t str {
    let mut words = text;
    for choice in choices.iter().rev() {
        let Some(before) = words.strip_suffix(&*choice.title).and_then(|before| before.strip_suffix('\n'))
        else {
            return text;
        };
        words = before;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Returns what is printed for replies, and for chunks, which have an index.
    fn printed(terminal: bool, events: &[Value]) -> String {
        let mut transcript = Transcript { speaker: "bot: ".to_owned(), ..Transcript::new(terminal) };
        let print = |event: &Value| match event["index"] {
            Value::Null => transcript.reply(event),
            _ => transcript.chunk(event),
        };
        events.iter().map(print).collect()
    }

    fn chunk(index: u32, text: &str) -> Value {
        json!({"messageId": "r", "index": index, "text": text})
    }

    fn reply(text: &str) -> Value {
        json!({"messageId": "r", "correlation": "window", "text": text})
    }

    #[test]
    fn reply_is_printed_with_its_marks() {
        let late = json!({"text": "", "late": true, "correlation": "history"});
        let agent = json!({"text": "x", "agent": true, "correlation": "unsolicited"});
        let lines = "bot: hi\nthere\nbot: [from history] [late] (a reply without text)\nbot: [agent] [unsolicited] x\n";
        assert_eq!(printed(false, &[reply("hi\nthere"), late, agent]), lines);
    }

    #[test]
    fn chunks_grow_on_a_terminal_and_not_in_a_pipe() {
        let streamed = [chunk(0, "one "), chunk(1, "two"), reply("one two three")];
        assert_eq!(printed(true, &streamed), "bot: one two three\n");
        assert_eq!(printed(false, &streamed), "bot: one two three\n");
        assert_eq!(printed(true, &streamed[..2]), "bot: one two");
        assert_eq!(printed(false, &streamed[..2]), "");
    }

    #[test]
    fn reply_is_printed_whole_if_chunks_are_missing() {
        let missing = [chunk(0, "one "), chunk(2, "three"), reply("one two three")];
        assert_eq!(printed(true, &missing), "bot: one three\nbot: one two three\n");
        let interrupted = [chunk(0, "one "), json!({"messageId": "s", "text": "hm"}), reply("one two")];
        assert_eq!(printed(true, &interrupted), "bot: one \nbot: hm\nbot: one two\n");
    }

    #[test]
    fn choices_are_numbered_and_taken_by_number() {
        let offer = |text: &str, titles: &[&str]| {
            let choice = |title: &&str| json!({"title": title, "payload": format!("pick {title}")});
            let choices: Vec<Value> = titles.iter().map(choice).collect();
            json!({"messageId": "r", "correlation": "window", "text": text, "choices": choices})
        };
        let (first, second) = (offer("Which?\nRed\nBlue", &["Red", "Blue"]), offer("a) Tea\r\n", &["Tea"]));
        let lines = "bot: Which?\n  1) Red\n  2) Blue\nbot: a) Tea\r\n\n  3) Tea\n";
        assert_eq!(printed(false, &[first.clone(), second.clone()]), lines);
        assert_eq!(printed(true, &[chunk(0, "Whi"), first.clone()]), "bot: Which?\n  1) Red\n  2) Blue\n");
        let mut transcript = Transcript::new(false);
        let mut chosen = |line: &str| {
            let _printed = transcript.reply(&first) + &transcript.reply(&second);
            transcript.choose(line).map(|choice| (choice.title, choice.payload))
        };
        let pick = |title: &str| Some((title.to_owned(), format!("pick {title}")));
        assert_eq!([chosen("1"), chosen(" 3 ")], [pick("Red"), pick("Tea")]);
        assert_eq!([chosen("0"), chosen("4"), chosen("Red"), chosen("1 please")], [None, None, None, None]);
        assert!(transcript.choose("1").is_none(), "a message takes the choices away");
    }

    #[test]
    fn control_characters_are_replaced_on_a_terminal() {
        let evil = "a\x1b[2Jb\u{9b}c\r\nd\re\u{202e}";
        assert_eq!(printed(true, &[reply(evil)]), "bot: a\u{fffd}[2Jb\u{fffd}c\nd\u{fffd}e\u{fffd}\n");
        assert_eq!(printed(false, &[reply("\x1b[2J")]), "bot: \x1b[2J\n");
        assert_eq!(printed(true, &[chunk(0, "\x1b"), reply("\x1b!")]), "bot: \u{fffd}!\n");
    }
}
