//! The receivers of webhooks: the bots' endpoints, and the exact hosts of `webhooks.allowed`.

use url::Url;

use super::network::{self, ServerTarget};
use super::{CheckStage, DoctorOptions, DoctorReport, FindingLevel};
use crate::config::Config;
use crate::webhook;

/// Examines the receivers of a configuration, and posts a test event to the bots' endpoints if that was asked for.
pub(super) async fn examine(config: &Config, options: &DoctorOptions, report: &mut DoctorReport) {
    let mut targets: Vec<(String, Url)> = Vec::new();
    for bot in &config.bots {
        for endpoint in &bot.webhooks {
            let key = format!("bots.{}.webhooks.{}.url", bot.name, endpoint.name);
            targets.extend(endpoint.url.clone().map(|url| (key, url)));
        }
    }
    for pattern in config.webhooks.allowed.iter().filter(|pattern| !pattern.is_wildcard()) {
        let is_known = targets.iter().any(|(_, url)| pattern.covers_origin(url));
        let url = Url::parse(&pattern.to_string()).ok().filter(|_| !is_known);
        targets.extend(url.map(|url| ("webhooks.allowed".to_owned(), url)));
    }
    for (key, url) in targets {
        let mut way = DoctorReport::default();
        let admits = |address| webhook::may_deliver_to(&config.webhooks, address);
        let target = ServerTarget {
            url: &url,
            key: &key,
            ca_key: "webhooks.ca_file",
            ca: config.webhooks.ca.as_deref(),
            proxy: config.webhooks.proxy.as_ref(),
            admits: &admits,
            proxy_keys: "webhooks.proxy",
            not_admitted: "write its range into webhooks.allow_private if deliveries may go there",
        };
        network::examine(&target, &mut way).await;
        for finding in way.findings() {
            report.add(super::CheckReport { check: CheckStage::Webhooks, ..finding.clone() });
        }
    }
    if options.post {
        post(config, options, report).await;
    }
}

async fn post(config: &Config, options: &DoctorOptions, report: &mut DoctorReport) {
    let endpoints =
        config.bots.iter().flat_map(|bot| bot.webhooks.iter().map(move |endpoint| (bot, endpoint)));
    for (bot, endpoint) in endpoints {
        let Some(url) = &endpoint.url else { continue };
        let host = url.host_str().unwrap_or_default();
        let key = format!("bots.{}.webhooks.{}", bot.name, endpoint.name);
        match webhook::post_test_event(config, bot, endpoint, &options.user).await {
            Ok(Ok(status)) => {
                report.ok(CheckStage::Webhooks, host, format!("the receiver takes a test event ({status})"));
            }
            Ok(Err(why)) => {
                let next = format!("look at the log of the receiver, and at {key}");
                report.failed(
                    CheckStage::Webhooks,
                    host,
                    format!("the test event is not taken: {why}"),
                    next,
                );
            }
            Err(error) => report.problem(
                FindingLevel::Failed,
                CheckStage::Webhooks,
                host,
                error.to_string(),
                format!("correct {key}"),
            ),
        }
    }
}
