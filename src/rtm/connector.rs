//! Opens sockets in three steps: grant, ticket, handshake (protocol.md 1). One awc client makes the calls, another
//! opens sockets.
//!
//! One connector serves one shard thread. The connector and its sockets are `!Send`.
//!
//! The connector does not know when to connect, or how often. It tries once, and renews an expired token once.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::error::ParseError;
use awc::error::{PayloadError, SendRequestError, WsClientError};
use awc::http::{StatusCode, header};
use awc::{ClientRequest, SendClientRequest};
use bytes::Bytes;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use tokio::time::{Instant, timeout};

use super::assertion_service::AssertionFormat;
use super::connect_context::ConnectContext;
use super::error::{CallError, ConnectError, ConnectPhase};
use super::grant::Grant;
use super::jwt::JwtSigner;
use super::outgoing::BotInfo;
use super::platform_clients::PlatformClients;
use super::refusal::PlatformRefusal;
use super::socket::{PlatformSocket, ScratchBuffers};
use super::ticket::{ConnectMode, Ticket};
use crate::config::{BotConfig, InvalidJwtKey};
use crate::domain::{BotName, Timestamp, UserDetails, UserId, parse_http_date};
use crate::metrics::ClockDifference;
use crate::tcp::{self, DnsResolver, ProxyError};
use crate::tls::{self, TlsError};
use crate::wall_clock;

/// Timeout of DNS and TCP together.
pub(super) const TCP_TIMEOUT: Duration = Duration::from_secs(5);
/// Timeout of the TLS handshake.
pub(super) const TLS_TIMEOUT: Duration = Duration::from_secs(5);
/// Timeout of a call's answer with its body, and of the upgrade.
///
/// awc does not report when a connection stands, so the time that connecting leaves is added.
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest body of a grant or a ticket, in bytes.
pub(super) const BODY_MAX: usize = 256 * 1024;
/// Step of the times in `Date`.
const DATE_RESOLUTION: Duration = Duration::from_secs(1);
/// Reason why a connector cannot be built: a mistake of configuration or build, found at the start.
#[derive(Debug, thiserror::Error)]
pub enum ConnectorSetupError {
    /// The TLS settings cannot be built.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The certificate authorities of a bot cannot be read.
    #[error("bot {bot}: {error}")]
    Authorities {
        /// Bot whose `ca_file` it is.
        bot: BotName,
        /// Error from the PEM file.
        #[source]
        error: TlsError,
    },
    /// The key of a bot cannot sign.
    #[error("bot {bot}: {error}")]
    Signer {
        /// Bot whose key it is.
        bot: BotName,
        /// Error from the key.
        #[source]
        error: InvalidJwtKey,
    },
}

/// Opener of sockets for one shard thread.
pub struct PlatformConnector {
    public: Rc<PlatformClients>,
    /// Clients of the bots that name their own authorities, which other bots do not trust, or that have a proxy.
    own: HashMap<BotName, Rc<PlatformClients>>,
    signers: HashMap<BotName, Rc<JwtSigner>>,
    scratch: Rc<RefCell<ScratchBuffers>>,
    platform_clock: ClockDifference,
    empty_context: Rc<ConnectContext>,
    /// The formats that assertion services take, as far as they differ from JSON.
    pub(super) assertion_formats: RefCell<HashMap<BotName, AssertionFormat>>,
}

/// `"token": {}`, which Web SDKs send with both calls.
#[derive(Serialize)]
pub(super) struct EmptyToken {}

#[derive(Serialize)]
struct StartRequest<'a> {
    #[serde(rename = "botInfo")]
    bot_info: BotInfo<'a>,
    token: EmptyToken,
}

impl PlatformConnector {
    /// Builds a connector for these bots and parses every bot's key.
    ///
    /// It trusts Mozilla's certificate authorities, and for a bot also those of its `ca_file`. It compares our clock with
    /// that of each answer.
    ///
    /// # Errors
    /// [`ConnectorSetupError`].
    pub fn new(
        bots: &[Arc<BotConfig>],
        platform_clock: ClockDifference,
    ) -> Result<Self, ConnectorSetupError> {
        Self::resolving(bots, platform_clock, &tcp::system_resolver())
    }

