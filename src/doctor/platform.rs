//! One bot: its keys, the way to its platform, and a connect with all steps.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::network::{self, ServerTarget};
use super::{CheckStage, DoctorOptions, DoctorReport, advice};
use crate::config::BotConfig;
use crate::metrics::{ClockDifference, LabelSets, Metrics};
use crate::rtm::{
    ConnectError, ConnectMode, Grant, IncomingFrame, JwtSigner, PlatformConnector, PlatformSocket,
    SocketEvent, decode_frame, decode_history_page, outgoing,
};
use crate::wall_clock;

/// The time in which a platform may object to an open socket.
const OBJECTION_TIMEOUT: Duration = Duration::from_secs(1);
/// The seconds from which a difference of the clocks is a warning.
const CLOCK_WARNING: f64 = 10.0;

/// Examines a bot.
pub(super) async fn examine(bot: &Arc<BotConfig>, options: &DoctorOptions, report: &mut DoctorReport) {
    let name = bot.name.as_str();
    let clock = match Metrics::new(LabelSets { frames_in: &[], frames_out: &[], routes: &[] }) {
        Ok(metrics) => metrics.clocks.platform,
        Err(error) => {
            report.failed(CheckStage::Keys, name, error.to_string(), "report this bug");
            return;
        }
    };
    let signs = match bot.assertion_service {
        Some(_) => Ok(()),
        None => JwtSigner::new(bot).map(|_| ()).map_err(|error| error.to_string()),
    };
    let connector = signs.and_then(|()| {
        PlatformConnector::new(std::slice::from_ref(bot), clock.clone()).map_err(|error| error.to_string())
    });
    let connector = match connector {
        Ok(connector) => connector,
        Err(error) => {
            let next = format!("correct bots.{name}.client_secret, algorithm or ca_file");
            report.failed(CheckStage::Keys, name, error, next);
            return;
        }
    };
    let signer = match &bot.assertion_service {
        Some(service) => {
            let host = service.url.host_str().unwrap_or_default();
            format!("the service at {host} makes the JWTs of the app {}", bot.client_id)
        }
        None => format!("the key of the app {} signs ({})", bot.client_id, bot.algorithm.as_str()),
    };
    report.ok(CheckStage::Keys, name, signer);
    let [key, ca_key, assertion_key] =
        ["platform", "ca_file", "assertion_url"].map(|key| format!("bots.{name}.{key}"));
    let server = |url, key| ServerTarget {
        url,
        key,
        ca_key: &ca_key,
        ca: bot.ca.as_deref(),
        proxy: bot.proxy.as_ref(),
        admits: &|_| true,
        not_admitted: "",
        proxy_keys: "proxy.url or in HTTPS_PROXY",
    };
    let mut is_open = network::examine(&server(&bot.platform, &key), report).await;
    if let Some(service) = &bot.assertion_service {
        is_open &= network::examine(&server(&service.url, &assertion_key), report).await;
    }
    if let Some(base) = &bot.socket_base {
        let key = format!("bots.{name}.socket_base");
        is_open &= network::examine(&server(base, &key), report).await;
    }
    if is_open {
        BotExamination { bot, connector, clock, options }.connect(report).await;
    }
}

/// The examination of a bot whose platform can be reached.
struct BotExamination<'a> {
    bot: &'a BotConfig,
    connector: PlatformConnector,
    clock: ClockDifference,
    options: &'a DoctorOptions,
}

