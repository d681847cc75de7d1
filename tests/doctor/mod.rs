//! What `rtm-bridge doctor` says about working and broken set-ups.

mod documented_reports;
mod server;

use std::sync::Arc;

use jsonwebtoken::{EncodingKey, Header};
use rtm_bridge::config::{
    AssertionServiceConfig, BotConfig, BotWebhookConfig, Config, ProxyConfig, fixtures,
};
use rtm_bridge::doctor::{CheckReport, CheckStage, DoctorOptions, DoctorReport, FindingLevel, examine};
use rtm_bridge::domain::UserId;
use rtm_sandbox::{Endpoint, Fault, Sandbox, SandboxScript, Step};
use serde_json::json;
use url::Url;

use self::server::{PlainServer, TlsFront};
use crate::support::{
    ConnectProxy, ProxyRules, Receiver, RedisOptions, RedisServer, SECRET, bot, quiet_platform, run,
};

/// Authority of the certificate for `localhost` that TLS fronts show.
const CA: &[u8] = include_bytes!("../fixtures/tls/ca.crt");

const USER: &str = "doctor";

/// A simulated platform with a configuration for it.
struct DoctorSetup {
    config: Config,
    script: SandboxScript,
    sandbox: Sandbox,
}

impl DoctorSetup {
    async fn new() -> Self {
        let sandbox = Sandbox::start(quiet_platform()).await.unwrap();
        let config = Config::dev(sandbox.url().parse().unwrap());
        Self { config, script: sandbox.script(), sandbox }
    }

    fn bot(&mut self) -> &mut BotConfig {
        bot(&mut self.config)
    }

    async fn report(&self) -> DoctorReport {
        self.report_with(None, false).await
    }

    async fn report_with(&self, say: Option<&str>, post: bool) -> DoctorReport {
        let user = UserId::new(USER).unwrap();
        examine(&self.config, &DoctorOptions { user, say: say.map(str::to_owned), post }).await
    }

    /// Checks that this check fails with these words, and names this step.
    async fn fails(&self, check: CheckStage, words: &str, step: &str) {
        let report = self.report().await;
        let failed: Vec<_> =
            report.findings().into_iter().filter(|finding| finding.level == FindingLevel::Failed).collect();
        let is_it = |finding: &&CheckReport| {
            finding.check == check
                && finding.message.contains(words)
                && finding.next.as_ref().is_some_and(|next| next.contains(step))
        };
        assert!(failed.iter().any(is_it), "{words}, {step}:\n{}", report.to_text());
    }
}

/// Returns a JWT of the user until the year 2100.
fn jwt() -> String {
    let claims = json!({"iss": rtm_sandbox::CLIENT_ID, "sub": USER, "iat": 1, "exp": 4_102_444_800_u64});
    let key = EncodingKey::from_secret(rtm_sandbox::CLIENT_SECRET.as_bytes());
    jsonwebtoken::encode(&Header::default(), &claims, &key).unwrap()
}

/// Returns the checks that are fine.
fn passed(report: &DoctorReport) -> Vec<CheckStage> {
    let fine = report.findings().into_iter().filter(|finding| finding.level == FindingLevel::Ok);
    let mut checks: Vec<CheckStage> = fine.map(|finding| finding.check).collect();
    checks.dedup();
    checks
}

#[test]
fn working_setup_passes_each_check_without_a_message() {
    run(async {
        let setup = DoctorSetup::new().await;
        let report = setup.report().await;
        let all = ["Keys", "Clock", "Dns", "Tls", "Grant", "Start", "Socket", "History", "Store"];
        let names: Vec<String> = passed(&report).iter().map(|check| format!("{check:?}")).collect();
        assert_eq!(names, all, "{}", report.to_text());
        assert_eq!(report.level(), FindingLevel::Ok, "{}", report.to_text());
        assert_eq!(setup.script.totals().messages, 0);
        let connects = setup.script.observed(USER).connects;
        assert_eq!(connects[0].mode.as_deref(), Some("Reconnect"), "no session begins");
        setup.sandbox.stop().await;
    });
}

