//! The command runner, the listener and the health monitor against real and scripted servers.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use deadpool_redis::redis::io::AsyncDNSResolver;
use deadpool_redis::redis::{Cmd, RedisFuture, Value, cmd};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep, timeout};

use super::super::RedisStore;
use super::super::command_runner::CommandRunner;
use super::super::connector::RedisConnector;
use super::super::script::RedisScript;
use super::server::{Server, free_port, local, options};
use super::{LEASE, ME, OTHER, accept, alice};
use crate::config::{RedisServers, RedisTopology, StoreConfig, StoreTls, StoreUrl};
use crate::domain::Partition;
use crate::runtime::fixtures::{DeadAddress, run};
use crate::store::{AcceptError, ClaimMode, HealthIssue, Hint, Incarnation, StoreError, StoreRefusal};

fn wire(options: &StoreConfig) -> CommandRunner {
    let StoreUrl::Redis(servers) = &options.url else { panic!("it is on Redis") };
    CommandRunner::new(servers, options).unwrap()
}

fn count_up() -> RedisScript {
    RedisScript::new("count_up", "#!lua\nreturn redis.call('INCRBY', KEYS[1], ARGV[1])".to_owned())
}

async fn count(runner: &CommandRunner, script: &RedisScript, by: u32) -> Result<i64, StoreError> {
    runner.run(script.call(&["{p1}:n"]).arg(by)).await.map(|value| match value {
        Value::Int(n) => n,
        other => panic!("{other:?}"),
    })
}

fn ping() -> Cmd {
    cmd("PING")
}

/// Waits until the condition holds.
async fn until<F: Future<Output = bool>>(mut is_so: impl FnMut() -> F) {
    while !is_so().await {
        sleep(Duration::from_millis(10)).await;
    }
}

const NOT_ALLOWED: StoreError = StoreError::Unavailable(StoreRefusal::NotAllowed);

#[test]
fn script_runs_by_hash_and_once_by_text() {
    run(async {
        let server = Server::start();
        let runner = wire(&server.options());
        let script = count_up();
        assert_eq!(count(&runner, &script, 2).await, Ok(2));
        assert_eq!(runner.traffic().commands, 2, "the hash, then the text");
        assert_eq!(count(&runner, &script, 3).await, Ok(5));
        assert_eq!(runner.traffic().commands, 3);
        server.cli(&["SCRIPT", "FLUSH"]);
        assert_eq!(count(&runner, &script, 1).await, Ok(6));
        let many = (0..500).map(|_| count(&runner, &script, 1));
        assert!(futures_util::future::join_all(many).await.iter().all(Result::is_ok));
        assert_eq!(server.cli(&["GET", "{p1}:n"]), "506");
        let clients = server.cli(&["CLIENT", "LIST"]);
        assert_eq!(clients.lines().count(), 2, "one is ours, one redis-cli's: {clients}");
    });
}

#[test]
fn killed_connection_is_replaced_at_once() {
    run(async {
        let server = Server::start();
        let runner = wire(&server.options());
        for round in 1..=3 {
            assert_eq!(count(&runner, &count_up(), 1).await, Ok(round));
            server.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        }
    });
}

#[test]
fn absent_server_fails_at_the_deadline_and_is_found_again() {
    run(async {
        let port = free_port();
        let options = options(RedisTopology::Alone(local(port)));
        let runner = wire(&options);
        let begun = Instant::now();
        let many = (0..100).map(|_| runner.run_ping());
        for result in futures_util::future::join_all(many).await {
            assert_eq!(result, Err(StoreError::Unavailable(StoreRefusal::Unreachable)));
        }
        let took = begun.elapsed();
        assert!(took >= options.command_timeout && took < options.command_timeout * 3 / 2, "{took:?}");
        // The runner retries until the server is there.
        let started = async { Server::start_on(port) };
        let (answer, _server) = tokio::join!(runner.run_ping(), started);
        answer.unwrap();
    });
}

