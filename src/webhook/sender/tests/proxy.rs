//! Deliveries through a proxy on loopback. The guard judges addresses as without one.

use std::sync::Arc;

use super::*;
use crate::config::fixtures::proxy;
use crate::tcp::connect_proxy::{ConnectProxy, ProxyRules};

/// Returns a configuration for this proxy that admits loopback.
fn behind(tunnel: &ConnectProxy) -> WebhooksConfig {
    WebhooksConfig { proxy: Some(Arc::new(proxy(&tunnel.url()))), ..loopback_config() }
}

#[test]
fn delivery_goes_to_the_checked_address_by_the_proxy() {
    run(async {
        let receiver = Receiver::start([]).await;
        let tunnel = ConnectProxy::start(ProxyRules::default()).await;
        let url = format!("http://hooks.example:{}/in", receiver.address.port());
        let (sender, asked) =
            resolving(&behind(&tunnel), vec![vec!["10.0.0.1", "127.0.0.1"], vec!["127.0.0.9"]]);
        for _ in 0..2 {
            assert_eq!(post(&sender, &url).await.unwrap().status, 204);
        }
        assert_eq!(
            (tunnel.targets(), asked.get()),
            (vec![receiver.address.to_string()], 1),
            "one connection, kept"
        );
        let host = format!("hooks.example:{}", receiver.address.port());
        assert_eq!(receiver.seen.borrow()[0].header("host"), Some(&*host));
    });
}

#[test]
fn certificate_is_checked_by_name_behind_the_proxy() {
    run(async {
        let receiver = Receiver::start_with(Some(server_tls()), []).await;
        let tunnel = ConnectProxy::start(ProxyRules::default()).await;
        let config = WebhooksConfig { ca: Some(CA.to_vec()), ..behind(&tunnel) };
        let (sender, _) = resolving(&config, vec![vec!["127.0.0.1"]]);
        let port = receiver.address.port();
        assert_eq!(post(&sender, &format!("https://localhost:{port}/")).await.unwrap().status, 204);
        let error = post(&sender, &format!("https://hooks.example:{port}/")).await.unwrap_err();
        assert_eq!(error, SendError::CertificateName("hooks.example".into()));
        assert_eq!(tunnel.targets(), [receiver.address.to_string(), receiver.address.to_string()]);
    });
}

#[test]
fn private_address_reaches_no_proxy() {
    run(async {
        let tunnel = ConnectProxy::start(ProxyRules::default()).await;
        let strict = WebhooksConfig { allow_private: Vec::new(), ..behind(&tunnel) };
        for address in ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1"] {
            let (sender, _) = resolving(&strict, vec![vec![address]]);
            let error = post(&sender, "http://hooks.example/").await.unwrap_err();
            assert_eq!(error, SendError::NotPublic(address.parse().unwrap()));
        }
        assert_eq!(tunnel.heads(), [""; 0]);
    });
}

#[test]
fn proxy_that_takes_names_only_gets_the_name_after_the_check() {
    run(async {
        let receiver = Receiver::start([]).await;
        let rules =
            ProxyRules { names_only: true, upstream: Some(receiver.address), ..ProxyRules::default() };
        let tunnel = ConnectProxy::start(rules).await;
        let (sender, _) = resolving(&behind(&tunnel), vec![vec!["127.0.0.1"]]);
        assert_eq!(post(&sender, "http://hooks.example/in").await.unwrap().status, 204);
        assert_eq!(tunnel.targets(), ["127.0.0.1:80", "hooks.example:80"]);
        // A refused address has no other name.
        let error = post(&sender, "http://127.0.0.1:9/").await.unwrap_err();
        assert!(error.to_string().contains("the proxy refuses connections to this host (403)"), "{error}");
        assert_eq!(tunnel.heads().len(), 3);
    });
}

#[test]
fn address_out_of_the_proxys_reach_is_followed_by_the_next() {
    run(async {
        let receiver = Receiver::start([]).await;
        let tunnel = ConnectProxy::start(ProxyRules::default()).await;
        let port = receiver.address.port();
        let (sender, _) = resolving(&behind(&tunnel), vec![vec!["127.0.0.3", "127.0.0.1"]]);
        assert_eq!(post(&sender, &format!("http://hooks.example:{port}/")).await.unwrap().status, 204);
        assert_eq!(tunnel.targets(), [format!("127.0.0.3:{port}"), format!("127.0.0.1:{port}")]);
    });
}

#[test]
fn failure_of_the_proxy_is_no_fault_of_the_receiver() {
    run(async {
        let tunnel =
            ConnectProxy::start(ProxyRules { authorization: Some("Basic hush"), ..ProxyRules::default() })
                .await;
        let error =
            post(&DeliverySender::new(&behind(&tunnel)).unwrap(), "http://127.0.0.1:9/").await.unwrap_err();
        assert!(error.to_string().starts_with("the proxy asks for a user and a password (407)"), "{error}");
        assert!(!error.is_ours(), "the delivery is retried");
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = WebhooksConfig {
            proxy: Some(Arc::new(proxy(&format!("http://{}", silent.local_addr().unwrap())))),
            timeout: Duration::from_millis(300),
            ..loopback_config()
        };
        let error = post(&DeliverySender::new(&config).unwrap(), "http://127.0.0.1:9/").await.unwrap_err();
        let is_late =
            matches!(error, SendError::ResponseTimeout(_)) || error.to_string().contains("proxy did not");
        assert!(is_late, "{error}");
    });
}

#[test]
fn receiver_in_no_proxy_is_reached_directly() {
    run(async {
        let receiver = Receiver::start([]).await;
        let tunnel = ConnectProxy::start(ProxyRules::default()).await;
        let mut config = behind(&tunnel);
        let no_proxy = ["hooks.example".parse().unwrap()].into_iter().collect();
        config.proxy = Some(Arc::new(crate::config::ProxyConfig { no_proxy, ..proxy(&tunnel.url()) }));
        let (sender, _) = resolving(&config, vec![vec!["127.0.0.1"]]);
        let url = format!("http://hooks.example:{}/", receiver.address.port());
        assert_eq!(post(&sender, &url).await.unwrap().status, 204);
        assert_eq!(tunnel.heads(), [""; 0]);
    });
}
