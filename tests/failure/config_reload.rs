//! A running program takes over a changed configuration (api.md 9).

use std::cell::Cell;
use std::fmt::Write as _;
use std::time::Duration;

use futures_util::future::join_all;
use rtm_bridge::domain::Sha256;
use rtm_sandbox::{Sandbox, Step};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::{
    Caller, KoreClient, MountedFiles, OTHER_SECRET, ReceivedRequest, Receiver, ReceiverAnswer, Request,
    SECRET, ServedReplica, TlsCaller, pem, quiet_platform, run_for, until, within,
};

const GUARD: Duration = Duration::from_mins(2);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// Returns a caller of the configuration whose key is its name.
fn caller(name: &str, more: &str) -> String {
    let hash = hex(&Sha256::digest(name));
    format!(
        "[[callers]]\nname = \"{name}\"\nkey_sha256 = \"{hash}\"\nscopes = [\"send\", \"read\"]\n{more}\n"
    )
}

async fn status(api: Caller, key: &str) -> u16 {
    let request = Request::get("/conversations/ann");
    api.send(request.header("Authorization", &format!("Bearer {key}"))).await.status
}

async fn start(more: &str) -> (Sandbox, ServedReplica) {
    let sandbox = Sandbox::start(quiet_platform()).await.unwrap();
    sandbox.script().bot(|_, _| Step::reply("x"));
    let replica = ServedReplica::start("reloads", &sandbox.url(), "memory://", more).await;
    (sandbox, replica)
}

#[test]
fn callers_come_and_go_without_a_restart() {
    run_for(GUARD, async {
        let stays = caller("stays", "");
        let (sandbox, mut replica) = start(&[stays.clone(), caller("goes", "")].concat()).await;
        let key = |request: Request, key: &str| request.header("Authorization", &format!("Bearer {key}"));
        let events = || Request::get("/conversations/ann/events?after=latest");
        let mut kept = replica.api.events_with(key(events(), "stays")).await;
        let mut lost = replica.api.events_with(key(events(), "goes")).await;
        assert_ne!(status(replica.api, "comes").await, 200);
        replica.reconfigure(&caller("goes", ""), &caller("comes", "rate_per_minute = 5"));
        until("the new caller is known", async || status(replica.api, "comes").await != 401).await;
        assert_eq!(status(replica.api, "goes").await, 401);
        while lost.block().await.is_some() {}
        let message = Request::message("ann", &json!({"text": "hi", "turn": {"expectReplies": 1}}));
        replica.api.send(key(message, "stays")).await.message(200);
        kept.next().await.expect("the stream of the other caller goes on");
        assert!(replica.log().contains("the configuration was taken over"));
        assert_eq!(replica.terminate().await, 0);
        sandbox.stop().await;
    });
}

#[test]
fn configuration_with_a_mistake_changes_nothing() {
    run_for(GUARD, async {
        let (sandbox, mut replica) = start(&caller("crm", "")).await;
        let metric = async |value: &str| {
            let page = replica.admin.get("/metrics").await;
            page.text().contains(&format!("rtm_bridge_config_reload_failed {value}"))
        };
        replica.reconfigure("scopes = [\"send\", \"read\"]", "scopes = [\"sned\"]\nuser_prefixes = \"a\"");
        until("the mistake is told", async || metric("1").await).await;
        assert_eq!(status(replica.api, "crm").await, 200, "the former configuration serves on");
        let ready = replica.admin.get("/readyz").await;
        assert_eq!(ready.status, 200);
        assert!(ready.text().contains("the changed configuration has mistakes"), "{ready}");
        let log = replica.log();
        assert!(
            log.contains("callers.crm.scopes") && log.contains("callers.crm.user_prefixes"),
            "all mistakes: {log}"
        );
        replica.reconfigure("scopes = [\"sned\"]\nuser_prefixes = \"a\"", "scopes = [\"send\"]");
        until("the correction is taken over", async || status(replica.api, "crm").await == 403).await;
        until("it is told", async || metric("0").await).await;
        // A bridge without callers would serve everybody.
        replica.reconfigure(&caller("crm", "").replace(", \"read\"", ""), "");
        until("the loss is told", async || metric("1").await).await;
        assert_eq!(status(replica.api, "crm").await, 403);
        assert_eq!(replica.terminate().await, 0);
        sandbox.stop().await;
    });
}

#[test]
fn key_that_needs_a_restart_is_named() {
    run_for(GUARD, async {
        let (sandbox, mut replica) = start(&caller("crm", "")).await;
        replica.reconfigure("quiet = \"400ms\"", "quiet = \"500ms\"");
        until("the key is named", async || {
            let log = replica.log();
            log.lines().any(|line| line.contains("need a restart") && line.contains("bots.sandbox.quiet"))
        })
        .await;
        assert!(replica.hang_up(), "SIGHUP ends no bridge");
        until("it was read again", async || replica.log().contains("has not changed")).await;
        assert_eq!(replica.terminate().await, 0);
        sandbox.stop().await;
    });
}

