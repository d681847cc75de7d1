//! The rhythm of a bot as a turn shows it, and the wait behind the turn's last reply.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::{AcceptedMessage, EndedBy, MessageId, QuietSource, Reply, Timestamp};
use crate::rhythm::{
    LearnedWait, NextReply, ReplyKind, ReplyShape, SharedRhythm, TurnObservation, UserWords,
};

/// The rhythm of an open turn.
#[derive(Debug)]
pub(crate) struct TurnRhythm {
    bot: Arc<SharedRhythm>,
    /// The words that the bot may repeat. Read when the first reply comes.
    user: Option<UserWords>,
    shown: TurnObservation,
    /// The last reply, and when it ended. `None` if it announced another one.
    last: Option<(ReplyKind, Timestamp)>,
    /// The wait behind the last reply.
    wait: Option<LearnedWait>,
    /// Whether a reply was cut: the time of its end is not that of the bot.
    spoiled: bool,
}

impl TurnRhythm {
    pub(crate) fn new(bot: Arc<SharedRhythm>) -> Self {
        Self { bot, user: None, shown: TurnObservation::default(), last: None, wait: None, spoiled: false }
    }

    /// Notes a reply to this message, which began at that time and is whole now.
    pub(crate) fn on_reply(
        &mut self,
        message: &AcceptedMessage,
        sent_at: Option<Timestamp>,
        reply: &Reply,
        announces_more: bool,
        began: Timestamp,
        now: Timestamp,
    ) -> LearnedWait {
        let user = self.user.get_or_insert_with(|| user_words(message));
        self.spoiled |= reply.partial;
        match self.last.take() {
            Some((kind, ended)) => self.shown.replies.push((kind, NextReply::After(began.since(ended)))),
            None if self.wait.is_none() => {
                self.shown.first_reply_after = sent_at.map(|sent_at| began.since(sent_at));
            }
            None => {}
        }
        let shape = ReplyShape {
            text: &reply.text,
            choices: &reply.choices,
            media: &reply.media,
            event: reply.event.get(),
        };
        let kind = ReplyKind::of(&shape, user);
        let wait = self.bot.wait(kind);
        self.wait = Some(wait);
        self.last = (!announces_more).then_some((kind, now));
        wait
    }

    /// Returns what is left to be seen behind the turn, if it shows anything.
    pub(crate) fn end(self, message: MessageId, by: EndedBy) -> Option<EndedRhythm> {
        let shows = match by {
            EndedBy::Quiet(_) | EndedBy::InputWait | EndedBy::SessionEnd | EndedBy::ReplyCount => true,
            EndedBy::Silence | EndedBy::Agent | EndedBy::Limit | EndedBy::Deadline => false,
        };
        let by_learned_wait = by.quiet().is_some_and(|quiet| quiet.by == QuietSource::Learned);
        (shows && !self.spoiled && self.wait.is_some()).then_some(EndedRhythm {
            message,
            shown: self.shown,
            last: self.last,
            by_learned_wait,
        })
    }
}

/// The rhythm of a turn that has ended, until it shows whether the bot was done.
#[derive(Debug)]
pub(crate) struct EndedRhythm {
    message: MessageId,
    shown: TurnObservation,
    last: Option<(ReplyKind, Timestamp)>,
    by_learned_wait: bool,
}

impl EndedRhythm {
    /// Returns the observation if this late reply, which began at that time, belongs to the turn.
    pub(crate) fn on_late_reply(mut self, message: MessageId, began: Timestamp) -> Option<TurnObservation> {
        if message != self.message {
            return None;
        }
        if let Some((kind, ended)) = self.last {
            self.shown.replies.push((kind, NextReply::After(began.since(ended))));
            self.shown.early_cut = self.by_learned_wait;
        }
        Some(self.shown)
    }

    /// Returns the observation, if no reply came until then.
    pub(crate) fn on_silence(mut self, until: Timestamp) -> TurnObservation {
        if let Some((kind, ended)) = self.last {
            self.shown.replies.push((kind, NextReply::NoneFor(until.since(ended))));
        }
        self.shown
    }
}

fn user_words(message: &AcceptedMessage) -> UserWords {
    let content = &message.new.content;
    let profile = message.new.user_details.as_deref().map(|details| &details.profile);
    let names = profile.into_iter().flat_map(|profile| [&profile.first_name, &profile.last_name]);
    let names = names.flatten().map(|name| &**name);
    UserWords::of(std::iter::once(content.text()).chain(content.display_text.as_deref()).chain(names))
}

/// The time that a bot never took, as a multiple of the longest that it took.
const NEVER_TAKEN: u32 = 3;

/// The rhythm of a conversation's bot, as far as it is learned.
#[derive(Debug, Default)]
pub(crate) struct RhythmWatch {
    bot: Option<Arc<SharedRhythm>>,
    /// The last turn, while it may still show whether the bot was done.
    ended: Option<Box<EndedRhythm>>,
}

impl RhythmWatch {
    pub(crate) const fn new(bot: Option<Arc<SharedRhythm>>) -> Self {
        Self { bot, ended: None }
    }

    /// Returns the rhythm of the bot.
    pub(crate) fn bot(&self) -> Option<Arc<SharedRhythm>> {
        self.bot.clone()
    }

    /// Returns the rhythm of a new turn.
    pub(crate) fn of_turn(&self) -> Option<Box<TurnRhythm>> {
        self.bot.as_ref().map(|bot| Box::new(TurnRhythm::new(Arc::clone(bot))))
    }

    /// Notes that a turn has ended.
    pub(crate) fn on_turn_ended(&mut self, message: MessageId, rhythm: TurnRhythm, by: EndedBy) {
        self.ended = rhythm.end(message, by).map(Box::new);
    }

    /// Notes a late reply to this message, which began at that time.
    pub(crate) fn on_late_reply(&mut self, message: MessageId, began: Timestamp) -> Option<TurnObservation> {
        self.ended.take()?.on_late_reply(message, began)
    }

    /// Notes that a later reply could not be told apart from then on, or would be missed.
    pub(crate) fn settle(&mut self, now: Timestamp) -> Option<TurnObservation> {
        self.ended.take().map(|ended| ended.on_silence(now))
    }

    /// Returns whether it is known how long the bot takes to a first reply.
    pub(crate) fn knows_first_reply(&self) -> bool {
        self.longest_first_reply().is_some()
    }

    fn longest_first_reply(&self) -> Option<Duration> {
        self.bot.as_deref().and_then(SharedRhythm::longest_first_reply)
    }

    /// Returns the time from sending after which a turn without a reply is stuck. The configured time counts until the bot
    /// is known.
    pub(crate) fn stuck_after(&self, configured: Duration) -> Duration {
        self.longest_first_reply()
            .map_or(configured, |longest| (longest * NEVER_TAKEN).max(Duration::from_secs(1)))
    }
}
