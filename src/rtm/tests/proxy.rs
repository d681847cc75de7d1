//! Connects through a proxy on loopback.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use tokio::net::TcpListener;

use super::{NOW, ScriptedAnswer, ScriptedPlatform, bot, run_paused, user};
use crate::config::fixtures::proxy;
use crate::config::{BotConfig, ProxyConfig, ProxyCredentials};
use crate::domain::BotName;
use crate::metrics::{ClockDifference, LabelSets, Metrics};
use crate::rtm::{
    CallError, ConnectError, ConnectMode, PlatformConnector, PlatformSocket, RetryAdvice, SocketEvent,
};
use crate::runtime::fixtures::run;
use crate::tcp::connect_proxy::{ConnectProxy, ProxyRules};
use crate::tcp::fixtures::resolver;
use crate::tcp::{DnsResolver, ProxyError, system_resolver};
use crate::tls::fixtures::server_tls;

const CERTIFICATE: &[u8] = include_bytes!("../../../tests/fixtures/tls.pem");
const KEY: &[u8] = include_bytes!("../../../tests/fixtures/tls.key.pem");

fn clock() -> ClockDifference {
    let words = LabelSets { frames_in: &[], frames_out: &[], routes: &[] };
    Metrics::new(words).unwrap().clocks.platform
}

fn connector(bot: &BotConfig, resolve: &DnsResolver) -> PlatformConnector {
    PlatformConnector::resolving(&[Arc::new(bot.clone())], clock(), resolve).unwrap()
}

async fn connect(bot: &BotConfig) -> Result<PlatformSocket, ConnectError> {
    let connector = connector(bot, &system_resolver());
    connector.connect(bot, &user(), ConnectMode::Default, &connector.empty_context(), &mut None, NOW).await
}

/// Returns the failure of the proxy that a connect reports.
async fn refused(bot: &BotConfig) -> (ProxyError, String) {
    let error = connect(bot).await.err().expect("it does not connect");
    assert_eq!((error.phase(), error.retry()), ("proxy", RetryAdvice::Backoff(None)), "{error}");
    let message = error.public_message().to_owned();
    match error {
        ConnectError::Unreachable { error: CallError::Proxy { cause, .. }, .. } => (cause, message),
        other => panic!("{other:?}"),
    }
}

fn behind(proxy: ProxyConfig, bot: BotConfig) -> BotConfig {
    BotConfig { proxy: Some(Arc::new(proxy)), ..bot }
}

#[test]
fn calls_and_sockets_go_through_the_proxy_by_name() {
    run(async {
        let platform = ScriptedPlatform::start().await;
        let rules = ProxyRules { upstream: Some(platform.address), ..ProxyRules::default() };
        let tunnel = ConnectProxy::start(rules).await;
        let bot = behind(proxy(&tunnel.url()), bot("http://platform.example"));
        let ticket = r#"{"url":"ws://socket.example:8443/rtm/bot?sid=once"}"#.to_owned();
        platform.answers("/rtm/start", ScriptedAnswer::Http("200 OK", ticket));
        let unknown: DnsResolver = Rc::new(|host, _| panic!("{host} was resolved"));
        let (connector, mut grant) = (connector(&bot, &unknown), None);
        let mut socket = connector
            .connect(&bot, &user(), ConnectMode::Default, &connector.empty_context(), &mut grant, NOW)
            .await
            .unwrap();
        connector
            .fetch_history_page(&bot, &user(), &connector.empty_context(), &mut grant, None::<&str>, NOW)
            .await
            .unwrap();
        // One connection serves all calls, and the socket has one of its own.
        assert_eq!(tunnel.targets(), ["platform.example:80", "socket.example:8443"]);
        for path in ["/oAuth/token/jwtgrant", "/rtm/start", "/rtm/bot", "/botmessages/rtm"] {
            assert_eq!(platform.seen(path).len(), 1, "{path}");
        }
        socket.send("through it").await.unwrap();
        // A proxy that goes away cuts the socket.
        drop(tunnel);
        let SocketEvent::Closed(closed) = socket.next().await else { panic!("it is closed") };
        assert_eq!(closed.code, 1006);
    });
}

#[test]
fn tls_of_the_platform_passes_both_kinds_of_proxies() {
    run(async {
        let tls = server_tls(CERTIFICATE, KEY);
        let platform = ScriptedPlatform::start_with(Some(Arc::clone(&tls))).await;
        let trusting = BotConfig { ca: Some(CERTIFICATE.into()), ..platform.bot() };
        let plain = ConnectProxy::start(ProxyRules::default()).await;
        connect(&behind(proxy(&plain.url()), trusting.clone())).await.unwrap();

        let encrypted = ConnectProxy::start(ProxyRules { tls: Some(tls), ..ProxyRules::default() }).await;
        let url = format!("https://localhost:{}", encrypted.address.port());
        let own = ProxyConfig { ca: Some(CERTIFICATE.into()), ..proxy(&url) };
        let mut socket = connect(&behind(own, trusting.clone())).await.unwrap();
        socket.send("TLS in TLS").await.unwrap();
        socket.close(1000).await;
        for tunnel in [&plain, &encrypted] {
            let target = format!("localhost:{}", platform.address.port());
            assert_eq!(tunnel.targets(), [target.clone(), target]);
        }

        // The authorities of the platform do not count for the proxy, and the reverse.
        let (error, message) = refused(&behind(proxy(&url), trusting)).await;
        assert!(matches!(error, ProxyError::Tls(_)) && message.contains("proxy.ca_file"), "{message}");
        let own = ProxyConfig { ca: Some(CERTIFICATE.into()), ..proxy(&url) };
        let error = connect(&behind(own, platform.bot())).await.err().unwrap();
        assert!(matches!(error, ConnectError::Unreachable { error: CallError::Tls(_), .. }), "{error:?}");
    });
}

