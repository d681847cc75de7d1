//! The door for callers of the platform's webhook channel (from-kore-webhooks.md): rights, polls, repeats, files, and the
//! comparison with the channel itself.

use std::time::Duration;

use rtm_bridge::config::{Config, KoreApiVersion, KoreWebhookConfig, V1TextForm};
use rtm_sandbox::{Gate, SandboxOptions, Step};
use serde_json::{Value, json};

use crate::support::{
    Answer, Fleet, KoreClient, Receiver, RedisOptions, RedisServer, Request, SECRET, TestBridge, V1, V2, bot,
    quiet_platform, run, spawn_bridge, spawn_bridge_on,
};

/// Changes the door of the only bot.
pub(super) fn door(config: &mut Config, change: impl FnOnce(&mut KoreWebhookConfig)) {
    change(bot(config).kore_webhook.as_mut().unwrap());
    config.add_kore_clients();
}

/// Answers a call after this time, if there is a reply.
fn hold(config: &mut Config, millis: u64) {
    door(config, |door| door.hold = Duration::from_millis(millis));
}

fn client(bridge: &TestBridge) -> KoreClient {
    KoreClient::new(bridge.api)
}

/// Checks the form of a refusal.
#[track_caller]
fn refusal(answer: &Answer, status: u16, msg: &str) {
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (status, Some("application/json")),
        "{answer}"
    );
    let body = answer.json();
    assert_eq!((&body["errors"][0]["msg"], &body["errors"][0]["code"]), (&json!(msg), &json!(status)));
    assert_eq!(body["_v"], "v2");
    let trace = body["_t"].as_str().unwrap().strip_prefix("RTM-TRACE-").unwrap();
    assert!(trace.len() == 32 && trace.bytes().all(|byte| byte.is_ascii_hexdigit()), "{trace}");
    assert!(!body["errors"][0]["detail"].as_str().unwrap().is_empty());
}

#[test]
fn wrong_token_is_refused_in_the_platforms_form() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let body = json!({"message": {"type": "text", "val": "hi"}, "from": {"id": "ann"}});
        let request = || Request::new("POST", V2).json(&body);
        refusal(&bridge.send(request()).await, 401, "Invalid Access token");
        let app = json!({"appId": "cs-sandbox"});
        for (claims, secret) in [
            (app.clone(), "another"),
            (json!({"appId": "CS-SANDBOX"}), "sandbox-secret"),
            (json!({"sub": "cs-sandbox"}), "sandbox-secret"),
            (json!({"iss": "cs-sandbox", "exp": 1}), "sandbox-secret"),
            (json!({"iss": "cs-sandbox", "exp": 1_600_000_000_000_u64}), "sandbox-secret"),
            (json!({"appId": "cs-sandbox", "userIdentity": "bob"}), "sandbox-secret"),
        ] {
            let other = KoreClient::with_claims(bridge.api, &claims, secret);
            refusal(&other.send(request()).await, 401, "Invalid Access token");
        }
        // A bot without a door is like an unknown client.
        let unknown = Request::new("POST", "/chatbot/v2/webhook/st-other").json(&body);
        refusal(&client(&bridge).send(unknown).await, 401, "Invalid Access token");
        // Times in milliseconds, in seconds, and none at all.
        for claims in [
            json!({"iss": "cs-sandbox", "exp": 4_000_000_000_000_u64, "sub": "any"}),
            json!({"kore_iss": "cs-sandbox", "exp": 4_000_000_000_u64}),
            json!({"appId": "cs-sandbox", "userIdentity": "ann"}),
        ] {
            let other = KoreClient::with_claims(bridge.api, &claims, "sandbox-secret");
            assert_eq!(other.say("ann", "/echo x").await.0, 200, "{claims}");
        }
        bridge.finish().await;
    });
}

#[test]
fn door_that_is_off_has_no_routes() {
    run(async {
        let bridge = spawn_bridge(|config| bot(config).kore_webhook = None).await;
        let answer = client(&bridge).send(Request::new("POST", V2).json(&json!({}))).await;
        answer.problem(404, "not-found");
        bridge.finish().await;
    });
}

