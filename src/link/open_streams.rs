//! Streamed replies: the frames of one `messageId`, joined into one reply (protocol.md 7.4).

use std::time::Duration;

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
    /// On a later link than that of the open turn's message, whose receipt is not proved. A proof joins the reply to the
    /// turn.
    Unproved,
    /// On a fresh connection on which the bot may greet. The reply answers no message.
    Greeting,
    Silence,
}

impl ReplyStart {
    pub(crate) fn in_turn(self) -> bool {
        self.context == ReplyContext::Turn
    }
}

/// A reply whose frames are joined.
#[derive(Debug)]
pub(crate) struct JoinedReply {
    pub(crate) response: BotResponse,
    pub(crate) start: ReplyStart,
    /// The platform's time of it, if that is plausible.
    pub(crate) said_at: Option<Timestamp>,
    /// Whether a part of its text is missing.
    pub(crate) partial: bool,
}

/// The streams of a conversation that have not ended, or whose whole text is awaited from history.
#[derive(Debug, Default)]
pub(crate) struct OpenStreams(Vec<OpenStream>);

#[derive(Debug)]
struct OpenStream {
    response: Box<BotResponse>,
    text: String,
    pieces: u32,
    start: ReplyStart,
    heard_at: Timestamp,
    /// Whether pieces may be missing, because there was no socket.
    holed: bool,
    /// Whether its last piece has come.
    ended: bool,
    /// Whether history is read for its whole text.
    sought: bool,
}

impl OpenStreams {
    /// The most open streams. A bot says one thing at a time, so the end of a further stream was lost.
    const CAPACITY: usize = 4;
    /// The most bytes of text in streams outside the turn. The turn has its own limit.
    const MAX_BYTES_OUTSIDE: usize = 4 * 1024 * 1024;
    /// The longest silence within a stream outside the turn. Its end was lost then.
    const MAX_SILENCE: Duration = Duration::from_mins(1);

    /// Takes a frame. A frame outside a stream, or the last one of a stream, completes a reply. `now` is the start of
    /// a stream that begins with this frame. `after_gap` says that its first pieces may be missed.
    pub(crate) fn join(
        &mut self,
        mut response: Box<BotResponse>,
        now: ReplyStart,
        after_gap: bool,
    ) -> StreamUpdate {
        let stream = response.stream.take();
        // Only an id joins a frame without the marks of a stream.
        let may_join = stream.is_some() || response.message_id.is_some();
        let at = self.0.iter().position(|open| open.response.message_id == response.message_id);
        let known = at.filter(|_| may_join).map(|at| self.0.swap_remove(at));
        let stream = match (stream, &known) {
            (Some(stream), _) => stream,
            (None, None) => {
                let reply = JoinedReply { response: *response, start: now, said_at: None, partial: false };
                return StreamUpdate::Complete { reply: Box::new(reply), chunk: None };
            }
            // A plain frame has the whole reply. It ends the stream, so that one id stays one reply.
            (None, Some(_)) => {
                let whole = std::mem::take(&mut response.text);
                StreamInfo { last: true, complete: Some(whole).filter(|whole| !whole.is_empty()) }
            }
        };
        response.is_blank &= known.as_ref().is_none_or(|open| open.response.is_blank);
        if let Some(open) = &known {
            take_if_empty(&mut response.choices, &open.response.choices);
            take_if_empty(&mut response.media, &open.response.media);
        }
        response.agent |= known.as_ref().is_some_and(|open| open.response.agent);
        let start = known.as_ref().map_or(now, |open| open.start);
        let index = known.as_ref().map_or(0, |open| open.pieces);
        let holed = known.as_ref().map_or(after_gap, |open| open.holed);
        let sought = known.as_ref().is_some_and(|open| open.sought);
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
        if stream.last && (stream.complete.is_some() || !holed) {
            response.text = stream.complete.unwrap_or_else(|| text.into());
            let reply = JoinedReply { response: *response, start, said_at: None, partial: false };
            return StreamUpdate::Complete { reply: Box::new(reply), chunk: Some(chunk) };
        }
        let begins = start.in_turn() && !response.is_blank;
        let oldest = if self.0.len() == Self::CAPACITY { Some(self.0.remove(0)) } else { None };
        let (pieces, heard_at, ended) = (index + 1, now.at, stream.last);
        self.0.push(OpenStream { response, text, pieces, start, heard_at, holed, ended, sought });
        let orphan = oldest.or_else(|| self.take_excess()).map(|open| Box::new(open.cut()));
        StreamUpdate::Partial { begins, orphan, chunk }
    }

