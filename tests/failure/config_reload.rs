//! A running program takes over a changed configuration (api.md 9).

use std::cell::Cell;
use std::fmt::Write as _;
use std::time::Duration;

use rtm_bridge::domain::Sha256;
use rtm_sandbox::{Sandbox, Step};
use serde_json::json;

use crate::support::{
    Caller, OTHER_SECRET, Receiver, Request, SECRET, ServedReplica, quiet_platform, run_for, until,
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
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("first"), SECRET).unwrap();
        std::fs::write(path("second"), OTHER_SECRET).unwrap();
        std::os::unix::fs::symlink(path("first"), path("secret")).unwrap();
        let receiver = Receiver::start();
        let secret = format!("webhook_secrets_file = \"{}\"", path("secret").display());
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
        std::os::unix::fs::symlink(path("second"), path("next")).unwrap();
        std::fs::rename(path("next"), path("secret")).unwrap();
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