#[test]
fn invalid_payload_is_refused_in_the_platforms_form() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        for body in [
            json!({"message": {"type": "text", "val": "hi"}}),
            json!({"message": {"text": "hi"}, "from": {"id": "ann"}}),
            json!({"message": {"type": "event", "val": "ON_LEAVE"}, "from": {"id": "ann"}}),
            json!([]),
        ] {
            let answer = client(&bridge).send(Request::new("POST", V2).json(&body)).await;
            refusal(&answer, 400, "Invalid Request Payload");
        }
        let wrong_method = client(&bridge).send(Request::get(V2)).await;
        assert_eq!((wrong_method.status, &wrong_method.json()["_v"]), (405, &json!("v2")));
        bridge.finish().await;
    });
}

#[test]
fn limits_of_a_client_are_those_of_callers() {
    run(async {
        let bridge = spawn_bridge(|config| {
            door(config, |door| {
                door.clients[0].user_prefix = "acme-".to_owned();
                door.clients[0].rate_per_minute = 4;
            });
        })
        .await;
        let client = client(&bridge);
        assert_eq!(client.say("bob", "hi").await.0, 403);
        let claims = json!({"sub": "any", "appId": "cs-sandbox", "identityToMerge": "bob"});
        let merging = KoreClient::with_claims(bridge.api, &claims, "sandbox-secret");
        let body = json!({"message": {"type": "text", "val": "hi"}, "from": {"id": "acme-ann"}, "mergeIdentity": true});
        assert_eq!(merging.call(V2, &body).await.0, 403);
        assert_eq!(client.say("acme-ann", "/echo x").await.0, 200);
        assert_eq!(client.say("acme-ann", "/echo y").await.0, 200);
        let body = json!({"message": {"type": "text", "val": "hi"}, "from": {"id": "acme-ann"}});
        let answer = client.send(Request::new("POST", V2).json(&body)).await;
        refusal(&answer, 429, "Too Many requests");
        assert!(answer.retry_after() > 0 && answer.header("ratelimit").is_some());
        bridge.finish().await;
    });
}

#[test]
fn held_call_has_a_poll_that_reads_on_until_the_end() {
    run(async {
        let bridge = spawn_bridge(|config| hold(config, 200)).await;
        let gate = Gate::new();
        // The turn goes on for longer than the call is held.
        bridge.script.next("ann", two_parts(&gate));
        let client = client(&bridge);
        let (status, answer) = client.say("ann", "hi").await;
        assert_eq!((status, answer.get("endOfTask"), answer.get("status")), (200, None, None));
        let told = answer["data"].as_array().unwrap().len();
        assert!(told >= 1, "{answer}");
        let (_, running) = client.poll(&answer["pollId"]).await;
        assert_eq!((&running["status"], running.get("data")), (&json!("Inprogress"), None), "{running}");
        assert_eq!(running["pollId"], answer["pollId"]);
        // Ids that were never given, or are of nobody, are read already as far as a client can tell.
        for id in ["d41d8cd98f00b204e9800998ecf8427e", "x", &"00".repeat(30)] {
            let (status, unknown) = client.poll(&json!(id)).await;
            assert_eq!((status, &unknown["errors"][0]["msg"]), (400, &json!("No data found")));
        }
        gate.open();
        let done = loop {
            let (status, done) = client.poll(&answer["pollId"]).await;
            assert_eq!(status, 200);
            if done.get("endOfTask").is_some() {
                break done;
            }
        };
        assert_eq!((&done["data"][0]["val"], &done["endOfTask"]), (&json!("second"), &json!(true)), "{done}");
        assert_eq!((done.get("status"), done.get("pollId")), (None, None));
        // A client whose answer was lost on the way reads the end again.
        assert_eq!(client.poll(&answer["pollId"]).await.1, done);
        bridge.finish().await;
    });
}

/// Returns the steps of a turn in two parts. The bridge waits for the second one, because the bot announces it.
fn two_parts(gate: &Gate) -> Vec<Step> {
    let payload = json!({"type": "template", "payload": {"template_type": "wait_for_response"}});
    let announcement = json!({"type": "text", "component": {"type": "template", "payload": payload}});
    vec![
        Step::Say("first".into()),
        Step::Message(vec![announcement]),
        Step::Until(gate.clone()),
        Step::Say("second".into()),
    ]
}

