//! The callers and their turns: through HTTP, or directly over a socket.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::bench_error::BenchError;
use crate::http::HttpConnection;
use crate::platform;
use crate::setup::{self, AnswerPace};
use crate::socket::TextSocket;

/// The timeout of a turn.
const PATIENCE: Duration = Duration::from_secs(30);

/// A caller that takes turns in sequence, for any user.
pub(crate) trait TurnCaller: 'static {
    /// Prepares the first turn of a run. A server may have closed the connection during the turns of other contenders.
    async fn ready(&mut self) -> Result<(), BenchError> {
        Ok(())
    }
    fn turn(&mut self, user: usize) -> impl Future<Output = Result<(), BenchError>>;
}

/// All callers of one contender.
pub(crate) trait TurnCallers {
    type TurnCaller: TurnCaller;
    fn callers(&mut self) -> &mut Vec<Self::TurnCaller>;
}

/// Callers of an HTTP server, each on a connection of its own.
pub(crate) struct HttpCallers(Vec<HttpCaller>);

pub(crate) struct HttpCaller {
    address: SocketAddr,
    connection: HttpConnection,
    requests: Rc<[Vec<u8>]>,
}

impl HttpCallers {
    /// Connects callers to these addresses in turn. Each sends for all users of the group.
    pub(crate) async fn connect(
        addresses: &[SocketAddr],
        callers: usize,
        group: &str,
        users: usize,
    ) -> Result<Self, BenchError> {
        Self::of_bot(AnswerPace::AtOnce, addresses, callers, group, users).await
    }

    /// Connects callers whose bot answers so.
    pub(crate) async fn of_bot(
        pace: AnswerPace,
        addresses: &[SocketAddr],
        callers: usize,
        group: &str,
        users: usize,
    ) -> Result<Self, BenchError> {
        let requests = (0..users).map(|user| setup::request(&setup::user(group, user), pace));
        Self::asking(addresses, callers, requests.collect()).await
    }

    /// Connects callers with the request of each user.
    pub(crate) async fn asking(
        addresses: &[SocketAddr],
        callers: usize,
        requests: Rc<[Vec<u8>]>,
    ) -> Result<Self, BenchError> {
        let mut all = Vec::with_capacity(callers);
        for &address in addresses.iter().cycle().take(callers) {
            all.push(HttpCaller {
                address,
                connection: HttpConnection::open(address).await?,
                requests: Rc::clone(&requests),
            });
        }
        Ok(Self(all))
    }
}

impl TurnCallers for HttpCallers {
    type TurnCaller = HttpCaller;
    fn callers(&mut self) -> &mut Vec<HttpCaller> {
        &mut self.0
    }
}

impl TurnCaller for HttpCaller {
    async fn ready(&mut self) -> Result<(), BenchError> {
        if self.connection.is_closed() {
            self.connection = HttpConnection::open(self.address).await?;
        }
        Ok(())
    }

    async fn turn(&mut self, user: usize) -> Result<(), BenchError> {
        let request = self.requests.get(user).ok_or(BenchError::Proc("no such user"))?;
        let answer = tokio::time::timeout(PATIENCE + PATIENCE, self.connection.exchange(request))
            .await
            .map_err(|_| BenchError::Silent(PATIENCE))??;
        // Only a turn that was answered within its wait is a 200.
        if answer.status != 200 {
            let body = String::from_utf8_lossy(answer.body).chars().take(300).collect();
            return Err(BenchError::Status { what: "the bridge", status: answer.status, body });
        }
        Ok(())
    }
}

/// Callers of the platform, over one open socket for each user.
pub(crate) struct DirectCallers(Vec<DirectCaller>);

#[derive(Clone)]
pub(crate) struct DirectCaller {
    sockets: Rc<[Mutex<TextSocket>]>,
    number: Rc<Cell<u64>>,
    pace: AnswerPace,
}

impl DirectCallers {
    pub(crate) async fn connect(
        address: SocketAddr,
        callers: usize,
        users: usize,
    ) -> Result<Self, BenchError> {
        let mut connection = HttpConnection::open(address).await?;
        let mut sockets = Vec::with_capacity(users);
        for user in 0..users {
            let path = platform::ticket(&mut connection, address, &format!("direct-{user}")).await?;
            sockets.push(Mutex::new(TextSocket::open(address, &path).await?));
        }
        let (sockets, number) = (sockets.into(), Rc::new(Cell::new(setup::FIRST_NUMBER)));
        let first = DirectCaller { sockets, number, pace: AnswerPace::AtOnce };
        Ok(Self(vec![first; callers]))
    }

    /// Returns callers with the same sockets whose bot answers so.
    pub(crate) fn of_bot(&self, pace: AnswerPace, callers: usize) -> Self {
        let caller = |first: &DirectCaller| DirectCaller { pace, ..first.clone() };
        Self(self.0.iter().cycle().take(callers).map(caller).collect())
    }
}

impl TurnCallers for DirectCallers {
    type TurnCaller = DirectCaller;
    fn callers(&mut self) -> &mut Vec<DirectCaller> {
        &mut self.0
    }
}

impl TurnCaller for DirectCaller {
    async fn turn(&mut self, user: usize) -> Result<(), BenchError> {
        let mut socket = self.sockets.get(user).ok_or(BenchError::Proc("no such user"))?.lock().await;
        self.number.set(self.number.get() + 1);
        socket.say(&setup::frame(self.number.get(), self.pace)).await?;
        tokio::time::timeout(PATIENCE, socket.until(self.pace.sign().as_bytes()))
            .await
            .map_err(|_| BenchError::Silent(PATIENCE))?
    }
}
