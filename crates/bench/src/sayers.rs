//! Those who let bots say numbers, for webhooks to tell.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::failure::Failure;
use crate::http::Connection;
use crate::reader;
use crate::receiver::{Book, locked};
use crate::setup;
use crate::turns::{Caller, Callers};

/// Nothing stays on its way for so long.
const PATIENCE: Duration = Duration::from_secs(20);

/// A user, and who is told what his bot says.
pub(crate) struct Person {
    pub(crate) bot: String,
    pub(crate) user: String,
    /// Somebody takes it.
    pub(crate) heard: bool,
}

/// Those who let bots say numbers.
pub(crate) struct Sayers(Vec<Sayer>);

pub(crate) struct Sayer {
    connection: Connection,
    sandbox: SocketAddr,
    people: Rc<[Person]>,
    book: Arc<Mutex<Book>>,
    window: Option<Arc<Semaphore>>,
}

impl Sayers {
    /// So many, each on a connection of its own. With a window nobody says anything for which it has no room.
    pub(crate) async fn connect(
        sandbox: SocketAddr,
        count: usize,
        people: &Rc<[Person]>,
        book: &Arc<Mutex<Book>>,
        window: Option<&Arc<Semaphore>>,
    ) -> Result<Self, Failure> {
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            let connection = Connection::open(sandbox).await?;
            let (people, book, window) = (Rc::clone(people), Arc::clone(book), window.cloned());
            all.push(Sayer { connection, sandbox, people, book, window });
        }
        Ok(Self(all))
    }
}

impl Callers for Sayers {
    type Caller = Sayer;
    fn callers(&mut self) -> &mut Vec<Sayer> {
        &mut self.0
    }
}

impl Caller for Sayer {
    async fn turn(&mut self, user: usize) -> Result<(), Failure> {
        let person = self.people.get(user).ok_or(Failure::Proc("no such user"))?;
        if let Some(window) = &self.window {
            let permit = tokio::time::timeout(PATIENCE, window.acquire()).await;
            // The receiver gives it back.
            permit.map_err(|_| Failure::Silent(PATIENCE))?.map_err(std::io::Error::other)?.forget();
        }
        let number = locked(&self.book).say(person.heard);
        let id = if person.bot == setup::BOT {
            setup::TASK_BOT_ID.to_owned()
        } else {
            setup::task_bot_id(&person.bot)
        };
        let request = setup::push_by(self.sandbox, &id, &person.user, &reader::mark(number));
        let answer = self.connection.exchange(&request).await?;
        if answer.status != 200 || answer.body != setup::PUSHED {
            let body = String::from_utf8_lossy(answer.body).into_owned();
            return Err(Failure::Status { what: "the sandbox", status: answer.status, body });
        }
        Ok(())
    }
}
