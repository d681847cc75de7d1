//! Opens sockets: grant, ticket, handshake (protocol.md 1), with one awc client for calls and one for sockets.
//!
//! awc's defaults do not fit a holder of thousands of sockets: they cap connections at 100, sockets included,
//! offer HTTP/2, over which no socket opens, follow redirects, and never set `TCP_NODELAY`. All of it is undone
//! here. One connector serves one shard thread; it is `!Send` and so are its sockets.
//!
//! What it does not know: when to connect and how often. It tries once, except that a token that has expired is
//! renewed once.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::error::ParseError;
use actix_service::{Service, ServiceExt as _};
use actix_tls::connect::{ConnectInfo, Connection};
use awc::error::{PayloadError, SendRequestError, WsClientError};
use awc::http::{StatusCode, Uri, header};
use awc::{Client, ClientBuilder, ClientRequest, SendClientRequest};
use bytes::Bytes;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::error::{CallError, ConnectError, ConnectPhase};
use super::grant::Grant;
use super::jwt::{JwtSigner, SignerError};
use super::refusal::PlatformRefusal;
use super::socket::{PlatformSocket, Scratch};
use super::ticket::{ConnectMode, Ticket};
use crate::config::BotConfig;
use crate::domain::{BotName, Timestamp, UserId};
use crate::tls::{self, TlsError};

/// The longest that DNS and TCP may take together.
pub(super) const TCP_DEADLINE: Duration = Duration::from_secs(5);
/// The longest that the TLS handshake may take.
pub(super) const TLS_DEADLINE: Duration = Duration::from_secs(5);
/// The longest that a call's answer, body included, or the upgrade may take. awc does not say when a connection
/// stands, so what connecting leaves of its time is added.
pub(super) const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// The largest body of a grant or a ticket, in bytes.
pub(super) const BODY_MAX: usize = 256 * 1024;
/// A connection for calls is not reused after this time without use; below the 5 s at which many servers close.
const KEEP_ALIVE: Duration = Duration::from_secs(4);

/// Calls one thread makes at the same time at most. More wait their turn, within their deadline: a thousand
/// sockets that reconnect at once would otherwise open, and leave in the pool, a thousand connections more.
const CALLS_MAX: usize = 64;

/// Why there is no connector; both are mistakes of configuration or build, found at start.
#[derive(Debug, thiserror::Error)]
pub enum ConnectorSetupError {
    /// There is no TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A bot's own authorities cannot be read.
    #[error("bot {bot}: {error}")]
    Authorities {
        /// Whose.
        bot: BotName,
        /// Why.
        #[source]
        error: TlsError,
    },
    /// A bot's key cannot sign.
    #[error("bot {bot}: {error}")]
    Signer {
        /// Whose.
        bot: BotName,
        /// Why.
        #[source]
        error: SignerError,
    },
}

/// Opens the sockets of one shard thread.
pub struct PlatformConnector {
    public: Clients,
    /// Of bots that name authorities of their own: nobody else trusts those.
    own: HashMap<BotName, Clients>,
    signers: HashMap<BotName, Rc<JwtSigner>>,
    scratch: Rc<RefCell<Scratch>>,
}

/// What goes over the network, with the same idea of whom to trust.
pub(super) struct Clients {
    pub(super) calls: Client,
    sockets: Client,
}

/// What both calls tell the platform about the bot.
#[derive(Serialize)]
pub(super) struct BotInfo<'a> {
    #[serde(rename = "chatBot")]
    chat_bot: &'a str,
    #[serde(rename = "taskBotId")]
    task_bot_id: &'a str,
}

impl<'a> BotInfo<'a> {
    pub(super) fn of(bot: &'a BotConfig) -> Self {
        Self { chat_bot: &bot.chat_bot, task_bot_id: &bot.task_bot_id }
    }
}

/// `"token": {}`, which Web SDKs send with both calls.
#[derive(Serialize)]
pub(super) struct NoToken {}

#[derive(Serialize)]
struct StartBody<'a> {
    #[serde(rename = "botInfo")]
    bot_info: BotInfo<'a>,
    token: NoToken,
}

impl PlatformConnector {
    /// A connector for these bots, with every bot's key parsed. It trusts the certificate authorities Mozilla
    /// trusts, and for a bot those of its `ca_file` too.
    ///
    /// # Errors
    /// [`ConnectorSetupError`].
    pub fn new(bots: &[Arc<BotConfig>]) -> Result<Self, ConnectorSetupError> {
        let mut own = HashMap::new();
        let mut signers = HashMap::with_capacity(bots.len());
        for bot in bots {
            if let Some(ca) = &bot.ca {
                let authorities = |error| ConnectorSetupError::Authorities { bot: bot.name.clone(), error };
                own.insert(bot.name.clone(), Clients::new(&tls::client(Some(ca)).map_err(authorities)?));
            }
            let signer = JwtSigner::new(bot)
                .map_err(|error| ConnectorSetupError::Signer { bot: bot.name.clone(), error })?;
            signers.insert(bot.name.clone(), Rc::new(signer));
        }
        let scratch = Rc::new(RefCell::new(Scratch::default()));
        Ok(Self { public: Clients::new(&tls::client(None)?), own, signers, scratch })
    }