#[test]
fn concurrent_operations_share_one_connect_attempt() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let runner = wire(&options(RedisTopology::Alone(local(port))));
        // This server closes every connection.
        let counted = async {
            let mut attempts = 0;
            while let Ok((socket, _)) = listener.accept().await {
                attempts += 1;
                drop(socket);
                if attempts == 100 {
                    break;
                }
            }
            attempts
        };
        let all = futures_util::future::join_all((0..1000).map(|_| runner.run_ping()));
        tokio::select! {
            attempts = counted => panic!("{attempts} attempts"),
            results = all => assert!(results.iter().all(Result::is_err)),
        }
    });
}

#[test]
fn hung_server_costs_each_deadline_and_one_connection() {
    run(async {
        let server = Server::start();
        let options = server.options();
        let runner = wire(&options);
        let script = count_up();
        count(&runner, &script, 1).await.unwrap();
        server.signal("STOP");
        for _ in 0..2 {
            let begun = Instant::now();
            let error = count(&runner, &script, 1).await.unwrap_err();
            assert!(error.is_passing(), "{error}");
            let took = begun.elapsed();
            assert!(took >= options.command_timeout && took < options.command_timeout * 3 / 2, "{took:?}");
        }
        server.signal("CONT");
        // A command that was sent meanwhile may have been carried out.
        assert!(count(&runner, &script, 1).await.unwrap() >= 2);
    });
}

#[test]
fn wrong_password_fails_at_once_without_a_quick_retry() {
    run(async {
        let server = Server::start_with(&["--requirepass", "right"]);
        let with = |name: Option<&str>, password: Option<&str>| {
            let mut options = server.options();
            options.username = name.map(str::to_owned);
            options.password = password.map(Into::into);
            wire(&options)
        };
        with(None, Some("right")).run_ping().await.unwrap();
        for wrong in [with(None, Some("wrong")), with(Some("nobody"), Some("right")), with(None, None)] {
            let begun = Instant::now();
            for _ in 0..200 {
                assert_eq!(wrong.run_ping().await, Err(NOT_ALLOWED));
            }
            assert!(begun.elapsed() < Duration::from_millis(900));
        }
        let stats = server.cli(&["-a", "right", "--no-auth-warning", "INFO", "stats"]);
        let connections =
            stats.lines().find_map(|line| line.trim().strip_prefix("total_connections_received:"));
        let connections: u32 = connections.unwrap().parse().unwrap();
        assert!(connections < 10, "{connections} connections");
    });
}

#[test]
fn acl_user_with_few_rights_is_enough() {
    run(async {
        let rights = "--user bridge on >secret ~rtm:* ~{p1}* &rtm:* -@all +evalsha +eval +incrby +ping +subscribe +info";
        let server = Server::start_with(&rights.split(' ').collect::<Vec<_>>());
        let mut options = server.options();
        options.username = Some("bridge".to_owned());
        options.password = Some("secret".into());
        let redis = RedisStore::new(&options).unwrap();
        assert_eq!(count(&redis.0.runner, &count_up(), 1).await, Ok(1));
        assert_eq!(redis.0.runner.on_masters(&cmd("FLUSHALL")).await, Err(NOT_ALLOWED));
        assert_eq!(redis.listen(Incarnation(1)).next().await.name(), "subscribed");
        redis.check_health().await;
        assert_eq!(redis.health().warnings, [HealthIssue::NotAllowed], "CONFIG GET is not allowed");
    });
}

