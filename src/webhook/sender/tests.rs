mod proxy;

use std::io;
use std::net::SocketAddr;

use proptest::prelude::*;
use tokio::io::AsyncWriteExt as _;

use super::*;
use crate::config::PayloadFormat;
use crate::domain::DeliveryKind;
use crate::runtime::fixtures::{DeadAddress, run};
use crate::tcp::fixtures::assert_passes_firewall;
use crate::webhook::payload;
use crate::webhook::signature::SigningSecret;
use crate::webhook::target_table::DeliveryOptions;
use crate::webhook::tests::{
    CA, NOW, Receiver, ReceiverAction, SECRET, answer, claimed, loopback_config, sender, server_tls,
};

/// The interval between two pieces of a slow response.
const DRIP_INTERVAL: Duration = Duration::from_millis(10);

async fn post(sender: &DeliverySender, url: &str) -> Result<ReceiverResponse, SendError> {
    sender.post(&Url::parse(url).unwrap(), HeaderMap::new(), Bytes::from_static(b"{}")).await
}

/// Returns a sender whose resolver gives these answers in order and repeats the last one, and a counter of its lookups.
fn resolving(config: &WebhooksConfig, answers: Vec<Vec<&'static str>>) -> (DeliverySender, Rc<Cell<usize>>) {
    let asked = Rc::new(Cell::new(0));
    let count = Rc::clone(&asked);
    let resolve: DnsResolver = Rc::new(move |_, port| {
        let nth = count.replace(count.get() + 1).min(answers.len() - 1);
        let found =
            answers[nth].iter().map(|address| SocketAddr::new(address.parse().unwrap(), port)).collect();
        Box::pin(async move { Ok(found) })
    });
    (DeliverySender::resolving(config, resolve).unwrap(), asked)
}

#[test]
fn post_to_a_receiver_returns_its_response() {
    run(async {
        let receiver = Receiver::start([ReceiverAction::Says(answer("200 OK", "", "thank you"))]).await;
        let answer = post(&sender(), &format!("{}?a=1|2&b=%C3%AB", receiver.url())).await.unwrap();
        assert_eq!((answer.status, answer.body.as_deref()), (200, Some("thank you")));
        assert_eq!(answer.retry_after, None);
        let seen = &receiver.seen.borrow()[0];
        assert_eq!(seen.line, "POST /hook?a=1|2&b=%C3%AB HTTP/1.1");
        assert_eq!(seen.header("host"), Some(receiver.address.to_string().as_str()));
        assert_eq!(seen.header("content-length"), Some("2"));
        assert_eq!(seen.body, "{}");
    });
}

