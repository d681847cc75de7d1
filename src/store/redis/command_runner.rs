//! The command runner: it carries commands to Redis within a deadline, over lost connections and failovers.
//!
//! The runner holds addresses and settings, and all threads share it. Connections stay with the runtime that opened
//! them. Each thread keeps a [`ThreadConnection`] for each runner.
//!
//! Each operation has one deadline, `store.command_timeout`. Until then it is retried as the table in `error_policy`
//! says; every script is safe to run twice. At the deadline it fails as `Unknown` if one of its attempts may have
//! been carried out. Otherwise it fails as `Unavailable` with the last reason. A refusal from inside a script is
//! `Halfway`: the script may have written before. A connection without any answer until
//! a deadline is dropped, so the next operation gets a new one. Other operations that wait on it are not harmed.

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
use super::connector::{RedisConnection, RedisConnector};
use super::error_policy::{ErrorPolicy, for_log, is_halfway, policy};
use super::script::ScriptCall;
use super::thread_connection::{ConnectRefusal, ThreadConnection, reconnect_backoff};
use crate::config::{self, RedisServers};
use crate::store::{StoreError, StoreRefusal};

/// The remaining time below which there is no retry.
const LAST_TRY: Duration = Duration::from_millis(20);

/// The longest delay after a dedicated connection could not be opened.
const DEDICATED_PAUSE: Duration = Duration::from_millis(80);

/// Connections by the runner's number and by whether they carry background calls, each with its runtime.
type ThreadConnections = HashMap<(u64, bool), (runtime::Id, Rc<ThreadConnection>)>;

thread_local! {
    /// The connections of this thread.
    static CONNECTIONS: RefCell<ThreadConnections> = RefCell::default();
}

/// The command runner. Any thread may use it.
#[derive(Debug)]
pub(super) struct CommandRunner {
    number: u64,
    connector: Arc<RedisConnector>,
    timeout: Duration,
    /// The number of replicas that must confirm a durable call.
    confirmations: u32,
    #[cfg(test)]
    traffic: super::traffic::TrafficCounter,
    /// Whether the loss of the connection was logged. Threads and attempts do not repeat it.
    away: AtomicBool,
}

/// The command of one operation.
#[derive(Clone, Copy)]
enum CommandRequest<'a> {
    Script(&'a ScriptCall<'a>),
    /// A command for every master of a cluster.
    Masters(&'a Cmd),
}

/// The connection that one attempt uses.
enum Route {
    Shared(RedisConnection, u64),
    Own(Object<super::thread_connection::Opener>, u64),
}

impl CommandRunner {
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
    /// A durable call fails as [`StoreRefusal::TooFewReplicas`] if too few replicas of the store confirm it in time.
    /// The master carried it out all the same, and a repeat waits again.
    pub(super) async fn run(&self, call: ScriptCall<'_>) -> Result<Value, StoreError> {
        // The future is boxed, because the client's futures are nested deeply.
        Box::pin(self.perform(CommandRequest::Script(&call))).await
    }