#[test]
fn accept_without_channels_is_not_called_unwritten() {
    run(async {
        let server = Server::start();
        let own = ["ACL", "SETUSER", "bridge", "on", ">secret", "~*", "+@all", "&t:*"];
        server.cli(&own);
        let user = (Some("bridge".to_owned()), Some("secret".into()));
        let store = RedisStore::new(&StoreConfig { username: user.0, password: user.1, ..server.patient() });
        let store = store.unwrap();
        let partition = Partition::of(&alice());
        store.claim(partition, OTHER, LEASE, ClaimMode::Expired).await.unwrap();
        let mut hints = store.listen(ME);
        assert_eq!(hints.next().await.name(), "subscribed");
        assert_eq!(store.check_ready().await, Ok(()));

        // The message is stored, and then its hint for the owner is refused.
        server.cli(&["ACL", "SETUSER", "bridge", "resetchannels"]);
        let request = accept(1);
        let id = request.id;
        let error = store.accept(request).await.unwrap_err();
        assert_eq!(error, AcceptError::Store(StoreError::Halfway(StoreRefusal::NoChannels)));
        assert!(error_is_open(&error), "{error}");
        assert_eq!(store.check_ready().await, Err(StoreError::Unavailable(StoreRefusal::NoChannels)));

        server.cli(&own);
        assert!(store.message(&alice(), id, None).await.unwrap().is_some(), "it was accepted");
        // Redis cut the subscription with the channels.
        assert_eq!(hints.next().await.name(), "subscribed");
        assert_eq!(store.check_ready().await, Ok(()));
    });
}

/// Returns whether a retry is safe and may find the message.
fn error_is_open(error: &AcceptError) -> bool {
    matches!(error, AcceptError::Store(error) if error.is_passing())
}

#[test]
fn replica_that_may_not_listen_is_not_ready() {
    run(async {
        let server = Server::start();
        server.cli(&["ACL", "SETUSER", "bridge", "on", ">secret", "~*", "+@all", "-subscribe", "&t:*"]);
        let user = (Some("bridge".to_owned()), Some("secret".into()));
        let store = RedisStore::new(&StoreConfig { username: user.0, password: user.1, ..server.patient() });
        let store = store.unwrap();
        let mut hints = store.listen(ME);
        let listening = async {
            hints.next().await;
        };
        let refused = until(async || store.check_ready().await.is_err());
        tokio::select! {
            () = listening => panic!("it may not listen"),
            () = refused => {}
        }
        assert_eq!(store.check_ready().await, Err(StoreError::Unavailable(StoreRefusal::NoChannels)));
        server.cli(&["ACL", "SETUSER", "bridge", "+subscribe"]);
        hints.next().await;
        assert_eq!(store.check_ready().await, Ok(()));
    });
}