#[test]
fn credentials_open_a_proxy_and_stay_secret() {
    run(async {
        let platform = ScriptedPlatform::start().await;
        let rules =
            ProxyRules { authorization: Some("Basic YnJpZGdlOmh1c2g6aHVzaA=="), ..ProxyRules::default() };
        let tunnel = ConnectProxy::start(rules).await;
        let with = |password: &str| {
            let credentials = ProxyCredentials { username: "bridge".into(), password: password.into() };
            let proxy = ProxyConfig { credentials: Some(credentials), ..proxy(&tunnel.url()) };
            behind(proxy, platform.bot())
        };
        connect(&with("hush:hush")).await.unwrap();
        let (error, message) = refused(&with("hush-hush")).await;
        assert!(
            matches!(error, ProxyError::CredentialsRefused(407)) && message.contains("(407)"),
            "{message}"
        );
        let (error, message) = refused(&behind(proxy(&tunnel.url()), platform.bot())).await;
        assert!(
            matches!(error, ProxyError::CredentialsMissing(407)) && message.contains("proxy.username"),
            "{message}"
        );
        assert!(!format!("{:?}", with("hush:hush")).contains("hush"));
    });
}

#[test]
fn failure_of_the_proxy_is_told_as_such() {
    run(async {
        let platform = ScriptedPlatform::start().await;
        for (answer, words) in [
            ("HTTP/1.1 403 Forbidden\r\n\r\n", "the proxy refuses connections to this host (403)"),
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n", "the proxy cannot reach this host (503)"),
            ("SSH-2.0-OpenSSH_9.6\r\n", "not valid HTTP"),
            ("", "hung up"),
            (&*format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(40_000)), "not valid HTTP"),
        ] {
            let rules = ProxyRules { answer: Some(answer.to_owned()), ..ProxyRules::default() };
            let tunnel = ConnectProxy::start(rules).await;
            let bot = behind(proxy(&tunnel.url()), platform.bot());
            let (_, message) = refused(&bot).await;
            assert!(message.contains(words), "{words}: {message}");
        }
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let (error, message) = refused(&behind(proxy(&format!("http://{free}")), platform.bot())).await;
        assert!(
            matches!(error, ProxyError::Unreachable(_)) && message.contains("connection refused"),
            "{message}"
        );
        let lost: DnsResolver = Rc::new(|_, _| Box::pin(async { Err(io::Error::other("no such host")) }));
        let bot = behind(proxy("http://proxy.example:3128"), platform.bot());
        let error = connector(&bot, &lost)
            .connect(&bot, &user(), ConnectMode::Default, &Rc::default(), &mut None, NOW)
            .await;
        assert!(error.err().unwrap().public_message().contains("the proxy's host name"));
        assert_eq!(platform.connections.get(), 0);
    });
}

#[test]
fn silent_proxy_ends_at_the_timeout_for_connecting() {
    run_paused(async {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", silent.local_addr().unwrap());
        let began = tokio::time::Instant::now();
        let (error, message) = refused(&behind(proxy(&url), bot("https://platform.example"))).await;
        assert!(matches!(error, ProxyError::Timeout) && message.contains("in time"), "{message}");
        assert!(
            began.elapsed() <= super::super::connector::TCP_TIMEOUT + std::time::Duration::from_millis(10)
        );
    });
}

#[test]
fn exempt_host_is_reached_directly() {
    run(async {
        let platform = ScriptedPlatform::start().await;
        let tunnel = ConnectProxy::start(ProxyRules::default()).await;
        let port = platform.address.port();
        for (entry, through) in [
            ("127.0.0.1", 0),
            ("127.0.0.0/8", 0),
            (&*format!("127.0.0.1:{port}"), 0),
            ("127.0.0.1:1", 2),
            ("example.com", 2),
        ] {
            let seen = tunnel.heads().len();
            let no_proxy = [entry.parse().unwrap()].into_iter().collect();
            let proxy = ProxyConfig { no_proxy, ..proxy(&tunnel.url()) };
            connect(&behind(proxy, platform.bot())).await.unwrap();
            assert_eq!(tunnel.heads().len() - seen, through, "{entry}");
        }
        let of_environment = ProxyConfig { loopback_direct: true, ..proxy(&tunnel.url()) };
        let seen = tunnel.heads().len();
        connect(&behind(of_environment, platform.bot())).await.unwrap();
        assert_eq!(tunnel.heads().len(), seen);
    });
}

#[test]
fn bots_of_one_proxy_share_their_connections() {
    run(async {
        let platform = ScriptedPlatform::start().await;
        let tunnel = ConnectProxy::start(ProxyRules::default()).await;
        let shared = Arc::new(proxy(&tunnel.url()));
        let named = |name: &str, proxy: Option<&Arc<ProxyConfig>>| {
            let name = BotName::new(name).unwrap();
            Arc::new(BotConfig { name, proxy: proxy.cloned(), ..platform.bot() })
        };
        let bots = [named("a", Some(&shared)), named("b", Some(&shared)), named("direct", None)];
        let connector = PlatformConnector::resolving(&bots, clock(), &resolver(&[])).unwrap();
        for bot in &bots {
            connector
                .fetch_history_page(bot, &user(), &connector.empty_context(), &mut None, None::<&str>, NOW)
                .await
                .unwrap();
        }
        assert_eq!((tunnel.heads().len(), platform.connections.get()), (1, 2));
    });
}
