//! Tests of scripted bots.

use super::*;

fn scripted(yaml: &str) -> SandboxOptions {
    let mut options = SandboxOptions::default();
    BotScript::parse(yaml).unwrap().apply(&mut options);
    options
}

#[test]
fn scripted_dialog_runs_over_a_socket() {
    let options = scripted(
        r"
bots:
  - id: st-sandbox
    welcome: Hello ${user}!
    rules:
      - text: (?i)^order
        reply:
          - Let me see.
          - wait: 5ms
          - quickReplies: {text: Which one?, choices: [A 1, B 2]}
          - do: waitingForInput
        goto: number
      - {text: quiet, reply: [], ack: never}
      - text: stream
        reply: {stream: {text: one two, end: marked}}
      - {text: agent, reply: [{do: agentStart}, {agentSay: I am Alex}], goto: agent}
    dialogs:
      number:
        - text: (\d+)
          reply: Order ${1} is on its way.
      agent:
        - {text: bye, reply: [{do: agentEnd}, Back.]}
        - {reply: {agentSay: 'You said: ${text}'}, stay: true}
    otherwise: I do not know ${text}.
behaviour: {agentTyping: 1ms}
",
    );
    run_with(options, async |_sandbox, _script, caller| {
        let mut link = caller.connect("").await;
        assert_eq!(link.brief(3).await, ["bot_active", "session_start", "Hello ann!"]);
        link.say(1, "Order please").await;
        let frames = link.brief(4).await;
        assert_eq!(
            (&frames[..2], frames[3].as_str()),
            (&["ack".into(), "Let me see.".into()][..], "waiting_for_user_input")
        );
        assert!(frames[2].starts_with("Which one?"));
        link.say(2, "number 4711").await;
        assert_eq!(link.brief(2).await, ["ack", "Order 4711 is on its way."]);
        link.say(3, "quiet").await;
        link.say(4, "/help").await;
        assert_eq!(link.brief(2).await, ["ack", "I do not know /help."], "no commands");
        link.say(5, "stream").await;
        assert_eq!(link.brief(3).await, ["ack", "one ", "two"]);
        link.say(6, "agent").await;
        assert_eq!(link.brief(6).await.pop().unwrap(), "I am Alex");
        link.say(7, "Hi").await;
        let told = link.brief(6).await;
        assert_eq!(
            (told[0].as_str(), told[5].as_str()),
            ("ack", "You said: Hi"),
            "receipts and typing between"
        );
        link.say(8, "bye").await;
        assert_eq!(link.brief(6).await.pop().unwrap(), "Back.");
    });
}

#[test]
fn bots_and_apps_of_a_script_are_separate() {
    let options = scripted(
        "apps: [{id: cs-a, secret: a}, {id: cs-sandbox, secret: sandbox-secret}]\n\
         bots: [{id: st-sandbox, otherwise: one}, {id: st-two, commands: true}]\n\
         faults: [{endpoint: start, times: 1, fault: {status: 503}}]\n",
    );
    run_with(options, async |_sandbox, script, caller| {
        let token = caller.grant().await;
        assert_eq!(caller.post_start(&token).await.0, 503, "the script's fault");
        let mut link = caller.connect_quietly().await;
        link.say(1, "/echo x").await;
        assert_eq!(link.brief(2).await, ["ack", "one"]);
        script.push(("st-two", "ann"), vec![Step::OnlyHistory("two".into())]);
        script.delivered(("st-two", "ann"), 1).await;
        let unknown =
            json!({"assertion": caller.assertion(&json!({})), "botInfo": {"taskBotId": "st-three"}});
        assert_eq!(caller.call("POST", "/api/oAuth/token/jwtgrant", &unknown.to_string()).await.0, 400);
    });
}

#[test]
fn bot_with_a_rhythm_bursts_and_changes() {
    let options = scripted(
        r"
bots:
  - id: st-sandbox
    seed: 3
    rules:
      - {text: burst, reply: {burst: {text: '${n} of ${text}', count: [3, 3], gap: {from: 1ms, to: 5ms}}}}
      - {after: {messages: 2}, reply: changed}
    otherwise: [{wait: {median: 2ms, sigma: 0.5}}, as ever]
",
    );
    run_with(options, async |_sandbox, script, caller| {
        let mut link = caller.connect_quietly().await;
        link.say(1, "burst").await;
        assert_eq!(link.brief(4).await, ["ack", "1 of burst", "2 of burst", "3 of burst"]);
        link.say(2, "and now?").await;
        assert_eq!(link.brief(2).await, ["ack", "as ever"]);
        link.say(3, "and now?").await;
        assert_eq!(link.brief(2).await, ["ack", "changed"]);
        script.reset();
        let mut link = caller.connect_quietly().await;
        link.say(1, "and now?").await;
        assert_eq!(link.brief(2).await, ["ack", "as ever"], "a reset begins anew");
    });
}

/// The example of docs/sandbox.md is a script.
#[test]
fn documented_bot_with_a_rhythm_is_valid() {
    let document = include_str!("../../../../docs/sandbox.md");
    let (_, section) = document.split_once("### A bot with a rhythm").unwrap();
    let example = section.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let options = scripted(example);
    assert_eq!(options.bots, ["st-support"]);
}
