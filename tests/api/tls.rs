//! TLS of the callers' listener (`[server.tls]`).

use rtm_bridge::config::ServerTlsConfig;
use rtm_bridge::http::TlsSettings;
use rtm_sandbox::Step;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{TlsCaller, pem, run, spawn_bridge};

/// Returns the settings of a listener with this certificate.
fn files(certificate: &str, key: &str, client_ca: Option<&str>) -> ServerTlsConfig {
    let key = String::from_utf8(pem(key)).unwrap();
    ServerTlsConfig { certificate: pem(certificate), key: key.into(), client_ca: client_ca.map(pem) }
}

#[test]
fn requests_and_streams_go_over_tls() {
    run(async {
        let bridge = spawn_bridge(|config| {
            config.server.tls = Some(files("tls/server.crt", "tls/server.key", None));
        })
        .await;
        bridge.script.next("alice", Step::reply("over TLS"));
        let mut stream = TlsCaller::connect(bridge.api.0, "tls/ca.crt", false).await.unwrap();
        stream.live().await.unwrap();
        let post = "POST /conversations/alice/messages HTTP/1.1\r\nPrefer: wait=20";
        stream.send(post, r#"{"text":"hi","turn":{"expectReplies":1}}"#).await.unwrap();
        let message = stream.answer().await.unwrap().message(200);
        assert_eq!(message["replies"][0]["text"], "over TLS");
        // A stream leaves the HTTP server and keeps its session.
        let events = "GET /conversations/alice/events HTTP/1.1\r\nAccept: text/event-stream";
        stream.send(events, "").await.unwrap();
        let mut read = Vec::new();
        while !String::from_utf8_lossy(&read).contains("event: message.answered") {
            assert_ne!(stream.0.read_buf(&mut read).await.unwrap(), 0, "{}", String::from_utf8_lossy(&read));
        }

        let mut plain = TcpStream::connect(bridge.api.0).await.unwrap();
        plain.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        plain.read_to_end(&mut answer).await.ok();
        assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
        // Probes of the operator's listener need none.
        assert_eq!(bridge.admin.get("/readyz").await.status, 200);
        drop(stream);
        bridge.finish().await;
    });
}

#[test]
fn callers_need_a_certificate_if_the_listener_asks() {
    run(async {
        let bridge = spawn_bridge(|config| {
            config.server.tls = Some(files("tls/server.crt", "tls/server.key", Some("tls/ca.crt")));
        })
        .await;
        // TLS 1.3 tells the refusal after the client's side of the handshake.
        let refused = match TlsCaller::connect(bridge.api.0, "tls/ca.crt", false).await {
            Ok(mut stream) => stream.live().await,
            Err(error) => Err(error),
        };
        assert!(refused.is_err(), "{refused:?}");
        let mut stream = TlsCaller::connect(bridge.api.0, "tls/ca.crt", true).await.unwrap();
        stream.live().await.unwrap();
        drop(stream);
        bridge.finish().await;
    });
}

#[test]
fn reloaded_certificate_serves_later_connections() {
    run(async {
        let bridge = spawn_bridge(|config| {
            config.server.tls = Some(files("tls/server.crt", "tls/server.key", None));
        })
        .await;
        let mut before = TlsCaller::connect(bridge.api.0, "tls/ca.crt", false).await.unwrap();
        before.live().await.unwrap();
        let tls = bridge.bridge.tls().unwrap();
        tls.replace(TlsSettings::new(&files("tls.pem", "tls.key.pem", None)).unwrap());
        before.live().await.expect("an open connection goes on");
        assert!(TlsCaller::connect(bridge.api.0, "tls/ca.crt", false).await.is_err());
        let mut after = TlsCaller::connect(bridge.api.0, "tls.pem", false).await.unwrap();
        after.live().await.unwrap();
        drop((before, after));
        bridge.finish().await;
    });
}