    /// Takes out the newest stream if the streams outside the turn hold too much.
    fn take_excess(&mut self) -> Option<OpenStream> {
        let outside = self.0.iter().filter(|open| !open.start.in_turn());
        let bytes: usize = outside.map(|open| open.text.len()).sum();
        (bytes >= Self::MAX_BYTES_OUTSIDE).then(|| self.0.pop_if(|newest| !newest.start.in_turn())).flatten()
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

    pub(crate) fn contains(&self, id: &str) -> bool {
        self.0.iter().any(|open| open.response.message_id.as_deref() == Some(id))
    }

    /// Notes that the socket is gone. The next pieces may be missed.
    pub(crate) fn on_lost(&mut self) {
        for open in self.0.iter_mut().filter(|open| !open.ended) {
            open.holed = true;
        }
    }

    /// Decides where the unproved streams belong. Returns whether there was one.
    pub(crate) fn settle_unproved(&mut self, context: ReplyContext) -> bool {
        let mut any = false;
        for open in self.0.iter_mut().filter(|open| open.start.context == ReplyContext::Unproved) {
            open.start.context = context;
            any = true;
        }
        any
    }

    pub(crate) fn has_unproved(&self) -> bool {
        self.0.iter().any(|open| open.start.context == ReplyContext::Unproved)
    }

    /// Returns whether history is still to be read for the whole text of a stream.
    pub(crate) fn wants_whole(&self) -> bool {
        self.0.iter().any(|open| open.ended && !open.sought)
    }

    /// Returns whether the end of a stream was heard and its whole text is not known yet.
    pub(crate) fn has_ended(&self) -> bool {
        self.0.iter().any(|open| open.ended)
    }

    /// Notes that history is read for the whole text of the streams.
    pub(crate) fn on_sought(&mut self) {
        for open in self.0.iter_mut().filter(|open| open.ended) {
            open.sought = true;
        }
    }

    /// Returns when a stream outside the turn has been silent for too long.
    pub(crate) fn silent_at(&self) -> Option<Timestamp> {
        let outside = self.0.iter().filter(|open| !open.start.in_turn());
        outside.map(|open| open.heard_at + Self::MAX_SILENCE).min()
    }

    /// Ends the streams of the turn, or all others, because their turn is over or their socket gone.
    pub(crate) fn cut(&mut self, in_turn: bool) -> Vec<JoinedReply> {
        self.cut_if(|open| open.start.in_turn() == in_turn)
    }

    /// Ends the streams outside the turn that have been silent for too long.
    pub(crate) fn cut_silent(&mut self, now: Timestamp) -> Vec<JoinedReply> {
        self.cut_if(|open| !open.start.in_turn() && now >= open.heard_at + Self::MAX_SILENCE)
    }

    /// Ends the streams whose last piece has come and whose whole text is not awaited any more.
    pub(crate) fn cut_ended(&mut self) -> Vec<JoinedReply> {
        self.cut_if(|open| open.ended)
    }

    fn cut_if(&mut self, is_cut: impl Fn(&OpenStream) -> bool) -> Vec<JoinedReply> {
        self.0.extract_if(.., |open| is_cut(open)).map(OpenStream::cut).collect()
    }
}

impl OpenStream {
    fn cut(self) -> JoinedReply {
        let mut response = *self.response;
        response.text = self.text.into();
        JoinedReply { response, start: self.start, said_at: None, partial: true }
    }
}

/// Keeps the list of an earlier frame if the new one has none.
fn take_if_empty<T: Clone>(new: &mut Box<[T]>, known: &[T]) {
    if new.is_empty() && !known.is_empty() {
        *new = known.into();
    }
}

/// The result of a frame.
#[derive(Debug)]
pub(crate) enum StreamUpdate {
    Complete {
        reply: Box<JoinedReply>,
        chunk: Option<ReplyChunk>,
    },
    /// A chunk of an unfinished reply. Another stream, or this one, may be cut for it.
    Partial {
        /// Whether the reply to the open turn has begun. A blank chunk begins none.
        begins: bool,
        orphan: Option<Box<JoinedReply>>,
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
            choices: Box::default(),
            media: Box::default(),
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
            streams.join(Box::new(piece("a", "It ", false, None)), IN_TURN, false),
            StreamUpdate::Partial { orphan: None, .. }
        ));
        assert!(matches!(
            streams.join(Box::new(piece("b", "Other", false, None)), IN_TURN, false),
            StreamUpdate::Partial { orphan: None, .. }
        ));
        assert!(streams.in_turn().is_some());
        let StreamUpdate::Complete { reply: whole, .. } =
            streams.join(Box::new(piece("a", "left.", true, None)), IN_TURN, false)
        else {
            panic!()
        };
        assert_eq!(&*whole.response.text, "It left.");
        assert_eq!(whole.response.event.get(), "{\"last\":true}");
        let StreamUpdate::Complete { reply: whole, .. } =
            streams.join(Box::new(piece("b", "", true, Some("All of it"))), IN_TURN, false)
        else {
            panic!()
        };
        assert_eq!(&*whole.response.text, "All of it");
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
            streams.join(Box::new(piece("a", "", false, None)), IN_TURN, false);
            streams.join(Box::new(piece("a", "It ", false, None)), IN_TURN, false);
            let StreamUpdate::Complete { reply, chunk: Some(chunk), .. } =
                streams.join(Box::new(plain(Some("a"), text)), IN_TURN, false)
            else {
                panic!("{text}")
            };
            assert_eq!((&*reply.response.text, reply.response.is_blank), (whole, false));
            assert_eq!((chunk.index, &*chunk.text, chunk.last), (2, rest, true));
            assert_eq!(streams.in_turn(), None);
        }
        let mut streams = OpenStreams::default();
        streams.join(
            Box::new(BotResponse { message_id: None, ..piece("", "It ", false, None) }),
            IN_TURN,
            false,
        );
        let other = streams.join(Box::new(plain(None, "Hi")), IN_TURN, false);
        assert!(matches!(other, StreamUpdate::Complete { chunk: None, .. }), "two frames without an id");
        assert!(streams.in_turn().is_some());
    }

    #[test]
    fn streams_without_an_end_are_cut() {
        let mut streams = OpenStreams::default();
        for id in ["a", "b", "c", "d"] {
            streams.join(Box::new(piece(id, id, false, None)), IN_TURN, false);
        }
        let StreamUpdate::Partial { orphan: Some(first), .. } =
            streams.join(Box::new(piece("e", "e", false, None)), IN_TURN, false)
        else {
            panic!()
        };
        assert_eq!(&*first.response.text, "a");
        assert_eq!(streams.cut(true).len(), 4);
        assert_eq!(streams.in_turn(), None);
    }

    #[test]
    fn stream_belongs_to_the_place_of_its_start() {
        let mut streams = OpenStreams::default();
        let early = ReplyStart { at: Timestamp::from_millis(1), context: ReplyContext::Silence };
        streams.join(Box::new(piece("a", "Wel", false, None)), early, false);
        assert_eq!(streams.in_turn(), None);
        streams.join(Box::new(piece("b", "It", false, None)), IN_TURN, false);
        assert_eq!(streams.in_turn(), Some(2));
        let StreamUpdate::Complete { reply, .. } =
            streams.join(Box::new(piece("a", "come", true, None)), IN_TURN, false)
        else {
            panic!()
        };
        assert_eq!(reply.start, early);
        assert_eq!(streams.cut(false).len(), 0);
        assert_eq!(streams.cut(true).len(), 1);
    }

    #[test]
    fn chunks_of_a_stream_together_are_the_reply() {
        let mut streams = OpenStreams::default();
        let mut take = |text: &str, last, complete| match streams.join(
            Box::new(piece("a", text, last, complete)),
            IN_TURN,
            false,
        ) {
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
            let [first, last] = pieces.map(|piece| streams.join(Box::new(piece), IN_TURN, false));
            assert!(matches!(first, StreamUpdate::Partial { .. }));
            let StreamUpdate::Complete { reply, .. } = last else { panic!("{last:?}") };
            assert_eq!(reply.response.correlation_id, Some(7));
        }
    }
}