#[test]
fn deliveries_of_each_format_pass_a_firewall() {
    run(async {
        let receiver = Receiver::start([]).await;
        let url = Url::parse(&format!("http://hooks.example:{}/in", receiver.address.port())).unwrap();
        let (sender, _) = resolving(&loopback_config(), vec![vec!["127.0.0.1"]]);
        let secrets = [SigningSecret::parse(&SECRET.into()).unwrap()];
        let claimed =
            claimed(url.as_str(), DeliveryKind::MessageAnswered, r#"{"replies":[],"complete":true}"#);
        for format in [
            PayloadFormat::Standard,
            PayloadFormat::CloudEvents,
            PayloadFormat::CloudEventsStructured,
            PayloadFormat::KoreV2,
        ] {
            let options =
                DeliveryOptions { format, secrets: &secrets, extra_headers: None, platform_bot: "st-1" };
            let (headers, body) = payload::compose(&claimed, &options, 7, NOW).unwrap();
            sender.post(&url, headers, body).await.unwrap();
        }
        let seen = receiver.seen.borrow();
        assert_eq!(seen.len(), 4);
        for request in seen.iter() {
            assert_passes_firewall(&request.line, &request.head, &request.body);
        }
    });
}

#[test]
fn connection_is_reused_and_closed_when_idle() {
    run(async {
        let receiver = Receiver::start([]).await;
        let sender = sender();
        for _ in 0..20 {
            assert_eq!(post(&sender, &receiver.url()).await.unwrap().status, 204);
        }
        assert_eq!(receiver.connections.get(), 1);
        // The paused clock advances as soon as every task is idle.
        tokio::time::pause();
        let (began, closed) = (Instant::now(), receiver.on_close.notified());
        closed.await;
        assert!(began.elapsed() >= KEEP_ALIVE, "the connection was closed too early");
        assert!(sender.clients.borrow().is_empty());
    });
}

#[test]
fn reused_connection_that_was_closed_is_reopened() {
    run(async {
        let receiver = Receiver::start([
            ReceiverAction::Says(answer("200 OK", "", "")),
            ReceiverAction::Closes(String::new()),
        ])
        .await;
        let sender = sender();
        assert_eq!(post(&sender, &receiver.url()).await.unwrap().status, 200);
        // The second request goes over the first connection, which ends with it.
        assert_eq!(post(&sender, &receiver.url()).await.unwrap().status, 204);
        assert_eq!((receiver.connections.get(), receiver.seen.borrow().len()), (2, 3));
    });
}

#[test]
fn bytes_behind_an_undelimited_response_are_dropped() {
    run(async {
        for (first, status) in [
            ("HTTP/1.1 100 Continue\r\n\r\n", 100),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 100),
            ("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n", 103),
            ("HTTP/1.1 500 Oh\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 500),
        ] {
            let receiver = Receiver::start([ReceiverAction::Says(first.to_owned())]).await;
            let sender = sender();
            assert_eq!(post(&sender, &receiver.url()).await.unwrap().status, status, "{first:?}");
            assert_eq!(post(&sender, &receiver.url()).await.unwrap().status, 204, "{first:?}");
            assert_eq!(receiver.connections.get(), 2, "{first:?}");
        }
    });
}

#[test]
fn new_connection_that_is_closed_is_an_error() {
    run(async {
        let receiver = Receiver::start([ReceiverAction::Closes(String::new())]).await;
        assert_eq!(post(&sender(), &receiver.url()).await.unwrap_err(), SendError::ConnectionClosed);
        assert_eq!(receiver.seen.borrow().len(), 1);
    });
}

#[test]
fn incomplete_head_is_an_error() {
    run(async {
        for half in ["HTTP/1.1 200 OK\r\ncontent-le", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 20"] {
            let receiver = Receiver::start([ReceiverAction::Closes(half.to_owned())]).await;
            assert_eq!(
                post(&sender(), &receiver.url()).await.unwrap_err(),
                SendError::IncompleteHead,
                "{half:?}"
            );
        }
        for other in ["SSH-2.0-OpenSSH_9.6\r\n\r\n", "<html>\r\n\r\n", "HTTP/1.1 0 no\r\n\r\n"] {
            let receiver = Receiver::start([ReceiverAction::Closes(other.to_owned())]).await;
            assert_eq!(post(&sender(), &receiver.url()).await.unwrap_err(), SendError::NotHttp, "{other:?}");
        }
    });
}

#[test]
fn response_with_a_broken_body_keeps_its_status() {
    run(async {
        let quick = WebhooksConfig { timeout: Duration::from_millis(300), ..loopback_config() };
        let long = "x".repeat(STORED_BYTES);
        for (does, body) in [
            (
                ReceiverAction::Closes(
                    "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nten of them".to_owned(),
                ),
                "ten of them",
            ),
            (
                ReceiverAction::Stalls(
                    "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nand silence".to_owned(),
                ),
                "and silence",
            ),
            (ReceiverAction::Closes("HTTP/1.0 200 OK\r\n\r\nuntil the end".to_owned()), "until the end"),
            (
                ReceiverAction::Repeats(
                    "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n".to_owned(),
                    "drip".to_owned(),
                    DRIP_INTERVAL,
                ),
                "dripdripd",
            ),
            (
                ReceiverAction::Closes(
                    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n".to_owned(),
                ),
                "abc",
            ),
            (
                ReceiverAction::Repeats(
                    "HTTP/1.0 200 OK\r\n\r\n".to_owned(),
                    "x".repeat(4096),
                    Duration::ZERO,
                ),
                &long,
            ),
        ] {
            let receiver = Receiver::start([does]).await;
            let answer = post(&DeliverySender::new(&quick).unwrap(), &receiver.url()).await.unwrap();
            assert_eq!((answer.status, answer.body.as_deref()), (200, Some(body)));
        }
    });
}

#[test]
fn endless_response_is_dropped_after_64_kib() {
    run(async {
        let receiver = Receiver::start([ReceiverAction::Repeats(
            "HTTP/1.0 200 OK\r\n\r\n".to_owned(),
            "x".repeat(4096),
            Duration::ZERO,
        )])
        .await;
        let began = Instant::now();
        let closed = receiver.on_close.notified();
        let answer = post(&sender(), &receiver.url()).await.unwrap();
        assert_eq!(answer.body.map(|body| body.len()), Some(STORED_BYTES));
        assert!(began.elapsed() < loopback_config().timeout, "only the timeout ended it");
        closed.await;
    });
}

#[test]
fn body_that_drips_holds_up_nothing() {
    run(async {
        let drip = || {
            let head = "HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n".to_owned();
            ReceiverAction::Repeats(head, "x".to_owned(), DRIP_INTERVAL)
        };
        let receiver = Receiver::start([drip(), drip()]).await;
        let (sender, began) = (sender(), Instant::now());
        for _ in 0..2 {
            let closed = receiver.on_close.notified();
            let answer = post(&sender, &receiver.url()).await.unwrap();
            assert_eq!(answer.status, 200);
            assert!(answer.body.is_some_and(|body| body.bytes().all(|byte| byte == b'x')));
            closed.await;
        }
        assert!(began.elapsed() < loopback_config().timeout, "the timeout ended a body");
    });
}

#[test]
fn slow_response_ends_at_the_timeout() {
    run(async {
        let quick = WebhooksConfig { timeout: Duration::from_millis(300), ..loopback_config() };
        for does in [
            ReceiverAction::Stalls(String::new()),
            ReceiverAction::Stalls("HTTP/1.1 200 OK\r\nx: y\r\n".to_owned()),
            ReceiverAction::Repeats("HTTP/1.1 200 OK\r\n".to_owned(), "a: b\r\n".to_owned(), DRIP_INTERVAL),
        ] {
            let receiver = Receiver::start([does]).await;
            let error = post(&DeliverySender::new(&quick).unwrap(), &receiver.url()).await.unwrap_err();
            assert_eq!(error, SendError::ResponseTimeout(quick.timeout));
            assert_eq!(error.to_string(), "no answer within 0.3 s");
        }
    });
}

#[test]
fn slow_lookup_ends_at_the_timeout() {
    run(async {
        let quick = WebhooksConfig { timeout: Duration::from_millis(300), ..loopback_config() };
        let never: DnsResolver = Rc::new(|_, _| Box::pin(std::future::pending()));
        let error = post(&DeliverySender::resolving(&quick, never).unwrap(), "http://slow.example/")
            .await
            .unwrap_err();
        assert!(matches!(error, SendError::ConnectTimeout(_) | SendError::ResponseTimeout(_)), "{error}");
    });
}

#[test]
fn unreachable_receiver_is_reported_with_the_reason() {
    run(async {
        let free = {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap()
        };
        assert_eq!(
            post(&sender(), &format!("http://{free}/")).await.unwrap_err(),
            SendError::ConnectionRefused
        );

        let unknown: DnsResolver = Rc::new(|_, _| Box::pin(async { Err(io::Error::other("no such host")) }));
        let error =
            post(&DeliverySender::resolving(&loopback_config(), unknown).unwrap(), "http://gone.example/")
                .await;
        assert_eq!(error.unwrap_err().to_string(), "the name gone.example does not resolve");
        let (sender, _) = resolving(&loopback_config(), vec![vec![]]);
        assert_eq!(
            post(&sender, "http://gone.example/").await.unwrap_err(),
            SendError::UnknownHost("gone.example".into())
        );
    });
}

#[test]
fn private_address_is_not_connected_to() {
    run(async {
        let receiver = Receiver::start([]).await;
        let port = receiver.address.port();
        let strict = DeliverySender::new(&WebhooksConfig::default()).unwrap();
        for host in [
            "127.0.0.1",
            "127.1",
            "0x7f.1",
            "2130706433",
            "0177.0.0.1",
            "127.0.0.1.",
            "%31%32%37.0.0.1",
            "0",
            "[::ffff:127.0.0.1]",
            "[::1]",
            "[64:ff9b::7f00:1]",
            "localhost",
            "LOCALHOST",
            "169.254.169.254",
        ] {
            let error = post(&strict, &format!("http://{host}:{port}/")).await.unwrap_err();
            assert!(matches!(error, SendError::NotPublic(_)), "{host}: {error}");
            assert!(error.is_ours());
        }
        // The owner of any domain can publish such a name.
        for address in
            ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::ffff:127.0.0.1", "::1", "fd00:ec2::254"]
        {
            let (strict, _) = resolving(&WebhooksConfig::default(), vec![vec![address]]);
            let error = post(&strict, &format!("http://hooks.example:{port}/")).await.unwrap_err();
            assert_eq!(error, SendError::NotPublic(address.parse().unwrap()));
        }
        assert_eq!(receiver.connections.get(), 0);
    });
}

#[test]
fn redirect_is_not_followed() {
    run(async {
        let inside = Receiver::start([]).await;
        let location = format!("location: {}\r\n", inside.url());
        for status in ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"] {
            let receiver = Receiver::start([ReceiverAction::Says(answer(status, &location, ""))]).await;
            let answer = post(&sender(), &receiver.url()).await.unwrap();
            assert_eq!(answer.status.to_string(), status[..3]);
        }
        assert_eq!(inside.connections.get(), 0);
    });
}

