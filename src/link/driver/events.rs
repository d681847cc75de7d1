//! The wait of a driver for its next event.

use std::future::Future as _;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::{Driver, ExitReason, PendingCall, written};
use crate::link::calls;
use crate::link::conversation_host::ConversationHost;
use crate::link::input::Input;

pub(super) enum DriverEvent {
    Input(Input),
    Exit(ExitReason),
}

impl<H: ConversationHost> Driver<H> {
    /// Sets the timer, unless it fires early enough already.
    fn arm(&mut self) {
        let Some(at) = self.machine.wake_at() else { return };
        if self.armed.is_none_or(|armed| at < armed) {
            self.armed = Some(at);
            let clock = self.host.clock();
            // A timer fires after a day at the latest and is set again then.
            let at = at.min(clock.now() + Duration::from_hours(24));
            self.timer.as_mut().reset(clock.instant(at));
        }
    }

    /// Starts the deletion of the conversation. Other calls have no use any more.
    pub(super) fn erase(&mut self) {
        (self.reading, self.history) = (None, None);
        let (host, fence, conversation) = (Rc::clone(&self.host), self.fence, self.conversation.clone());
        self.erasing = Some(Box::pin(async move { calls::erase(&*host, fence, &conversation).await }));
    }

    pub(super) async fn event(&mut self) -> DriverEvent {
        std::future::poll_fn(|cx| self.poll_event(cx)).await
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<DriverEvent> {
        if let Some(erased) = poll_call(&mut self.erasing, cx) {
            return Poll::Ready(DriverEvent::Exit(match erased {
                Some(messages) => {
                    self.host.erased(&self.conversation, &messages);
                    ExitReason::Erased
                }
                None => ExitReason::Fenced,
            }));
        }
        if let Poll::Ready(input) = self.mailbox.poll(cx) {
            return Poll::Ready(DriverEvent::Input(input));
        }
        if let Some(result) = poll_call(&mut self.writing, cx) {
            return Poll::Ready(written(&result));
        }
        if let Some(open) = poll_call(&mut self.reading, cx) {
            return Poll::Ready(open.map_or(DriverEvent::Exit(ExitReason::Fenced), |open| {
                DriverEvent::Input(Input::Lane(Box::new(open)))
            }));
        }
        if let Some(page) = poll_call(&mut self.history, cx) {
            return Poll::Ready(DriverEvent::Input(Input::History(page)));
        }
        if let Some(result) = poll_call(&mut self.connecting, cx) {
            return Poll::Ready(DriverEvent::Input(match result {
                Ok((socket, context)) => {
                    self.context.on_connected(context);
                    self.socket = Some(socket);
                    Input::Connected
                }
                Err(failure) => Input::ConnectFailed(failure),
            }));
        }
        // The socket comes before the timer: after a stall, a frame that came in time must not count as late.
        // The frames of a bot that says more than the store takes stay in the socket until a write is done.
        let crowded = self.writing.is_some() && self.machine.is_crowded();
        if let Some(socket) = self.socket.as_mut().filter(|_| !crowded) {
            let received = std::pin::pin!(socket.next()).poll(cx);
            if let Poll::Ready(received) = received {
                return Poll::Ready(DriverEvent::Input(self.received(received)));
            }
        }
        // Only now: the frames of one read set and lift a deadline, such as that of an ack, without a timer.
        self.arm();
        if self.armed.is_some() && self.timer.as_mut().poll(cx).is_ready() {
            self.armed = None;
            return Poll::Ready(DriverEvent::Input(Input::Tick));
        }
        Poll::Pending
    }
}

fn poll_call<T>(call: &mut Option<PendingCall<T>>, cx: &mut Context<'_>) -> Option<T> {
    let Poll::Ready(result) = call.as_mut()?.as_mut().poll(cx) else { return None };
    *call = None;
    Some(result)
}