#[test]
fn say_option_prints_the_reply_of_the_bot() {
    run(async {
        let setup = DoctorSetup::new().await;
        setup.script.next(USER, Step::reply("I am here"));
        let report = setup.report_with(Some("Are you there?"), false).await;
        assert!(report.to_text().contains("the bot answers after"), "{}", report.to_text());
        assert!(report.to_text().contains("I am here") && report.level() == FindingLevel::Ok);
        assert_eq!(setup.script.totals().messages, 1);
    });
}

#[test]
fn wrong_secret_is_told() {
    run(async {
        let mut setup = DoctorSetup::new().await;
        setup.bot().client_secret = "hush-hush".into();
        setup
            .fails(CheckStage::Grant, "invalid signature", "client_secret is not the secret of the app")
            .await;
        assert!(!setup.report().await.to_json().contains("hush"));
    });
}

#[test]
fn wrong_client_id_is_told() {
    run(async {
        let mut setup = DoctorSetup::new().await;
        setup.bot().client_id = "cs-other".to_owned();
        setup
            .fails(CheckStage::Grant, "unknown client", "bots.sandbox.client_id cs-other is not known")
            .await;
    });
}

#[test]
fn wrong_bot_id_is_told() {
    run(async {
        let mut setup = DoctorSetup::new().await;
        setup.bot().task_bot_id = "st-other".to_owned();
        setup.fails(CheckStage::Grant, "taskBotId", "bots.sandbox.task_bot_id is not the id of a bot").await;
    });
}

#[test]
fn app_without_the_channel_is_told_in_each_form() {
    run(async {
        let setup = DoctorSetup::new().await;
        let refusal =
            |status, msg: &str| Fault::Error { status, code: status.to_string(), msg: msg.to_owned() };
        for (endpoint, check, fault) in [
            (Endpoint::Grant, CheckStage::Grant, refusal(401, "channel not available")),
            (Endpoint::Start, CheckStage::Start, refusal(403, "the RTM channel is not enabled")),
            (Endpoint::Start, CheckStage::Start, refusal(400, "not allowed")),
        ] {
            setup.script.fault(endpoint, fault);
            setup.fails(check, "the platform answered", "enable the channel Web/Mobile Client").await;
            setup.script.clear_all_faults();
        }
        let notification = serde_json::json!({"type": "appInvalidNotification"});
        setup.script.next_connect(USER, vec![Step::Frame(notification)]);
        setup
            .fails(CheckStage::Socket, "calls the app invalid", "enable the channel Web/Mobile Client")
            .await;
        setup.script.next_connect(USER, vec![Step::Close(1008)]);
        setup.fails(CheckStage::Socket, "closed the socket at once (1008)", "enable the channel").await;
    });
}