/// Plays DNS rebinding: the name has a public address first and a private one later. One lookup serves both the check
/// and the connection.
#[test]
fn rebound_name_is_not_connected_to() {
    run(async {
        let receiver = Receiver::start([]).await;
        let url = format!("http://rebind.example:{}/", receiver.address.port());
        // TEST-NET has no hosts, so it plays the public address here.
        let public = WebhooksConfig {
            allow_private: vec!["192.0.2.0/24".parse().unwrap()],
            timeout: Duration::from_millis(200),
            ..WebhooksConfig::default()
        };
        let (sender, asked) = resolving(&public, vec![vec!["192.0.2.1"], vec!["127.0.0.1"]]);
        let error = post(&sender, &url).await.unwrap_err();
        assert!(!matches!(error, SendError::NotPublic(_)), "{error}");
        assert_eq!(asked.get(), 1);
        let error = post(&sender, &url).await.unwrap_err();
        assert_eq!(error, SendError::NotPublic("127.0.0.1".parse().unwrap()));
        assert_eq!((asked.get(), receiver.connections.get()), (2, 0));
    });
}

#[test]
fn name_with_several_addresses_uses_only_admitted_ones() {
    run(async {
        let receiver = Receiver::start([]).await;
        let url = format!("http://hooks.example:{}/", receiver.address.port());
        let only =
            WebhooksConfig { allow_private: vec!["127.0.0.1/32".parse().unwrap()], ..loopback_config() };
        let (sender, _) = resolving(&only, vec![vec!["127.0.0.2", "10.0.0.1", "127.0.0.1"]]);
        assert_eq!(post(&sender, &url).await.unwrap().status, 204);
        // The sender tries the next address after a refused connection.
        let (sender, _) = resolving(&loopback_config(), vec![vec!["127.0.0.3", "127.0.0.1"]]);
        assert_eq!(post(&sender, &url).await.unwrap().status, 204);
        // It tries the next one beside an address that does not answer.
        let _dead = DeadAddress::new(4, receiver.address.port());
        let quick = WebhooksConfig { timeout: Duration::from_secs(1), ..loopback_config() };
        let (sender, _) = resolving(&quick, vec![vec!["127.0.0.4", "127.0.0.1"]]);
        assert_eq!(post(&sender, &url).await.unwrap().status, 204);
        assert_eq!(receiver.connections.get(), 3);
    });
}

