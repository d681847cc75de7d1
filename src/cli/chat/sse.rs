//! Server-sent events as the WHATWG's HTML standard reads them, bytes in and events out.
//!
//! Where the bytes are cut makes no difference: lines are put together first, and decoded as a whole. It knows
//! nothing of connections; who reconnects begins a new one with the id of the last event.

use std::time::Duration;

use thiserror::Error;

/// The most bytes of one event. An entry of the journal holds a frame of the platform, which is far below that.
const EVENT_MAX: usize = 16 * 1024 * 1024;
/// What a stream may begin with.
const BOM: &[u8] = "\u{feff}".as_bytes();

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    /// Its type; `message` where the stream names none.
    pub(super) kind: String,
    /// Its data, lines joined by line feeds.
    pub(super) data: String,
    /// The last id that the stream gave, with this event or before; empty where it gave none.
    pub(super) id: String,
}

/// An event that does not end.
#[derive(Debug, Error)]
#[error("an event is longer than 16 MiB")]
pub(super) struct TooLong;

/// Reads a stream from its first byte on.
#[derive(Debug, Default)]
pub(super) struct Parser {
    line: Vec<u8>,
    /// The last byte was a carriage return: a line feed behind it belongs to it.
    returned: bool,
    /// The first line is over, and with it the place where a byte order mark may be.
    begun: bool,
    event: Event,
    /// The id of the last event that was over, with data or without.
    last_id: String,
    retry: Option<Duration>,
}

impl Parser {
    /// Takes the next bytes, and adds the events that they complete.
    pub(super) fn feed(&mut self, bytes: &[u8], events: &mut impl Extend<Event>) -> Result<(), TooLong> {
        for &byte in bytes {
            let after_return = std::mem::replace(&mut self.returned, byte == b'\r');
            match byte {
                b'\n' if after_return => {}
                b'\n' | b'\r' => events.extend(self.end_of_line()),
                _ if self.line.len() + self.event.data.len() >= EVENT_MAX => return Err(TooLong),
                _ => self.line.push(byte),
            }
        }
        Ok(())
    }

    /// Where the stream stands: the id of the last event, which may have come alone; empty where there was none. That
    /// of an event that was cut off does not count.
    pub(super) fn last_id(&self) -> &str {
        &self.last_id
    }

    /// How long to wait before a new connection, if the stream has said so.
    pub(super) fn retry(&self) -> Option<Duration> {
        self.retry
    }

    fn end_of_line(&mut self) -> Option<Event> {
        let line = std::mem::take(&mut self.line);
        let mut line = line.as_slice();
        if !std::mem::replace(&mut self.begun, true) {
            line = line.strip_prefix(BOM).unwrap_or(line);
        }
        if line.is_empty() {
            return self.end_of_event();
        }
        let line = String::from_utf8_lossy(line);
        let (name, value) = line.split_once(':').unwrap_or((&line, ""));
        self.field(name, value.strip_prefix(' ').unwrap_or(value));
        None
    }