    /// As [`PlatformConnector::new`], with another resolver.
    pub(super) fn resolving(
        bots: &[Arc<BotConfig>],
        platform_clock: ClockDifference,
        resolve: &DnsResolver,
    ) -> Result<Self, ConnectorSetupError> {
        let mut own: HashMap<BotName, Rc<PlatformClients>> = HashMap::new();
        let mut signers = HashMap::with_capacity(bots.len());
        for bot in bots {
            if bot.ca.is_some() || bot.proxy.is_some() {
                let shares = |other: &&Arc<BotConfig>| {
                    let proxies = [&other.proxy, &bot.proxy].map(|proxy| proxy.as_ref().map(Arc::as_ptr));
                    bot.ca.is_none() && other.ca.is_none() && proxies[0] == proxies[1]
                };
                let known = bots.iter().find(shares).and_then(|other| own.get(&other.name)).cloned();
                let authorities = |error| ConnectorSetupError::Authorities { bot: bot.name.clone(), error };
                let clients = match known {
                    Some(clients) => clients,
                    None => PlatformClients::new(bot, resolve).map_err(authorities)?,
                };
                own.insert(bot.name.clone(), clients);
            }
            if bot.assertion_service.is_none() {
                let signer = JwtSigner::new(bot)
                    .map_err(|error| ConnectorSetupError::Signer { bot: bot.name.clone(), error })?;
                signers.insert(bot.name.clone(), Rc::new(signer));
            }
        }
        let scratch = Rc::new(RefCell::new(ScratchBuffers::default()));
        Ok(Self {
            public: PlatformClients::with(&tls::client(None)?, resolve, None),
            own,
            signers,
            scratch,
            platform_clock,
            empty_context: Rc::default(),
            assertion_formats: RefCell::default(),
        })
    }

    /// Returns the context of a connect without data and details, which all conversations of the thread share.
    pub fn empty_context(&self) -> Rc<ConnectContext> {
        Rc::clone(&self.empty_context)
    }

    /// Returns the clients that reach this bot's platform.
    pub(super) fn clients(&self, bot: &BotConfig) -> &PlatformClients {
        self.own.get(&bot.name).unwrap_or(&self.public)
    }

    /// Opens a socket for `user`: uses or renews the grant in `grant`, asks for a ticket and uses it at once. Grant and
    /// ticket carry the context, and a grant with another one is renewed.
    ///
    /// Takes 60 s at most, and twice that if the token has expired. An assertion service takes 20 s more for each JWT,
    /// and twice that if it refuses the first format. `now` is the wall clock's: it dates the JWT, and the grant's expiry compares with it.
    ///
    /// # Errors
    /// [`ConnectError`]; its `retry()` says what to do.
    pub async fn connect(
        &self,
        bot: &BotConfig,
        user: &UserId,
        mode: ConnectMode,
        context: &Rc<ConnectContext>,
        grant: &mut Option<Grant>,
        now: Timestamp,
    ) -> Result<PlatformSocket, ConnectError> {
        let began = Instant::now();
        let start = async |grant: &Grant| self.start(bot, mode, context, grant, now).await;
        if grant.as_ref().is_some_and(|grant| !grant.serves(context)) {
            *grant = None;
        }
        let ticket = self.with_grant(bot, user, context, grant, now, start).await?;
        self.open(bot, user, context, &ticket, now + began.elapsed()).await
    }

    /// Returns the signer of a bot. A bot that was unknown at the start gets a new signer for each call.
    pub(super) fn signer(&self, bot: &BotConfig) -> Result<Rc<JwtSigner>, InvalidJwtKey> {
        match self.signers.get(&bot.name) {
            Some(signer) => Ok(Rc::clone(signer)),
            None => JwtSigner::new(bot).map(Rc::new),
        }
    }

