//! Streamed replies: the frames of one `messageId`, joined into one reply (protocol.md 7.4).

use crate::domain::{ReplyChunk, Timestamp};
use crate::rtm::{BotResponse, StreamInfo};

/// When and where a reply began. A reply that began before a message was sent does not answer it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReplyStart {
    pub(crate) at: Timestamp,
    pub(crate) context: ReplyContext,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReplyContext {
    Turn,
    /// On a fresh connection on which the bot may greet. The reply answers no message.
    Greeting,
    Silence,
}

impl ReplyStart {
    pub(crate) fn in_turn(self) -> bool {
        self.context == ReplyContext::Turn
    }
}

/// The streams of a conversation that have not ended.
#[derive(Debug, Default)]
pub(crate) struct OpenStreams(Vec<OpenStream>);

#[derive(Debug)]
struct OpenStream {
    response: Box<BotResponse>,
    text: String,
    pieces: u32,
    start: ReplyStart,
}

impl OpenStreams {
    /// The most open streams. A bot says one thing at a time, so the end of a further stream was lost.
    const CAPACITY: usize = 4;

    /// Takes a frame. A frame outside a stream, or the last one of a stream, completes a reply. `now` is the start of
    /// a stream that begins with this frame.
    pub(crate) fn join(&mut self, mut response: Box<BotResponse>, now: ReplyStart) -> StreamUpdate {
        let stream = response.stream.take();
        // Only an id joins a frame without the marks of a stream.
        let may_join = stream.is_some() || response.message_id.is_some();
        let at = self.0.iter().position(|open| open.response.message_id == response.message_id);
        let known = at.filter(|_| may_join).map(|at| self.0.swap_remove(at));
        let stream = match (stream, &known) {
            (Some(stream), _) => stream,
            (None, None) => return StreamUpdate::Complete { response, start: now, chunk: None },
            // A plain frame has the whole reply. It ends the stream, so that one id stays one reply.
            (None, Some(_)) => {
                let whole = std::mem::take(&mut response.text);
                StreamInfo { last: true, complete: Some(whole).filter(|whole| !whole.is_empty()) }
            }
        };
        response.is_blank &= known.as_ref().is_none_or(|open| open.response.is_blank);
        response.agent |= known.as_ref().is_some_and(|open| open.response.agent);
        let start = known.as_ref().map_or(now, |open| open.start);
        let index = known.as_ref().map_or(0, |open| open.pieces);
        // One frame of a reply tells its answered message.
        response.correlation_id =
            response.correlation_id.or(known.as_ref().and_then(|open| open.response.correlation_id));
        let mut text = known.map(|open| open.text).unwrap_or_default();
        // If the last frame repeats the whole text, its chunk is the rest.
        let rest = stream.complete.as_ref().and_then(|whole| whole.strip_prefix(text.as_str()));
        let chunk = ReplyChunk {
            message_id: response.message_id.clone(),
            index,
            text: rest.map_or_else(|| response.text.clone(), Into::into),
            last: stream.last,
        };
        text.push_str(&response.text);
        if stream.last {
            response.text = stream.complete.unwrap_or_else(|| text.into());
            return StreamUpdate::Complete { response, start, chunk: Some(chunk) };
        }
        let begins = start.in_turn() && !response.is_blank;
        let orphan = if self.0.len() == Self::CAPACITY { Some(self.0.remove(0).finish()) } else { None };
        self.0.push(OpenStream { response, text, pieces: index + 1, start });
        StreamUpdate::Partial { begins, orphan, chunk }
    }

    /// Returns the bytes of text in open streams of the open turn, or `None` without such a stream.
    pub(crate) fn in_turn(&self) -> Option<usize> {
        let mut streams = self.0.iter().filter(|open| open.start.in_turn()).peekable();
        streams.peek()?;
        Some(streams.map(|open| open.text.len()).sum())
    }

