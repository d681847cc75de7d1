//! Carries commands to Redis and answers back, within a deadline and over whatever happens to connections.
//!
//! The wire itself is addresses and counters, and is shared by all threads. Connections stay with the runtime that
//! opened them, in a [`Line`] that each thread keeps for each wire.
//!
//! One operation is one deadline, `store.command_timeout`. Within it, what may pass is tried again, as the table in
//! `refusal` says; every script is safe to run twice. At the deadline the operation fails as `Unknown` where one of
//! its attempts may have been carried out, else as `Unavailable` with the last reason. A connection that answered
//! nothing until a deadline is let go of, so that the next operation gets a new one; others that wait for answers
//! over it lose nothing by that.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool::managed::Object;
use deadpool_redis::redis::cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo};
use deadpool_redis::redis::{
    Cmd, ErrorKind, Pipeline, RedisError, RedisResult, ServerErrorKind, Value, from_redis_value,
};
use tokio::runtime::{self, Handle};
use tokio::time::{Instant, timeout_at};

use super::RedisSetupError;
use super::connect::{Link, RedisConnector};
use super::line::{Closed, Line, reconnect_backoff};
use super::refusal::{Policy, for_log, policy};
use super::script::Call;
use crate::config::{self, RedisServers};
use crate::store::{StoreError, StoreRefusal};

/// With less time than this left nothing is tried again.
const LAST_TRY: Duration = Duration::from_millis(20);

/// The longest delay after a dedicated connection could not be opened.
const DEDICATED_PAUSE: Duration = Duration::from_millis(80);

/// Lines by the wire's number and whether they are for what is sent aside, each with the runtime that it belongs to.
type Lines = HashMap<(u64, bool), (runtime::Id, Rc<Line>)>;

thread_local! {
    /// This thread's.
    static LINES: RefCell<Lines> = RefCell::default();
}

/// How to reach Redis. Used from any thread.
#[derive(Debug)]
pub(super) struct Wire {
    number: u64,
    connector: Arc<RedisConnector>,
    timeout: Duration,
    /// Replicas that must confirm a durable call.
    confirmations: u32,
    #[cfg(test)]
    traffic: super::traffic::TrafficCounter,
    /// Whether the loss of the connection was logged, so that threads and attempts do not repeat it.
    away: AtomicBool,
}

/// What is to be carried out.
#[derive(Clone, Copy)]
enum Request<'a> {
    Script(&'a Call<'a>),
    /// On every master of a cluster.
    Masters(&'a Cmd),
}

/// Where one attempt is made.
enum Place {
    Shared(Link, u64),
    Own(Object<super::line::Opener>, u64),
}

impl Wire {
    pub(super) fn new(
        servers: &RedisServers,
        options: &config::StoreConfig,
    ) -> Result<Self, RedisSetupError> {
        let connector = RedisConnector::new(servers, options).map_err(RedisSetupError::Url)?;
        Ok(Self {
            number: fastrand::u64(..),
            connector: Arc::new(connector),
            timeout: options.command_timeout,
            confirmations: options.wait_replicas,
            #[cfg(test)]
            traffic: super::traffic::TrafficCounter::default(),
            away: AtomicBool::new(false),
        })
    }

    /// Runs a script.
    ///
    /// A durable call that too few replicas of the store confirm in time fails as
    /// [`StoreRefusal::TooFewReplicas`] although the master carried it out; its repeat waits again.
    pub(super) async fn run(&self, call: Call<'_>) -> Result<Value, StoreError> {
        // Boxed: the client's futures are nested deeply, and those who wait here should stay small.
        Box::pin(self.perform(Request::Script(&call))).await
    }

    /// Runs a plain command on every master, and returns each one's answer.
    pub(super) async fn on_masters(&self, cmd: &Cmd) -> Result<Vec<Value>, StoreError> {
        let value = Box::pin(self.perform(Request::Masters(cmd))).await?;
        Ok(match value {
            Value::Map(nodes) if self.connector.is_cluster() => {
                nodes.into_iter().map(|(_, answer)| answer).collect()
            }
            value => vec![value],
        })
    }

    #[cfg(test)]
    pub(super) fn traffic(&self) -> super::traffic::Traffic {
        self.traffic.get()
    }

    /// For the listener, which has a connection of its own.
    pub(super) const fn connector(&self) -> &Arc<RedisConnector> {
        &self.connector
    }

    /// The longest that one operation may take.
    pub(super) const fn timeout(&self) -> Duration {
        self.timeout
    }