    /// Calls `POST …/rtm/start` (protocol.md 4).
    async fn start(
        &self,
        bot: &BotConfig,
        mode: ConnectMode,
        context: &ConnectContext,
        grant: &Grant,
        now: Timestamp,
    ) -> Result<Ticket, ConnectError> {
        let asked = Instant::now();
        let mut request =
            self.clients(bot).calls.post(endpoint_url(bot, "/rtm/start")).insert_header(bearer_header(grant));
        if bot.secure_rtm {
            request = request.insert_header(("x-rtm-v", "1"));
        }
        let data = context.data(bot);
        let body = StartRequest { bot_info: context.bot_info(bot, data.as_deref()), token: EmptyToken {} };
        let answer = self.call(ConnectPhase::Start, request, Some(&body), BODY_MAX, now).await?;
        Ticket::parse(&answer, bot, mode, asked)
            .unwrap_or_else(|| Err(incomplete_response(ConnectPhase::Start, &answer, now)))
    }

    /// Performs the handshake (protocol.md 5.1, 5.2). A secure handshake shows a JWT minted for it (ADR 11). An older
    /// grant leaves no JWT, and the JWT of this connect may be about to expire.
    async fn open(
        &self,
        bot: &BotConfig,
        user: &UserId,
        context: &ConnectContext,
        ticket: &Ticket,
        now: Timestamp,
    ) -> Result<PlatformSocket, ConnectError> {
        let mut request = self.clients(bot).sockets.ws(ticket.url.as_str());
        if let Some(nonce) = &ticket.nonce {
            // The grant has merged the identities.
            let details = UserDetails { merge_with: None, ..context.details.clone() };
            let assertion = self.assertion(bot, user, &details, now).await?;
            request = request.header(header::SEC_WEBSOCKET_PROTOCOL, subprotocols(&assertion, nonce)?);
        }
        if !ticket.is_fresh(Instant::now()) {
            return Err(ConnectError::StaleTicket);
        }
        let opened = timeout(TCP_TIMEOUT + TLS_TIMEOUT + RESPONSE_TIMEOUT, request.connect()).await;
        let (_, framed) = opened
            .map_err(|_| call_failed(ConnectPhase::Socket, CallError::Timeout))?
            .map_err(upgrade_error)?;
        let parts = framed.into_parts();
        Ok(PlatformSocket::new(parts.io, &parts.read_buf, bot, Rc::clone(&self.scratch)))
    }
}

/// Returns the three subprotocols of a secure handshake, in the SDKs' order and in one header (protocol.md 5.2).
fn subprotocols(assertion: &SecretString, nonce: &SecretString) -> Result<header::HeaderValue, ConnectError> {
    let (assertion, nonce) = (assertion.expose_secret(), nonce.expose_secret());
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let unusable = || ConnectError::Unavailable {
        phase: ConnectPhase::Start,
        public_message: "the platform's nonce does not fit into a handshake".into(),
    };
    if !nonce.bytes().all(token) {
        return Err(unusable());
    }
    let value = format!("x-rtm-v|1, jwt|{assertion}, nonce|{nonce}");
    header::HeaderValue::try_from(value).map_err(|_| unusable())
}

/// Returns the URL of one of the platform's calls.
pub(super) fn endpoint_url(bot: &BotConfig, path: &str) -> String {
    let platform = bot.platform.as_str().trim_end_matches('/');
    format!("{platform}{}{path}", bot.api_path.trim_end_matches('/'))
}

/// Returns the header `Authorization: bearer …`, in the lower case of every sample (protocol.md 4.1).
pub(super) fn bearer_header(grant: &Grant) -> (header::HeaderName, String) {
    (header::AUTHORIZATION, format!("bearer {}", grant.token().expose_secret()))
}

impl PlatformConnector {
    /// Makes one call and reads its whole answer, under one timeout.
    pub(super) async fn call(
        &self,
        phase: ConnectPhase,
        request: ClientRequest,
        body: Option<&impl Serialize>,
        body_max: usize,
        now: Timestamp,
    ) -> Result<Bytes, ConnectError> {
        let sending = match body {
            Some(body) => request.send_json(body),
            None => request.send(),
        };
        self.answer(phase, sending, TCP_TIMEOUT + TLS_TIMEOUT + RESPONSE_TIMEOUT, body_max, now).await
    }