#[test]
fn service_that_makes_the_jwts_is_examined() {
    run(async {
        let mut setup = DoctorSetup::new().await;
        setup.bot().client_secret = String::new().into();
        let signer = |url: &Url| AssertionServiceConfig { url: url.clone(), bearer_token: None };
        let answer: &'static str = Box::leak(json!({"jwt": jwt()}).to_string().into_boxed_str());
        let service = PlainServer::start(0, 200, "application/json", answer).await;
        setup.bot().assertion_service = Some(signer(&service.url()));
        let report = setup.report().await;
        assert_eq!(report.level(), FindingLevel::Ok, "{}", report.to_text());
        assert!(report.to_text().contains("the service at 127.0.0.1 makes the JWTs"), "{}", report.to_text());

        let dead: Url = format!("http://127.0.0.1:{}/sts", crate::support::free_port()).parse().unwrap();
        setup.bot().assertion_service = Some(signer(&dead));
        setup.fails(CheckStage::Dns, "takes no connection", "let firewalls pass").await;
        for (status, body, words, step) in [
            (
                401,
                r#"{"errors":[{"msg":"no bearer","code":401}]}"#,
                "answered 401",
                "assertion_bearer_token_file",
            ),
            (404, "<html>Not found</html>", "answered 404", "assertion_url"),
            (200, "{}", "lacks the needed fields", r#"answer {"jwt": "…"}"#),
        ] {
            let service = PlainServer::start(0, status, "application/json", body).await;
            setup.bot().assertion_service = Some(signer(&service.url()));
            setup.fails(CheckStage::Grant, words, step).await;
            let text = setup.report().await.to_text();
            assert!(!text.contains("start sandbox"), "there was no start: {text}");
        }
        let other = PlainServer::start(0, 200, "application/json", r#"{"jwt":"e30.e30.c2ln"}"#).await;
        setup.bot().assertion_service = Some(signer(&other.url()));
        let text = setup.report().await.to_text();
        assert!(text.contains("failed   grant sandbox: the platform answered 401"), "{text}");
        assert!(
            text.contains("assertion_url signs with another secret") && !text.contains("client_secret"),
            "{text}"
        );
    });
}

#[test]
fn clock_that_is_ten_minutes_off_is_told() {
    run(async {
        let mut setup = DoctorSetup::new().await;
        for (off, words) in [(600, "ahead of this machine's"), (-600, "behind this machine's")] {
            let answer = r#"{"errors":[{"msg":"error verifying the jwt: jwt expired","code":401}]}"#;
            let platform = PlainServer::start(off, 401, "application/json", answer).await;
            setup.bot().platform = platform.url();
            setup.fails(CheckStage::Clock, words, "correct the clock of this machine").await;
            setup.fails(CheckStage::Grant, "jwt expired", "correct the clock of this machine").await;
        }
    });
}

#[test]
fn platform_behind_a_proxy_needs_it() {
    run(async {
        let mut setup = DoctorSetup::new().await;
        let upstream = setup.bot().platform.socket_addrs(|| None).unwrap()[0];
        // The name has no address by RFC 2606, so only the proxy knows the way.
        setup.bot().platform = "http://platform.invalid".parse().unwrap();
        setup.fails(CheckStage::Dns, "the name has no address", "proxy.url or in HTTPS_PROXY").await;
        let rules = ProxyRules { upstream: Some(upstream), ..ProxyRules::default() };
        let tunnel = ConnectProxy::start(rules).await;
        setup.bot().proxy = Some(Arc::new(fixtures::proxy(&tunnel.url())));
        let report = setup.report().await;
        assert_eq!(report.level(), FindingLevel::Ok, "{}", report.to_text());
        let needed = [CheckStage::Proxy, CheckStage::Grant, CheckStage::Socket, CheckStage::History];
        assert!(needed.iter().all(|check| passed(&report).contains(check)), "{}", report.to_text());
        assert!(report.to_text().contains("the proxy") && report.to_text().contains("resolves it"));
    });
}

#[test]
fn dead_port_and_failing_proxy_have_their_steps() {
    run(async {
        let mut setup = DoctorSetup::new().await;
        let free = crate::support::free_port();
        setup.bot().platform = format!("http://127.0.0.1:{free}").parse().unwrap();
        setup.fails(CheckStage::Dns, "connection refused", "let firewalls pass").await;
        let rules = ProxyRules { authorization: Some("Basic hush"), ..ProxyRules::default() };
        let tunnel = ConnectProxy::start(rules).await;
        let proxy = ProxyConfig { origin: "HTTPS_PROXY".into(), ..fixtures::proxy(&tunnel.url()) };
        setup.bot().proxy = Some(Arc::new(proxy));
        setup
            .fails(CheckStage::Proxy, "the proxy asks for a user and a password (407)", "check HTTPS_PROXY")
            .await;
    });
}

#[test]
fn private_authority_is_named_and_its_key_too() {
    run(async {
        let mut setup = DoctorSetup::new().await;
        let upstream = setup.bot().platform.socket_addrs(|| None).unwrap()[0];
        let front = TlsFront::start(upstream, "server").await;
        setup.bot().platform = front.url("https");
        setup
            .fails(CheckStage::Tls, "issued by \"rtm-bridge test CA\"", "name it as bots.sandbox.ca_file")
            .await;
        // The platform's own ticket has no TLS.
        setup.bot().ca = Some(CA.to_vec());
        setup.bot().socket_base = Some(front.url("wss"));
        let report = setup.report().await;
        // `localhost` may have an address without a listener.
        assert!(report.level() < FindingLevel::Failed, "{}", report.to_text());
        assert!(report.to_text().contains("issued by \"rtm-bridge test CA\", valid until 2126-10-30"));
    });
}

#[test]
fn name_of_the_console_is_told() {
    run(async {
        let mut setup = DoctorSetup::new().await;
        for (status, page) in [(200, "<html>Sign in</html>"), (404, "<html>Not found</html>"), (405, "")] {
            let console = PlainServer::start(0, status, "text/html", page).await;
            setup.bot().platform = console.url();
            setup.fails(CheckStage::Grant, "the platform", "may be the console").await;
        }
    });
}

#[test]
fn http_instead_of_https_is_told() {
    run(async {
        let mut setup = DoctorSetup::new().await;
        let upstream = setup.bot().platform.socket_addrs(|| None).unwrap()[0];
        let front = TlsFront::start(upstream, "server").await;
        setup.bot().platform = front.url("http");
        setup
            .fails(CheckStage::Tls, "the server speaks TLS", "begin bots.sandbox.platform with https://")
            .await;
        // The reverse fails at the handshake.
        setup.bot().platform = format!("https://{upstream}").parse().unwrap();
        setup.fails(CheckStage::Tls, "the TLS handshake fails", "needs http://").await;
    });
}

#[test]
fn redis_passes_and_its_missing_rights_are_named() {
    run(async {
        let options =
            RedisOptions { appendonly: true, user: Some(("bridge", "hush")), ..RedisOptions::default() };
        let redis = RedisServer::start(options).await;
        let mut setup = DoctorSetup::new().await;
        setup.config.store = redis.config();
        let report = setup.report().await;
        let text = report.to_text();
        for words in
            ["version 7", "all rights", "an operation takes", "the store is empty", "nothing is evicted"]
        {
            assert!(text.contains(words), "{words}:\n{text}");
        }
        assert!(report.level() < FindingLevel::Failed, "{text}");
        assert_eq!(redis.command(&["KEYS", "*"]).await.list().len(), 0, "the trial leaves nothing");

        redis.command(&["ACL", "SETUSER", "bridge", "-zadd", "-hset", "resetchannels"]).await;
        setup.fails(CheckStage::Store, "the user lacks rights: ", "+zadd").await;
        setup.fails(CheckStage::Store, "+publish +hset +zadd +subscribe &rtm:*", "ACL SETUSER").await;
        redis.command(&["ACL", "SETUSER", "bridge", "resetkeys"]).await;
        setup.fails(CheckStage::Store, "refuses our login or rights", "ACL SETUSER").await;
        setup.config.store.password = Some("wrong".into());
        setup.fails(CheckStage::Store, "refuses our login or rights", "store.password_file").await;
    });
}

#[test]
fn receiver_with_an_expired_certificate_is_told() {
    run(async {
        let receiver = Receiver::start();
        let front = TlsFront::start(receiver.address(), "expired").await;
        let mut setup = DoctorSetup::new().await;
        setup.bot().webhooks = vec![BotWebhookConfig {
            url: Some(front.url("https")),
            secrets: vec![SECRET.into()],
            ..BotWebhookConfig::default()
        }];
        setup.fails(CheckStage::Webhooks, "may not be reached", "webhooks.allow_private").await;
        let url = setup.bot().webhooks[0].url.clone();
        setup.bot().webhooks[0].url = Some("https://receiver.invalid/in".parse().unwrap());
        setup.fails(CheckStage::Webhooks, "the name has no address", "give that as webhooks.proxy").await;
        setup.bot().webhooks[0].url = url;
        setup.config.webhooks.allow_private =
            vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        setup.fails(CheckStage::Webhooks, "expired on 2024-02-01", "renew the certificate").await;
        setup.config.webhooks.ca = Some(include_bytes!("../fixtures/tls/expired.ca.crt").to_vec());
        setup.fails(CheckStage::Webhooks, "expired on 2024-02-01", "renew the certificate").await;

        let front = TlsFront::start(receiver.address(), "server").await;
        setup.config.webhooks.ca = Some(CA.to_vec());
        setup.bot().webhooks[0].url = Some(front.url("https"));
        let report = setup.report_with(None, true).await;
        assert!(report.to_text().contains("the receiver takes a test event (2"), "{}", report.to_text());
        let posted = receiver.requests();
        assert_eq!((posted.len(), posted[0].json()["type"].as_str()), (1, Some("reply.unsolicited")));
        assert_eq!(posted[0].user(), USER);
    });
}