#[test]
fn secret_behind_a_swapped_link_signs_further_callbacks() {
    run_for(GUARD, async {
        let mounted = MountedFiles::new(&[("secret", SECRET.as_bytes())]);
        let receiver = Receiver::start();
        let secret = format!("webhook_secrets_file = \"{}\"", mounted.path("secret"));
        let webhooks =
            format!("[webhooks]\nallowed = [\"{}\"]\nallow_private = [\"127.0.0.0/8\"]\n", receiver.url("/"));
        let (sandbox, mut replica) = start(&[caller("crm", &secret), webhooks].concat()).await;
        let post = async |user: &str| {
            let body =
                json!({"text": "hi", "turn": {"expectReplies": 1}, "callback": {"url": receiver.url("/in")}});
            let request = Request::message(user, &body).header("Authorization", "Bearer crm");
            replica.api.send(request).await.message(202);
        };
        post("ann").await;
        assert!(receiver.requests_at_least(1).await[0].is_signed_with(SECRET));
        mounted.swap(&[("secret", OTHER_SECRET.as_bytes())]);
        until("the change is taken over", async || {
            replica.log().contains("callers.crm.webhook_secrets_file")
        })
        .await;
        post("bob").await;
        let both = receiver.requests_at_least(2).await;
        assert!(both[1].is_signed_with(OTHER_SECRET), "the new secret signs");
        assert_eq!(replica.terminate().await, 0);
        sandbox.stop().await;
    });
}

#[test]
fn rotated_key_fails_no_request_under_load() {
    run_for(GUARD, async {
        let (old, new) = (caller("old", ""), caller("new", ""));
        let (sandbox, mut replica) = start(&old).await;
        let api = replica.api;
        let (key, answered, rotated) = (Cell::new("old"), Cell::new("none"), Cell::new(false));
        let load = async {
            let mut statuses = Vec::new();
            while !rotated.get() {
                let used = key.get();
                statuses.push(status(api, used).await);
                answered.set(used);
            }
            statuses
        };
        // Both keys hold for a while, as operators rotate them.
        let rotation = async {
            replica.reconfigure(&old, &[old.clone(), new.clone()].concat());
            until("the new key holds", async || status(api, "new").await == 200).await;
            key.set("new");
            until("no request has the old key", async || answered.get() == "new").await;
            replica.reconfigure(&old, "");
            until("the old key holds no longer", async || status(api, "old").await == 401).await;
            rotated.set(true);
        };
        let (statuses, ()) = tokio::join!(load, rotation);
        println!("{} requests", statuses.len());
        assert!(statuses.len() > 10 && statuses.iter().all(|status| *status == 200), "{statuses:?}");
        assert_eq!(replica.terminate().await, 0);
        sandbox.stop().await;
    });
}

/// Posts messages of a user one after the other until the end. Returns the ids, and fails with any status but 200.
async fn messages(api: Caller, user: &str, ended: &Cell<bool>) -> Vec<String> {
    let mut ids = Vec::new();
    while !ended.get() {
        let body = json!({"text": format!("message {}", ids.len()), "turn": {"expectReplies": 1}});
        let message = api.send(Request::message(user, &body).prefer("wait=20")).await.message(200);
        ids.push(message["id"].as_str().unwrap().to_owned());
        sleep(Duration::from_millis(20)).await;
    }
    ids
}

