//! Tests of the harness: its checks must find the faults that they look for.

use std::io::ErrorKind;
use std::time::Duration;

use rtm_bridge::config::{Config, StoreConfig};
use rtm_sandbox::{Sandbox, Step};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{
    Bot, Caller, Cluster, Fleet, Ledger, Process, Proxy, RedisOptions, RedisServer, Request, Resp, Sentinels,
    ServedReplica, Servers, nothing_left, quiet_platform, run, until,
};

#[test]
fn process_after_its_test_is_gone() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let script = ["-c", "echo $$; while :; do sleep 1000; done"].map(str::to_owned);
        let process = Process::start("sh", &script, &log);
        until("it runs", async || process.log().ends_with('\n')).await;
        let id = process.log().trim().to_owned();
        let runs = || std::path::Path::new("/proc").join(&id).exists();
        assert!(runs() || !cfg!(target_os = "linux"));
        drop(process);
        assert!(!runs());
    });
}

#[test]
fn redis_after_a_restart_keeps_data_only_on_disk() {
    run(async {
        for appendonly in [false, true] {
            let mut redis = RedisServer::start(RedisOptions { appendonly, ..RedisOptions::default() }).await;
            redis.command(&["SET", "a", "1"]).await;
            redis.restart().await;
            let kept = if appendonly { Resp::Text("1".to_owned()) } else { Resp::None };
            assert_eq!(redis.command(&["GET", "a"]).await, kept);
            redis.command(&["SET", "a", "1"]).await;
            redis.restart_empty().await;
            assert_eq!(redis.command(&["GET", "a"]).await, Resp::None);
            redis.command(&["SET", "a", "1"]).await;
            redis.flush().await;
            assert_eq!(redis.command(&["GET", "a"]).await, Resp::None);
        }
    });
}

#[test]
fn sentinels_after_a_kill_have_a_new_master() {
    run(async {
        let mut group = Sentinels::start().await;
        let first = group.master().await;
        group.servers[first].command(&["SET", "a", "1"]).await;
        group.failover().await;
        let second = group.master().await;
        assert_ne!(first, second);
        assert_eq!(group.servers[second].command(&["GET", "a"]).await.text(), "1");
        assert_eq!(group.kill_master().await, second);
        assert!(group.servers[group.master().await].runs());
    });
}

#[test]
fn cluster_after_a_kill_has_a_new_master() {
    run(async {
        let mut cluster = Cluster::start().await;
        let slot = cluster.slot("{one}").await;
        let first = cluster.failover_of(slot).await;
        assert_ne!(cluster.master_of(slot).await, first);
        let other = (slot + 8192) % 16_384;
        let killed = cluster.kill_master_of(other).await;
        assert!(!cluster.nodes[killed].runs());
        assert_eq!(cluster.masters().await.len(), 3);
    });
}

async fn ping(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"PING\r\n").await?;
    let mut pong = [0; 7];
    stream.read_exact(&mut pong).await?;
    assert_eq!(&pong, b"+PONG\r\n");
    Ok(())
}

