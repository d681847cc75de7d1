use std::io;
use std::net::SocketAddr;

use proptest::prelude::*;
use tokio::io::AsyncWriteExt as _;

use super::*;
use crate::webhook::tests::{CA, Does, Receiver, answer, nearby, run, sender, server_tls};

/// How long a receiver that drips waits between two drops.
const MOMENT: Duration = Duration::from_millis(10);

async fn post(sender: &DeliverySender, url: &str) -> Result<ReceiverResponse, SendError> {
    sender.post(&Url::parse(url).unwrap(), HeaderMap::new(), Bytes::from_static(b"{}")).await
}

/// A sender whose resolver answers with these, one after the other, and then with the last for ever.
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
fn posts_and_reads_what_is_answered() {
    run(async {
        let receiver = Receiver::start([Does::Says(answer("200 OK", "", "thank you"))]).await;
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
fn connections_are_used_again_and_closed_when_idle() {
    run(async {
        let receiver = Receiver::start([]).await;
        let sender = sender();
        for _ in 0..20 {
            assert_eq!(post(&sender, &receiver.url()).await.unwrap().status, 204);
        }
        assert_eq!(receiver.connections.get(), 1);
        // Time goes on by itself when nothing else does.
        tokio::time::pause();
        let (began, closed) = (Instant::now(), receiver.bell.notified());
        closed.await;
        assert!(began.elapsed() >= KEEP_ALIVE, "it was kept for as long as it may be of use");
        assert!(sender.clients.borrow().is_empty());
    });
}

#[test]
fn a_connection_that_was_closed_meanwhile_is_opened_anew() {
    run(async {
        let receiver =
            Receiver::start([Does::Says(answer("200 OK", "", "")), Does::Closes(String::new())]).await;
        let sender = sender();
        assert_eq!(post(&sender, &receiver.url()).await.unwrap().status, 200);
        // The second request goes over the first connection, which ends with it.
        assert_eq!(post(&sender, &receiver.url()).await.unwrap().status, 204);
        assert_eq!((receiver.connections.get(), receiver.seen.borrow().len()), (2, 3));
    });
}

#[test]
fn what_follows_an_answer_without_an_end_is_no_answer_to_the_next() {
    run(async {
        for (first, status) in [
            ("HTTP/1.1 100 Continue\r\n\r\n", 100),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 100),
            ("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n", 103),
            ("HTTP/1.1 500 Oh\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 500),
        ] {
            let receiver = Receiver::start([Does::Says(first.to_owned())]).await;
            let sender = sender();
            assert_eq!(post(&sender, &receiver.url()).await.unwrap().status, status, "{first:?}");
            assert_eq!(post(&sender, &receiver.url()).await.unwrap().status, 204, "{first:?}");
            assert_eq!(receiver.connections.get(), 2, "{first:?}");
        }
    });
}

#[test]
fn a_new_connection_that_is_closed_is_a_failure() {
    run(async {
        let receiver = Receiver::start([Does::Closes(String::new())]).await;
        assert_eq!(post(&sender(), &receiver.url()).await.unwrap_err(), SendError::HungUp);
        assert_eq!(receiver.seen.borrow().len(), 1);
    });
}

#[test]
fn half_of_a_head_is_no_answer() {
    run(async {
        for half in ["HTTP/1.1 200 OK\r\ncontent-le", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 20"] {
            let receiver = Receiver::start([Does::Closes(half.to_owned())]).await;
            assert_eq!(post(&sender(), &receiver.url()).await.unwrap_err(), SendError::Half, "{half:?}");
        }
        for other in ["SSH-2.0-OpenSSH_9.6\r\n\r\n", "<html>\r\n\r\n", "HTTP/1.1 0 no\r\n\r\n"] {
            let receiver = Receiver::start([Does::Closes(other.to_owned())]).await;
            assert_eq!(post(&sender(), &receiver.url()).await.unwrap_err(), SendError::NotHttp, "{other:?}");
        }
    });
}

#[test]
fn a_head_is_an_answer_whatever_becomes_of_its_body() {
    run(async {
        let quick = WebhooksConfig { timeout: Duration::from_millis(300), ..nearby() };
        let long = "x".repeat(KEPT);
        for (does, body) in [
            (
                Does::Closes("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nten of them".to_owned()),
                "ten of them",
            ),
            (
                Does::Stalls("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nand silence".to_owned()),
                "and silence",
            ),
            (Does::Closes("HTTP/1.0 200 OK\r\n\r\nuntil the end".to_owned()), "until the end"),
            (
                Does::Repeats(
                    "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n".to_owned(),
                    "drip".to_owned(),
                    MOMENT,
                ),
                "dripdripd",
            ),
            (
                Does::Closes(
                    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n".to_owned(),
                ),
                "abc",
            ),
            (Does::Repeats("HTTP/1.0 200 OK\r\n\r\n".to_owned(), "x".repeat(4096), Duration::ZERO), &long),
        ] {
            let receiver = Receiver::start([does]).await;
            let answer = post(&DeliverySender::new(&quick).unwrap(), &receiver.url()).await.unwrap();
            assert_eq!((answer.status, answer.body.as_deref()), (200, Some(body)));
        }
    });
}

#[test]
fn an_endless_answer_is_left_after_64_kib() {
    run(async {
        let receiver = Receiver::start([Does::Repeats(
            "HTTP/1.0 200 OK\r\n\r\n".to_owned(),
            "x".repeat(4096),
            Duration::ZERO,
        )])
        .await;
        let began = Instant::now();
        let closed = receiver.bell.notified();
        let answer = post(&sender(), &receiver.url()).await.unwrap();
        assert_eq!(answer.body.map(|body| body.len()), Some(KEPT));
        assert!(began.elapsed() < nearby().timeout, "the deadline is what ended it");
        closed.await;
    });
}

#[test]
fn silence_and_drops_end_at_the_deadline() {
    run(async {
        let quick = WebhooksConfig { timeout: Duration::from_millis(300), ..nearby() };
        for does in [
            Does::Stalls(String::new()),
            Does::Stalls("HTTP/1.1 200 OK\r\nx: y\r\n".to_owned()),
            Does::Repeats("HTTP/1.1 200 OK\r\n".to_owned(), "a: b\r\n".to_owned(), MOMENT),
        ] {
            let receiver = Receiver::start([does]).await;
            let failure = post(&DeliverySender::new(&quick).unwrap(), &receiver.url()).await.unwrap_err();
            assert_eq!(failure, SendError::Deadline(quick.timeout));
            assert_eq!(failure.to_string(), "no answer within 0.3 s");
        }
    });
}

#[test]
fn looking_up_a_name_counts_too() {
    run(async {
        let quick = WebhooksConfig { timeout: Duration::from_millis(300), ..nearby() };
        let never: DnsResolver = Rc::new(|_, _| Box::pin(std::future::pending()));
        let failure = post(&DeliverySender::resolving(&quick, never).unwrap(), "http://slow.example/")
            .await
            .unwrap_err();
        assert!(matches!(failure, SendError::ConnectDeadline(_) | SendError::Deadline(_)), "{failure}");
    });
}

#[test]
fn nobody_there_is_told_apart() {
    run(async {
        let free = {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap()
        };
        assert_eq!(post(&sender(), &format!("http://{free}/")).await.unwrap_err(), SendError::Refused);

        let unknown: DnsResolver = Rc::new(|_, _| Box::pin(async { Err(io::Error::other("no such host")) }));
        let failure =
            post(&DeliverySender::resolving(&nearby(), unknown).unwrap(), "http://gone.example/").await;
        assert_eq!(failure.unwrap_err().to_string(), "the name gone.example does not resolve");
        let (sender, _) = resolving(&nearby(), vec![vec![]]);
        assert_eq!(
            post(&sender, "http://gone.example/").await.unwrap_err(),
            SendError::Name("gone.example".into())
        );
    });
}

#[test]
fn addresses_that_are_not_public_are_not_connected_to() {
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
            let failure = post(&strict, &format!("http://{host}:{port}/")).await.unwrap_err();
            assert!(matches!(failure, SendError::NotPublic(_)), "{host}: {failure}");
            assert!(failure.is_ours());
        }
        // By a name that anybody may have made.
        for address in
            ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::ffff:127.0.0.1", "::1", "fd00:ec2::254"]
        {
            let (strict, _) = resolving(&WebhooksConfig::default(), vec![vec![address]]);
            let failure = post(&strict, &format!("http://hooks.example:{port}/")).await.unwrap_err();
            assert_eq!(failure, SendError::NotPublic(address.parse().unwrap()));
        }
        assert_eq!(receiver.connections.get(), 0);
    });
}