#[test]
fn tls_with_own_root_and_client_certificate_connects() {
    run(async {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let server = Server::start_tls();
        let fixture = |name: &str| {
            std::fs::read(format!("{}/tests/fixtures/tls/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
        };
        let client = || {
            let key = String::from_utf8(fixture("client.key")).unwrap();
            Some((fixture("client.crt"), key.into()))
        };
        let with = |tls: bool, host: &str, files: StoreTls| {
            let mut address = local(server.port());
            address.host = host.to_owned();
            let url =
                StoreUrl::Redis(RedisServers { topology: RedisTopology::Alone(address), tls, database: 1 });
            wire(&StoreConfig { url, tls: files, ..server.options() })
        };
        let ca = Some(fixture("ca.crt"));
        for host in ["127.0.0.1", "localhost"] {
            let runner = with(true, host, StoreTls { ca: ca.clone(), client: client() });
            assert_eq!(count(&runner, &count_up(), 1).await.map(|n| n > 0), Ok(true), "{host}");
        }
        let stranger = with(true, "127.0.0.1", StoreTls { ca: None, client: client() });
        assert_eq!(stranger.run_ping().await, Err(NOT_ALLOWED), "not a root of the Web");
        let nobody = with(true, "127.0.0.1", StoreTls { ca, client: None });
        assert_eq!(nobody.run_ping().await, Err(NOT_ALLOWED), "without a certificate");
        let plain = with(false, "127.0.0.1", StoreTls::default());
        assert!(plain.run_ping().await.is_err());
    });
}

#[test]
fn lasting_error_fails_at_once() {
    run(async {
        let server = Server::start_with(&["--maxmemory", "1mb", "--maxmemory-policy", "noeviction"]);
        let redis = RedisStore::new(&server.options()).unwrap();
        let script = count_up();
        count(&redis.0.runner, &script, 1).await.unwrap();
        server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
        let begun = Instant::now();
        let full = count(&redis.0.runner, &script, 1).await;
        assert_eq!(full, Err(StoreError::Unavailable(StoreRefusal::OutOfMemory)));
        redis.check_health().await;
        assert!(redis.0.health.is_full());
        assert!(redis.health().memory.unwrap().is_full());
        server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
        redis.check_health().await;
        assert!(!redis.0.health.is_full());

        server.cli(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
        let alone = count(&redis.0.runner, &script, 1).await;
        assert_eq!(alone, Err(StoreError::Unavailable(StoreRefusal::TooFewReplicas)));
        server.cli(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
        let broken = RedisScript::new("broken", "#!lua\nreturn redis.call('GET')".to_owned());
        let bug = redis.0.runner.run(broken.call(&["{p1}:n"])).await;
        assert_eq!(bug, Err(StoreError::Halfway(StoreRefusal::Unexpected)));
        assert!(begun.elapsed() < Duration::from_millis(900));
    });
}

#[test]
fn temporary_error_is_retried() {
    run(async {
        let server = Server::start();
        let other = Server::start();
        let script = count_up();
        let master = other.port().to_string();
        server.cli(&["REPLICAOF", "127.0.0.1", &master]);
        let replica = count(&wire(&server.options()), &script, 1).await;
        assert_eq!(replica, Err(StoreError::Unavailable(StoreRefusal::ReadOnly)));
        // Its timeout is far longer than the longest backoff.
        let runner = wire(&server.patient());
        let promoted = async {
            // The hash, the text and a retry, so one attempt at least was refused.
            until(async || runner.traffic().commands >= 3).await;
            server.cli(&["REPLICAOF", "NO", "ONE"]);
        };
        let (result, ()) = tokio::join!(count(&runner, &script, 1), promoted);
        assert!(result.is_ok(), "{result:?}");
    });
}

#[test]
fn durable_call_waits_for_replicas_of_the_store() {
    run(async {
        // Otherwise the master waits 5 s for more replicas before it sends its data.
        let server = Server::start_with(&["--repl-diskless-sync-delay", "0"]);
        let port = server.port().to_string();
        let options = StoreConfig { wait_replicas: 1, ..server.options() };
        let runner = wire(&options);
        let script = count_up();
        let durable = || runner.run(script.call(&["{p1}:n"]).arg(1).durable());
        assert_eq!(durable().await, Err(StoreError::Unavailable(StoreRefusal::TooFewReplicas)));
        assert_eq!(count(&runner, &script, 1).await, Ok(2), "it was carried out, and others do not wait");

        let replica = Server::start_with(&["--replicaof", "127.0.0.1", &port]);
        until(async || replica.cli(&["INFO", "replication"]).contains("master_link_status:up")).await;
        // The link is up before the server sends anything over it, and before the replica confirms for the first
        // time.
        until(async || durable().await.is_ok()).await;
        let before = runner.traffic();
        assert!(durable().await.is_ok());
        let after = runner.traffic();
        assert_eq!((after.commands - before.commands, after.round_trips - before.round_trips), (2, 1));
        let many = futures_util::future::join_all((0..50).map(|_| durable())).await;
        assert!(many.iter().all(Result::is_ok), "{many:?}");
        replica.signal("STOP");
        let (stuck, quick) = tokio::join!(durable(), async {
            let begun = Instant::now();
            runner.run_ping().await.unwrap();
            begun.elapsed()
        });
        assert_eq!(stuck, Err(StoreError::Unavailable(StoreRefusal::TooFewReplicas)));
        assert!(quick < Duration::from_millis(500), "{quick:?}");
    });
}

#[test]
fn settings_that_lose_data_give_warnings() {
    run(async {
        let server = Server::start();
        let redis = RedisStore::new(&server.options()).unwrap();
        assert_eq!(redis.health().warnings, []);
        redis.check_health().await;
        assert_eq!(redis.health().warnings, [HealthIssue::NotPersistent]);
        let memory = redis.health().memory.unwrap();
        assert!(memory.used > 0 && memory.limit.is_none() && !memory.is_full());

        let server = Server::start_with(&["--appendonly", "yes", "--maxmemory-policy", "allkeys-lru"]);
        let redis = RedisStore::new(&server.options()).unwrap();
        redis.check_health().await;
        let evicts = HealthIssue::Evicts { policy: "allkeys-lru".to_owned() };
        assert_eq!(redis.health().warnings, [evicts]);

        let server = Server::start_with(&["--save", "3600 1"]);
        let redis = RedisStore::new(&server.options()).unwrap();
        redis.check_health().await;
        assert_eq!(redis.health().warnings, []);
    });
}

#[test]
fn listener_after_a_lost_connection_resubscribes() {
    run(async {
        let server = Server::start();
        let redis = RedisStore::new(&server.options()).unwrap();
        let mut listener = redis.listen(Incarnation(7));
        assert_eq!(listener.next().await.name(), "subscribed");
        assert_eq!(server.cli(&["PUBLISH", "rtm:fleet", "x"]), "1");
        assert_eq!(listener.next().await.name(), "fleet");
        assert_eq!(server.cli(&["PUBLISH", "rtm:replica:0000000000000007", "?"]), "1");
        server.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        assert_eq!(listener.next().await.name(), "subscribed", "what it does not know it passes over");

        // This server stops without closing its connections.
        server.signal("STOP");
        assert!(timeout(Duration::from_millis(2500), listener.next()).await.is_err());
        server.signal("CONT");
        assert_eq!(listener.next().await.name(), "subscribed");
        // The listener drops hints if they are taken too slowly, and reports that.
        for _ in 0..6 {
            server.cli(&["EVAL", "for i = 1, 100 do redis.call('PUBLISH', 'rtm:fleet', i) end", "0"]);
        }
        let seen = async {
            let mut fleet = 0;
            while listener.next().await.name() == "fleet" {
                fleet += 1;
            }
            fleet
        };
        assert!(seen.await < 600);
    });
}

#[test]
fn half_an_answer_is_unknown() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let runner = wire(&options(RedisTopology::Alone(local(port))));
        let nonsense = async {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut asked = [0; 1024];
                let _ = socket.read(&mut asked).await;
                let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            }
        };
        tokio::select! {
            () = nonsense => {}
            result = runner.run_ping() => assert!(result.is_err(), "{result:?}"),
        }
    });
}

