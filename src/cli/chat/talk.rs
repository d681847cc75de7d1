//! A conversation as people see it: what happened goes in, what is printed comes out, and it knows which messages
//! are still open. No I/O.
//!
//! Replies go to standard output, everything about them to standard error. On a terminal a streamed reply grows while
//! it is said, until something else is printed in between; then, and where there is no terminal, it comes as a whole.

use std::borrow::Cow;
use std::collections::HashSet;

use super::told::{Chunk, Message, Problem, Reply, Status, Told};

/// What is to be printed: first the one, then the other.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Printed {
    /// On standard output.
    pub(super) out: String,
    /// On standard error; a whole line without its end, or nothing.
    pub(super) note: String,
}

/// A conversation.
#[derive(Debug, Default)]
pub(super) struct Talk {
    /// Whether standard output is a terminal.
    terminal: bool,
    open: HashSet<String>,
    failed: usize,
    growing: Option<Growing>,
}

/// A reply of which a part has been printed, at the end of an unfinished line.
#[derive(Debug)]
struct Growing {
    message_id: Option<String>,
    /// The index of the piece that comes next.
    next: u32,
    text: String,
}

impl Talk {
    pub(super) fn new(terminal: bool) -> Self {
        Self { terminal, ..Self::default() }
    }

    /// How many messages have not ended.
    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    /// The ids of those.
    pub(super) fn ids(&self) -> Vec<String> {
        self.open.iter().cloned().collect()
    }

    /// How many messages failed.
    pub(super) fn failed(&self) -> usize {
        self.failed
    }

    /// The bridge took a message.
    pub(super) fn accepted(&mut self, id: String) {
        self.open.insert(id);
    }

    /// A message did not get into the bridge.
    pub(super) fn unsent(&mut self, why: &str) -> Printed {
        self.failed += 1;
        self.note(&format!("not sent: {why}"))
    }

    /// Something that is neither the bot's nor the user's.
    pub(super) fn note(&mut self, text: &str) -> Printed {
        let note = format!("({})", self.shown(text));
        Printed { out: self.end_growth(), note }
    }

    /// The bridge told something.
    pub(super) fn hear(&mut self, told: Told) -> Printed {
        match told {
            Told::Reply(reply) => self.reply(&reply),
            Told::Chunk(chunk) => self.chunk(chunk),
            Told::Ended(message) => self.ended(&message),
            Told::Elsewhere(text) => self.note(&format!("you said elsewhere: {text}")),
            Told::Platform(kind) => match kind.as_str() {
                "agent_session_start" => self.note("a person takes over"),
                "agent_session_end" => self.note("the bot is back"),
                "session_end" => self.note("the session ended"),
                _ => Printed::default(),
            },
            Told::Gap => {
                self.note("something may be missing here: the bridge could not keep or repair all of it")
            }
            Told::Unknown => Printed::default(),
        }
    }

    /// The end of one of our messages; those of others are not our business.
    pub(super) fn ended(&mut self, message: &Message) -> Printed {
        if message.status == Status::Running || !self.open.remove(&message.id) {
            return Printed::default();
        }
        let by = message.ended_by.as_deref().unwrap_or("unknown");
        match (&message.error, message.complete) {
            (Some(problem), _) => {
                self.failed += 1;
                self.note(&format!("failed: {problem}"))
            }
            (None, _) if message.status == Status::Failed => {
                self.failed += 1;
                self.note("failed, and the bridge did not say why")
            }
            (None, Some(false)) => {
                self.note(&format!("there may be more to it: the turn was cut by its {by}"))
            }
            (None, _) if message.replies.is_empty() => {
                self.note(&format!("no reply, the turn ended by {by}"))
            }
            (None, _) => Printed::default(),
        }
    }

    fn reply(&mut self, reply: &Reply) -> Printed {
        let marks = marks(reply);
        let grown = self.growing.as_ref().filter(|grown| grown.message_id == reply.message_id);
        if let Some(rest) = grown.and_then(|grown| reply.text.strip_prefix(&grown.text)) {
            self.growing = None;
            let marks = if marks.is_empty() { String::new() } else { format!(" [{}]", marks.join(", ")) };
            return said(format!("{}{marks}\n", self.shown(rest)));
        }
        let before = self.end_growth();
        let who = match (self.terminal, reply.agent) {
            (false, _) => "",
            (true, false) => "bot: ",
            (true, true) => "agent: ",
        };
        let marks = if marks.is_empty() { String::new() } else { format!("[{}] ", marks.join(", ")) };
        let text =
            if reply.text.is_empty() { "(a reply without text)".into() } else { self.shown(&reply.text) };
        said(format!("{before}{who}{marks}{text}\n"))
    }