impl BotExamination<'_> {
    /// Gets a token, an address and a socket, and reads a page of history.
    async fn connect(&self, report: &mut DoctorReport) {
        let (bot, name) = (self.bot, self.bot.name.as_str());
        // A session of the user goes on, and the bot does not greet, unless a message follows.
        let mode = if self.options.say.is_some() { ConnectMode::Default } else { ConnectMode::Reconnect };
        let mut grant: Option<Grant> = None;
        let now = wall_clock::now();
        let connected = self
            .connector
            .connect(bot, &self.options.user, mode, &self.connector.empty_context(), &mut grant, now)
            .await;
        self.examine_clock(report, connected.as_ref().err());
        let failed = connected.as_ref().err().map(ConnectError::phase);
        if grant.is_some() {
            report.ok(
                CheckStage::Grant,
                name,
                format!("the platform gives a token for the app {}", bot.client_id),
            );
        }
        if !matches!(failed, Some("assertion" | "grant" | "start" | "proxy")) {
            report.ok(
                CheckStage::Start,
                name,
                format!("the platform gives a socket for the bot {}", bot.task_bot_id),
            );
        }
        let socket = match connected {
            Ok(socket) => socket,
            Err(error) => {
                let stage = match error.phase() {
                    "assertion" | "grant" => CheckStage::Grant,
                    "start" => CheckStage::Start,
                    "proxy" => CheckStage::Proxy,
                    _ => CheckStage::Socket,
                };
                report.failed(stage, name, error.public_message(), self.advice(&error));
                return;
            }
        };
        self.examine_socket(socket, report).await;
        if bot.history {
            self.examine_history(&mut grant, report).await;
        }
    }

    fn advice(&self, error: &ConnectError) -> String {
        advice::for_platform(self.bot, error, self.clock.seconds())
    }

    fn examine_clock(&self, report: &mut DoctorReport, failure: Option<&ConnectError>) {
        let about = self.bot.platform.host_str().unwrap_or_default();
        let Some(ahead) = self.clock.seconds() else {
            report.ok(CheckStage::Clock, about, "the platform tells no time");
            return;
        };
        let message = advice::clock_words("the platform", ahead);
        let next = "correct the clock of this machine (NTP), or have the platform's corrected";
        let is_refused = failure.is_some_and(|error| error.phase() == "grant");
        // A JWT is valid from a minute before its signature until five minutes after it.
        if ahead.abs() >= 60.0 && (is_refused || ahead.abs() >= 240.0) {
            report.failed(CheckStage::Clock, about, message, next);
        } else if ahead.abs() >= CLOCK_WARNING {
            report.warning(CheckStage::Clock, about, message, next);
        } else {
            report.ok(CheckStage::Clock, about, message);
        }
    }

    /// Waits a moment for an objection of the platform, sends the message that was asked for, and closes the socket.
    async fn examine_socket(&self, mut socket: PlatformSocket, report: &mut DoctorReport) {
        let name = self.bot.name.as_str();
        let until = Instant::now() + OBJECTION_TIMEOUT;
        while let Ok(event) = timeout_at(until, socket.next()).await {
            let objection = match event {
                SocketEvent::Frame(frame) => {
                    is_invalid_app(&frame).then(|| "the platform calls the app invalid".to_owned())
                }
                SocketEvent::KeepAlive => None,
                SocketEvent::Closed(close) => {
                    Some(format!("the platform closed the socket at once ({})", close.code))
                }
            };
            if let Some(message) = objection {
                let next = format!(
                    "in the console of the platform, enable the channel Web/Mobile Client for the app {}, publish the bot, \
                     and look whether bot or user is blocked",
                    self.bot.client_id
                );
                report.failed(CheckStage::Socket, name, message, next);
                return;
            }
        }
        report.ok(CheckStage::Socket, name, "the web socket opens");
        if let Some(text) = &self.options.say {
            self.say(&mut socket, text, report).await;
        }
        socket.close(1000).await;
    }

    async fn say(&self, socket: &mut PlatformSocket, text: &str, report: &mut DoctorReport) {
        let (bot, name) = (self.bot, self.bot.name.as_str());
        let began = Instant::now();
        let frame = outgoing::text_message(bot, text, wall_clock::now().as_millis());
        if let Err(error) = socket.send(frame).await {
            report.failed(
                CheckStage::Say,
                name,
                error.to_string(),
                "look at the messages of the checks before",
            );
            return;
        }
        let answer = timeout(bot.deadline, async {
            loop {
                match socket.next().await {
                    SocketEvent::Closed(close) => {
                        return Err(format!("the platform closed the socket ({})", close.code));
                    }
                    SocketEvent::KeepAlive => {}
                    SocketEvent::Frame(frame) => {
                        if let IncomingFrame::Response(response) = decode_frame(&frame)
                            && !response.is_blank
                        {
                            return Ok(response.text);
                        }
                    }
                }
            }
        });
        let spent = |began: Instant| began.elapsed().as_millis();
        match answer.await {
            Ok(Ok(text)) => {
                let shown: String = text.chars().take(200).flat_map(char::escape_debug).collect();
                report.ok(
                    CheckStage::Say,
                    name,
                    format!("the bot answers after {} ms: {shown}", spent(began)),
                );
            }
            Ok(Err(why)) => {
                report.failed(
                    CheckStage::Say,
                    name,
                    why,
                    "look whether the platform blocks the bot or the user",
                );
            }
            Err(_) => report.failed(
                CheckStage::Say,
                name,
                format!("the bot says nothing within {} s", bot.deadline.as_secs()),
                "say something that the bot answers, and look whether it is published",
            ),
        }
    }

    async fn examine_history(&self, grant: &mut Option<Grant>, report: &mut DoctorReport) {
        let (bot, name) = (self.bot, self.bot.name.as_str());
        let page = self
            .connector
            .fetch_history_page(
                bot,
                &self.options.user,
                &self.connector.empty_context(),
                grant,
                None::<&str>,
                wall_clock::now(),
            )
            .await;
        match page.map(|body| decode_history_page(&body)) {
            Ok(Ok(_)) => report.ok(CheckStage::History, name, "the history can be read"),
            Ok(Err(_)) => report.failed(
                CheckStage::History,
                name,
                "the answer is no page of history",
                format!("set bots.{name}.history = false, or correct api_path"),
            ),
            Err(error) => {
                report.failed(CheckStage::History, name, error.public_message(), self.advice(&error));
            }
        }
    }
}

/// Returns whether a frame says that the app is not valid (protocol.md 3.3).
fn is_invalid_app(frame: &[u8]) -> bool {
    frame.windows(b"appInvalidNotification".len()).any(|window| window == b"appInvalidNotification")
}
