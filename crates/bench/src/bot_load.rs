//! Load for webhooks: connections that make bots say numbers.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::bench_error::BenchError;
use crate::http::HttpConnection;
use crate::receiver::{DeliveryBook, locked};
use crate::setup;
use crate::stream_load;
use crate::turns::{TurnCaller, TurnCallers};

/// The timeout of a delivery.
const PATIENCE: Duration = Duration::from_secs(20);

/// A user, with the bot and its receiver.
pub(crate) struct WebhookUser {
    pub(crate) bot: String,
    pub(crate) user: String,
    /// Whether a receiver accepts the deliveries.
    pub(crate) heard: bool,
}

/// Connections that make bots say numbers.
pub(crate) struct BotSpeakers(Vec<BotSpeaker>);

pub(crate) struct BotSpeaker {
    connection: HttpConnection,
    sandbox: SocketAddr,
    people: Rc<[WebhookUser]>,
    book: Arc<Mutex<DeliveryBook>>,
    window: Option<Arc<Semaphore>>,
}

impl BotSpeakers {
    /// Opens so many connections. A window limits the numbers that are in flight.
    pub(crate) async fn connect(
        sandbox: SocketAddr,
        count: usize,
        people: &Rc<[WebhookUser]>,
        book: &Arc<Mutex<DeliveryBook>>,
        window: Option<&Arc<Semaphore>>,
    ) -> Result<Self, BenchError> {
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            let connection = HttpConnection::open(sandbox).await?;
            let (people, book, window) = (Rc::clone(people), Arc::clone(book), window.cloned());
            all.push(BotSpeaker { connection, sandbox, people, book, window });
        }
        Ok(Self(all))
    }
}

impl TurnCallers for BotSpeakers {
    type TurnCaller = BotSpeaker;
    fn callers(&mut self) -> &mut Vec<BotSpeaker> {
        &mut self.0
    }
}

impl TurnCaller for BotSpeaker {
    async fn turn(&mut self, user: usize) -> Result<(), BenchError> {
        let person = self.people.get(user).ok_or(BenchError::Proc("no such user"))?;
        if let Some(window) = &self.window {
            let permit = tokio::time::timeout(PATIENCE, window.acquire()).await;
            // The receiver returns the permit.
            permit.map_err(|_| BenchError::Silent(PATIENCE))?.map_err(std::io::Error::other)?.forget();
        }
        let number = locked(&self.book).say(person.heard);
        let id = if person.bot == setup::BOT {
            setup::TASK_BOT_ID.to_owned()
        } else {
            setup::task_bot_id(&person.bot)
        };
        let request = setup::push_by(self.sandbox, &id, &person.user, &stream_load::mark(number));
        let answer = self.connection.exchange(&request).await?;
        if answer.status != 200 || answer.body != setup::PUSHED {
            let body = String::from_utf8_lossy(answer.body).into_owned();
            return Err(BenchError::Status { what: "the sandbox", status: answer.status, body });
        }
        Ok(())
    }
}