#[test]
fn poll_of_another_client_or_bot_finds_nothing() {
    run(async {
        let bridge = spawn_bridge(|config| {
            hold(config, 200);
            door(config, |door| {
                let mut other = door.clients[0].clone();
                other.name = "sandbox/cs-other".to_owned();
                other.kore_client.as_mut().unwrap().id = "cs-other".to_owned();
                door.clients.push(other);
            });
        })
        .await;
        let gate = Gate::new();
        bridge.script.next("ann", two_parts(&gate));
        let (_, answer) = client(&bridge).say("ann", "hi").await;
        let other = KoreClient::with_claims(bridge.api, &json!({"appId": "cs-other"}), "sandbox-secret");
        let (status, refused) = other.poll(&answer["pollId"]).await;
        assert_eq!((status, &refused["errors"][0]["msg"]), (400, &json!("No data found")));
        let stranger = KoreClient::with_claims(bridge.api, &json!({"appId": "cs-sandbox"}), "wrong");
        assert_eq!(stranger.poll(&answer["pollId"]).await.0, 401);
        gate.open();
        while client(&bridge).poll(&answer["pollId"]).await.1.get("endOfTask").is_none() {}
        bridge.finish().await;
    });
}

#[test]
fn any_replica_answers_a_poll() {
    run(async {
        let redis = RedisServer::start(RedisOptions::default()).await;
        let fleet = Fleet::start(redis.config(), 2, |config| hold(config, 200)).await;
        let gate = Gate::new();
        fleet.script.next("ann", two_parts(&gate));
        let (first, second) =
            (KoreClient::new(fleet.replicas[0].api), KoreClient::new(fleet.replicas[1].api));
        let (_, answer) = first.say("ann", "hi").await;
        gate.open();
        let mut ends = Vec::new();
        for client in [&second, &first] {
            loop {
                let (status, done) = client.poll(&answer["pollId"]).await;
                assert_eq!(status, 200, "{done}");
                if done.get("endOfTask").is_some() {
                    ends.push(done);
                    break;
                }
            }
        }
        assert_eq!(ends[0], ends[1]);
        assert_eq!(ends[0]["data"][0]["val"], "second");
        fleet.finish().await;
    });
}

#[test]
fn identical_call_is_the_same_message_while_that_runs() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let gate = Gate::new();
        bridge.script.next("ann", vec![Step::Until(gate.clone()), Step::Say("once".into())]);
        let client = client(&bridge);
        let (first, second, ()) = tokio::join!(client.say("ann", "yes"), client.say("ann", "yes"), async {
            bridge.script.seen("ann", 1).await.unwrap();
            gate.open();
        });
        assert_eq!((first.0, &first.1), (200, &second.1));
        assert_eq!(first.1["data"][0]["val"], "once");
        // The same text after the end is a new message.
        assert_eq!(client.say("ann", "yes").await.0, 200);
        assert_eq!(bridge.script.observed("ann").messages.count(), 2);
        bridge.finish().await;
    });
}

#[test]
fn slow_bot_is_waited_for_behind_the_hold() {
    run(async {
        let bridge = spawn_bridge(|config| hold(config, 100)).await;
        let gate = Gate::new();
        bridge.script.next("ann", vec![Step::Until(gate.clone()), Step::Say("late".into())]);
        let client = client(&bridge);
        let (answer, ()) = tokio::join!(client.say("ann", "hi"), async {
            bridge.script.seen("ann", 1).await.unwrap();
            // The call is answered by its reply, not by the time that it was to be held for.
            tokio::time::timeout(Duration::from_millis(300), std::future::pending::<()>()).await.unwrap_err();
            gate.open();
        });
        assert_eq!((answer.0, &answer.1["data"][0]["val"]), (200, &json!("late")), "{}", answer.1);
        bridge.finish().await;
    });
}

#[test]
fn silent_bot_is_a_timeout_in_the_platforms_form() {
    run(async {
        let bridge = spawn_bridge(|config| bot(config).deadline = Duration::from_millis(600)).await;
        bridge.script.next("ann", vec![Step::Ack]);
        let body = json!({"message": {"type": "text", "val": "hi"}, "from": {"id": "ann"}});
        let answer = client(&bridge).send(Request::new("POST", V2).json(&body)).await;
        refusal(&answer, 504, "The request has been timed-out");
        bridge.finish().await;
    });
}

