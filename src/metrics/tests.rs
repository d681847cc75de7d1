use std::time::Duration;

use super::*;
use crate::domain::{BotName, DeliveryKind, UserId};

const WORDS: LabelSets =
    LabelSets { frames_in: &["ack", "pong"], frames_out: &["user_message"], routes: &["/a/{b}"] };

fn line(metrics: &Metrics, start: &str) -> String {
    let text = metrics.text().unwrap();
    text.lines().find(|line| line.starts_with(start)).unwrap_or_default().to_owned()
}

#[test]
fn bot_metrics_show_each_event() {
    let metrics = Metrics::new(WORDS).unwrap();
    let bot = metrics.bot(&BotName::new("support").unwrap()).unwrap();
    bot.turn_ended("quiet");
    bot.turn_ended("no-reply");
    bot.stage_ended(TurnStage::Ack, Duration::from_millis(3));
    bot.socket_changed(None, Some(SocketState::Connecting));
    bot.socket_changed(Some(SocketState::Connecting), Some(SocketState::Ready));
    for down in [SocketState::Connecting, SocketState::BackingOff, SocketState::Blocked] {
        bot.socket_changed(None, Some(down));
    }
    bot.socket_changed(Some(SocketState::BackingOff), Some(SocketState::Draining));
    bot.socket_changed(Some(SocketState::Connecting), None);
    let refused_users = r#"rtm_bridge_refused_users_total{bot="support"}"#;
    assert_eq!(
        line(&metrics, refused_users),
        format!("{refused_users} 0"),
        "it is there before the first refusal"
    );
    for user in ["alice", "alice", "bob"] {
        bot.connects.refused(
            ConnectStep::Grant,
            &UserId::new(user).unwrap(),
            tokio::time::Instant::now().into_std(),
        );
    }
    bot.socket_closed(Some(1008));
    bot.socket_closed(Some(4711));
    bot.socket_closed(None);
    bot.frame_received("ack");
    bot.frame_sent("user_message");
    for (series, value) in [
        (r#"rtm_bridge_turns_total{bot="support",outcome="quiet"}"#, "1"),
        (r#"rtm_bridge_turns_total{bot="support",outcome="no-reply"}"#, "1"),
        (r#"rtm_bridge_turn_stage_duration_seconds_count{bot="support",stage="ack"}"#, "1"),
        (r#"rtm_bridge_sockets{bot="support",state="connecting"}"#, "0"),
        (r#"rtm_bridge_sockets{bot="support",state="ready"}"#, "1"),
        (r#"rtm_bridge_links_down{bot="support"}"#, "1"),
        (r#"rtm_bridge_connects_total{bot="support",phase="grant",result="rejected"}"#, "3"),
        (refused_users, "2"),
        (r#"rtm_bridge_socket_closes_total{bot="support",code="1008"}"#, "1"),
        (r#"rtm_bridge_socket_closes_total{bot="support",code="other"}"#, "1"),
        (r#"rtm_bridge_socket_closes_total{bot="support",code="none"}"#, "1"),
        (r#"rtm_bridge_frames_total{bot="support",direction="in",type="ack"}"#, "1"),
        (r#"rtm_bridge_frames_total{bot="support",direction="out",type="user_message"}"#, "1"),
    ] {
        assert_eq!(line(&metrics, series), format!("{series} {value}"));
    }
}

#[test]
fn deliveries_count_by_bot_and_attempts_by_result() {
    let metrics = Metrics::new(WORDS).unwrap();
    let support = metrics.deliveries.bot(Some(&BotName::new("support").unwrap())).unwrap();
    support.delivered(DeliveryKind::MessageAnswered);
    metrics.deliveries.bot(None).unwrap().dead_lettered(DeliveryKind::ReplyLate);
    metrics.deliveries.attempt_ended(AttemptEnd::Refused, Duration::from_millis(3));
    metrics.deliveries.attempt_ended(AttemptEnd::Aborted, Duration::from_millis(3));
    metrics.deliveries.first_attempt_began(Duration::from_millis(3));
    for (series, value) in [
        (r#"rtm_bridge_deliveries_total{bot="support",outcome="delivered",type="message.answered"}"#, "1"),
        (r#"rtm_bridge_deliveries_total{bot="support",outcome="dead",type="reply.late"}"#, "0"),
        (r#"rtm_bridge_deliveries_total{bot="other",outcome="dead",type="reply.late"}"#, "1"),
        (r#"rtm_bridge_delivery_attempts_total{result="refused"}"#, "1"),
        (r#"rtm_bridge_delivery_attempts_total{result="aborted"}"#, "1"),
        ("rtm_bridge_delivery_attempt_duration_seconds_count", "1"),
        ("rtm_bridge_delivery_first_attempt_delay_seconds_count", "1"),
    ] {
        assert_eq!(line(&metrics, series), format!("{series} {value}"));
    }
}

#[test]
fn oldest_message_is_the_oldest_of_all_shards() {
    let metrics = Metrics::new(WORDS).unwrap();
    let shown = || line(&metrics, "rtm_bridge_oldest_open_message_age_seconds");
    assert_eq!(shown(), "rtm_bridge_oldest_open_message_age_seconds 0");
    for (shard, millis, seconds) in [
        (0, Some(1500), "1.5"),
        (1, Some(2250), "2.25"),
        (0, Some(2500), "2.5"),
        (0, None, "2.25"),
        (1, Some(100), "0.1"),
        (1, None, "0"),
        (1, None, "0"),
    ] {
        metrics.oldest_open_message.set_age(shard, millis.map(Duration::from_millis));
        assert_eq!(shown(), format!("rtm_bridge_oldest_open_message_age_seconds {seconds}"));
    }
}

#[test]
fn words_outside_their_set_never_become_labels() {
    let metrics = Metrics::new(WORDS).unwrap();
    metrics.bot(&BotName::new("b").unwrap()).unwrap().frame_received("alice@example.org");
    metrics.request_answered("/a/{b}", "BREW", "418", Duration::ZERO);
    metrics.request_answered("/a/alice", "GET", "200", Duration::ZERO);
    let text = metrics.text().unwrap();
    assert!(!text.contains("alice") && !text.contains("BREW"), "{text}");
    let series =
        r#"rtm_bridge_http_request_duration_seconds_count{code="418",method="other",route="/a/{b}"}"#;
    assert_eq!(line(&metrics, series), format!("{series} 1"));
}

#[test]
fn two_bridges_in_a_process_count_apart() {
    let (one, two) = (Metrics::new(WORDS).unwrap(), Metrics::new(WORDS).unwrap());
    one.panics.inc();
    assert_eq!(line(&one, "rtm_bridge_panics_total"), "rtm_bridge_panics_total 1");
    assert_eq!(line(&two, "rtm_bridge_panics_total"), "rtm_bridge_panics_total 0");
}

#[test]
fn build_info_has_version_and_revision() {
    let series = format!(
        r#"rtm_bridge_build_info{{revision="{REVISION}",version="{}"}} 1"#,
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(line(&Metrics::new(WORDS).unwrap(), "rtm_bridge_build_info"), series);
}

#[test]
fn limits_stand_beside_their_use() {
    let metrics = Metrics::new(WORDS).unwrap();
    metrics.limits.set(15_000, 4000, 192 << 20);
    metrics.store_memory.set(700, Some(1000));
    for (series, value) in [
        ("rtm_bridge_conversations_limit", "15000"),
        ("rtm_bridge_connections_limit", "4000"),
        ("rtm_bridge_request_memory_limit_bytes", "201326592"),
        ("rtm_bridge_store_memory_bytes", "700"),
        ("rtm_bridge_store_memory_limit_bytes", "1000"),
    ] {
        assert_eq!(line(&metrics, &format!("{series} ")), format!("{series} {value}"));
    }
    metrics.store_memory.set(700, None);
    assert_eq!(
        line(&metrics, "rtm_bridge_store_memory_limit_bytes "),
        "rtm_bridge_store_memory_limit_bytes 0"
    );
}