#[test]
fn a_redirect_leads_nowhere() {
    run(async {
        let inside = Receiver::start([]).await;
        let location = format!("location: {}\r\n", inside.url());
        for status in ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"] {
            let receiver = Receiver::start([Does::Says(answer(status, &location, ""))]).await;
            let answer = post(&sender(), &receiver.url()).await.unwrap();
            assert_eq!(answer.status.to_string(), status[..3]);
        }
        assert_eq!(inside.connections.get(), 0);
    });
}

/// A name that is public when it is looked at and ours when it is used: there is one look-up, and what it said is both
/// judged and used.
#[test]
fn a_name_that_changes_between_check_and_connection_gains_nothing() {
    run(async {
        let receiver = Receiver::start([]).await;
        let url = format!("http://rebind.example:{}/", receiver.address.port());
        // TEST-NET answers nobody, so it plays the public address here.
        let public = WebhooksConfig {
            allow_private: vec!["192.0.2.0/24".parse().unwrap()],
            timeout: Duration::from_millis(200),
            ..WebhooksConfig::default()
        };
        let (sender, asked) = resolving(&public, vec![vec!["192.0.2.1"], vec!["127.0.0.1"]]);
        let failure = post(&sender, &url).await.unwrap_err();
        assert!(!matches!(failure, SendError::NotPublic(_)), "{failure}");
        assert_eq!(asked.get(), 1);
        let failure = post(&sender, &url).await.unwrap_err();
        assert_eq!(failure, SendError::NotPublic("127.0.0.1".parse().unwrap()));
        assert_eq!((asked.get(), receiver.connections.get()), (2, 0));
    });
}

