//! The quiet time of a turn, fixed or by the rhythm of its bot.

use super::super::turn_rhythm::TurnRhythm;
use super::{STRETCHED_QUIET, Turn, TurnPhase};
use crate::domain::{QuietSource, QuietWait, Reply, Timestamp};

impl Turn {
    /// Has the turn learn the rhythm of its bot.
    pub(crate) fn learn(&mut self, rhythm: Option<Box<TurnRhythm>>) {
        self.rhythm = rhythm;
    }

    /// Takes out what the turn showed of the rhythm.
    pub(crate) const fn take_rhythm(&mut self) -> Option<Box<TurnRhythm>> {
        self.rhythm.take()
    }

    /// Notes in the rhythm a reply that is joined next. One from history has no `began`: its time is not that of the bot.
    pub(crate) fn on_rhythm(
        &mut self,
        reply: &Reply,
        announces_more: bool,
        began: Option<Timestamp>,
        now: Timestamp,
    ) {
        let Some(began) = began else {
            self.leave_rhythm();
            return;
        };
        let Some(rhythm) = &mut self.rhythm else { return };
        let wait = rhythm.on_reply(&self.message, self.progress.sent_at, reply, announces_more, began, now);
        if self.unlearned.is_some() {
            let by = if wait.learned { QuietSource::Learned } else { QuietSource::Default };
            self.quiet = Some(QuietWait { wait: wait.wait, by });
        }
    }

    /// Ends the learning of this turn. The quiet time is that of an unknown bot then, because no rhythm sets it any more.
    pub(super) fn leave_rhythm(&mut self) {
        self.rhythm = None;
        self.quiet = self.unlearned.or(self.quiet);
    }

    /// Returns the quiet time that ends the turn as it stands.
    pub(super) fn quiet_wait(&self, streaming: bool) -> Option<QuietWait> {
        let quiet = self.quiet?;
        let stretched = (self.more_follows || streaming) && quiet.wait < STRETCHED_QUIET;
        Some(if stretched { QuietWait { wait: STRETCHED_QUIET, by: QuietSource::Default } } else { quiet })
    }

    /// Returns the end of the quiet time. It does not run after a loss, because replies may be missing.
    pub(super) fn quiet_end(&self, streaming: bool) -> Option<Timestamp> {
        let from = self.quiet_from.filter(|_| self.phase != TurnPhase::Broken)?;
        Some(from + self.quiet_wait(streaming)?.wait)
    }
}