    fn chunk(&mut self, chunk: Chunk) -> Printed {
        if !self.terminal {
            return Printed::default();
        }
        let text = self.shown(&chunk.text).into_owned();
        match &mut self.growing {
            Some(grown) if grown.message_id == chunk.message_id && grown.next == chunk.index => {
                grown.next += 1;
                grown.text.push_str(&chunk.text);
                said(text)
            }
            // Nothing has been printed since its beginning, so it can be shown from there.
            None if chunk.index == 0 => {
                let Chunk { message_id, text: grown, .. } = chunk;
                self.growing = Some(Growing { message_id, next: 1, text: grown });
                said(format!("bot: {text}"))
            }
            // A piece is missing, or another reply grows: the whole will come.
            _ => Printed::default(),
        }
    }

    /// Ends the line that has been growing. What follows of it comes with the whole.
    fn end_growth(&mut self) -> String {
        if self.growing.take().is_some() { "\n".to_owned() } else { String::new() }
    }

    /// A text of others as it may be printed: on a terminal nothing but text, for control characters steer it.
    fn shown<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let steers = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
        if self.terminal && text.contains(steers) {
            text.replace("\r\n", "\n").replace(steers, "\u{fffd}").into()
        } else {
            text.into()
        }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.title.as_str(), self.detail.as_str()) {
            ("", "") => f.write_str("no reason was given"),
            (words, "") | ("", words) => f.write_str(words),
            (title, detail) => write!(f, "{title}: {detail}"),
        }
    }
}

fn said(out: String) -> Printed {
    Printed { out, note: String::new() }
}