#[test]
fn of_several_addresses_only_those_that_pass_are_used() {
    run(async {
        let receiver = Receiver::start([]).await;
        let url = format!("http://hooks.example:{}/", receiver.address.port());
        let only = WebhooksConfig { allow_private: vec!["127.0.0.1/32".parse().unwrap()], ..nearby() };
        let (sender, _) = resolving(&only, vec![vec!["127.0.0.2", "10.0.0.1", "127.0.0.1"]]);
        assert_eq!(post(&sender, &url).await.unwrap().status, 204);
        // One that refuses is followed by the next.
        let (sender, _) = resolving(&nearby(), vec![vec!["127.0.0.3", "127.0.0.1"]]);
        assert_eq!(post(&sender, &url).await.unwrap().status, 204);
        assert_eq!(receiver.connections.get(), 2);
    });
}

#[test]
fn tls_is_checked_against_the_name_and_the_authorities() {
    run(async {
        let receiver = Receiver::start_with(Some(server_tls()), []).await;
        let port = receiver.address.port();
        let private = WebhooksConfig { ca: Some(CA.to_vec()), ..nearby() };
        let trusting = DeliverySender::new(&private).unwrap();
        for host in ["localhost", "127.0.0.1"] {
            assert_eq!(
                post(&trusting, &format!("https://{host}:{port}/")).await.unwrap().status,
                204,
                "{host}"
            );
        }
        let failure = post(&sender(), &format!("https://localhost:{port}/")).await.unwrap_err();
        assert_eq!(failure, SendError::Authority);
        let (elsewhere, _) = resolving(&private, vec![vec!["127.0.0.1"]]);
        let failure = post(&elsewhere, &format!("https://hooks.example:{port}/")).await.unwrap_err();
        assert_eq!(failure, SendError::CertificateName("hooks.example".into()));
        let failure = post(&trusting, &format!("https://[::1]:{port}/")).await.unwrap_err();
        assert!(matches!(failure, SendError::NoTlsName | SendError::Refused), "{failure}");

        let plain = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/", plain.local_addr().unwrap());
        let (failure, ()) = tokio::join!(post(&trusting, &url), async {
            let (mut stream, _) = plain.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        });
        assert_eq!(failure.unwrap_err(), SendError::Handshake);
        let failure = post(&sender(), &format!("http://localhost:{port}/")).await.unwrap_err();
        assert!(matches!(failure, SendError::NotHttp | SendError::HungUp), "{failure}");
    });
}

#[test]
fn authorities_have_to_be_some() {
    for pem in ["", "not PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let config = WebhooksConfig { ca: Some(pem.into()), ..nearby() };
        assert!(
            matches!(DeliverySender::new(&config), Err(SenderSetupError::Tls(TlsError::Authorities))),
            "{pem:?}"
        );
    }
}

#[test]
fn credentials_and_other_schemes_are_not_posted_to() {
    run(async {
        for url in
            ["http://user@127.0.0.1/", "http://:secret@127.0.0.1/", "ftp://127.0.0.1/", "mailto:a@b.example"]
        {
            assert_eq!(post(&sender(), url).await.unwrap_err(), SendError::Url, "{url}");
        }
    });
}

#[test]
fn text_is_cut_between_characters() {
    assert_eq!(&*text("déjà".as_bytes()), "déjà");
    assert_eq!(&*text(&"déjà".as_bytes()[..5]), "déj");
    assert_eq!(&*text(b"a\xffb"), "a\u{fffd}b");
    assert!(text(&[0xff; KEPT]).len() <= KEPT);
}

proptest! {
    /// Two parsers read a URL, one for patterns and one for sending: they have to agree on where it leads.
    #[test]
    fn what_is_a_url_can_be_sent_to_and_leads_to_the_same_host(
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
                // Hosts that no resolver knows: braces and the like.
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
    fn any_bytes_are_text_of_that_length_at_most(bytes in prop::collection::vec(any::<u8>(), 0..KEPT)) {
        prop_assert!(text(&bytes).len() <= KEPT);
    }
}