    /// Reads the whole answer to a request within this time. Compares the platform's clock with ours.
    pub(super) async fn answer(
        &self,
        phase: ConnectPhase,
        sending: SendClientRequest,
        limit: Duration,
        body_max: usize,
        now: Timestamp,
    ) -> Result<Bytes, ConnectError> {
        let sent = wall_clock::now();
        let exchange = async {
            let mut response = sending.await.map_err(|error| call_failed(phase, send_error(error)))?;
            let received = wall_clock::now();
            let body = response.body().limit(body_max).await;
            let text =
                |name: header::HeaderName| response.headers().get(name).and_then(|value| value.to_str().ok());
            let date = text(header::DATE);
            // A cache tells when it got the answer, and an assertion service has a clock of its own.
            let is_own = text(header::AGE).is_none() && phase != ConnectPhase::Assertion;
            if let Some(told) = date.and_then(parse_http_date).filter(|_| is_own) {
                self.platform_clock.observe(sent, received, told, DATE_RESOLUTION);
            }
            if response.status().is_success() {
                return body.map_err(|error| call_failed(phase, body_error(error)));
            }
            // The status suffices if the body cannot be read.
            let body = body.unwrap_or_default();
            let (retry_after, location) = (text(header::RETRY_AFTER), text(header::LOCATION));
            let status = response.status().as_u16();
            let refusal = PlatformRefusal { phase, status, retry_after, date, location, body: &body };
            Err(refusal.into_error(now))
        };
        match timeout(limit, exchange).await {
            Ok(result) => result,
            Err(_) => Err(call_failed(phase, CallError::Timeout)),
        }
    }
}

/// Returns the error of a 2xx answer that lacks the wanted fields. Its body may carry a refusal.
pub(super) fn incomplete_response(phase: ConnectPhase, body: &[u8], now: Timestamp) -> ConnectError {
    let status = StatusCode::OK.as_u16();
    PlatformRefusal { phase, status, retry_after: None, date: None, location: None, body }.into_error(now)
}

const fn call_failed(phase: ConnectPhase, error: CallError) -> ConnectError {
    ConnectError::Unreachable { phase, error }
}

/// Returns the error of a failed upgrade. The ticket is spent in any case, so the next try asks for another.
fn upgrade_error(error: WsClientError) -> ConnectError {
    let phase = ConnectPhase::Socket;
    let public_message = match error {
        WsClientError::SendRequest(error) => return call_failed(phase, send_error(error)),
        WsClientError::InvalidResponseStatus(status) => {
            format!("the platform refused the socket with {}", status.as_u16()).into()
        }
        _ => "the platform's handshake is not one of a web socket".into(),
    };
    ConnectError::Unavailable { phase, public_message }
}

fn send_error(error: SendRequestError) -> CallError {
    use awc::error::ConnectError as Connecting;
    match error {
        SendRequestError::Connect(
            Connecting::Resolver(_) | Connecting::NoRecords | Connecting::Unresolved,
        ) => CallError::Dns,
        SendRequestError::Connect(Connecting::Timeout) | SendRequestError::Timeout => CallError::Timeout,
        SendRequestError::Connect(Connecting::Io(error)) => match error.downcast::<ProxyError>() {
            Ok(cause) => CallError::of_proxy(cause),
            Err(error)
                if error
                    .get_ref()
                    .is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>) =>
            {
                CallError::Tls(error)
            }
            Err(error) => CallError::Connection(error),
        },
        SendRequestError::Send(error) | SendRequestError::Response(ParseError::Io(error)) => {
            CallError::Connection(error)
        }
        SendRequestError::Connect(_) => CallError::HungUp,
        _ => CallError::NotHttp,
    }
}

fn body_error(error: PayloadError) -> CallError {
    match error {
        PayloadError::Overflow => CallError::TooLarge,
        PayloadError::Io(error) => CallError::Connection(error),
        PayloadError::Incomplete(_) => CallError::HungUp,
        _ => CallError::NotHttp,
    }
}
