//! TLS of the callers' listener (`[server.tls]`).

use std::io;
use std::sync::Arc;

use rtm_bridge::config::ServerTlsConfig;
use rtm_sandbox::Step;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::{Answer, TestBridge, run, spawn_bridge};

fn pem(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// Returns the settings of a listener with this certificate.
fn files(certificate: &str, key: &str, client_ca: Option<&str>) -> ServerTlsConfig {
    let key = String::from_utf8(pem(key)).unwrap();
    ServerTlsConfig { certificate: pem(certificate), key: key.into(), client_ca: client_ca.map(pem) }
}

/// Connects as a caller that trusts this authority, with a certificate of its own or without.
async fn connect(bridge: &TestBridge, authority: &str, certified: bool) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&pem(authority)).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let tls = if certified {
        let chain = vec![CertificateDer::from_pem_slice(&pem("tls/client.crt")).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(&pem("tls/client.key")).unwrap();
        builder.with_client_auth_cert(chain, key).unwrap()
    } else {
        builder.with_no_client_auth()
    };
    let socket = TcpStream::connect(bridge.api.0).await?;
    TlsConnector::from(Arc::new(tls)).connect(ServerName::try_from("localhost").unwrap(), socket).await
}

/// Sends a request with this head and this body.
async fn send(stream: &mut TlsStream<TcpStream>, head: &str, body: &str) -> io::Result<()> {
    let length = body.len();
    let head = format!("{head}\r\nHost: localhost\r\nContent-Type: application/json");
    stream.write_all(format!("{head}\r\nContent-Length: {length}\r\n\r\n{body}").as_bytes()).await
}

/// Asks for the health page.
async fn ready(stream: &mut TlsStream<TcpStream>) -> io::Result<()> {
    send(stream, "GET /readyz HTTP/1.1", "").await?;
    let page = Answer::read(stream, false).await?;
    assert_eq!((page.status, page.json()), (200, json!({"ready": true})));
    Ok(())
}

#[test]
fn requests_and_streams_go_over_tls() {
    run(async {
        let bridge = spawn_bridge(|config| {
            config.server.tls = Some(files("tls/server.crt", "tls/server.key", None));
        })
        .await;
        bridge.script.next("alice", Step::reply("over TLS"));
        let mut stream = connect(&bridge, "tls/ca.crt", false).await.unwrap();
        ready(&mut stream).await.unwrap();
        let post = "POST /conversations/alice/messages HTTP/1.1\r\nPrefer: wait=20";
        send(&mut stream, post, r#"{"text":"hi","turn":{"expectReplies":1}}"#).await.unwrap();
        let message = Answer::read(&mut stream, false).await.unwrap().message(200);
        assert_eq!(message["replies"][0]["text"], "over TLS");
        // A stream leaves the HTTP server and keeps its session.
        let events = "GET /conversations/alice/events HTTP/1.1\r\nAccept: text/event-stream";
        send(&mut stream, events, "").await.unwrap();
        let mut read = Vec::new();
        while !String::from_utf8_lossy(&read).contains("event: message.answered") {
            assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0, "{}", String::from_utf8_lossy(&read));
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
        let refused = match connect(&bridge, "tls/ca.crt", false).await {
            Ok(mut stream) => ready(&mut stream).await,
            Err(error) => Err(error),
        };
        assert!(refused.is_err(), "{refused:?}");
        let mut stream = connect(&bridge, "tls/ca.crt", true).await.unwrap();
        ready(&mut stream).await.unwrap();
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
        let mut before = connect(&bridge, "tls/ca.crt", false).await.unwrap();
        ready(&mut before).await.unwrap();
        let tls = bridge.bridge.tls().unwrap();
        tls.reload(&files("tls.pem", "tls.key.pem", None)).unwrap();
        ready(&mut before).await.expect("an open connection goes on");
        assert!(connect(&bridge, "tls/ca.crt", false).await.is_err());
        let mut after = connect(&bridge, "tls.pem", false).await.unwrap();
        ready(&mut after).await.unwrap();
        drop((before, after));
        bridge.finish().await;
    });
}
