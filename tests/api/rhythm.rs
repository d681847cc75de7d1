//! The learned rhythm of a bot, for operators (api.md 7).

use std::time::Duration;

use rtm_bridge::config::{CallerConfig, CallerScopes, QuietRule, fixtures};
use rtm_bridge::domain::BotName;
use rtm_sandbox::Step;
use serde_json::{Value, json};

use super::turns::{say, turn};
use crate::support::{Request, TestBridge, bot, run, spawn_bridge};

const RHYTHM: &str = "/bots/sandbox/rhythm";
const ADMIN: CallerScopes = CallerScopes { send: false, read: false, admin: true };
const OTHERS: CallerScopes = CallerScopes { send: true, read: true, admin: false };

async fn rhythm(bridge: &TestBridge) -> Value {
    bridge.api.get(RHYTHM).await.message(200)
}

#[test]
fn learned_rhythm_is_shown_and_forgotten() {
    run(async {
        let bridge = spawn_bridge(|config| {
            let bot = bot(config);
            bot.quiet = QuietRule::Auto;
            bot.quiet_max = Duration::from_millis(400);
        })
        .await;
        let nothing = json!({
            "bot": "sandbox", "auto": true, "turns": 0, "earlyCuts": 0, "longestFirstReplyMs": null, "kinds": [],
        });
        assert_eq!(rhythm(&bridge).await, nothing);
        // The bridge learns from a turn when the next one shows that the bot was done.
        for _ in 0..2 {
            let message = turn(&bridge, json!({}), vec![Step::Ack, say("one"), say("two")]).await;
            assert_eq!(message["quiet"], json!({"ms": 400, "by": "default"}));
        }
        let learned = rhythm(&bridge).await;
        assert_eq!((&learned["turns"], &learned["earlyCuts"]), (&json!(1), &json!(0)));
        assert!(learned["longestFirstReplyMs"].is_u64(), "{learned}");
        let kinds = learned["kinds"].as_array().unwrap();
        assert_eq!(kinds.len(), 2, "{learned}");
        for kind in kinds {
            assert_eq!(kind["observations"], 1.0, "{learned}");
            let ms = kind["quiet"]["ms"].as_u64().unwrap();
            assert!((100..=400).contains(&ms), "within quiet_min and quiet_max: {learned}");
        }
        assert!(kinds.iter().any(|kind| kind["followed"] == 1.0), "another reply followed `one`: {learned}");
        assert!(kinds.iter().any(|kind| kind["followed"] == 0.0), "no reply followed `two`: {learned}");
        for _ in 0..2 {
            let forgotten = bridge.send(Request::new("DELETE", RHYTHM)).await;
            assert_eq!((forgotten.status, forgotten.body.as_slice()), (204, &b""[..]));
            assert_eq!(rhythm(&bridge).await, nothing);
        }
        bridge.finish().await;
    });
}

#[test]
fn bot_with_a_fixed_quiet_time_has_no_rhythm() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        turn(&bridge, json!({}), vec![Step::Ack, say("one")]).await;
        let fixed = json!({
            "bot": "sandbox", "auto": false, "turns": 0, "earlyCuts": 0, "longestFirstReplyMs": null, "kinds": [],
        });
        assert_eq!(rhythm(&bridge).await, fixed);
        assert_eq!(bridge.send(Request::new("DELETE", RHYTHM)).await.status, 204);
        bridge.finish().await;
    });
}

#[test]
fn rhythm_is_for_admins_of_its_bot() {
    run(async {
        let bridge = spawn_bridge(|config| {
            let of_other = CallerConfig {
                bots: Some(vec![BotName::new("other").unwrap()]),
                ..fixtures::caller("elsewhere", ADMIN)
            };
            config.callers = vec![fixtures::caller("crm", OTHERS), fixtures::caller("ops", ADMIN), of_other];
        })
        .await;
        for method in ["GET", "DELETE"] {
            for (key, path, status, slug) in [
                (None, RHYTHM, 401, "unauthorized"),
                (Some("crm"), RHYTHM, 403, "forbidden"),
                (Some("elsewhere"), RHYTHM, 403, "forbidden"),
                (Some("elsewhere"), "/bots/nobody/rhythm", 403, "forbidden"),
                (Some("ops"), "/bots/nobody/rhythm", 404, "not-found"),
                (Some("ops"), "/bots/%zz/rhythm", 400, "invalid-request"),
                (Some("ops"), "/bots/sandbox/rhythm?limit=1", 400, "invalid-request"),
            ] {
                let mut request = Request::new(method, path);
                if let Some(key) = key {
                    request = request.header("authorization", &format!("Bearer {key}"));
                }
                let answer = bridge.send(request).await;
                answer.problem(status, slug);
            }
        }
        let wrong = bridge.send(Request::new("POST", RHYTHM)).await;
        wrong.problem(405, "method-not-allowed");
        assert_eq!(wrong.header("allow"), Some("GET, HEAD, DELETE"));
        bridge.finish().await;
    });
}
