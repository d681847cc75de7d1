//! A bridge behind the proxies that companies run: squid and tinyproxy, as Debian has them.
//!
//! `scripts/test proxies` installs them, so other runs ignore these tests.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use rtm_bridge::config::{ProxyConfig, ProxyCredentials, fixtures};
use rtm_sandbox::Step;
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::support::{Process, TestBridge, bot, free_port, run, spawn_bridge, until};

/// A proxy of Debian, which wants the user `bridge` with the password `hush`.
struct DebianProxy {
    process: Process,
    port: u16,
    dir: TempDir,
}

impl DebianProxy {
    /// Starts a program whose configuration is at the path `{dir}/conf`, and waits until it takes connections.
    async fn start(program: &str, options: &[&str], configuration: impl Fn(u16, &Path) -> String) -> Self {
        let (port, dir) = (free_port(), tempfile::tempdir().unwrap());
        // Both programs leave root.
        fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
        let conf = dir.path().join("conf");
        fs::write(&conf, configuration(port, dir.path())).unwrap();
        let options: Vec<String> =
            options.iter().map(|option| option.replace("CONF", conf.to_str().unwrap())).collect();
        let process = Process::start(program, &options, &dir.path().join("output"));
        until("the proxy listens", async || TcpStream::connect(("127.0.0.1", port)).await.is_ok()).await;
        Self { process, port, dir }
    }

    async fn squid() -> Self {
        Self::start("squid", &["-N", "-f", "CONF"], |port, dir| {
            let dir = dir.to_str().unwrap();
            // The hash of `hush`, by `openssl passwd -1 -salt salt hush`.
            fs::write(format!("{dir}/users"), "bridge:$1$salt$ShZMNMhJnVQ/fqcgROONe0\n").unwrap();
            format!(
                "http_port 127.0.0.1:{port}\n\
                 pid_filename {dir}/pid\n\
                 access_log stdio:{dir}/access.log\n\
                 cache_log {dir}/cache.log\n\
                 coredump_dir {dir}\n\
                 cache deny all\n\
                 pinger_enable off\n\
                 shutdown_lifetime 0 seconds\n\
                 auth_param basic program /usr/lib/squid/basic_ncsa_auth {dir}/users\n\
                 acl known proxy_auth REQUIRED\n\
                 acl forbidden dst 127.0.0.9\n\
                 http_access deny forbidden\n\
                 http_access allow known\n\
                 http_access deny all\n"
            )
        })
        .await
    }

    async fn tinyproxy() -> Self {
        Self::start("tinyproxy", &["-d", "-c", "CONF"], |port, _| {
            format!("Port {port}\nListen 127.0.0.1\nTimeout 60\nAllow 127.0.0.1\nBasicAuth bridge hush\nLogLevel Info\n")
        })
        .await
    }

    fn proxy(&self, password: Option<&str>) -> Arc<ProxyConfig> {
        let credentials = password
            .map(|password| ProxyCredentials { username: "bridge".into(), password: password.into() });
        let proxy = fixtures::proxy(&format!("http://127.0.0.1:{}", self.port));
        Arc::new(ProxyConfig { credentials, ..proxy })
    }
}

/// Sends a message that the bot answers.
async fn answered(bridge: &TestBridge) {
    bridge.script.next("alice", Step::reply("through it"));
    let body = json!({"text": "hi", "turn": {"expectReplies": 1}});
    let message = bridge.post("alice", &body).await.message(200);
    assert_eq!(message["replies"][0]["text"], "through it");
}

/// Sends a message that fails before it is sent, and returns the reason.
async fn refused(bridge: &TestBridge) -> String {
    let body = json!({"text": "hi", "turn": {"deadlineMs": 700}});
    let problem = bridge.post("alice", &body).await.problem(502, "platform-unavailable");
    problem["detail"].as_str().unwrap().to_owned()
}

#[test]
#[ignore = "scripts/test proxies installs squid"]
fn turn_goes_through_squid() {
    run(async {
        let mut squid = DebianProxy::squid().await;
        let mut port = 0;
        let bridge = spawn_bridge(|config| {
            port = bot(config).platform.port().unwrap();
            bot(config).proxy = Some(squid.proxy(Some("hush")));
        })
        .await;
        answered(&bridge).await;
        bridge.finish().await;
        // Squid logs a tunnel at its end.
        let log = squid.dir.path().join("access.log");
        until("the tunnels are logged", async || {
            let log = fs::read_to_string(&log).unwrap_or_default();
            log.matches("TCP_TUNNEL/200").count() >= 2 && log.contains(&format!("CONNECT 127.0.0.1:{port}"))
        })
        .await;

        let bridge = spawn_bridge(|config| bot(config).proxy = Some(squid.proxy(Some("wrong")))).await;
        assert!(refused(&bridge).await.contains("the proxy refused the user and password (407)"));
        bridge.finish().await;
        let bridge = spawn_bridge(|config| bot(config).proxy = Some(squid.proxy(None))).await;
        assert!(refused(&bridge).await.contains("the proxy asks for a user and a password (407)"));
        bridge.finish().await;
        let bridge = spawn_bridge(|config| {
            bot(config).proxy = Some(squid.proxy(Some("hush")));
            bot(config).platform = "http://127.0.0.9:80".parse().unwrap();
        })
        .await;
        assert!(refused(&bridge).await.contains("the proxy refuses connections to this host (403)"));
        bridge.finish().await;
        let bridge = spawn_bridge(|config| {
            bot(config).proxy = Some(squid.proxy(Some("hush")));
            bot(config).platform = format!("http://127.0.0.1:{}", free_port()).parse().unwrap();
        })
        .await;
        assert!(refused(&bridge).await.contains("the proxy cannot reach this host (503)"));
        bridge.finish().await;
        squid.process.signal("TERM");
    });
}

#[test]
#[ignore = "scripts/test proxies installs tinyproxy"]
fn turn_goes_through_tinyproxy() {
    run(async {
        let mut tiny = DebianProxy::tinyproxy().await;
        let bridge = spawn_bridge(|config| bot(config).proxy = Some(tiny.proxy(Some("hush")))).await;
        answered(&bridge).await;
        bridge.finish().await;
        let bridge = spawn_bridge(|config| bot(config).proxy = Some(tiny.proxy(Some("wrong")))).await;
        assert!(refused(&bridge).await.contains("the proxy refused the user and password"));
        bridge.finish().await;
        tiny.process.signal("TERM");
    });
}
