//! Who speaks, and how one turn is taken: through HTTP, or directly over a socket.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::failure::Failure;
use crate::http::Connection;
use crate::socket::Socket;
use crate::{platform, setup};

/// No turn takes that long.
const PATIENCE: Duration = Duration::from_secs(30);

/// Somebody who takes one turn after the other, for any user.
pub(crate) trait Caller: 'static {
    /// Comes before the first turn of a run: between two runs the others have theirs, and a server may have closed
    /// the connection by then.
    async fn ready(&mut self) -> Result<(), Failure> {
        Ok(())
    }
    fn turn(&mut self, user: usize) -> impl Future<Output = Result<(), Failure>>;
}

/// All callers of one contender.
pub(crate) trait Callers {
    type Caller: Caller;
    fn callers(&mut self) -> &mut Vec<Self::Caller>;
}

/// Callers of an HTTP server, each on a connection of its own.
pub(crate) struct Http(Vec<HttpCaller>);

pub(crate) struct HttpCaller {
    address: SocketAddr,
    connection: Connection,
    requests: Rc<[Vec<u8>]>,
}

impl Http {
    /// The callers are spread over the addresses; each speaks for all users of the group.
    pub(crate) async fn connect(
        addresses: &[SocketAddr],
        callers: usize,
        group: &str,
        users: usize,
    ) -> Result<Self, Failure> {
        let requests = (0..users).map(|user| setup::request(&setup::user(group, user)));
        Self::asking(addresses, callers, requests.collect()).await
    }

    /// The same, with the request of each user.
    pub(crate) async fn asking(
        addresses: &[SocketAddr],
        callers: usize,
        requests: Rc<[Vec<u8>]>,
    ) -> Result<Self, Failure> {
        let mut all = Vec::with_capacity(callers);
        for &address in addresses.iter().cycle().take(callers) {
            all.push(HttpCaller {
                address,
                connection: Connection::open(address).await?,
                requests: Rc::clone(&requests),
            });
        }
        Ok(Self(all))
    }
}

impl Callers for Http {
    type Caller = HttpCaller;
    fn callers(&mut self) -> &mut Vec<HttpCaller> {
        &mut self.0
    }
}

impl Caller for HttpCaller {
    async fn ready(&mut self) -> Result<(), Failure> {
        if self.connection.is_closed() {
            self.connection = Connection::open(self.address).await?;
        }
        Ok(())
    }

    async fn turn(&mut self, user: usize) -> Result<(), Failure> {
        let request = self.requests.get(user).ok_or(Failure::Proc("no such user"))?;
        let answer = tokio::time::timeout(PATIENCE + PATIENCE, self.connection.exchange(request))
            .await
            .map_err(|_| Failure::Silent(PATIENCE))??;
        // Only a turn that was answered within its wait is a 200.
        if answer.status != 200 {
            let body = String::from_utf8_lossy(answer.body).chars().take(300).collect();
            return Err(Failure::Status { what: "the bridge", status: answer.status, body });
        }
        Ok(())
    }
}

/// Callers of the platform itself, over one open socket for each user.
pub(crate) struct Direct(Vec<DirectCaller>);

pub(crate) struct DirectCaller {
    sockets: Rc<[Mutex<Socket>]>,
    number: Rc<Cell<u64>>,
}

impl Direct {
    pub(crate) async fn connect(address: SocketAddr, callers: usize, users: usize) -> Result<Self, Failure> {
        let mut connection = Connection::open(address).await?;
        let mut sockets = Vec::with_capacity(users);
        for user in 0..users {
            let path = platform::ticket(&mut connection, address, &format!("direct-{user}")).await?;
            sockets.push(Mutex::new(Socket::open(address, &path).await?));
        }
        let sockets: Rc<[Mutex<Socket>]> = sockets.into();
        let number = Rc::new(Cell::new(setup::FIRST_NUMBER));
        let caller = || DirectCaller { sockets: Rc::clone(&sockets), number: Rc::clone(&number) };
        Ok(Self((0..callers).map(|_| caller()).collect()))
    }
}

impl Callers for Direct {
    type Caller = DirectCaller;
    fn callers(&mut self) -> &mut Vec<DirectCaller> {
        &mut self.0
    }
}

impl Caller for DirectCaller {
    async fn turn(&mut self, user: usize) -> Result<(), Failure> {
        let mut socket = self.sockets.get(user).ok_or(Failure::Proc("no such user"))?.lock().await;
        self.number.set(self.number.get() + 1);
        socket.say(&setup::frame(self.number.get())).await?;
        tokio::time::timeout(PATIENCE, socket.until(setup::SIGN.as_bytes()))
            .await
            .map_err(|_| Failure::Silent(PATIENCE))?
    }
}
