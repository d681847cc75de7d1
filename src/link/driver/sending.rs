//! The frames that a driver sends, and the last ones that it reads from a socket that fails.

use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::debug;

use super::events::DriverEvent;
use super::{Driver, MAX_EARLIER_FRAMES};
use crate::domain::AcceptedMessage;
use crate::link::calls;
use crate::link::conversation_host::ConversationHost;
use crate::link::input::{Input, SocketLoss};
use crate::rtm::outgoing;

impl<H: ConversationHost> Driver<H> {
    pub(super) async fn ping(&mut self) -> Option<DriverEvent> {
        self.ping += 1;
        self.metrics.frame_sent("ping");
        let text = outgoing::ping(&self.bot, self.ping);
        let failed = self.say(text).await;
        match &mut self.socket {
            Some(socket) if failed.is_none() => {
                let sent = socket.ping().await;
                if sent.is_err() { self.read_until_close().await } else { None }
            }
            _ => failed,
        }
    }

    /// Sends a message, unless the frames that came before it change that: they do not answer it.
    pub(super) async fn send(&mut self, message: &AcceptedMessage) -> Option<DriverEvent> {
        for _ in 0..MAX_EARLIER_FRAMES {
            let Some(received) = self.socket.as_mut().and_then(|socket| socket.next().now_or_never()) else {
                break;
            };
            let input = self.received(received);
            self.step(input);
        }
        if self.socket.is_none() || !self.machine.is_sending(message.id) {
            return None;
        }
        // Checked again, because earlier effects may have taken time.
        if !self.may_act() {
            return Some(DriverEvent::Input(Input::Withheld));
        }
        self.host.writing(&self.conversation, message.id);
        self.machine.step(self.host.clock().now(), Input::Writing, &mut self.effects);
        let (kind, text) = calls::frame(&self.bot, message, self.context.current());
        self.context.on_sent(message);
        self.metrics.frame_sent(kind);
        self.say(text).await
    }

    /// Sends a frame. If the peer takes no data until the machine's next deadline, the rest goes out with later calls.
    pub(super) async fn say(&mut self, text: String) -> Option<DriverEvent> {
        let deadline = self.machine.wake_at().map(|at| self.host.clock().instant(at));
        let socket = self.socket.as_mut()?;
        let sending = socket.send(text);
        let sent = match deadline {
            Some(deadline) => timeout_at(deadline, sending).await.unwrap_or(Ok(())),
            None => sending.await,
        };
        match sent {
            Ok(()) => None,
            Err(error) => {
                debug!(bot = %self.bot.name, %error, "could not send");
                self.read_until_close().await
            }
        }
    }

    /// Reads the frames before the close after a failed send. The close code matters most.
    async fn read_until_close(&mut self) -> Option<DriverEvent> {
        const TIMEOUT: Duration = Duration::from_secs(1);
        let until = Instant::now() + TIMEOUT;
        while let Some(socket) = &mut self.socket {
            let received = timeout(until.saturating_duration_since(Instant::now()), socket.next()).await;
            match received.map(|received| self.received(received)) {
                Ok(Input::Lost(loss)) => return Some(DriverEvent::Input(Input::Lost(loss))),
                Ok(input) => self.step(input),
                Err(_) => {
                    self.socket = None;
                    self.metrics.socket_closed(None);
                }
            }
        }
        Some(DriverEvent::Input(Input::Lost(SocketLoss::GONE)))
    }
}