/// What one should know of a reply.
fn marks(reply: &Reply) -> Vec<&'static str> {
    let mut marks = Vec::new();
    if reply.agent {
        marks.push("agent");
    }
    match reply.correlation.as_str() {
        "unsolicited" => marks.push("unasked"),
        "history" => marks.push("found later"),
        _ => {}
    }
    if reply.late {
        marks.push("late");
    }
    marks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(text: &str) -> Reply {
        Reply { text: text.to_owned(), correlation: "window".to_owned(), ..Reply::default() }
    }

    fn chunk(index: u32, text: &str) -> Told {
        Told::Chunk(Chunk { message_id: Some("m".to_owned()), index, text: text.to_owned() })
    }

    fn streamed(text: &str) -> Told {
        Told::Reply(Reply { message_id: Some("m".to_owned()), ..reply(text) })
    }

    fn message(id: &str, status: Status) -> Message {
        Message {
            id: id.to_owned(),
            status,
            complete: Some(true),
            ended_by: Some("quiet".to_owned()),
            replies: vec![serde::de::IgnoredAny],
            error: None,
        }
    }

    /// All that is printed, notes between brackets of their own.
    fn printed(talk: &mut Talk, all: impl IntoIterator<Item = Told>) -> String {
        let one = |told| {
            let Printed { out, note } = talk.hear(told);
            if note.is_empty() { out } else { format!("{out}<{note}>") }
        };
        all.into_iter().map(one).collect()
    }

    #[test]
    fn replies_carry_what_one_should_know_of_them() {
        let (mut pipe, mut terminal) = (Talk::new(false), Talk::new(true));
        for (reply, piped, shown) in [
            (reply("hi\nthere"), "hi\nthere\n", "bot: hi\nthere\n"),
            (reply(""), "(a reply without text)\n", "bot: (a reply without text)\n"),
            (Reply { late: true, ..reply("x") }, "[late] x\n", "bot: [late] x\n"),
            (
                Reply { agent: true, correlation: "unsolicited".to_owned(), ..reply("x") },
                "[agent, unasked] x\n",
                "agent: [agent, unasked] x\n",
            ),
            (
                Reply { correlation: "history".to_owned(), ..reply("x") },
                "[found later] x\n",
                "bot: [found later] x\n",
            ),
        ] {
            let Printed { out, note } = pipe.reply(&reply);
            assert_eq!((out.as_str(), note.as_str()), (piped, ""));
            assert_eq!(terminal.reply(&reply).out, shown);
        }
    }

    #[test]
    fn a_streamed_reply_grows_on_a_terminal_and_is_whole_in_a_pipe() {
        let all = || [chunk(0, "one "), chunk(1, "two "), chunk(2, "three"), streamed("one two three")];
        assert_eq!(printed(&mut Talk::new(true), all()), "bot: one two three\n");
        assert_eq!(printed(&mut Talk::new(false), all()), "one two three\n");
    }

    #[test]
    fn a_streamed_reply_that_was_not_seen_whole_is_printed_whole() {
        let mut talk = Talk::new(true);
        let lost = [chunk(0, "one "), chunk(2, "three"), streamed("one two three")];
        assert_eq!(printed(&mut talk, lost), "bot: one two three\n");
        let joined = [chunk(1, "two "), chunk(2, "three"), streamed("one two three")];
        assert_eq!(printed(&mut talk, joined), "bot: one two three\n");
        let other = [chunk(0, "one "), streamed("something else")];
        assert_eq!(printed(&mut talk, other), "bot: one \nbot: something else\n");
        let between = [chunk(0, "one "), Told::Reply(reply("hm")), chunk(1, "two"), streamed("one two")];
        assert_eq!(printed(&mut talk, between), "bot: one \nbot: hm\nbot: one two\n");
        let noted = [chunk(0, "one "), Told::Gap, chunk(1, "two"), streamed("one two")];
        let text = printed(&mut talk, noted);
        assert!(
            text.starts_with("bot: one \n<(something may be") && text.ends_with("bot: one two\n"),
            "{text}"
        );
    }

    #[test]
    fn messages_are_open_until_they_end() {
        let mut talk = Talk::new(false);
        talk.accepted("a".to_owned());
        talk.accepted("b".to_owned());
        let ends =
            [message("a", Status::Running), message("other", Status::Failed), message("a", Status::Answered)];
        assert_eq!(printed(&mut talk, ends.map(Told::Ended)), "");
        assert_eq!((talk.ids(), talk.failed()), (vec!["b".to_owned()], 0));
        let problem = Problem { title: "No reply".to_owned(), detail: "The bot was silent.".to_owned() };
        let failed = Message { error: Some(problem), ..message("b", Status::Failed) };
        assert_eq!(talk.ended(&failed).note, "(failed: No reply: The bot was silent.)");
        assert_eq!((talk.open(), talk.failed()), (0, 1));
        assert_eq!(talk.unsent("it is too long").note, "(not sent: it is too long)");
        assert_eq!(talk.failed(), 2);
    }

    #[test]
    fn an_end_that_is_less_than_it_seems_is_said() {
        let mut talk = Talk::new(false);
        for id in ["a", "b", "c"] {
            talk.accepted(id.to_owned());
        }
        let cut = Message { complete: Some(false), ..message("a", Status::Answered) };
        assert!(talk.ended(&cut).note.contains("cut by its quiet"));
        let empty = Message { replies: Vec::new(), ..message("b", Status::Answered) };
        assert!(talk.ended(&empty).note.contains("no reply"));
        assert_eq!(talk.failed(), 0);
        assert!(talk.ended(&message("c", Status::Failed)).note.contains("did not say why"));
        assert_eq!(talk.failed(), 1);
    }

    #[test]
    fn nobody_else_steers_the_terminal() {
        let evil = "a\x1b[2Jb\u{9b}c\r\nd\re";
        assert_eq!(Talk::new(true).reply(&reply(evil)).out, "bot: a\u{fffd}[2Jb\u{fffd}c\nd\u{fffd}e\n");
        assert_eq!(Talk::new(false).reply(&reply(evil)).out, format!("{evil}\n"));
        let mut talk = Talk::new(true);
        assert_eq!(printed(&mut talk, [chunk(0, "\x1b[2J"), streamed("\x1b[2J!")]), "bot: \u{fffd}[2J!\n");
        assert!(!talk.note("\x1b]0;x\x07").note.contains('\x1b'));
    }
}
