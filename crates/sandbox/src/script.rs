//! The strings that a test pulls while the sandbox runs, and its window on what happened.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::behaviour::Behaviour;
use super::faults::{Endpoint, Fault};
use super::observations::{Heard, Observed, Totals};
use super::platform::{Platform, Who, locked};
use super::step::{Cut, Step};
use super::step_runner::{Cause, Player};

/// A handle on a running sandbox: cheap to clone, usable from any thread.
///
/// Waiting methods end when what they wait for is so; they have no deadline of their own. They need
/// [`Options::record`](super::Options::record), without it they wait for ever.
#[derive(Clone)]
pub struct Script(pub(super) Arc<Platform>);

impl Script {
    /// Changes how the platform behaves from now on.
    pub fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        let mut behaviour = self.0.behaviour.write().unwrap_or_else(PoisonError::into_inner);
        change(Arc::make_mut(&mut behaviour));
    }

    /// Lets every request to the endpoint fail until [`Script::clear_faults`].
    pub fn fault(&self, endpoint: Endpoint, fault: Fault) {
        self.0.faults.plan(endpoint, None, fault);
    }

    /// Lets the next requests to the endpoint fail, after those that are planned already.
    pub fn fault_next(&self, endpoint: Endpoint, times: usize, fault: Fault) {
        self.0.faults.plan(endpoint, Some(times), fault);
    }

    /// Forgets the faults of an endpoint.
    pub fn clear_faults(&self, endpoint: Endpoint) {
        self.0.faults.clear(Some(endpoint));
    }

    /// Forgets all faults.
    pub fn clear_all_faults(&self) {
        self.0.faults.clear(None);
    }

    /// Makes all tokens that were given so far expire. Open sockets stay open.
    pub fn expire_tokens(&self) {
        self.0.grant_epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// What happens on the user's next message, after those that are planned already. Nothing is added:
    /// without [`Step::Ack`] there is no ack.
    pub fn next(&self, who: impl Into<Who>, steps: Vec<Step>) {
        locked(&self.0.user(&who.into()).inner).next.push_back(steps);
    }

    /// What happens on the next message of anybody for whom nothing of their own is planned.
    pub fn next_of_any(&self, steps: Vec<Step>) {
        let mut next = locked(&self.0.next);
        next.push_back(steps);
        self.0.nexts.fetch_add(1, Ordering::AcqRel);
    }

    /// What happens on the user's next connect instead of `bot_active`, `session_start` and the welcome.
    pub fn next_connect(&self, who: impl Into<Who>, steps: Vec<Step>) {
        locked(&self.0.user(&who.into()).inner).next_connect.push_back(steps);
    }

    /// Replaces the default bot. Nothing is added to what it returns.
    pub fn bot(&self, bot: impl Fn(&Who, &Heard) -> Vec<Step> + Send + Sync + 'static) {
        *self.0.bot.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(bot));
    }

    /// Brings the default bot back.
    pub fn default_bot(&self) {
        *self.0.bot.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Performs steps without a message, on all sockets of the user, beside whatever else happens.
    pub fn push(&self, who: impl Into<Who>, steps: Vec<Step>) {
        let user = self.0.user(&who.into());
        let player = Player { platform: Arc::clone(&self.0), user, cause: Cause::default() };
        self.0.runtime.spawn(player.play(steps));
    }

    /// Drops all sockets of the user without a close frame.
    pub fn drop_sockets(&self, who: impl Into<Who>, how: Cut) {
        let sockets = locked(&self.0.user(&who.into()).inner).sockets.clone();
        for socket in sockets {
            socket.cut(how);
        }
    }

    /// Drops all sockets of everybody without a close frame.
    pub fn drop_all_sockets(&self, how: Cut) {
        self.0.users.each(|user| {
            for socket in &locked(&user.inner).sockets {
                socket.cut(how);
            }
        });
    }

    /// Forgets the running sessions of everybody, as if they had timed out without a word.
    pub fn forget_sessions(&self) {
        self.0.users.each(|user| locked(&user.inner).session = None);
    }

    /// What was counted since the start.
    pub fn totals(&self) -> Totals {
        self.0.counts.totals()
    }

    /// The sockets that the user has open now.
    pub fn open_sockets(&self, who: impl Into<Who>) -> usize {
        locked(&self.0.user(&who.into()).inner).sockets.len()
    }

    /// What was observed of the user. Empty without [`Options::record`](super::Options::record).
    pub fn observed(&self, who: impl Into<Who>) -> Observed {
        locked(&self.0.user(&who.into()).inner).observed.clone()
    }

    /// Waits until the user has sent that many messages, and returns the last of them.
    pub async fn seen(&self, who: impl Into<Who>, count: usize) -> Option<Heard> {
        let observed = self.observed_when(who, |observed| observed.messages.count() >= count).await;
        observed.messages.get(count.checked_sub(1)?).cloned()
    }

    /// Waits until the user has connected that many times.
    pub async fn connected(&self, who: impl Into<Who>, count: usize) -> Observed {
        self.observed_when(who, |observed| observed.connects.count() >= count).await
    }

    /// Waits until that many sockets of the user are gone.
    pub async fn closed(&self, who: impl Into<Who>, count: usize) -> Observed {
        self.observed_when(who, |observed| observed.closes.count() >= count).await
    }

    /// Waits until that many responses were said to the user.
    pub async fn delivered(&self, who: impl Into<Who>, count: usize) -> Observed {
        self.observed_when(who, |observed| observed.delivered.count() >= count).await
    }

    /// Waits until what was observed of the user is as wanted.
    pub async fn observed_when(&self, who: impl Into<Who>, wanted: impl Fn(&Observed) -> bool) -> Observed {
        let user = self.0.user(&who.into());
        self.wait_until(|_| wanted(&locked(&user.inner).observed)).await;
        locked(&user.inner).observed.clone()
    }

    /// Waits until something is so; it is asked whenever something was observed.
    pub async fn wait_until(&self, is_so: impl Fn(&Self) -> bool) {
        let mut changes = self.0.changed.subscribe();
        // The platform holds the sender, so the channel cannot close under us.
        let _never = changes.wait_for(|()| is_so(self)).await;
    }
}
