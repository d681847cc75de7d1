//! Streamed replies: frames of one `messageId` joined into one Reply (protocol.md 7.4).

use crate::domain::{ReplyChunk, Timestamp};
use crate::rtm::BotResponse;

/// When and where a reply began: what was being said before a message went out is no answer to it, whenever it
/// ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Begun {
    pub(crate) at: Timestamp,
    pub(crate) place: Place,
}

/// Where a reply begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The open turn.
    Turn,
    /// A fresh connection on which the bot may greet: it answers nothing.
    Greeting,
    /// Neither.
    Silence,
}

impl Begun {
    pub(crate) fn in_turn(self) -> bool {
        self.place == Place::Turn
    }
}

/// The streams of a conversation that have not ended.
#[derive(Debug, Default)]
pub(crate) struct Streams(Vec<Open>);

#[derive(Debug)]
struct Open {
    response: Box<BotResponse>,
    text: String,
    /// Its pieces so far.
    pieces: u32,
    begun: Begun,
}

impl Streams {
    /// A bot says one thing at a time; more open streams than this are streams whose end was lost.
    const KEPT: usize = 4;

    /// Takes a frame. A frame that is no stream, or ends one, comes back whole. `now` says where a stream stands
    /// that this frame begins.
    pub(crate) fn join(&mut self, mut response: Box<BotResponse>, now: Begun) -> Joined {
        let Some(stream) = response.stream.take() else {
            return Joined::Whole { response, begun: now, chunk: None };
        };
        let at = self.0.iter().position(|open| open.response.message_id == response.message_id);
        let known = at.map(|at| self.0.swap_remove(at));
        let begun = known.as_ref().map_or(now, |open| open.begun);
        let index = known.as_ref().map_or(0, |open| open.pieces);
        // One frame of a reply is enough to say what the reply answers.
        response.correlation_id =
            response.correlation_id.or(known.as_ref().and_then(|open| open.response.correlation_id));
        let mut text = known.map(|open| open.text).unwrap_or_default();
        // Where the last frame repeats the whole, its piece is what the pieces before it did not tell.
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
            return Joined::Whole { response, begun, chunk: Some(chunk) };
        }
        let orphan = if self.0.len() == Self::KEPT { Some(self.0.remove(0).finish()) } else { None };
        self.0.push(Open { response, text, pieces: index + 1, begun });
        Joined::Growing { in_turn: begun.in_turn(), orphan, chunk }
    }

    /// Bytes of text of the open turn that wait for their end; none where it has no open stream.
    pub(crate) fn in_turn(&self) -> Option<usize> {
        let mut streams = self.0.iter().filter(|open| open.begun.in_turn()).peekable();
        streams.peek()?;
        Some(streams.map(|open| open.text.len()).sum())
    }

    /// Drops one, because history told it whole, and says where it began and what it echoed.
    pub(crate) fn forget(&mut self, id: &str) -> Option<(Begun, Option<u64>)> {
        let at = self.0.iter().position(|open| open.response.message_id.as_deref() == Some(id))?;
        let open = self.0.remove(at);
        Some((open.begun, open.response.correlation_id))
    }

    /// Ends those of the turn, or all others, where they are: their turn is over, or their socket gone.
    pub(crate) fn cut(&mut self, in_turn: bool) -> impl Iterator<Item = (BotResponse, Begun)> + use<> {
        let (cut, kept) =
            std::mem::take(&mut self.0).into_iter().partition(|open| open.begun.in_turn() == in_turn);
        self.0 = kept;
        let cut: Vec<Open> = cut;
        cut.into_iter().map(Open::finish)
    }
}

impl Open {
    fn finish(self) -> (BotResponse, Begun) {
        let mut response = *self.response;
        response.text = self.text.into();
        (response, self.begun)
    }
}