#[test]
fn certificate_is_checked_for_name_and_authority() {
    run(async {
        let receiver = Receiver::start_with(Some(server_tls()), []).await;
        let port = receiver.address.port();
        let private = WebhooksConfig { ca: Some(CA.to_vec()), ..loopback_config() };
        let trusting = DeliverySender::new(&private).unwrap();
        for host in ["localhost", "127.0.0.1"] {
            assert_eq!(
                post(&trusting, &format!("https://{host}:{port}/")).await.unwrap().status,
                204,
                "{host}"
            );
        }
        let error = post(&sender(), &format!("https://localhost:{port}/")).await.unwrap_err();
        assert_eq!(error, SendError::UnknownAuthority);
        let (elsewhere, _) = resolving(&private, vec![vec!["127.0.0.1"]]);
        let error = post(&elsewhere, &format!("https://hooks.example:{port}/")).await.unwrap_err();
        assert_eq!(error, SendError::CertificateName("hooks.example".into()));
        let error = post(&trusting, &format!("https://[::1]:{port}/")).await.unwrap_err();
        assert!(matches!(error, SendError::NoTlsName | SendError::ConnectionRefused), "{error}");

        let plain = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/", plain.local_addr().unwrap());
        let (error, ()) = tokio::join!(post(&trusting, &url), async {
            let (mut stream, _) = plain.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        });
        assert_eq!(error.unwrap_err(), SendError::Handshake);
        let error = post(&sender(), &format!("http://localhost:{port}/")).await.unwrap_err();
        assert!(matches!(error, SendError::NotHttp | SendError::ConnectionClosed), "{error}");
    });
}

