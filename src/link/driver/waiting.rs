//! What a driver waits for, all in one place.

use std::future::Future as _;
use std::task::{Context, Poll};
use std::time::Duration;

use super::{Boxed, Driver, written};
use crate::link::host::ConversationHost;
use crate::link::input::Input;

/// What the driver waits for.
pub(super) enum Event {
    Input(Input),
    Fenced,
}

impl<H: ConversationHost> Driver<H> {
    /// Sets the timer, unless it will go off early enough: then the machine just looks once more.
    pub(super) fn arm(&mut self) {
        let Some(at) = self.machine.wake_at() else { return };
        if self.armed.is_none_or(|armed| at < armed) {
            self.armed = Some(at);
            let clock = self.host.clock();
            // A timer of the far future is set to a day: it is looked at again then.
            let at = at.min(clock.now() + Duration::from_hours(24));
            self.timer.as_mut().reset(clock.instant(at));
        }
    }

    /// Waits for whatever comes first.
    pub(super) async fn event(&mut self) -> Event {
        std::future::poll_fn(|cx| self.poll_event(cx)).await
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if let Poll::Ready(input) = self.mailbox.poll(cx) {
            return Poll::Ready(Event::Input(input));
        }
        if let Some(result) = poll_call(&mut self.writing, cx) {
            return Poll::Ready(written(&result));
        }
        if let Some(open) = poll_call(&mut self.reading, cx) {
            return Poll::Ready(open.map_or(Event::Fenced, |open| Event::Input(Input::Lane(Box::new(open)))));
        }
        if let Some(page) = poll_call(&mut self.history, cx) {
            return Poll::Ready(Event::Input(Input::History(page)));
        }
        if let Some(result) = poll_call(&mut self.connecting, cx) {
            return Poll::Ready(Event::Input(match result {
                Ok(socket) => {
                    self.socket = Some(socket);
                    Input::Connected
                }
                Err(failure) => Input::ConnectFailed(failure),
            }));
        }
        // Before the timer: after a stall, what has arrived in time must not be late.
        if let Some(socket) = &mut self.socket {
            let received = std::pin::pin!(socket.next()).poll(cx);
            if let Poll::Ready(received) = received {
                return Poll::Ready(Event::Input(self.received(received)));
            }
        }
        if self.armed.is_some() && self.timer.as_mut().poll(cx).is_ready() {
            self.armed = None;
            return Poll::Ready(Event::Input(Input::Tick));
        }
        Poll::Pending
    }
}

/// Polls a call that is under way and lets go of it when it is over.
fn poll_call<T>(call: &mut Option<Boxed<T>>, cx: &mut Context<'_>) -> Option<T> {
    let Poll::Ready(result) = call.as_mut()?.as_mut().poll(cx) else { return None };
    *call = None;
    Some(result)
}