    /// Drops a stream that history told whole. Returns its start and its answered message.
    pub(crate) fn forget(&mut self, id: &str) -> Option<(ReplyStart, Option<u64>)> {
        let at = self.0.iter().position(|open| open.response.message_id.as_deref() == Some(id))?;
        let open = self.0.remove(at);
        Some((open.start, open.response.correlation_id))
    }

    /// Ends the streams of the turn, or all others, because their turn is over or their socket gone.
    pub(crate) fn cut(&mut self, in_turn: bool) -> impl Iterator<Item = (BotResponse, ReplyStart)> + use<> {
        let (cut, kept) =
            std::mem::take(&mut self.0).into_iter().partition(|open| open.start.in_turn() == in_turn);
        self.0 = kept;
        let cut: Vec<OpenStream> = cut;
        cut.into_iter().map(OpenStream::finish)
    }
}

impl OpenStream {
    fn finish(self) -> (BotResponse, ReplyStart) {
        let mut response = *self.response;
        response.text = self.text.into();
        (response, self.start)
    }
}

/// The result of a frame.
#[derive(Debug)]
pub(crate) enum StreamUpdate {
    Complete {
        response: Box<BotResponse>,
        start: ReplyStart,
        chunk: Option<ReplyChunk>,
    },
    /// A chunk of an unfinished reply. The oldest stream may be cut for it.
    Partial {
        /// Whether the reply to the open turn has begun. A blank chunk begins none.
        begins: bool,
        orphan: Option<(BotResponse, ReplyStart)>,
        chunk: ReplyChunk,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::value::RawValue;

    const IN_TURN: ReplyStart = ReplyStart { at: Timestamp::from_millis(1), context: ReplyContext::Turn };

    fn piece(id: &str, text: &str, last: bool, complete: Option<&str>) -> BotResponse {
        BotResponse {
            message_id: Some(id.into()),
            text: text.into(),
            is_blank: text.is_empty() && complete.is_none(),
            agent: false,
            created_on: None,
            stream: Some(StreamInfo { last, complete: complete.map(Into::into) }),
            more_follows: false,
            session_id: None,
            correlation_id: None,
            event: RawValue::from_string(format!("{{\"last\":{last}}}")).unwrap(),
        }
    }

    #[test]
    fn pieces_of_a_stream_are_joined_until_its_end() {
        let mut streams = OpenStreams::default();
        assert!(matches!(
            streams.join(Box::new(piece("a", "It ", false, None)), IN_TURN),
            StreamUpdate::Partial { orphan: None, .. }
        ));
        assert!(matches!(
            streams.join(Box::new(piece("b", "Other", false, None)), IN_TURN),
            StreamUpdate::Partial { orphan: None, .. }
        ));
        assert!(streams.in_turn().is_some());
        let StreamUpdate::Complete { response: whole, .. } =
            streams.join(Box::new(piece("a", "left.", true, None)), IN_TURN)
        else {
            panic!()
        };
        assert_eq!(&*whole.text, "It left.");
        assert_eq!(whole.event.get(), "{\"last\":true}");
        let StreamUpdate::Complete { response: whole, .. } =
            streams.join(Box::new(piece("b", "", true, Some("All of it"))), IN_TURN)
        else {
            panic!()
        };
        assert_eq!(&*whole.text, "All of it");
        assert_eq!(streams.in_turn(), None);
    }

    #[test]
    fn plain_frame_of_an_open_stream_ends_it() {
        let plain = |id: Option<&str>, text| BotResponse {
            message_id: id.map(Into::into),
            stream: None,
            ..piece("", text, true, None)
        };
        for (text, whole, rest) in
            [("It left.", "It left.", "left."), ("They left.", "They left.", ""), ("", "It ", "")]
        {
            let mut streams = OpenStreams::default();
            streams.join(Box::new(piece("a", "", false, None)), IN_TURN);
            streams.join(Box::new(piece("a", "It ", false, None)), IN_TURN);
            let StreamUpdate::Complete { response, chunk: Some(chunk), .. } =
                streams.join(Box::new(plain(Some("a"), text)), IN_TURN)
            else {
                panic!("{text}")
            };
            assert_eq!((&*response.text, response.is_blank), (whole, false));
            assert_eq!((chunk.index, &*chunk.text, chunk.last), (2, rest, true));
            assert_eq!(streams.in_turn(), None);
        }
        let mut streams = OpenStreams::default();
        streams.join(Box::new(BotResponse { message_id: None, ..piece("", "It ", false, None) }), IN_TURN);
        let other = streams.join(Box::new(plain(None, "Hi")), IN_TURN);
        assert!(matches!(other, StreamUpdate::Complete { chunk: None, .. }), "two frames without an id");
        assert!(streams.in_turn().is_some());
    }

    #[test]
    fn streams_without_an_end_are_cut() {
        let mut streams = OpenStreams::default();
        for id in ["a", "b", "c", "d"] {
            streams.join(Box::new(piece(id, id, false, None)), IN_TURN);
        }
        let StreamUpdate::Partial { orphan: Some((first, _)), .. } =
            streams.join(Box::new(piece("e", "e", false, None)), IN_TURN)
        else {
            panic!()
        };
        assert_eq!(&*first.text, "a");
        assert_eq!(streams.cut(true).count(), 4);
        assert_eq!(streams.in_turn(), None);
    }

    #[test]
    fn stream_belongs_to_the_place_of_its_start() {
        let mut streams = OpenStreams::default();
        let early = ReplyStart { at: Timestamp::from_millis(1), context: ReplyContext::Silence };
        streams.join(Box::new(piece("a", "Wel", false, None)), early);
        assert_eq!(streams.in_turn(), None);
        streams.join(Box::new(piece("b", "It", false, None)), IN_TURN);
        assert_eq!(streams.in_turn(), Some(2));
        let StreamUpdate::Complete { start, .. } =
            streams.join(Box::new(piece("a", "come", true, None)), IN_TURN)
        else {
            panic!()
        };
        assert_eq!(start, early);
        assert_eq!(streams.cut(false).count(), 0);
        assert_eq!(streams.cut(true).count(), 1);
    }

    #[test]
    fn chunks_of_a_stream_together_are_the_reply() {
        let mut streams = OpenStreams::default();
        let mut take = |text: &str, last, complete| match streams
            .join(Box::new(piece("a", text, last, complete)), IN_TURN)
        {
            StreamUpdate::Partial { chunk, .. } | StreamUpdate::Complete { chunk: Some(chunk), .. } => {
                (chunk.index, chunk.text.to_string(), chunk.last)
            }
            StreamUpdate::Complete { .. } => panic!("a stream without pieces"),
        };
        for (end, complete, text) in [
            ("left.", None, "left."),
            ("left.", Some("It left."), "left."),
            ("", Some("It left."), "left."),
            ("It left.", Some("It left."), "left."),
            ("", Some("They left."), ""),
            ("", None, ""),
        ] {
            assert_eq!(take("It ", false, None), (0, "It ".to_owned(), false));
            assert_eq!(take("", false, None), (1, String::new(), false));
            assert_eq!(take(end, true, complete), (2, text.to_owned(), true), "{end} {complete:?}");
        }
        assert_eq!(take("At once", true, None), (0, "At once".to_owned(), true));
    }

    #[test]
    fn echo_of_one_piece_counts_for_the_reply() {
        let mut streams = OpenStreams::default();
        let echoing = |text, last| BotResponse { correlation_id: Some(7), ..piece("a", text, last, None) };
        for pieces in [
            [echoing("It ", false), piece("a", "left.", true, None)],
            [piece("a", "It ", false, None), echoing("left.", true)],
        ] {
            let [first, last] = pieces.map(|piece| streams.join(Box::new(piece), IN_TURN));
            assert!(matches!(first, StreamUpdate::Partial { .. }));
            let StreamUpdate::Complete { response, .. } = last else { panic!("{last:?}") };
            assert_eq!(response.correlation_id, Some(7));
        }
    }
}