#[test]
fn rotated_webhook_secret_fails_no_request_under_load() {
    run_for(GUARD, async {
        let both = format!("{OTHER_SECRET}\n{SECRET}\n");
        let mounted = MountedFiles::new(&[("secrets", SECRET.as_bytes())]);
        let receiver = Receiver::start();
        receiver.answers(|_| ReceiverAnswer::Held(204));
        let endpoint = format!(
            "[[bots.webhooks]]\nname = \"main\"\nurl = \"{}\"\nsecrets_file = \"{}\"\n\
             [webhooks]\nallow_private = [\"127.0.0.0/8\"]\n",
            receiver.url("/in"),
            mounted.path("secrets")
        );
        let (sandbox, mut replica) = start(&endpoint).await;
        let signed =
            |request: &ReceivedRequest| [SECRET, OTHER_SECRET].map(|secret| request.is_signed_with(secret));
        let last_is = async |wanted: [bool; 2]| {
            let last = receiver.requests().last().cloned();
            last.is_some_and(|last| signed(&last) == wanted)
        };
        let (ended, drained) = (Cell::new(false), Cell::new(false));
        let users = ["ann", "bob", "eve"];
        let load = join_all(users.map(|user| messages(replica.api, user, &ended)));
        // Receivers take their time, so that attempts are under way at each change.
        let answering = async {
            while !drained.get() {
                sleep(Duration::from_millis(50)).await;
                receiver.answer_held();
            }
        };
        let rotation = async {
            until("the old secret signs", async || last_is([true, false]).await).await;
            mounted.swap(&[("secrets", both.as_bytes())]);
            until("both secrets sign", async || last_is([true, true]).await).await;
            mounted.swap(&[("secrets", OTHER_SECRET.as_bytes())]);
            until("the new secret signs", async || last_is([false, true]).await).await;
            sleep(Duration::from_secs(1)).await;
            ended.set(true);
        };
        let check = async {
            let (posted, ()) = tokio::join!(load, rotation);
            let count = posted.iter().map(Vec::len).sum::<usize>();
            within(Duration::from_mins(1), "all are delivered", async || receiver.requests().len() >= count)
                .await;
            // A second delivery of one of them would be here by then.
            sleep(Duration::from_secs(2)).await;
            drained.set(true);
            posted
        };
        let (posted, ()) = tokio::join!(check, answering);
        let requests = receiver.requests();
        println!("{} deliveries", requests.len());
        for (user, posted) in users.iter().zip(posted) {
            let own: Vec<_> = requests.iter().filter(|request| request.user() == *user).collect();
            let ids: Vec<_> = own.iter().map(|request| request.json()["data"]["id"].clone()).collect();
            assert!(posted.len() > 10 && ids == posted, "once and in order: {posted:?} {ids:?}");
            assert!(own.iter().all(|request| request.attempt() == 1));
            let signed: Vec<_> = own.iter().map(|request| signed(request)).collect();
            assert!(signed.iter().all(|by| *by != [false, false]), "{signed:?}");
            assert!(signed.is_sorted_by_key(|[old, new]| (!old, *new)), "no way back: {signed:?}");
            assert_eq!(signed.last(), Some(&[false, true]));
        }
        assert_eq!(replica.terminate().await, 0);
        sandbox.stop().await;
    });
}

#[test]
fn rotated_secret_of_a_client_fails_no_call_under_load() {
    run_for(GUARD, async {
        let client = |secret: &str| format!("{{ id = \"cs-shop\", secret = \"{secret}\" }}");
        let listed = |clients: &[String]| format!("clients = [{}]", clients.join(", "));
        let [only_old, both, only_new] = [
            listed(&[client("old-secret")]),
            listed(&[client("new-secret"), client("old-secret")]),
            listed(&[client("new-secret")]),
        ];
        let (sandbox, mut replica) = start(&format!("[bots.kore_webhook]\n{only_old}\n")).await;
        let claims = json!({"sub": "any", "appId": "cs-shop"});
        let with = |secret: &str| KoreClient::with_claims(replica.api, &claims, secret);
        let (old, new) = (with("old-secret"), with("new-secret"));
        let (ended, old_ends) = (Cell::new(false), Cell::new(false));
        let (counts, is_new_used) = ([const { Cell::new(0) }; 2], Cell::new(false));
        // Of two clients one goes over at once, and the other one late.
        let calls = async |user: &str, is_late: bool| {
            let mut statuses: Vec<(u16, Value)> = Vec::new();
            while !ended.get() {
                let by_new = is_new_used.get() && (!is_late || old_ends.get());
                let client = if by_new { &new } else { &old };
                statuses.push(client.say(user, &format!("call {}", statuses.len())).await);
                counts[usize::from(by_new)].update(|count| count + 1);
                sleep(Duration::from_millis(20)).await;
            }
            statuses
        };
        let passed = async |more: usize| {
            let [old, new] = counts.each_ref().map(Cell::get);
            until("calls pass", async || counts[0].get() >= old + more && counts[1].get() >= new + more)
                .await;
        };
        let rotation = async {
            until("calls pass", async || counts[0].get() > 10).await;
            replica.reconfigure(&only_old, &both);
            until("the new secret holds", async || new.say("eve", "x").await.0 == 200).await;
            is_new_used.set(true);
            passed(10).await;
            old_ends.set(true);
            let before = counts[1].get();
            until("no call has the old secret", async || counts[1].get() > before + 4).await;
            replica.reconfigure(&both, &only_new);
            until("the old secret holds no longer", async || old.say("eve", "y").await.0 == 401).await;
            ended.set(true);
        };
        let (early, late, ()) = tokio::join!(calls("ann", false), calls("bob", true), rotation);
        for statuses in [early, late] {
            assert!(statuses.len() > 20 && statuses.iter().all(|(status, _)| *status == 200), "{statuses:?}");
        }
        assert_eq!(replica.terminate().await, 0);
        sandbox.stop().await;
    });
}