    async fn perform(&self, request: Request<'_>) -> Result<Value, StoreError> {
        let line = self.line(self.connector.is_cluster() && request.is_aside());
        let deadline = Instant::now() + self.timeout;
        let mut sent = false;
        let mut refusal = StoreRefusal::Unreachable;
        let mut backoff = reconnect_backoff();
        loop {
            let mut place = match timeout_at(deadline, self.place(&line, request)).await {
                Ok(Ok(place)) => place,
                Ok(Err(closed)) if closed.lasting => return Err(self.failed(sent, closed.refusal)),
                Ok(Err(closed)) => {
                    refusal = closed.refusal;
                    continue;
                }
                Err(_) => return Err(self.failed(sent, refusal)),
            };
            let begun = Instant::now();
            let Ok(answer) = timeout_at(deadline, self.attempt(&mut place, request, deadline)).await else {
                self.silent(&line, place, begun);
                return Err(StoreError::Unknown(self.timeout));
            };
            let error = match answer {
                Ok(value) => {
                    self.heard(&line, &place);
                    return value.ok_or(StoreError::Unavailable(StoreRefusal::TooFewReplicas));
                }
                Err(error) => error,
            };
            match policy(&error) {
                Policy::Refuse(refusal) => {
                    if let (StoreRefusal::Unexpected, Request::Script(call)) = (refusal, request) {
                        tracing::error!(script = call.script.name, error = for_log(&error), "Redis refused");
                    }
                    return Err(self.failed(sent, refusal));
                }
                Policy::Wait(reason) => {
                    self.heard(&line, &place);
                    refusal = reason;
                }
                // Twice unknown, by hash and by text: another server than a moment ago.
                Policy::Text => refusal = StoreRefusal::Unexpected,
                Policy::Reconnect { refusal: reason, sent: perhaps } => {
                    sent |= perhaps;
                    refusal = reason;
                    if !self.is_repaired(&line, &place) {
                        self.lost(&line, place, &error);
                        continue;
                    }
                }
            }
            drop(place);
            let left = deadline.saturating_duration_since(Instant::now());
            if left < LAST_TRY {
                return Err(self.failed(sent, refusal));
            }
            // The pauses grow, and the last ones should not eat up the time that is left.
            tokio::time::sleep(backoff.next(fastrand::f64()).min(left / 2)).await;
        }
    }

    /// Where to make an attempt. While there is no connection all wait for the same one, also those who then take
    /// one of their own.
    async fn place(&self, line: &Line, request: Request<'_>) -> Result<Place, Closed> {
        let (shared, number) = match line.link().await {
            Ok(open) => open,
            Err(closed) => {
                if !self.away.swap(true, Ordering::Relaxed) {
                    tracing::warn!(reason = %closed.refusal, error = &*closed.what, "no connection to Redis");
                }
                return Err(closed);
            }
        };
        if self.waits(request) {
            match Box::pin(line.waiting()).await {
                Ok(own) => Ok(Place::Own(own, number)),
                Err(error) => {
                    // The shared connection is there, so nothing else keeps this from being tried at once again.
                    tokio::time::sleep(DEDICATED_PAUSE.mul_f64(fastrand::f64())).await;
                    Err(Closed::from(&error))
                }
            }
        } else {
            Ok(Place::Shared(shared, number))
        }
    }

    fn waits(&self, request: Request<'_>) -> bool {
        self.confirmations > 0 && matches!(request, Request::Script(call) if call.is_durable())
    }