#[test]
fn proxy_breaks_connections_and_heals_them() {
    run(async {
        let redis = RedisServer::start(RedisOptions::default()).await;
        let proxy = Proxy::start(([127, 0, 0, 1], redis.port).into());
        let connect = async || TcpStream::connect(proxy.address()).await;
        let mut stream = connect().await.unwrap();
        ping(&mut stream).await.unwrap();

        proxy.hang().await;
        let waits = Duration::from_millis(50);
        assert!(tokio::time::timeout(waits, ping(&mut stream)).await.is_err());
        proxy.heal().await;
        stream.read_exact(&mut [0; 7]).await.unwrap();
        ping(&mut stream).await.unwrap();

        proxy.delay(waits).await;
        let began = tokio::time::Instant::now();
        ping(&mut stream).await.unwrap();
        assert!(began.elapsed() >= waits * 2);

        proxy.lose_answers().await;
        stream.write_all(b"INCR a\r\n").await.unwrap();
        until("it is carried out", async || redis.command(&["GET", "a"]).await != Resp::None).await;
        proxy.heal().await;
        assert_eq!(ping(&mut stream).await.unwrap_err().kind(), ErrorKind::ConnectionReset);

        let mut stream = connect().await.unwrap();
        ping(&mut stream).await.unwrap();
        proxy.cut().await;
        assert_eq!(ping(&mut stream).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(connect().await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        proxy.heal().await;
        ping(&mut connect().await.unwrap()).await.unwrap();
    });
}

fn memory() -> StoreConfig {
    Config::dev("http://127.0.0.1".parse().unwrap()).store
}

/// Posts three messages of a conversation, each with two replies.
async fn talk(ledger: &Ledger, fleet: &Fleet) {
    Bot { replies: 2 }.speak(&fleet.script);
    for _ in 0..3 {
        let turn = json!({"turn": {"expectReplies": 2}});
        ledger.post(fleet.replicas[0].api, "alice", &turn, "wait=55").await.unwrap().message(200);
    }
}

#[test]
fn ledger_without_faults_balances() {
    run(async {
        let fleet = Fleet::start(memory(), 1, |_| {}).await;
        let ledger = Ledger::default();
        talk(&ledger, &fleet).await;
        assert_eq!(ledger.promised(), 3);
        ledger.check(&fleet.callers(), &fleet.script).await;
        fleet.finish().await;
    });
}

#[test]
fn ledger_after_lost_answers_finds_the_messages() {
    run(async {
        let fleet = Fleet::start(memory(), 1, |_| {}).await;
        Bot { replies: 1 }.speak(&fleet.script);
        let ledger = Ledger::default();
        let api = fleet.replicas[0].api;
        let proxy = Proxy::start(api.0);
        proxy.lose_answers().await;
        let turn = json!({"turn": {"expectReplies": 1}});
        let deaf = async {
            ledger.post(Caller(proxy.address()), "alice", &turn, "wait=55").await.unwrap_err();
        };
        let hangs_up = async {
            fleet.script.seen("alice", 1).await;
            proxy.cut().await;
        };
        tokio::join!(deaf, hangs_up);
        assert_eq!(ledger.promised(), 0);
        ledger.retry(api).await;
        assert_eq!(ledger.promised(), 1);
        ledger.check(&fleet.callers(), &fleet.script).await;
        fleet.finish().await;
    });
}

#[test]
fn program_is_paused_killed_and_terminated() {
    run(async {
        let sandbox = Sandbox::start(quiet_platform()).await.unwrap();
        let script = sandbox.script();
        Bot { replies: 1 }.speak(&script);
        let ledger = Ledger::default();
        let turn = json!({"turn": {"expectReplies": 1}});
        let mut first = ServedReplica::start("first", &sandbox.url(), "memory://", "").await;
        ledger.post(first.api, "alice", &turn, "wait=55").await.unwrap().message(200);
        first.pause();
        let silent = Request::get("/livez");
        assert!(tokio::time::timeout(Duration::from_millis(50), first.admin.send(silent)).await.is_err());
        first.resume();
        assert_eq!(first.admin.get("/livez").await.status, 200);
        first.kill();
        assert!(first.api.try_send(Request::get("/")).await.is_err());

        let mut second = ServedReplica::start("second", &sandbox.url(), "memory://", "").await;
        assert_eq!(ledger.check_after_loss(&[second.api], &script).await, 1);
        assert_eq!(second.terminate().await, 0);
        assert!(second.log().contains("SIGTERM"), "{}", second.log());
        sandbox.stop().await;
    });
}

/// Returns the program's configuration for a store address.
fn read(url: &str) -> StoreConfig {
    let text = format!(
        "store.url = \"{url}\"\n[[bots]]\nname = \"a\"\nplatform = \"http://127.0.0.1\"\nchat_bot = \"a\"\n\
         task_bot_id = \"st-a\"\nclient_id = \"cs-a\"\nclient_secret_file = \"secret\"\n"
    );
    let files = |_: &std::path::Path| Ok("secret".to_owned().into());
    rtm_bridge::config::read(&text, "test", std::iter::empty::<(&str, &str)>(), &files).unwrap().0.store
}

#[test]
fn address_of_a_store_equals_its_configuration() {
    run(async {
        let mut servers = Vec::new();
        for tls in [false, true] {
            servers.push(Servers::Alone(Box::new(
                RedisServer::start(RedisOptions { tls, ..RedisOptions::default() }).await,
            )));
        }
        servers.push(Servers::Sentinels(Sentinels::start().await));
        servers.push(Servers::Cluster(Cluster::start().await));
        for servers in servers {
            assert_eq!(read(&servers.url()).url, servers.config().url);
        }
    });
}

#[test]
#[should_panic(expected = "is lost")]
fn ledger_with_a_missing_reply_fails() {
    run(async {
        let fleet = Fleet::start(memory(), 1, |_| {}).await;
        let ledger = Ledger::default();
        talk(&ledger, &fleet).await;
        fleet.script.push("alice", vec![Step::OnlyHistory("alice-1, reply 3".to_owned())]);
        fleet.script.delivered("alice", 7).await;
        ledger.check(&fleet.callers(), &fleet.script).await;
    });
}

#[test]
#[should_panic(expected = "saw \"alice-0\" 2 times")]
fn ledger_with_a_duplicate_send_fails() {
    run(async {
        let fleet = Fleet::start(memory(), 1, |_| {}).await;
        let ledger = Ledger::default();
        talk(&ledger, &fleet).await;
        let again = Request::message("alice", &json!({"text": "alice-0"})).prefer("wait=55");
        fleet.replicas[0].api.send(again).await.message(200);
        ledger.check(&fleet.callers(), &fleet.script).await;
    });
}

#[test]
fn replica_cut_off_from_redis_recovers() {
    run(async {
        let servers = Servers::Alone(Box::new(RedisServer::start(RedisOptions::default()).await));
        let mut fleet = Fleet::start(servers.config(), 1, |_| {}).await;
        let ledger = Ledger::default();
        talk(&ledger, &fleet).await;
        let replica = &fleet.replicas[0];
        replica.way_to_redis().cut().await;
        until("it says so", async || replica.admin.get("/readyz").await.status == 503).await;
        let refused = ledger.post(replica.api, "alice", &json!({}), "wait=55").await.unwrap();
        refused.problem(503, "store-unavailable");
        assert!(refused.retry_after() > 0);
        replica.way_to_redis().heal().await;
        until("it is back", async || replica.admin.get("/readyz").await.status == 200).await;
        replica.platform.delay(Duration::from_millis(5)).await;
        ledger.retry(replica.api).await;
        ledger.check(&fleet.callers(), &fleet.script).await;
        fleet.leave(0).await;
        assert!(fleet.callers().is_empty());
        let ttl = servers.config().message_ttl;
        nothing_left(&servers.masters().await, "rtm", ttl).await;
        fleet.finish().await;
    });
}