    /// What a bot's platform is reached with.
    pub(super) fn clients(&self, bot: &BotConfig) -> &Clients {
        self.own.get(&bot.name).unwrap_or(&self.public)
    }

    /// Opens a socket for `user`: takes the grant in `grant` or makes one and leaves it there, asks for a ticket
    /// and uses it at once. Takes 60 s at most, and twice that if the token has expired.
    ///
    /// # Errors
    /// [`ConnectError`]; its `retry()` says what to do.
    pub async fn connect(
        &self,
        bot: &BotConfig,
        user: &UserId,
        mode: ConnectMode,
        grant: &mut Option<Grant>,
        now: Timestamp,
    ) -> Result<PlatformSocket, ConnectError> {
        let began = Instant::now();
        let ticket = self
            .with_grant(bot, user, grant, now, async |grant| self.start(bot, mode, grant, now).await)
            .await?;
        self.open(bot, user, &ticket, now + began.elapsed()).await
    }

    /// The signer of a bot; one that was not there at the start gets its own, each time.
    pub(super) fn signer(&self, bot: &BotConfig) -> Result<Rc<JwtSigner>, SignerError> {
        match self.signers.get(&bot.name) {
            Some(signer) => Ok(Rc::clone(signer)),
            None => JwtSigner::new(bot).map(Rc::new),
        }
    }

    /// `POST …/rtm/start` (protocol.md 4).
    async fn start(
        &self,
        bot: &BotConfig,
        mode: ConnectMode,
        grant: &Grant,
        now: Timestamp,
    ) -> Result<Ticket, ConnectError> {
        let asked = Instant::now();
        let mut request =
            self.clients(bot).calls.post(endpoint(bot, "/rtm/start")).insert_header(authorization(grant));
        if bot.secure_rtm {
            request = request.insert_header(("x-rtm-v", "1"));
        }
        let body = StartBody { bot_info: BotInfo::of(bot), token: NoToken {} };
        let answer = call(ConnectPhase::Start, request, Some(&body), BODY_MAX, now).await?;
        Ticket::read(&answer, bot, mode, asked)
            .unwrap_or_else(|| Err(lacking(ConnectPhase::Start, &answer, now)))
    }

    /// The handshake (protocol.md 5.1, 5.2). A secure one shows a JWT minted for it: with a grant from before
    /// there is no other, and one of the same connect may be about to expire.
    async fn open(
        &self,
        bot: &BotConfig,
        user: &UserId,
        ticket: &Ticket,
        now: Timestamp,
    ) -> Result<PlatformSocket, ConnectError> {
        let mut request = self.clients(bot).sockets.ws(ticket.url.as_str());
        if let Some(nonce) = &ticket.nonce {
            let assertion = self.signer(bot)?.mint(user, now)?;
            request = request.header(header::SEC_WEBSOCKET_PROTOCOL, offer(&assertion, nonce)?);
        }
        if !ticket.fresh(Instant::now()) {
            return Err(ConnectError::StaleTicket);
        }
        let opened = timeout(TCP_DEADLINE + TLS_DEADLINE + ANSWER_DEADLINE, request.connect()).await;
        let (_, framed) = opened
            .map_err(|_| unreachable(ConnectPhase::Socket, CallError::Deadline))?
            .map_err(refused_upgrade)?;
        let parts = framed.into_parts();
        Ok(PlatformSocket::new(parts.io, &parts.read_buf, bot, Rc::clone(&self.scratch)))
    }
}

/// The three subprotocols of a secure handshake, in the SDKs' order and in one header (protocol.md 5.2).
fn offer(assertion: &SecretString, nonce: &SecretString) -> Result<header::HeaderValue, ConnectError> {
    let (assertion, nonce) = (assertion.expose_secret(), nonce.expose_secret());
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let unusable = || ConnectError::Unavailable {
        phase: ConnectPhase::Start,
        words: "the platform's nonce does not fit into a handshake".into(),
    };
    if !nonce.bytes().all(token) {
        return Err(unusable());
    }
    let value = format!("x-rtm-v|1, jwt|{assertion}, nonce|{nonce}");
    header::HeaderValue::try_from(value).map_err(|_| unusable())
}

impl Clients {
    fn new(tls: &Arc<rustls::ClientConfig>) -> Self {
        Self { calls: client(tls, CALLS_MAX), sockets: client(tls, 0) }
    }
}

/// An awc client with our settings. A limit of 0 means none: how many sockets there are is decided where
/// conversations are admitted.
fn client(tls: &Arc<rustls::ClientConfig>, limit: usize) -> Client {
    let connector = awc::Connector::new()
        .connector(tcp())
        .rustls_0_23(Arc::clone(tls))
        .limit(limit)
        .timeout(TCP_DEADLINE)
        .handshake_timeout(TLS_DEADLINE)
        .conn_keep_alive(KEEP_ALIVE);
    ClientBuilder::new()
        .connector(connector)
        .disable_redirects()
        .disable_timeout()
        .add_default_header((header::USER_AGENT, concat!("rtm-bridge/", env!("CARGO_PKG_VERSION"))))
        .finish()
}