#[test]
fn callback_outside_the_patterns_is_retried_for_a_while() {
    run_for(GUARD, async {
        let receiver = Receiver::start();
        receiver.answers(|_| ReceiverAnswer::status(503));
        let crm = caller("crm", &format!("webhook_secrets = [\"{SECRET}\"]"))
            .replace("\"read\"", "\"read\", \"admin\"");
        let allowed = |url: &str| format!("allowed = [\"{url}\"]");
        let (own, other) = (allowed(&receiver.url("/")), allowed("https://other.example/"));
        let webhooks = format!("[webhooks]\n{own}\nallow_private = [\"127.0.0.0/8\"]\n");
        let (sandbox, mut replica) = start(&[crm, webhooks].concat()).await;
        let key = |request: Request| request.header("Authorization", "Bearer crm");
        let body =
            json!({"text": "hi", "turn": {"expectReplies": 1}, "callback": {"url": receiver.url("/in")}});
        replica.api.send(key(Request::message("ann", &body))).await.message(202);
        receiver.requests_at_least(1).await;
        replica.reconfigure(&own, &other);
        let delivery = async || {
            let page = replica.api.send(key(Request::get("/deliveries"))).await.json();
            page["deliveries"][0].clone()
        };
        let uncovered = |delivery: &Value| {
            let attempts = delivery["attempts"].as_array().unwrap();
            let is_uncovered = |attempt: &Value| {
                attempt["error"].as_str().is_some_and(|why| why.contains("webhooks.allowed"))
            };
            attempts.iter().filter(|attempt| is_uncovered(attempt)).count()
        };
        within(Duration::from_secs(40), "it is refused", async || uncovered(&delivery().await) > 0).await;
        // No attempt by the former patterns is under way any more.
        let posted = receiver.requests().len();
        let waiting = delivery().await;
        assert_eq!(
            (waiting["state"].as_str(), waiting["attempts"].as_array().unwrap().len()),
            (Some("pending"), posted + 1)
        );
        receiver.answers(|_| ReceiverAnswer::status(204));
        // A redelivery obeys the patterns too.
        let id = waiting["id"].as_str().unwrap().to_owned();
        let again = Request::new("POST", format!("/deliveries/{id}/redeliver"));
        assert_eq!(replica.api.send(key(again)).await.status, 202);
        until("it is refused again", async || uncovered(&delivery().await) > 1).await;
        assert_eq!(receiver.requests().len(), posted);
        replica.reconfigure(&other, &own);
        within(Duration::from_mins(1), "it is delivered", async || delivery().await["state"] == "delivered")
            .await;
        assert_eq!(receiver.requests().len(), posted + 1);
        assert_eq!(replica.terminate().await, 0);
        sandbox.stop().await;
    });
}

#[test]
fn swapped_certificate_serves_later_connections() {
    run_for(GUARD, async {
        let old = ["tls/server.crt", "tls/server.key"].map(pem);
        let new = ["tls.pem", "tls.key.pem"].map(pem);
        let mounted = MountedFiles::new(&[("tls.crt", &old[0]), ("tls.key", &old[1])]);
        let tls = format!(
            "[server.tls]\ncert_file = \"{}\"\nkey_file = \"{}\"\n",
            mounted.path("tls.crt"),
            mounted.path("tls.key")
        );
        let (sandbox, mut replica) = start(&tls).await;
        let connect = async |authority: &str| TlsCaller::connect(replica.api.0, authority, false).await;
        let mut open = connect("tls/ca.crt").await.unwrap();
        open.live().await.unwrap();
        mounted.swap(&[("tls.crt", &new[0]), ("tls.key", &new[1])]);
        until("the new certificate serves", async || connect("tls.pem").await.is_ok()).await;
        assert!(connect("tls/ca.crt").await.is_err());
        open.live().await.expect("an open connection goes on");

        let failed = async |value: &str| {
            let page = replica.admin.get("/metrics").await;
            page.text().contains(&format!("rtm_bridge_config_reload_failed {value}"))
        };
        for (certificate, key) in [(&b"no certificate"[..], &old[1]), (&old[0], &new[1])] {
            mounted.swap(&[("tls.crt", certificate), ("tls.key", key)]);
            until("the mistake is told", async || failed("1").await).await;
            let ready = replica.admin.get("/readyz").await;
            assert!(ready.status == 200 && ready.text().contains("the changed configuration has mistakes"));
            connect("tls.pem").await.unwrap().live().await.unwrap();
            open.live().await.expect("an open connection goes on");
            mounted.swap(&[("tls.crt", &new[0]), ("tls.key", &new[1])]);
            until("the mistake is mended", async || failed("0").await).await;
        }
        let log = replica.log();
        assert!(log.contains("server.tls.cert_file") && log.contains("server.tls.key_file"), "{log}");
        drop(open);
        assert_eq!(replica.terminate().await, 0);
        sandbox.stop().await;
    });
}