#[test]
fn ca_file_without_authorities_fails_the_start() {
    for pem in ["", "not PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let config = WebhooksConfig { ca: Some(pem.into()), ..loopback_config() };
        assert!(
            matches!(DeliverySender::new(&config), Err(SenderSetupError::Tls(TlsError::Authorities))),
            "{pem:?}"
        );
    }
}

#[test]
fn url_with_credentials_or_other_scheme_is_refused() {
    run(async {
        for url in
            ["http://user@127.0.0.1/", "http://:secret@127.0.0.1/", "ftp://127.0.0.1/", "mailto:a@b.example"]
        {
            assert_eq!(post(&sender(), url).await.unwrap_err(), SendError::Url, "{url}");
        }
    });
}

#[test]
fn text_of_a_cut_body_ends_between_characters() {
    assert_eq!(&*text("déjà".as_bytes()), "déjà");
    assert_eq!(&*text(&"déjà".as_bytes()[..5]), "déj");
    assert_eq!(&*text(b"a\xffb"), "a\u{fffd}b");
    assert!(text(&[0xff; STORED_BYTES]).len() <= STORED_BYTES);
}

proptest! {
    /// One parser reads a URL for patterns and another for requests. Both must find the same host.
    #[test]
    fn url_has_the_same_host_in_both_parsers(
        host in r"[a-zA-Z0-9._%-]{1,12}|\[[0-9a-f:]{2,8}\]",
        port in prop::option::of(any::<u16>()),
        rest in r"[/?][ -~é]{0,20}",
    ) {
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        if let Ok(url) = Url::parse(&format!("https://{host}{port}{rest}")) {
            let host = url.host_str().unwrap();
            let usual = host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_[]:".contains(&b));
            let uri = match awc::http::Uri::try_from(url.as_str()) {
                Ok(uri) => uri,
                // Such hosts have characters that no resolver accepts.
                Err(error) => {
 prop_assert!(!usual, "{url}: {error}");
 return Ok(());
 }
            };
            prop_assert_eq!(uri.host(), Some(host));
            prop_assert_eq!(uri.port_u16().unwrap_or(443), url.port_or_known_default().unwrap());
            prop_assert_eq!(authority(&url), Some(uri.authority().unwrap().as_str()));
        }
    }

    #[test]
    fn text_of_any_bytes_is_limited(bytes in prop::collection::vec(any::<u8>(), 0..STORED_BYTES)) {
        prop_assert!(text(&bytes).len() <= STORED_BYTES);
    }
}