/// DNS and TCP as awc does them, plus `TCP_NODELAY`: a message is one small write that nothing should hold back.
pub(super) fn tcp()
-> impl Service<ConnectInfo<Uri>, Response = Connection<Uri, TcpStream>, Error = actix_tls::connect::ConnectError>
+ Clone {
    actix_tls::connect::Connector::default().service().map(|connection: Connection<Uri, TcpStream>| {
        if let Err(error) = connection.io_ref().set_nodelay(true) {
            // Slower, not wrong.
            tracing::debug!(%error, "TCP_NODELAY cannot be set");
        }
        connection
    })
}

/// The address of one of the platform's calls.
pub(super) fn endpoint(bot: &BotConfig, path: &str) -> String {
    let platform = bot.platform.as_str().trim_end_matches('/');
    format!("{platform}{}{path}", bot.api_path.trim_end_matches('/'))
}

/// `Authorization: bearer …`, in the lower case of every sample (protocol.md 4.1).
pub(super) fn authorization(grant: &Grant) -> (header::HeaderName, String) {
    (header::AUTHORIZATION, format!("bearer {}", grant.token().expose_secret()))
}

/// Makes one call and reads its whole answer, under one deadline.
pub(super) async fn call(
    phase: ConnectPhase,
    request: ClientRequest,
    body: Option<&impl Serialize>,
    body_max: usize,
    now: Timestamp,
) -> Result<Bytes, ConnectError> {
    let sending: SendClientRequest = match body {
        Some(body) => request.send_json(body),
        None => request.send(),
    };
    let exchange = async {
        let mut response = sending.await.map_err(|error| unreachable(phase, sending_fault(error)))?;
        let body = response.body().limit(body_max).await;
        if response.status().is_success() {
            return body.map_err(|error| unreachable(phase, body_fault(error)));
        }
        // The status says enough where the reasons cannot be read.
        let body = body.unwrap_or_default();
        let text = |name: header::HeaderName| {
            response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        let (retry_after, location) = (text(header::RETRY_AFTER), text(header::LOCATION));
        let status = response.status().as_u16();
        let refusal = PlatformRefusal {
            phase,
            status,
            retry_after: retry_after.as_deref(),
            location: location.as_deref(),
            body: &body,
        };
        Err(refusal.into_error(now))
    };
    match timeout(TCP_DEADLINE + TLS_DEADLINE + ANSWER_DEADLINE, exchange).await {
        Ok(result) => result,
        Err(_) => Err(unreachable(phase, CallError::Deadline)),
    }
}

/// A 2xx whose body lacks what was asked for; it may carry a refusal instead.
pub(super) fn lacking(phase: ConnectPhase, body: &[u8], now: Timestamp) -> ConnectError {
    PlatformRefusal { phase, status: StatusCode::OK.as_u16(), retry_after: None, location: None, body }
        .into_error(now)
}

const fn unreachable(phase: ConnectPhase, fault: CallError) -> ConnectError {
    ConnectError::Unreachable { phase, fault }
}

/// Why an upgrade failed. Whatever it is, the ticket is spent and the next try asks for another.
fn refused_upgrade(error: WsClientError) -> ConnectError {
    let phase = ConnectPhase::Socket;
    let words = match error {
        WsClientError::SendRequest(error) => return unreachable(phase, sending_fault(error)),
        WsClientError::InvalidResponseStatus(status) => {
            format!("the platform refused the socket with {}", status.as_u16()).into()
        }
        _ => "the platform's handshake is not one of a web socket".into(),
    };
    ConnectError::Unavailable { phase, words }
}

fn sending_fault(error: SendRequestError) -> CallError {
    use awc::error::ConnectError as Connecting;
    match error {
        SendRequestError::Connect(
            Connecting::Resolver(_) | Connecting::NoRecords | Connecting::Unresolved,
        ) => CallError::Dns,
        SendRequestError::Connect(Connecting::Timeout) | SendRequestError::Timeout => CallError::Deadline,
        SendRequestError::Connect(Connecting::Io(error))
            if error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>) =>
        {
            CallError::Tls(error)
        }
        SendRequestError::Connect(Connecting::Io(error))
        | SendRequestError::Send(error)
        | SendRequestError::Response(ParseError::Io(error)) => CallError::Connection(error),
        SendRequestError::Connect(_) => CallError::HungUp,
        _ => CallError::NotHttp,
    }
}

fn body_fault(error: PayloadError) -> CallError {
    match error {
        PayloadError::Overflow => CallError::TooLarge,
        PayloadError::Io(error) => CallError::Connection(error),
        PayloadError::Incomplete(_) => CallError::HungUp,
        _ => CallError::NotHttp,
    }
}