/// What became of a frame.
#[derive(Debug)]
pub(crate) enum Joined {
    /// A whole reply.
    Whole {
        /// The reply.
        response: Box<BotResponse>,
        /// When and where it began.
        begun: Begun,
        /// Its last piece, where it came in pieces.
        chunk: Option<ReplyChunk>,
    },
    /// A piece; the reply is not finished. The oldest stream may have been given up for it.
    Growing {
        /// Whether it began in the open turn.
        in_turn: bool,
        /// The stream that was given up, as far as it came.
        orphan: Option<(BotResponse, Begun)>,
        /// The piece.
        chunk: ReplyChunk,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtm::StreamInfo;
    use serde_json::value::RawValue;

    const IN_TURN: Begun = Begun { at: Timestamp::from_millis(1), place: Place::Turn };

    fn piece(id: &str, text: &str, last: bool, complete: Option<&str>) -> BotResponse {
        BotResponse {
            message_id: Some(id.into()),
            text: text.into(),
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
    fn pieces_are_joined_until_the_end() {
        let mut streams = Streams::default();
        assert!(matches!(
            streams.join(Box::new(piece("a", "It ", false, None)), IN_TURN),
            Joined::Growing { orphan: None, .. }
        ));
        assert!(matches!(
            streams.join(Box::new(piece("b", "Other", false, None)), IN_TURN),
            Joined::Growing { orphan: None, .. }
        ));
        assert!(streams.in_turn().is_some());
        let Joined::Whole { response: whole, .. } =
            streams.join(Box::new(piece("a", "left.", true, None)), IN_TURN)
        else {
            panic!()
        };
        assert_eq!(&*whole.text, "It left.");
        assert_eq!(whole.event.get(), "{\"last\":true}");
        let Joined::Whole { response: whole, .. } =
            streams.join(Box::new(piece("b", "", true, Some("All of it"))), IN_TURN)
        else {
            panic!()
        };
        assert_eq!(&*whole.text, "All of it");
        assert_eq!(streams.in_turn(), None);
    }

    #[test]
    fn what_never_ends_is_cut() {
        let mut streams = Streams::default();
        for id in ["a", "b", "c", "d"] {
            streams.join(Box::new(piece(id, id, false, None)), IN_TURN);
        }
        let Joined::Growing { orphan: Some((first, _)), .. } =
            streams.join(Box::new(piece("e", "e", false, None)), IN_TURN)
        else {
            panic!()
        };
        assert_eq!(&*first.text, "a");
        assert_eq!(streams.cut(true).count(), 4);
        assert_eq!(streams.in_turn(), None);
    }

    #[test]
    fn a_stream_stays_where_it_began() {
        let mut streams = Streams::default();
        let early = Begun { at: Timestamp::from_millis(1), place: Place::Silence };
        streams.join(Box::new(piece("a", "Wel", false, None)), early);
        assert_eq!(streams.in_turn(), None);
        streams.join(Box::new(piece("b", "It", false, None)), IN_TURN);
        assert_eq!(streams.in_turn(), Some(2));
        let Joined::Whole { begun, .. } = streams.join(Box::new(piece("a", "come", true, None)), IN_TURN)
        else {
            panic!()
        };
        assert_eq!(begun, early);
        assert_eq!(streams.cut(false).count(), 0);
        assert_eq!(streams.cut(true).count(), 1);
    }

    #[test]
    fn pieces_are_counted_and_together_they_are_the_reply() {
        let mut streams = Streams::default();
        let mut take = |text: &str, last, complete| match streams
            .join(Box::new(piece("a", text, last, complete)), IN_TURN)
        {
            Joined::Growing { chunk, .. } | Joined::Whole { chunk: Some(chunk), .. } => {
                (chunk.index, chunk.text.to_string(), chunk.last)
            }
            Joined::Whole { .. } => panic!("a stream without pieces"),
        };
        for (end, complete, told) in [
            ("left.", None, "left."),
            ("left.", Some("It left."), "left."),
            ("", Some("It left."), "left."),
            ("It left.", Some("It left."), "left."),
            ("", Some("They left."), ""),
            ("", None, ""),
        ] {
            assert_eq!(take("It ", false, None), (0, "It ".to_owned(), false));
            assert_eq!(take("", false, None), (1, String::new(), false));
            assert_eq!(take(end, true, complete), (2, told.to_owned(), true), "{end} {complete:?}");
        }
        assert_eq!(take("At once", true, None), (0, "At once".to_owned(), true));
    }

    #[test]
    fn what_one_piece_echoes_the_reply_does() {
        let mut streams = Streams::default();
        let echoing = |text, last| BotResponse { correlation_id: Some(7), ..piece("a", text, last, None) };
        for pieces in [
            [echoing("It ", false), piece("a", "left.", true, None)],
            [piece("a", "It ", false, None), echoing("left.", true)],
        ] {
            let [first, last] = pieces.map(|piece| streams.join(Box::new(piece), IN_TURN));
            assert!(matches!(first, Joined::Growing { .. }));
            let Joined::Whole { response, .. } = last else { panic!("{last:?}") };
            assert_eq!(response.correlation_id, Some(7));
        }
    }
}
