//! A replica with an unusable store: it ends soon with code 1 and says what to do.

use std::time::Duration;

use rtm_bridge::store::{RedisStore, Store};
use tokio::time::Instant;

use crate::support::{Cluster, Process, RedisOptions, RedisServer, Sentinels, run_for};

const GUARD: Duration = Duration::from_mins(1);
const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
/// A replica waits ten seconds for a store that may be starting.
const BOUND: Duration = Duration::from_secs(20);

/// Runs `serve` on this store until it ends. Returns its code and its output.
async fn serve(store: &str) -> (i32, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("secret"), rtm_sandbox::CLIENT_SECRET).unwrap();
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n[store]\n{store}\n\
         [[bots]]\nname = \"a\"\nplatform = \"http://127.0.0.1:1\"\nchat_bot = \"a\"\ntask_bot_id = \"st-a\"\n\
         client_id = \"cs-a\"\nclient_secret_file = \"{}\"\n[log]\nformat = \"text\"\n",
        path("secret")
    );
    std::fs::write(path("bridge.toml"), text).unwrap();
    let arguments = ["serve", "--config", &path("bridge.toml")].map(str::to_owned);
    let mut process = Process::start(env!("CARGO_BIN_EXE_rtm-bridge"), &arguments, &dir.path().join("log"));
    let began = Instant::now();
    let (code, log) = tokio::task::spawn_blocking(move || (process.wait(), process.log())).await.unwrap();
    drop(dir);
    println!("{code} after {:?}:\n{log}", began.elapsed());
    assert!(began.elapsed() < BOUND, "{:?}: {log}", began.elapsed());
    (code, log)
}

/// Runs `serve` on an unusable store and checks these words of its output.
async fn refuses(store: &str, words: &[&str]) {
    let (code, log) = serve(store).await;
    assert_eq!(code, 1, "{log}");
    for word in words {
        assert!(log.contains(word), "no {word:?} in {log}");
    }
    for secret in ["hush", "wrong-pass"] {
        assert!(!log.contains(secret), "{secret:?} is told: {log}");
    }
}

#[test]
fn foreign_or_newer_schema_is_refused_with_advice() {
    run_for(GUARD, async {
        for (command, words) in [
            (["HSET", "rtm:schema", "999", "x"].as_slice(), ["newer version", "999"].as_slice()),
            (&["SET", "rtm:schema", "mine"], &["rtm:schema", "store.key_prefix"]),
        ] {
            let redis = RedisServer::start(RedisOptions::default()).await;
            // This version created the schema, and then another program changed it.
            if command[0] == "HSET" {
                Store::Redis(RedisStore::new(&redis.config()).unwrap()).prepare().await.unwrap();
            }
            redis.command(command).await;
            refuses(&format!("url = \"{}\"", redis.url()), words).await;
        }
    });
}

#[test]
fn redis_without_rights_is_refused_with_the_reason() {
    run_for(GUARD, async {
        let guarded =
            RedisServer::start(RedisOptions { password: Some("hush"), ..RedisOptions::default() }).await;
        let narrow = RedisOptions::default()
            .line("user deaf on >hush ~* resetchannels +@all")
            .line("user blind on >hush ~other:* &* +@all")
            .line("user mute on >hush ~* &* +@all -@scripting");
        let narrow = RedisServer::start(narrow).await;
        let tls = RedisServer::start(RedisOptions { tls: true, ..RedisOptions::default() }).await;
        let url = |server: &RedisServer| format!("url = \"{}\"\n", server.url());
        let user = |name: &str| format!("{}username = \"{name}\"\npassword = \"hush\"", url(&narrow));
        let password = format!("{}password = \"wrong-pass\"", url(&guarded));
        let (unknown, deaf, blind, mute) = (user("nobody"), user("deaf"), user("blind"), user("mute"));
        let no_authority = url(&tls);
        let no_certificate = format!("{}ca_file = \"{FIXTURES}/tls.pem\"", url(&tls));
        let no_password = url(&guarded);
        let rights = ["login or rights", "store.password"];
        tokio::join!(
            refuses(&password, &rights),
            refuses(&no_password, &rights),
            refuses(&unknown, &rights),
            refuses(&deaf, &["channels between replicas", "&PREFIX:*"]),
            refuses(&blind, &rights),
            refuses(&mute, &rights),
            refuses(&no_authority, &["certificate", "store.ca_file"]),
            refuses(&no_certificate, &["ertificate", "store.client_cert_file"]),
        );
    });
}

#[test]
fn url_of_another_kind_is_refused_with_the_right_scheme() {
    run_for(GUARD * 2, async {
        let single = RedisServer::start(RedisOptions { password: Some("hush"), ..RedisOptions::default() });
        let (single, sentinels, cluster) = tokio::join!(single, Sentinels::start(), Cluster::start());
        // The addresses of a URL, behind its scheme and credentials and before its path.
        let addresses = |url: String| {
            let (_, rest) = url.split_once("://").unwrap();
            let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
            rest.split('/').next().unwrap().to_owned()
        };
        let (one, watched) = (addresses(single.url()), addresses(sentinels.url()));
        let nodes = addresses(cluster.url());
        let first = |list: &str| list.split(',').next().unwrap().to_owned();
        let refused = async |url: String, more: &str, words: &[&str]| {
            refuses(&format!("url = \"{url}\"\n{more}"), words).await;
        };
        let password = "password = \"hush\"";
        tokio::join!(
            refused(
                format!("redis://{}", first(&watched)),
                "",
                &["is a Sentinel", "write redis+sentinel://"]
            ),
            refused(format!("redis+cluster://{watched}"), "", &["is a Sentinel", "write redis+sentinel://"]),
            refused(format!("redis+cluster://{one}"), password, &["is a single Redis", "write redis://"]),
            refused(
                format!("redis+sentinel://{one}/main"),
                password,
                &["is a single Redis", "write redis://"]
            ),
            refused(
                format!("redis+sentinel://{nodes}/main"),
                "",
                &["node of a Redis Cluster", "write redis+cluster://"]
            ),
            refused(
                format!("redis://{}", first(&nodes)),
                "",
                &["node of a Redis Cluster", "write redis+cluster://"]
            ),
        );
    });
}