#[test]
fn files_of_both_forms_reach_the_bot() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let client = KoreClient::with_claims(
            bridge.api,
            &json!({"iss": "cs-sandbox", "sub": "ann"}),
            "sandbox-secret",
        );
        let form = |parts: &[(&str, &str)]| {
            let part = |(head, content): &(&str, &str)| {
                format!("--x\r\nContent-Disposition: form-data; {head}\r\n\r\n{content}\r\n")
            };
            let body: String = parts.iter().map(part).collect();
            (format!("{body}--x--"), "multipart/form-data; boundary=x")
        };
        let send = async |method: &str, path: &str, (body, kind): (String, &str)| {
            let request = Request::new(method, path).header("Content-Type", kind).body(body);
            let answer = client.send(request).await;
            (answer.status, answer.json())
        };
        let whole = form(&[
            ("name=\"fileContext\"", "workflows"),
            ("name=\"filename\"", "a.txt"),
            ("name=\"file\"; filename=\"a.txt\"\r\nContent-Transfer-Encoding: base64", "aGVsbG8="),
        ]);
        let (status, file) = send("POST", "/api/attachments/file/st-sandbox/ivr", whole).await;
        assert_eq!(status, 200, "{file}");
        let (_, given) = send("POST", "/api/1.1/attachments/st-sandbox/ivr/token", form(&[])).await;
        assert!(given["expiresOn"].is_u64(), "{given}");
        let path = format!("/api/attachments/st-sandbox/ivr/token/{}", given["fileToken"].as_str().unwrap());
        for (number, content) in ["wor", "ld"].iter().enumerate() {
            let chunk = form(&[
                ("name=\"chunkNo\"", &number.to_string()),
                ("name=\"chunk\"; filename=\"c\"", content),
            ]);
            let taken = send("POST", &format!("{path}/chunk"), chunk).await;
            assert_eq!(taken, (200, json!({"chunkNo": number.to_string()})));
        }
        let end = (
            "totalChunks=2&filename=b.txt&fileExtension=txt".to_owned(),
            "application/x-www-form-urlencoded",
        );
        let missing = ("totalChunks=3&filename=b.txt".to_owned(), "application/x-www-form-urlencoded");
        let (status, lost) = send("PUT", &path, missing).await;
        assert_eq!((status, &lost["errors"][0]["msg"]), (404, &json!("[2]")));
        let (status, chunked) = send("PUT", &path, end).await;
        assert_eq!(status, 200, "{chunked}");
        let files = bridge.script.observed("ann").files;
        assert_eq!((&*files[0].content, &*files[1].content), (&b"hello"[..], &b"world"[..]));
        // A client of Android writes the files beside the message.
        let body = json!({
            "message": {"type": "text", "val": "look"}, "from": {"id": "ann"},
            "attachments": [{"fileId": file["fileId"], "fileName": "a.txt", "fileType": "attachment"}],
        });
        let (_, answer) = client.call(V2, &body).await;
        assert_eq!(answer["data"][0]["val"], "I received a.txt (5 bytes).", "{answer}");
        let unknown = Request::new("POST", "/api/attachments/file/st-sandbox/ivr").body("x");
        let refused = client.send(unknown).await;
        assert_eq!((refused.status, &refused.json()["errors"][0]["httpStatus"]), (400, &json!("400")));
        bridge.finish().await;
    });
}

#[test]
fn history_and_description_are_read_with_the_token() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let client = KoreClient::with_claims(
            bridge.api,
            &json!({"iss": "cs-sandbox", "sub": "ann"}),
            "sandbox-secret",
        );
        client.say("ann", "/echo one").await;
        for api in ["/api", "/api/1.1"] {
            let meta = client.send(Request::get(format!("{api}/botmeta/st-sandbox"))).await;
            assert_eq!((meta.status, &meta.json()["name"]), (200, &json!("Sandbox")));
            let path =
                format!("{api}/chathistory/st-sandbox/ivr?botId=st-sandbox&limit=20&offset=0&forward=true");
            let page = client.send(Request::get(path)).await.json();
            assert_eq!(page["total"], 2, "{page}");
            assert_eq!(page["messages"][1]["components"][0]["data"]["text"], "one", "{page}");
        }
        let stranger = bridge.send(Request::get("/api/chathistory/st-sandbox/ivr")).await;
        assert_eq!((stranger.status, &stranger.json()["errors"][0]["code"]), (401, &json!(401)));
        bridge.finish().await;
    });
}