    /// Runs a plain command on every master and returns their answers.
    pub(super) async fn on_masters(&self, cmd: &Cmd) -> Result<Vec<Value>, StoreError> {
        let value = Box::pin(self.perform(CommandRequest::Masters(cmd))).await?;
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

    /// Returns the connector, for the listener's own connection.
    pub(super) const fn connector(&self) -> &Arc<RedisConnector> {
        &self.connector
    }

    /// Returns the timeout of one operation.
    pub(super) const fn timeout(&self) -> Duration {
        self.timeout
    }

    async fn perform(&self, request: CommandRequest<'_>) -> Result<Value, StoreError> {
        let connection = self.thread_connection(self.connector.is_cluster() && request.is_background());
        let deadline = Instant::now() + self.timeout;
        let mut sent = false;
        let mut refusal = StoreRefusal::Unreachable;
        let mut backoff = reconnect_backoff();
        loop {
            let mut route = match timeout_at(deadline, self.route(&connection, request)).await {
                Ok(Ok(route)) => route,
                Ok(Err(closed)) if closed.lasting => return Err(self.failed(sent, closed.refusal)),
                Ok(Err(closed)) => {
                    refusal = closed.refusal;
                    continue;
                }
                Err(_) => return Err(self.failed(sent, refusal)),
            };
            let begun = Instant::now();
            // A process that stood still may have a connection again, but its deadline is over.
            if begun >= deadline {
                return Err(self.failed(sent, refusal));
            }
            let Ok(answer) = timeout_at(deadline, self.attempt(&mut route, request, deadline)).await else {
                self.drop_silent(&connection, route, begun);
                return Err(StoreError::Unknown(self.timeout));
            };
            let error = match answer {
                Ok(value) => {
                    self.note_answer(&connection, &route);
                    return value.ok_or(StoreError::Unavailable(StoreRefusal::TooFewReplicas));
                }
                Err(error) => error,
            };
            let halfway = is_halfway(&error);
            sent |= halfway;
            match policy(&error) {
                ErrorPolicy::Refuse(refusal) => {
                    if let (StoreRefusal::Unexpected, CommandRequest::Script(call)) = (refusal, request) {
                        tracing::error!(script = call.script.name, error = for_log(&error), "Redis refused");
                    }
                    return Err(if halfway {
                        StoreError::Halfway(refusal)
                    } else {
                        self.failed(sent, refusal)
                    });
                }
                ErrorPolicy::Wait(reason) => {
                    self.note_answer(&connection, &route);
                    refusal = reason;
                }
                // If neither hash nor text is known, the server is another one than a moment ago.
                ErrorPolicy::Text => refusal = StoreRefusal::Unexpected,
                ErrorPolicy::Reconnect { refusal: reason, sent: perhaps } => {
                    sent |= perhaps;
                    refusal = reason;
                    if !self.is_repaired(&connection, &route) {
                        self.drop_lost(&connection, route, &error);
                        continue;
                    }
                }
            }
            drop(route);
            let left = deadline.saturating_duration_since(Instant::now());
            if left < LAST_TRY {
                return Err(self.failed(sent, refusal));
            }
            // Delays grow. The last one must leave time for another attempt.
            tokio::time::sleep(backoff.next(fastrand::f64()).min(left / 2)).await;
        }
    }

    /// Returns the connection for an attempt. If there is none, all attempts wait for the shared one first, also
    /// those that then use a dedicated one.
    async fn route(
        &self,
        connection: &ThreadConnection,
        request: CommandRequest<'_>,
    ) -> Result<Route, ConnectRefusal> {
        let (shared, number) = match connection.link().await {
            Ok(open) => open,
            Err(closed) => {
                if !self.away.swap(true, Ordering::Relaxed) {
                    tracing::warn!(reason = %closed.refusal, error = &*closed.what, "no connection to Redis");
                }
                return Err(closed);
            }
        };
        if self.must_wait(request) {
            match Box::pin(connection.dedicated()).await {
                Ok(own) => Ok(Route::Own(own, number)),
                Err(error) => {
                    // The shared connection exists, so this pause alone delays the retry.
                    tokio::time::sleep(DEDICATED_PAUSE.mul_f64(fastrand::f64())).await;
                    Err(ConnectRefusal::from(&error))
                }
            }
        } else {
            Ok(Route::Shared(shared, number))
        }
    }

    fn must_wait(&self, request: CommandRequest<'_>) -> bool {
        self.confirmations > 0 && matches!(request, CommandRequest::Script(call) if call.is_durable())
    }

    /// Makes one attempt: by the script's hash, and by its text if the server does not know it. `None` means that too
    /// few replicas confirmed.
    async fn attempt(
        &self,
        route: &mut Route,
        request: CommandRequest<'_>,
        deadline: Instant,
    ) -> RedisResult<Option<Value>> {
        match self.exchange(route, request, request.cmd(), deadline).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                let CommandRequest::Script(call) = request else { return Err(error) };
                self.exchange(route, request, Cow::Owned(call.by_text()), deadline).await
            }
            result => result,
        }
    }

    async fn exchange(
        &self,
        route: &mut Route,
        request: CommandRequest<'_>,
        cmd: Cow<'_, Cmd>,
        deadline: Instant,
    ) -> RedisResult<Option<Value>> {
        #[cfg(test)]
        self.traffic.add(1, 1);
        let link = match route {
            Route::Own(own, _) => return Box::pin(self.confirmed(own, cmd.into_owned(), deadline)).await,
            Route::Shared(link, _) => link,
        };
        match (request, link) {
            (CommandRequest::Masters(cmd), RedisConnection::Cluster(cluster)) => {
                let masters = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
                Box::pin(cluster.route_command(cmd.clone(), masters)).await?.extract_error()
            }
            (_, link) => link.send(&cmd).await,
        }
        .map(Some)
    }

    /// Sends the command with `WAIT` behind it. `WAIT` takes half of the remaining time, which leaves enough for a
    /// second attempt by text.
    async fn confirmed(
        &self,
        link: &mut RedisConnection,
        cmd: Cmd,
        deadline: Instant,
    ) -> RedisResult<Option<Value>> {
        #[cfg(test)]
        self.traffic.add(1, 0);
        let left = deadline.saturating_duration_since(Instant::now());
        // 0 would wait for ever.
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

    /// Notes an answer. Only an answer proves that Redis is there, because a connection may die unnoticed.
    fn note_answer(&self, connection: &ThreadConnection, route: &Route) {
        connection.note_answer(route.number());
        if self.away.load(Ordering::Relaxed) && self.away.swap(false, Ordering::Relaxed) {
            tracing::info!("connected to Redis again");
        }
    }

    /// Drops a connection without any answer until the deadline.
    fn drop_silent(&self, connection: &ThreadConnection, route: Route, since: Instant) {
        match route {
            Route::Own(own, _) => drop(Object::take(own)),
            Route::Shared(_, number) if connection.silent_since(number, since) => {
                if connection.drop_connection(number) {
                    tracing::warn!(after = ?self.timeout, "Redis does not answer; its connection is dropped");
                }
            }
            Route::Shared(..) => {}
        }
    }

    /// Returns whether other nodes of the cluster still answer. The client library then repairs the connection. To
    /// drop it would hold up all operations on other nodes.
    fn is_repaired(&self, connection: &ThreadConnection, route: &Route) -> bool {
        let then = Instant::now().checked_sub(self.timeout);
        self.connector.is_cluster() && then.is_some_and(|then| !connection.silent_since(route.number(), then))
    }

    fn drop_lost(&self, connection: &ThreadConnection, route: Route, error: &RedisError) {
        let number = route.number();
        if let Route::Own(own, _) = route {
            drop(Object::take(own));
            connection.drop_idle();
        }
        if connection.drop_connection(number) && !self.away.swap(true, Ordering::Relaxed) {
            tracing::warn!(error = for_log(error), "lost the connection to Redis");
        }
    }

    const fn failed(&self, sent: bool, refusal: StoreRefusal) -> StoreError {
        if sent { StoreError::Unknown(self.timeout) } else { StoreError::Unavailable(refusal) }
    }

    fn thread_connection(&self, background: bool) -> Rc<ThreadConnection> {
        let runtime = Handle::current().id();
        let key = (self.number, background);
        CONNECTIONS.with_borrow_mut(|connections| {
            match connections.get(&key) {
                Some((of, connection)) if *of == runtime => return Rc::clone(connection),
                _ => {}
            }
            // The connections of the thread's former runtime ended with it.
            let connection = Rc::new(ThreadConnection::new(Arc::clone(&self.connector)));
            connections.insert(key, (runtime, Rc::clone(&connection)));
            connection
        })
    }
}

impl Drop for CommandRunner {
    /// Closes this thread's connections. Those of other threads end with their threads.
    fn drop(&mut self) {
        let connections = CONNECTIONS.try_with(|connections| {
            let mut all = connections.try_borrow_mut().ok()?;
            Some([false, true].map(|background| all.remove(&(self.number, background))))
        });
        drop(connections);
    }
}

impl Route {
    const fn number(&self) -> u64 {
        match self {
            Self::Shared(_, number) | Self::Own(_, number) => *number,
        }
    }
}

impl<'a> CommandRequest<'a> {
    const fn is_background(self) -> bool {
        matches!(self, Self::Script(call) if call.is_background())
    }

    fn cmd(self) -> Cow<'a, Cmd> {
        match self {
            Self::Script(call) => Cow::Borrowed(call.by_hash()),
            Self::Masters(cmd) => Cow::Borrowed(cmd),
        }
    }
}
