use std::time::Duration;

use tokio::time::Instant;
use url::Url;

use super::bot;
use crate::config::{BotConfig, ConnectionStyle};
use crate::rtm::error::RetryAdvice;
use crate::rtm::ticket::{ConnectMode, Ticket};

fn address(bot: &BotConfig, url: &str, mode: ConnectMode) -> Result<String, RetryAdvice> {
    let body = serde_json::json!({ "url": url }).to_string();
    let ticket = Ticket::parse(body.as_bytes(), bot, mode, Instant::now()).expect("it has a url");
    ticket.map(|ticket| ticket.url.into()).map_err(|error| error.retry())
}

#[test]
fn connect_mode_is_appended_to_the_query() {
    let mut bot = bot("https://bots.example");
    let given = "wss://bots.example:443/rtm/bot?sid=a%2Fb+c";
    for (style, mode, added) in [
        (ConnectionStyle::ConnectionMode, ConnectMode::Default, "&ConnectionMode=Default"),
        (ConnectionStyle::ConnectionMode, ConnectMode::StartNew, "&ConnectionMode=Start_New"),
        (
            ConnectionStyle::ConnectionMode,
            ConnectMode::StartNewResumeAgent,
            "&ConnectionMode=Start_New_Resume_Agent",
        ),
        (ConnectionStyle::ConnectionMode, ConnectMode::Reconnect, "&ConnectionMode=Reconnect"),
        (ConnectionStyle::IsReconnect, ConnectMode::Default, ""),
        (ConnectionStyle::IsReconnect, ConnectMode::StartNew, ""),
        (ConnectionStyle::IsReconnect, ConnectMode::StartNewResumeAgent, ""),
        (ConnectionStyle::IsReconnect, ConnectMode::Reconnect, "&isReconnect=true"),
    ] {
        bot.connection_mode = style;
        let expected = format!("wss://bots.example/rtm/bot?sid=a%2Fb+c{added}");
        assert_eq!(address(&bot, given, mode).unwrap(), expected);
    }
    bot.connection_mode = ConnectionStyle::IsReconnect;
    assert_eq!(
        address(&bot, "wss://bots.example/rtm/bot", ConnectMode::Reconnect).unwrap(),
        "wss://bots.example/rtm/bot?isReconnect=true"
    );
}

#[test]
fn welcome_is_skipped_except_on_a_reconnect() {
    let mut bot = BotConfig { skip_welcome: true, ..bot("https://bots.example") };
    let url = |bot: &BotConfig, mode| address(bot, "wss://bots.example/rtm/bot?sid=1", mode).unwrap();
    let new = url(&bot, ConnectMode::StartNew);
    assert_eq!(new, "wss://bots.example/rtm/bot?sid=1&ConnectionMode=Start_New&isSkipOnConnect=true");
    assert!(!url(&bot, ConnectMode::Reconnect).contains("isSkipOnConnect"));
    bot.connection_mode = ConnectionStyle::IsReconnect;
    assert_eq!(url(&bot, ConnectMode::Default), "wss://bots.example/rtm/bot?sid=1&isSkipOnConnect=true");
}

#[test]
fn socket_base_replaces_the_origin_and_prefixes_the_path() {
    let mut bot = bot("https://bots.example");
    let mode = ConnectMode::Reconnect;
    for (base, expected) in [
        ("wss://proxy.example:8443", "wss://proxy.example:8443/rtm/bot?sid=1&ConnectionMode=Reconnect"),
        ("https://proxy.example/", "wss://proxy.example/rtm/bot?sid=1&ConnectionMode=Reconnect"),
        ("ws://proxy.example/Fusion/", "ws://proxy.example/Fusion/rtm/bot?sid=1&ConnectionMode=Reconnect"),
    ] {
        bot.socket_base = Some(Url::parse(base).unwrap());
        assert_eq!(address(&bot, "ws://dummy.com:80/rtm/bot?sid=1", mode).unwrap(), expected);
    }
}

#[test]
fn plain_socket_needs_a_plain_platform_or_socket_base() {
    let plain = "ws://bots.example/rtm/bot?sid=1";
    let mode = ConnectMode::Default;
    assert_eq!(address(&bot("https://bots.example"), plain, mode), Err(RetryAdvice::Never));
    assert!(address(&bot("http://bots.example"), plain, mode).is_ok());
    assert_eq!(
        address(&bot("https://bots.example"), "ftp://bots.example/", mode),
        Err(RetryAdvice::Backoff(None))
    );
    assert_eq!(address(&bot("https://bots.example"), "rtm/bot", mode), Err(RetryAdvice::Backoff(None)));
}

#[test]
fn answer_without_url_is_no_ticket() {
    let bot = bot("https://bots.example");
    for body in ["{}", r#"{"url":null}"#, r#"{"url":7}"#, "<html>", "[]", ""] {
        assert!(
            Ticket::parse(body.as_bytes(), &bot, ConnectMode::Default, Instant::now()).is_none(),
            "{body}"
        );
    }
}

#[test]
fn ticket_older_than_30_s_is_stale() {
    let asked = Instant::now();
    let body = br#"{"url":"wss://bots.example/rtm/bot?sid=1","nonce":"n"}"#;
    let ticket =
        Ticket::parse(body, &bot("https://bots.example"), ConnectMode::Default, asked).unwrap().ok().unwrap();
    assert!(ticket.is_fresh(asked + Duration::from_millis(29_999)));
    assert!(!ticket.is_fresh(asked + Duration::from_secs(30)));
}
