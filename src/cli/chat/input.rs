//! The lines that are typed, piped in, or given as arguments.
//!
//! They are read on a thread of their own: a terminal is read by a call that blocks, and that nothing ends but the
//! end of the process.

use std::io::{self, BufRead, Read as _};
use std::iter;

use tokio::sync::mpsc;

use crate::runtime;

/// The longest line that a bridge takes as a message, in bytes.
const LINE_MAX: usize = 64 * 1024;

/// What came.
#[derive(Debug)]
pub(super) enum Line {
    /// Something to say.
    Text(String),
    /// Something that cannot be said, and why.
    Unsendable(&'static str),
    /// Nothing more can be read.
    Broken(io::Error),
}

/// Reads these texts, or standard input where there are none, to the end, never further ahead than one line.
///
/// # Errors
/// The system has no thread for it.
pub(super) fn lines(texts: Vec<String>) -> io::Result<mpsc::Receiver<Line>> {
    let (sender, lines) = mpsc::channel(1);
    runtime::spawn_named("lines", move || {
        if texts.is_empty() {
            let mut input = io::stdin().lock();
            pass(iter::from_fn(|| next(&mut input)), &sender);
        } else {
            pass(texts.into_iter().map(given), &sender);
        }
    })?;
    Ok(lines)
}

fn pass(lines: impl Iterator<Item = Line>, sender: &mpsc::Sender<Line>) {
    for line in lines {
        let last = matches!(line, Line::Broken(_));
        if sender.blocking_send(line).is_err() || last {
            return;
        }
    }
}

/// An argument, which is one message whatever lines it has.
fn given(text: String) -> Line {
    if text.len() > LINE_MAX {
        return Line::Unsendable("a text is 64 KiB long at most");
    }
    Line::Text(text)
}

/// The next line that is not blank.
fn next(input: &mut impl BufRead) -> Option<Line> {
    loop {
        let mut bytes = Vec::new();
        // The longest with its end, which has two bytes at most.
        if let Err(error) = input.take(LINE_MAX as u64 + 2).read_until(b'\n', &mut bytes) {
            return Some(Line::Broken(error));
        }
        if bytes.is_empty() {
            return None;
        }
        if bytes.pop_if(|byte| *byte == b'\n').is_some() {
            bytes.pop_if(|byte| *byte == b'\r');
        } else if bytes.len() > LINE_MAX
            && let Err(error) = input.skip_until(b'\n')
        {
            return Some(Line::Broken(error));
        }
        if bytes.len() > LINE_MAX {
            return Some(Line::Unsendable("a line is 64 KiB long at most"));
        }
        match String::from_utf8(bytes) {
            Ok(text) if text.trim().is_empty() => {}
            Ok(text) => return Some(Line::Text(text)),
            Err(_) => return Some(Line::Unsendable("the line is not UTF-8")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mut bytes: &[u8]) -> Vec<String> {
        let line = |line| match line {
            Line::Text(text) => text,
            Line::Unsendable(why) => format!("! {why}"),
            Line::Broken(error) => panic!("{error}"),
        };
        iter::from_fn(|| next(&mut bytes)).map(line).collect()
    }

    #[test]
    fn lines_are_taken_as_they_are() {
        assert_eq!(read(b"hi\n\n  \n two \r\nlast"), ["hi", " two ", "last"]);
        assert_eq!(read(b""), [""; 0]);
        assert_eq!(read(b"\xff\nhi\n"), ["! the line is not UTF-8", "hi"]);
    }

    #[test]
    fn an_argument_is_one_message() {
        assert!(matches!(given("one\ntwo".to_owned()), Line::Text(text) if text == "one\ntwo"));
        assert!(matches!(given("x".repeat(LINE_MAX)), Line::Text(_)));
        assert!(matches!(given("x".repeat(LINE_MAX + 1)), Line::Unsendable(_)));
    }

    #[test]
    fn a_line_that_is_too_long_is_none_and_not_two() {
        let longest = "x".repeat(LINE_MAX);
        assert_eq!(read(format!("{longest}\nhi\n").as_bytes()), [&longest, "hi"]);
        assert_eq!(read(longest.as_bytes()), [&*longest]);
        assert_eq!(read(format!("{longest}\r\nhi\n").as_bytes()), [&longest, "hi"]);
        for more in [1, 2, 3, LINE_MAX, 3 * LINE_MAX] {
            let long = "x".repeat(LINE_MAX + more);
            let why = "! a line is 64 KiB long at most";
            assert_eq!(read(format!("{long}\nhi\n").as_bytes()), [why, "hi"], "{more}");
            assert_eq!(read(long.as_bytes()), [why], "{more}");
        }
    }
}