impl CommandRunner {
    async fn run_ping(&self) -> Result<(), StoreError> {
        self.on_masters(&ping()).await.map(drop)
    }
}

impl Hint {
    const fn name(&self) -> &'static str {
        match self {
            Self::Subscribed => "subscribed",
            Self::Fleet => "fleet",
            _ => "another",
        }
    }
}

/// A resolver by which every name has these addresses.
struct FixedResolver([SocketAddr; 2]);

impl AsyncDNSResolver for FixedResolver {
    fn resolve<'a, 'b: 'a>(
        &'a self,
        _: &'b str,
        _: u16,
    ) -> RedisFuture<'a, Box<dyn Iterator<Item = SocketAddr> + Send + 'a>> {
        Box::pin(async { Ok(Box::new(self.0.into_iter()) as Box<_>) })
    }
}

#[test]
fn name_with_a_dead_first_address_reaches_the_server() {
    let server = Server::start();
    let dead = DeadAddress::new(5, server.port());
    let live = SocketAddr::from(([127, 0, 0, 1], server.port()));
    run(async {
        let config = server.options();
        let StoreUrl::Redis(servers) = &config.url else { panic!("it is on Redis") };
        let connector = RedisConnector::new(servers, &config).unwrap();
        let resolver = FixedResolver([dead.address, live]);
        let options = connector.connection_options().set_dns_resolver(resolver);
        let mut connection = connector.open_one(0, options).await.unwrap();
        let pong: String = ping().query_async(&mut connection).await.unwrap();
        assert_eq!(pong, "PONG");
    });
}
