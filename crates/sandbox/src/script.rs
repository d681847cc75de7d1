//! Control of a running sandbox by a test, and access to its observations.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::behaviour::Behaviour;
use super::faults::{Endpoint, Fault};
use super::observations::{PlatformTotals, ReceivedFrame, UserObservations};
use super::platform_state::{BotUser, PlatformState, locked};
use super::step::{CutMode, Step};
use super::step_runner::{StepRunner, StepTrigger};

/// Handle of a running sandbox. It is cheap to clone and usable from any thread. Waiting methods have no timeout of
/// their own. They need [`SandboxOptions::observe`](super::SandboxOptions::observe); without it they wait forever.
#[derive(Clone)]
pub struct SandboxScript(pub(super) Arc<PlatformState>);

impl SandboxScript {
    /// Changes the behaviour from now on.
    pub fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        let mut behaviour = self.0.behaviour.write().unwrap_or_else(PoisonError::into_inner);
        change(Arc::make_mut(&mut behaviour));
    }

    /// Makes every request to the endpoint fail until [`SandboxScript::clear_faults`].
    pub fn fault(&self, endpoint: Endpoint, fault: Fault) {
        self.0.faults.plan(endpoint, None, fault);
    }

    /// Makes the next requests to the endpoint fail, after those with earlier planned faults.
    pub fn fault_next(&self, endpoint: Endpoint, times: usize, fault: Fault) {
        self.0.faults.plan(endpoint, Some(times), fault);
    }

    /// Clears the faults of an endpoint.
    pub fn clear_faults(&self, endpoint: Endpoint) {
        self.0.faults.clear(Some(endpoint));
    }

    /// Clears all faults.
    pub fn clear_all_faults(&self) {
        self.0.faults.clear(None);
    }

    /// Expires all tokens that were given so far. Open sockets stay open.
    pub fn expire_tokens(&self) {
        self.0.grant_epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// Scripts the answer to the user's next message, after earlier scripted ones. It gets no ack without
    /// [`Step::Ack`].
    pub fn next(&self, who: impl Into<BotUser>, steps: Vec<Step>) {
        locked(&self.0.user(&who.into()).state).scripted_messages.push_back(steps);
    }

    /// Scripts the answer to the next message of any user who has no scripted answer.
    pub fn next_of_any(&self, steps: Vec<Step>) {
        let mut next = locked(&self.0.scripted_for_any);
        next.push_back(steps);
        self.0.scripted_for_any_count.fetch_add(1, Ordering::AcqRel);
    }

    /// Scripts the user's next connect, in place of `bot_active`, `session_start` and the welcome.
    pub fn next_connect(&self, who: impl Into<BotUser>, steps: Vec<Step>) {
        locked(&self.0.user(&who.into()).state).scripted_connects.push_back(steps);
    }

    /// Replaces the default bot. Its steps are performed exactly.
    pub fn bot(&self, bot: impl Fn(&BotUser, &ReceivedFrame) -> Vec<Step> + Send + Sync + 'static) {
        *self.0.bot.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(bot));
    }

    /// Restores the default bot.
    pub fn default_bot(&self) {
        *self.0.bot.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Performs steps without a message, on all sockets of the user, in parallel with other steps.
    pub fn push(&self, who: impl Into<BotUser>, steps: Vec<Step>) {
        let user = self.0.user(&who.into());
        let player = StepRunner { platform: Arc::clone(&self.0), user, trigger: StepTrigger::default() };
        self.0.runtime.spawn(player.run(steps));
    }

    /// Drops all sockets of the user without a close frame.
    pub fn drop_sockets(&self, who: impl Into<BotUser>, how: CutMode) {
        let sockets = locked(&self.0.user(&who.into()).state).sockets.clone();
        for socket in sockets {
            socket.cut(how);
        }
    }

    /// Drops all sockets of all users without a close frame.
    pub fn drop_all_sockets(&self, how: CutMode) {
        self.0.users.each(|user| {
            for socket in &locked(&user.state).sockets {
                socket.cut(how);
            }
        });
    }

    /// Ends all sessions silently, as after a timeout.
    pub fn forget_sessions(&self) {
        self.0.users.each(|user| locked(&user.state).session = None);
    }

    /// Brings the sandbox back to its start: no users, tokens or history, and the first behaviour and faults. Open
    /// sockets are dropped.
    pub fn reset(&self) {
        let _newest = self.0.reset();
    }

    /// Returns the counts since the start.
    pub fn totals(&self) -> PlatformTotals {
        self.0.counts.totals()
    }

    /// Returns the number of the user's open sockets.
    pub fn open_sockets(&self, who: impl Into<BotUser>) -> usize {
        locked(&self.0.user(&who.into()).state).sockets.len()
    }

    /// Returns the observations of the user. Empty without
    /// [`SandboxOptions::observe`](super::SandboxOptions::observe).
    pub fn observed(&self, who: impl Into<BotUser>) -> UserObservations {
        locked(&self.0.user(&who.into()).state).observed.clone()
    }

    /// Waits until the user has sent `count` messages, and returns the last of them.
    pub async fn seen(&self, who: impl Into<BotUser>, count: usize) -> Option<ReceivedFrame> {
        let observed = self.observed_when(who, |observed| observed.messages.count() >= count).await;
        observed.messages.get(count.checked_sub(1)?).cloned()
    }

    /// Waits until the user has connected `count` times.
    pub async fn connected(&self, who: impl Into<BotUser>, count: usize) -> UserObservations {
        self.observed_when(who, |observed| observed.connects.count() >= count).await
    }

    /// Waits until `count` sockets of the user are gone.
    pub async fn closed(&self, who: impl Into<BotUser>, count: usize) -> UserObservations {
        self.observed_when(who, |observed| observed.closes.count() >= count).await
    }

    /// Waits until the user got `count` responses.
    pub async fn delivered(&self, who: impl Into<BotUser>, count: usize) -> UserObservations {
        self.observed_when(who, |observed| observed.delivered.count() >= count).await
    }

    /// Waits until the user's observations meet a condition.
    pub async fn observed_when(
        &self,
        who: impl Into<BotUser>,
        wanted: impl Fn(&UserObservations) -> bool,
    ) -> UserObservations {
        let user = self.0.user(&who.into());
        self.wait_until(|_| wanted(&locked(&user.state).observed)).await;
        locked(&user.state).observed.clone()
    }

    /// Waits until a condition is true. Each observation evaluates it again.
    pub async fn wait_until(&self, is_so: impl Fn(&Self) -> bool) {
        let mut changes = self.0.changed.subscribe();
        // The platform holds the sender, so the channel stays open.
        let _never = changes.wait_for(|()| is_so(self)).await;
    }
}