    /// One attempt: by the script's hash, and by its text where the server does not know it. None where too few
    /// replicas confirmed.
    async fn attempt(
        &self,
        place: &mut Place,
        request: Request<'_>,
        deadline: Instant,
    ) -> RedisResult<Option<Value>> {
        match self.exchange(place, request, request.cmd(), deadline).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                let Request::Script(call) = request else { return Err(error) };
                self.exchange(place, request, Cow::Owned(call.by_text()), deadline).await
            }
            result => result,
        }
    }

    async fn exchange(
        &self,
        place: &mut Place,
        request: Request<'_>,
        cmd: Cow<'_, Cmd>,
        deadline: Instant,
    ) -> RedisResult<Option<Value>> {
        #[cfg(test)]
        self.traffic.add(1, 1);
        let link = match place {
            Place::Own(own, _) => return Box::pin(self.confirmed(own, cmd.into_owned(), deadline)).await,
            Place::Shared(link, _) => link,
        };
        match (request, link) {
            (Request::Masters(cmd), Link::Cluster(cluster)) => {
                let masters = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
                Box::pin(cluster.route_command(cmd.clone(), masters)).await?.extract_error()
            }
            (_, link) => link.send(&cmd).await,
        }
        .map(Some)
    }

    /// The command, and `WAIT` behind it for half the time that is left: enough stays for a second try by text.
    async fn confirmed(&self, link: &mut Link, cmd: Cmd, deadline: Instant) -> RedisResult<Option<Value>> {
        #[cfg(test)]
        self.traffic.add(1, 0);
        let left = deadline.saturating_duration_since(Instant::now());
        // 0 would be for ever.
        let patience = (left / 2).as_millis().max(1);
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.add_command(cmd);
        pipeline.cmd("WAIT").arg(self.confirmations).arg(u64::try_from(patience).unwrap_or(u64::MAX));
        let mut answers = link.send_all(&pipeline).await?.into_iter();
        let (Some(value), Some(confirmed)) = (answers.next(), answers.next()) else {
            return Err((ErrorKind::Parse, "an answer is missing").into());
        };
        let value = value.extract_error()?;
        let confirmed: u32 = from_redis_value(confirmed.extract_error()?)?;
        Ok((confirmed >= self.confirmations).then_some(value))
    }

    /// Something was answered: only that shows that Redis is there, for a connection may have died unnoticed.
    fn heard(&self, line: &Line, place: &Place) {
        line.heard(place.number());
        if self.away.load(Ordering::Relaxed) && self.away.swap(false, Ordering::Relaxed) {
            tracing::info!("connected to Redis again");
        }
    }

    /// Nothing came until the deadline.
    fn silent(&self, line: &Line, place: Place, since: Instant) {
        match place {
            Place::Own(own, _) => drop(Object::take(own)),
            Place::Shared(_, number) if line.silent_since(number, since) => {
                if line.lose(number) {
                    tracing::warn!(after = ?self.timeout, "Redis does not answer; its connection is let go of");
                }
            }
            Place::Shared(..) => {}
        }
    }

    /// Whether the connection is a cluster's of which other nodes answer. It is repaired by the client library, and
    /// giving it up because of one node would hold up all who need the others.
    fn is_repaired(&self, line: &Line, place: &Place) -> bool {
        let then = Instant::now().checked_sub(self.timeout);
        self.connector.is_cluster() && then.is_some_and(|then| !line.silent_since(place.number(), then))
    }

    fn lost(&self, line: &Line, place: Place, error: &RedisError) {
        let number = place.number();
        if let Place::Own(own, _) = place {
            drop(Object::take(own));
            line.lose_waiting();
        }
        if line.lose(number) && !self.away.swap(true, Ordering::Relaxed) {
            tracing::warn!(error = for_log(error), "lost the connection to Redis");
        }
    }

    const fn failed(&self, sent: bool, refusal: StoreRefusal) -> StoreError {
        if sent { StoreError::Unknown(self.timeout) } else { StoreError::Unavailable(refusal) }
    }

    fn line(&self, aside: bool) -> Rc<Line> {
        let runtime = Handle::current().id();
        let key = (self.number, aside);
        LINES.with_borrow_mut(|lines| {
            match lines.get(&key) {
                Some((of, line)) if *of == runtime => return Rc::clone(line),
                _ => {}
            }
            // The thread's former runtime took its connections with it.
            let line = Rc::new(Line::new(Arc::clone(&self.connector)));
            lines.insert(key, (runtime, Rc::clone(&line)));
            line
        })
    }
}

impl Drop for Wire {
    /// Closes this thread's connections; those of others end with their threads.
    fn drop(&mut self) {
        let lines = LINES.try_with(|lines| {
            let mut all = lines.try_borrow_mut().ok()?;
            Some([false, true].map(|aside| all.remove(&(self.number, aside))))
        });
        drop(lines);
    }
}

impl Place {
    const fn number(&self) -> u64 {
        match self {
            Self::Shared(_, number) | Self::Own(_, number) => *number,
        }
    }
}

impl<'a> Request<'a> {
    const fn is_aside(self) -> bool {
        matches!(self, Self::Script(call) if call.is_aside())
    }

    fn cmd(self) -> Cow<'a, Cmd> {
        match self {
            Self::Script(call) => Cow::Borrowed(call.by_hash()),
            Self::Masters(cmd) => Cow::Borrowed(cmd),
        }
    }
}
