//! The printed conversation: replies go to standard output, notes about them to standard error.
//!
//! On a terminal a streamed reply grows with its chunks. It is printed again as a whole if chunks were missing, or if
//! another line came in between. A pipe gets whole replies only.

use std::borrow::Cow;
use std::io::{self, Write as _};

use clap::builder::styling::Style;
use serde_json::Value;

use crate::cli::{print, style_on};
use crate::telemetry::{masked, masked_line};

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
}

impl Transcript {
    pub(super) fn new(terminal: bool) -> Self {
        let style = style_on(&io::stdout(), Style::new().bold());
        let speaker = if terminal { format!("{style}bot:{style:#} ") } else { String::new() };
        Self { open: None, failures: 0, terminal, speaker, growing: None }
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

    /// Returns the text to print for a reply.
    pub(super) fn reply(&mut self, reply: &Value) -> String {
        let text = reply["text"].as_str().unwrap_or_default();
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
    fn control_characters_are_replaced_on_a_terminal() {
        let evil = "a\x1b[2Jb\u{9b}c\r\nd\re\u{202e}";
        assert_eq!(printed(true, &[reply(evil)]), "bot: a\u{fffd}[2Jb\u{fffd}c\nd\u{fffd}e\u{fffd}\n");
        assert_eq!(printed(false, &[reply("\x1b[2J")]), "bot: \x1b[2J\n");
        assert_eq!(printed(true, &[chunk(0, "\x1b"), reply("\x1b!")]), "bot: \u{fffd}!\n");
    }
}