    /// A comment is a field without a name; that and every other unknown one is ignored.
    fn field(&mut self, name: &str, value: &str) {
        match name {
            "event" => value.clone_into(&mut self.event.kind),
            "data" => {
                self.event.data.push_str(value);
                self.event.data.push('\n');
            }
            "id" if !value.contains('\0') => value.clone_into(&mut self.event.id),
            "retry" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.retry = value.parse().ok().map(Duration::from_millis);
            }
            _ => {}
        }
    }

    /// An event without data is none; only its id is kept.
    fn end_of_event(&mut self) -> Option<Event> {
        let Event { kind, data, id } = std::mem::take(&mut self.event);
        self.event.id.clone_from(&id);
        self.last_id.clone_from(&id);
        let data = data.strip_suffix('\n')?.to_owned();
        let kind = if kind.is_empty() { "message".to_owned() } else { kind };
        Some(Event { kind, data, id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Vec<Event> {
        let (mut parser, mut events) = (Parser::default(), Vec::new());
        for part in parts {
            parser.feed(part, &mut events).unwrap();
        }
        events
    }

    /// Another reading of the standard: the whole text at once, line by line.
    fn read(bytes: &[u8]) -> Vec<Event> {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text).replace("\r\n", "\n").replace('\r', "\n");
        let mut lines: Vec<&str> = text.split('\n').collect();
        // What no line end follows is not over.
        lines.pop();
        let (mut kind, mut data, mut id, mut events) = ("", Vec::new(), "", Vec::new());
        for line in lines {
            if line.is_empty() {
                if !data.is_empty() {
                    let kind = if kind.is_empty() { "message" } else { kind };
                    events.push(Event { kind: kind.into(), data: data.join("\n"), id: id.into() });
                }
                (kind, data) = ("", Vec::new());
                continue;
            }
            let at = line.find(':').unwrap_or(line.len());
            let value = line.get(at + 1..).unwrap_or_default();
            let value = value.strip_prefix(' ').unwrap_or(value);
            match &line[..at] {
                "event" => kind = value,
                "data" => data.push(value),
                "id" if !value.contains('\0') => id = value,
                _ => {}
            }
        }
        events
    }

    fn event(kind: &str, data: &str, id: &str) -> Event {
        Event { kind: kind.to_owned(), data: data.to_owned(), id: id.to_owned() }
    }

    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let pieces: [&[u8]; 20] = [
            b"data",
            b"event",
            b"id",
            b"retry",
            b":",
            b": ",
            b"\n",
            b"\r",
            b"\r\n",
            b"\n\n",
            b" ",
            b"x",
            b"12",
            b"\0",
            BOM,
            "é€𝄞".as_bytes(),
            b"\xe2\x82",
            b"\xff",
            b"data:",
            b"id:7\n",
        ];
        let piece = prop::sample::select(pieces.to_vec());
        prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn it_reads_what_the_standard_says(bytes in stream()) {
            prop_assert_eq!(parse([&bytes[..]]), read(&bytes));
        }

        #[test]
        fn where_it_is_cut_makes_no_difference(bytes in stream(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8)) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let parts = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]);
            prop_assert_eq!(parse(parts), parse([&bytes[..]]));
            prop_assert_eq!(parse(bytes.chunks(1)), parse([&bytes[..]]));
        }
    }

    #[test]
    fn the_examples_of_the_standard() {
        let one = parse([&b"data: YHOO\ndata: +2\ndata: 10\n\n"[..]]);
        assert_eq!(one, [event("message", "YHOO\n+2\n10", "")]);
        let four = parse([
            &b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n"[..],
        ]);
        assert_eq!(four, [event("message", "first event", "1"), event("message", "second event", "")]);
        assert_eq!(
            parse([&b"data\n\ndata\ndata\n\ndata:"[..]]),
            [event("message", "", ""), event("message", "\n", "")]
        );
        assert_eq!(
            parse([&b"data:test\n\ndata: test\n\n"[..]]),
            [event("message", "test", ""), event("message", "test", "")]
        );
    }

    #[test]
    fn an_id_stays_until_there_is_another() {
        let bytes = b"id: a\nevent: reply\ndata: 1\n\ndata: 2\n\nid: b\n\ndata: 3\n\n";
        let told: Vec<_> = parse([&bytes[..]]).into_iter().map(|event| (event.kind, event.id)).collect();
        let as_text: Vec<_> = told.iter().map(|(kind, id)| (kind.as_str(), id.as_str())).collect();
        assert_eq!(as_text, [("reply", "a"), ("message", "a"), ("message", "b")]);
    }

    #[test]
    fn an_id_counts_alone_and_not_before_its_event_is_over() {
        let mut parser = Parser::default();
        for (bytes, id) in
            [("data: 1\n\n", ""), ("id: a\n\n", "a"), ("id: b\ndata: 2\n", "a"), ("\n", "b"), (":\n\n", "b")]
        {
            parser.feed(bytes.as_bytes(), &mut Vec::new()).unwrap();
            assert_eq!(parser.last_id(), id, "{bytes:?}");
        }
    }

    #[test]
    fn a_wait_is_a_number_of_milliseconds() {
        let mut parser = Parser::default();
        parser.feed(b"retry: 250\nretry: soon\nretry:\nretry: -1\n", &mut Vec::new()).unwrap();
        assert_eq!(parser.retry(), Some(Duration::from_millis(250)));
    }

    #[test]
    fn an_event_without_end_is_an_error() {
        let (mut parser, mut events) = (Parser::default(), Vec::new());
        let line = [b"data:".as_slice(), &vec![b'x'; EVENT_MAX / 2 - 8], b"\n"].concat();
        parser.feed(&line, &mut events).unwrap();
        parser.feed(&line, &mut events).unwrap();
        assert!(parser.feed(b"data: and this is too much\n", &mut events).is_err());
        assert!(events.is_empty());
    }
}