#[test]
fn page_of_another_host_may_call() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let preflight =
            bridge.send(Request::new("OPTIONS", V2).header("Origin", "https://shop.example")).await;
        assert_eq!(preflight.status, 204);
        assert!(preflight.header("access-control-allow-headers").unwrap().contains("authorization"));
        let refused = bridge.send(Request::new("POST", V2)).await;
        for answer in [preflight, refused] {
            assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{answer}");
        }
        bridge.finish().await;
    });
}

/// Returns an answer without what must differ: ids, times, and members that the door adds or cannot know.
fn comparable((status, mut body): (u16, Value)) -> (u16, Value) {
    let object = body.as_object_mut().unwrap();
    for name in ["to", "from", "_t", "completedTaskId", "completedTaskName"] {
        object.remove(name);
    }
    if let Some(id) = object.get_mut("pollId") {
        assert!(id.as_str().unwrap().bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        *id = json!("hexadecimal");
    }
    for element in object.get_mut("data").and_then(Value::as_array_mut).into_iter().flatten() {
        for name in ["messageId", "createdOn", "description"] {
            if let Some(value) = element.get_mut(name) {
                *value = json!(value.is_string());
            }
        }
    }
    for error in object.get_mut("errors").and_then(Value::as_array_mut).into_iter().flatten() {
        error.as_object_mut().unwrap().remove("detail");
    }
    // A template of version 1 is escaped JSON, whose members have no order.
    if let Some(Value::String(text)) = object.get("text")
        && text.starts_with('{')
    {
        assert!(text.contains("&quot;"), "{text}");
        object.insert("text".to_owned(), serde_json::from_str(&text.replace("&quot;", "\"")).unwrap());
    }
    (status, body)
}

#[test]
fn door_answers_as_the_channel_does() {
    run(async {
        let platform = SandboxOptions { rate_per_minute: 0, ..SandboxOptions::default() };
        let bridge = spawn_bridge_on(platform, |config| {
            hold(config, 1200);
            bot(config).welcome = Duration::from_millis(200);
            // On a slow machine, an announcement comes long after its reply.
            bot(config).quiet_min = Duration::from_millis(500);
        })
        .await;
        bridge.script.behave(|behaviour| behaviour.webhook_polling = true);
        let doors = [(KoreClient::new(bridge.platform()), "ann"), (KoreClient::new(bridge.api), "ben")];
        let event = |name: &str, new: bool| json!({"session": {"new": new}, "message": {"type": "event", "val": name}});
        let v2 = |text: &str| json!({"message": {"type": "text", "val": text}});
        let v1 = |text: &str| json!({"message": {"text": text}});
        let dialog = [
            (V2, event("ON_CONNECT", true)),
            (V2, v2("/echo one")),
            (V2, v2("/several 2")),
            (V2, v2("/buttons")),
            (V2, v2("/quick")),
            (V1, v1("/echo one")),
            (V1, v1("/several 3")),
            (V1, v1("/buttons")),
            (V2, event("SESSION_CLOSURE", false)),
            (V2, event("SESSION_CLOSURE", false)),
            (V2, json!({"message": {"type": "text"}})),
        ];
        for (path, body) in &dialog {
            let mut answers = Vec::new();
            for (client, user) in &doors {
                let mut body = body.clone();
                body["from"] = json!({"id": user});
                answers.push(comparable(client.call(path, &body).await));
            }
            assert_eq!(answers[0], answers[1], "{path} {body}");
        }
        // A turn that goes on, its poll, and a poll that was never given.
        let mut answers = Vec::new();
        for (client, user) in &doors {
            let gate = Gate::new();
            // The channel knows the end of a turn by itself, so its bot announces nothing.
            let mut steps = two_parts(&gate);
            steps.retain(|step| *user == "ben" || !matches!(step, Step::Message(_)));
            bridge.script.next(*user, steps);
            let first = client.say(user, "Hi").await;
            let progress = client.poll(&first.1["pollId"]).await;
            gate.open();
            let done = loop {
                let done = client.poll(&first.1["pollId"]).await;
                if done.1.get("data").is_some() {
                    break done;
                }
            };
            let first = comparable(first);
            let unknown = client.poll(&json!("d41d8cd98f00b204e9800998ecf8427e")).await;
            let mut unknown = comparable(unknown);
            unknown.1.as_object_mut().unwrap().remove("_v");
            answers.push([first, comparable(progress), comparable(done), unknown]);
        }
        assert_eq!(answers[0], answers[1]);
        bridge.finish().await;
    });
}

#[test]
fn text_of_version_1_is_a_list_if_configured() {
    run(async {
        let options = quiet_platform();
        let bridge =
            spawn_bridge_on(options, |config| door(config, |door| door.v1_text = V1TextForm::Array)).await;
        let body = json!({"message": {"text": "/echo one"}, "from": {"id": "ann"}});
        let (status, answer) = client(&bridge).call(V1, &body).await;
        assert_eq!((status, &answer["text"]), (200, &json!(["one"])));
        assert_eq!(answer["endOfTask"], true);
        bridge.finish().await;
    });
}

/// Switches the asynchronous mode on, with posts to this receiver.
fn asynchronous(config: &mut Config, receiver: &Receiver, version: KoreApiVersion) {
    door(config, |door| door.is_asynchronous = true);
    config.webhooks.allow_private = vec!["127.0.0.0/8".parse().unwrap()];
    let url = receiver.url("/kore").parse().unwrap();
    bot(config).webhooks = vec![KoreWebhookConfig::endpoint(url, version, vec![SECRET.into()])];
}

#[test]
fn asynchronous_door_posts_each_reply_and_the_end() {
    run(async {
        let receiver = Receiver::start();
        let bridge = spawn_bridge(|config| asynchronous(config, &receiver, KoreApiVersion::V2)).await;
        let (status, answer) = client(&bridge).say("ann", "/several 2").await;
        assert_eq!((status, &answer["status"], &answer["_v"]), (200, &json!("ok"), &json!("v2")));
        assert!(answer["traceId"].as_str().unwrap().starts_with("RTM-TRACE-"), "{answer}");
        let posts = receiver.requests_at_least(3).await;
        for (post, text) in posts.iter().zip(["Message 1 of 2", "Message 2 of 2"]) {
            let body = post.json();
            assert_eq!((&body["data"][0]["type"], &body["data"][0]["val"]), (&json!("text"), &json!(text)));
            assert!(body["data"][0]["createdOn"].is_string(), "{body}");
            for absent in ["to", "endOfTask"] {
                assert_eq!(body.get(absent), None, "{body}");
            }
            assert_eq!((body["data"][0].get("messageId"), &body["_v"]), (None, &json!("v2")));
            assert!(post.is_signed_with(SECRET));
        }
        assert_eq!(
            posts[2].json(),
            json!({"data": [], "_v": "v2", "endOfTask": true, "endReason": "Fulfilled"})
        );
        bridge.script.push("ann", vec![Step::Say("By the way".into())]);
        let posts = receiver.requests_at_least(4).await;
        assert_eq!(posts[3].json()["data"][0]["val"], "By the way");
        bridge.finish().await;
    });
}

#[test]
fn asynchronous_posts_of_version_1_have_its_form() {
    run(async {
        let receiver = Receiver::start();
        let bridge = spawn_bridge(|config| asynchronous(config, &receiver, KoreApiVersion::V1)).await;
        let body = json!({"message": {"text": "/buttons"}, "from": {"id": "bob"}});
        assert_eq!(client(&bridge).call(V1, &body).await, (200, json!({})));
        let posts = receiver.requests_at_least(2).await;
        let post = posts[0].json();
        assert_eq!((&post["to"], &post["from"]), (&json!("bob"), &json!("st-sandbox")));
        assert!(post["text"].as_str().unwrap().starts_with("{&quot;"), "{post}");
        assert_eq!((&posts[1].json()["endOfTask"], posts[1].json().get("text")), (&json!(true), None));
        bridge.finish().await;
    });
}
