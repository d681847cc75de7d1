//! The simulated platform (protocol.md 11): its answers to a message, their times, and its history.

use std::collections::HashMap;

use fastrand::Rng;
use rtm_bridge::domain::Timestamp;
use rtm_bridge::link::HistoryFailure;
use rtm_bridge::rtm::{BotResponse, HistoryPage, HistoryRecord, IncomingFrame};

use super::support::{event, piece, reply};

/// The rates of faults in percent. Each run draws its own.
#[derive(Debug, Clone)]
pub(crate) struct FaultPlan {
    pub(crate) drop: u32,
    pub(crate) connect_fails: u32,
    pub(crate) ack_missing: u32,
    pub(crate) silent: u32,
    pub(crate) stream: u32,
    pub(crate) signal: u32,
    pub(crate) late: u32,
    pub(crate) unsolicited: u32,
    /// Unsolicited replies, with or without an open socket.
    pub(crate) unasked: u32,
    /// Replies that tell their answered message.
    pub(crate) echo: u32,
    pub(crate) duplicate: u32,
    pub(crate) history_fails: u32,
    pub(crate) history_lag: u64,
    pub(crate) store_fails: u32,
    pub(crate) store_lag: u64,
    pub(crate) hint_lost: u32,
    pub(crate) kills: u32,
    /// Failovers of the store that lose data.
    pub(crate) losses: u32,
    /// Times without a valid lease.
    pub(crate) suspect: u32,
    /// Outages of the store.
    pub(crate) outages: u32,
}

impl FaultPlan {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        fn percent(rng: &mut Rng, most: u32) -> u32 {
            if rng.bool() { 0 } else { rng.u32(1..=most) }
        }
        Self {
            drop: percent(rng, 60),
            connect_fails: percent(rng, 50),
            ack_missing: percent(rng, 60),
            silent: percent(rng, 50),
            stream: percent(rng, 70),
            signal: percent(rng, 80),
            late: percent(rng, 60),
            unsolicited: percent(rng, 60),
            echo: percent(rng, 100),
            duplicate: percent(rng, 40),
            history_fails: percent(rng, 70),
            history_lag: if rng.bool() { 0 } else { rng.u64(1..6000) },
            store_fails: percent(rng, 40),
            store_lag: if rng.bool() { 3 } else { rng.u64(3..1500) },
            hint_lost: percent(rng, 60),
            kills: percent(rng, 60),
            losses: if rng.bool() { 0 } else { percent(rng, 90) },
            suspect: percent(rng, 60),
            outages: if rng.bool() { 0 } else { percent(rng, 60) },
            unasked: percent(rng, 90),
        }
    }
}

/// Draws whether an event of this rate happens.
pub(crate) fn chance(rng: &mut Rng, percent: u32) -> bool {
    percent > 0 && rng.u32(0..100) < percent
}

/// An action of the platform.
#[derive(Debug, Clone)]
pub(crate) enum PlatformEvent {
    Frame(IncomingFrame),
    Close(u16),
    /// The peer dies silently: it receives and answers no frame any more.
    Death,
}

struct HistoryMessage {
    id: Box<str>,
    client_message_id: Option<u64>,
    at: u64,
    visible_at: u64,
}

/// The faults of history and clock. Each run draws its own.
#[derive(Debug, Clone, Default)]
pub(crate) struct OddRecords {
    /// Whether history lacks the numbers of the user's messages.
    unnumbered: bool,
    /// The lead of the platform's clock in milliseconds.
    lead: i64,
    /// The rate of frames with any time, in percent.
    odd_times: u32,
}

impl OddRecords {
    pub(crate) const fn is_unnumbered(&self) -> bool {
        self.unnumbered
    }

    pub(crate) fn draw(rng: &mut Rng) -> Self {
        const MINUTES: i64 = 7 * 60_000;
        Self {
            unnumbered: rng.u8(0..4) == 0,
            lead: rng.choice([0, 0, 0, 0, MINUTES, -MINUTES, 20_000, -20_000]).unwrap_or(0),
            odd_times: rng.choice([0, 0, 5, 30]).unwrap_or(0),
        }
    }
}

/// The memory of the platform.
#[derive(Default)]
pub(crate) struct Platform {
    pub(crate) odd: OddRecords,
    next_id: u32,
    /// Whether the user has a session.
    pub(crate) session: bool,
    remembered: Vec<HistoryMessage>,
    /// The texts of the replies so far, and whether they have ended.
    texts: HashMap<Box<str>, (String, bool)>,
}

impl Platform {
    pub(crate) fn of(odd: OddRecords) -> Self {
        Self { odd, ..Self::default() }
    }

    /// Draws its answers to a message, with their times after the receipt.
    pub(crate) fn answer(
        &mut self,
        rng: &mut Rng,
        faults: &FaultPlan,
        client_message_id: u64,
    ) -> Vec<(u64, PlatformEvent)> {
        let mut plan = Vec::new();
        let echoes = Some(client_message_id);
        let ack = |reply_to| PlatformEvent::Frame(IncomingFrame::Ack { reply_to });
        if !chance(rng, faults.ack_missing) {
            plan.push((rng.u64(0..400), ack(Some(client_message_id))));
        }
        if chance(rng, faults.duplicate) {
            plan.push((rng.u64(0..900), ack(rng.bool().then_some(client_message_id))));
            plan.push((rng.u64(0..900), ack(Some(client_message_id.wrapping_sub(1)))));
        }
        let mut at = rng.u64(1..1500);
        if !chance(rng, faults.silent) {
            for _ in 0..=rng.usize(0..4) * rng.usize(0..3) {
                at = self.speak(rng, faults, at, echoes, &mut plan);
                at += if rng.u8(0..6) == 0 { rng.u64(0..4000) } else { rng.u64(0..700) };
            }
        }
        if chance(rng, faults.signal) {
            let jitter = rng.u64(0..600);
            for _ in 0..=rng.u8(0..2) {
                let sign = match rng.u8(0..8) {
                    0 => IncomingFrame::SessionEnd(event()),
                    1 => IncomingFrame::AgentStart(event()),
                    2 => IncomingFrame::AgentEnd(event()),
                    _ => IncomingFrame::WaitingForInput,
                };
                plan.push(((at + jitter).saturating_sub(rng.u64(0..800)), PlatformEvent::Frame(sign)));
            }
        }
        if chance(rng, faults.late) {
            let at = at + rng.u64(500..90_000);
            self.speak(rng, faults, at, echoes, &mut plan);
        }
        if chance(rng, faults.drop) {
            plan.push((rng.u64(0..at + 500), self.gone(rng)));
        }
        plan
    }

    /// Draws its answers to the end of the session, with their times after the receipt. These are not documented.
    pub(crate) fn close(
        &mut self,
        rng: &mut Rng,
        faults: &FaultPlan,
        client_message_id: u64,
    ) -> Vec<(u64, PlatformEvent)> {
        self.session = false;
        let mut plan = Vec::new();
        if rng.bool() {
            plan.push((
                rng.u64(0..900),
                PlatformEvent::Frame(IncomingFrame::Ack { reply_to: Some(client_message_id) }),
            ));
        }
        if rng.bool() {
            self.speak(rng, faults, 100, None, &mut plan);
        }
        if rng.bool() {
            plan.push((rng.u64(0..3000), PlatformEvent::Frame(IncomingFrame::SessionEnd(event()))));
        }
        if chance(rng, faults.drop) {
            plan.push((rng.u64(0..3000), self.gone(rng)));
        }
        plan
    }

    /// Draws a reply, whole or streamed, perhaps with an echo. Returns the time of its end.
    fn speak(
        &mut self,
        rng: &mut Rng,
        faults: &FaultPlan,
        mut at: u64,
        echoes: Option<u64>,
        plan: &mut Vec<(u64, PlatformEvent)>,
    ) -> u64 {
        self.next_id += 1;
        let id = format!("ms-{}", self.next_id);
        let echoes = echoes.filter(|_| chance(rng, faults.echo));
        let say = |response: BotResponse| {
            PlatformEvent::Frame(IncomingFrame::Response(Box::new(BotResponse {
                correlation_id: echoes,
                ..response
            })))
        };
        if chance(rng, faults.stream) {
            let pieces = rng.u8(1..5);
            for i in 0..pieces {
                let last = i + 1 == pieces && rng.u8(0..5) != 0;
                plan.push((at, say(piece(&id, "piece ", last))));
                at += rng.u64(0..500);
            }
        } else {
            let mut response = reply(&id, "text");
            response.more_follows = rng.u8(0..12) == 0;
            plan.push((at, say(response.clone())));
            if chance(rng, faults.duplicate) {
                plan.push((at + rng.u64(0..5000), say(response)));
            }
        }
        at
    }

    /// Draws unsolicited replies.
    pub(crate) fn unasked(&mut self, rng: &mut Rng, faults: &FaultPlan) -> Vec<(u64, PlatformEvent)> {
        let mut plan = Vec::new();
        let mut at = 0;
        for _ in 0..=rng.usize(0..2) * rng.usize(0..16) {
            at = self.speak(rng, faults, at, None, &mut plan) + rng.u64(0..300);
        }
        plan
    }

    /// Draws the frames after a connect.
    pub(crate) fn welcome(
        &mut self,
        rng: &mut Rng,
        faults: &FaultPlan,
        new_session: bool,
    ) -> Vec<(u64, PlatformEvent)> {
        let mut plan = Vec::new();
        if rng.bool() {
            let session_continues = !new_session && rng.bool();
            plan.push((
                rng.u64(0..50),
                PlatformEvent::Frame(IncomingFrame::Active { session_id: None, session_continues }),
            ));
        }
        if new_session {
            let mut at = 0;
            for _ in 0..rng.u8(0..4) {
                at += rng.u64(0..450);
                at = self.speak(rng, faults, at, None, &mut plan);
            }
        }
        if chance(rng, faults.unsolicited) {
            let at = rng.u64(0..40_000);
            // It may answer another client of the same user.
            self.speak(rng, faults, at, Some(7), &mut plan);
        }
        if chance(rng, faults.drop) {
            plan.push((rng.u64(0..30_000), self.gone(rng)));
        }
        plan
    }

    #[expect(clippy::unused_self, reason = "reads as the platform's deed")]
    fn gone(&self, rng: &mut Rng) -> PlatformEvent {
        match rng.u8(0..24) {
            0 => PlatformEvent::Close(1000),
            1..4 => PlatformEvent::Close(1005),
            4 => PlatformEvent::Close(1007),
            5..7 => PlatformEvent::Close(1008),
            7 => PlatformEvent::Close(1009),
            8..11 => PlatformEvent::Close(1011),
            11..13 => PlatformEvent::Death,
            _ => PlatformEvent::Close(1006),
        }
    }

    /// Notes a received message.
    pub(crate) fn received(&mut self, now: u64, lag: u64, client_message_id: u64) {
        let id = format!("user-{client_message_id}-{now}").into();
        self.remembered.push(HistoryMessage {
            id,
            client_message_id: Some(client_message_id),
            at: now,
            visible_at: now + lag,
        });
    }

    /// Notes a reply, whether or not a socket was open.
    pub(crate) fn spoke(&mut self, now: u64, lag: u64, response: &BotResponse) {
        let last = response.stream.as_ref().is_none_or(|stream| stream.last);
        if let Some(id) = &response.message_id {
            let (text, ended) = self.texts.entry(id.clone()).or_default();
            if !*ended {
                text.push_str(&response.text);
                *ended = last;
            }
        }
        if response.stream.as_ref().is_some_and(|stream| !stream.last) {
            return;
        }
        let Some(id) = &response.message_id else { return };
        if self.remembered.iter().any(|known| known.id == *id) {
            return;
        }
        self.remembered.push(HistoryMessage {
            id: id.clone(),
            client_message_id: None,
            at: now,
            visible_at: now + lag,
        });
    }

    /// Returns the whole text of a reply, if it has ended.
    pub(crate) fn whole_text(&self, id: &str) -> Option<&str> {
        self.texts.get(id).filter(|(_, ended)| *ended).map(|(text, _)| text.as_str())
    }

    /// Returns the text of a reply that was said so far.
    pub(crate) fn text_so_far(&self, id: &str) -> &str {
        self.texts.get(id).map_or("", |(text, _)| text.as_str())
    }

    /// Returns whether it received a message.
    pub(crate) fn has_received(&self, client_message_id: u64) -> bool {
        self.remembered.iter().any(|known| known.client_message_id == Some(client_message_id))
    }

    /// Returns the time when a reply was first said.
    pub(crate) fn first_said(&self, now: u64, response: &BotResponse) -> u64 {
        let known = self.remembered.iter().find(|known| Some(&known.id) == response.message_id.as_ref());
        known.map_or(now, |known| known.at)
    }

    /// Draws the time that a frame carries. Repeats and history have the same time, unless it is odd.
    pub(crate) fn created_on(&self, clocks: &mut Rng, now: u64, response: &BotResponse) -> Option<Timestamp> {
        const YEAR: u64 = 365 * 24 * 3_600_000;
        let at = self.on_clock(self.first_said(now, response));
        if !chance(clocks, self.odd.odd_times) {
            return Some(Timestamp::from_millis(at));
        }
        let odd = clocks.choice([None, Some(0), Some(at + 600_000), Some(at + YEAR), Some(at - YEAR)]);
        odd.flatten().map(Timestamp::from_millis)
    }

    fn on_clock(&self, at: u64) -> u64 {
        at.saturating_add_signed(self.odd.lead)
    }

    /// Returns the replies with their times, and the times from which history shows them.
    pub(crate) fn replies(&self) -> impl Iterator<Item = (&str, u64, u64)> {
        let replies = self.remembered.iter().filter(|known| known.client_message_id.is_none());
        replies.map(|known| (&*known.id, known.at, known.visible_at))
    }

    /// Returns how many messages history has of the time before.
    pub(crate) fn remembered_before(&self, at: u64) -> usize {
        self.remembered.iter().filter(|known| known.at < at).count()
    }

    /// Returns a page of ten messages.
    pub(crate) fn history(&self, now: u64, after: Option<&str>) -> Result<HistoryPage, HistoryFailure> {
        let visible: Vec<&HistoryMessage> =
            self.remembered.iter().filter(|known| known.visible_at <= now).collect();
        let from = after.map(|after| visible.iter().position(|known| *known.id == *after));
        let newest = (&visible[visible.len().saturating_sub(10)..], visible.len() > 10);
        let (page, more) = match from {
            None => newest,
            Some(Some(at)) => (&visible[at + 1..visible.len().min(at + 11)], visible.len() > at + 11),
            // The answer to an unknown id is not documented.
            Some(None) => match now % 4 {
                0 => return Err(HistoryFailure::Temporary),
                1 => (&visible[..0], false),
                2 => (&visible[..visible.len().min(10)], visible.len() > 10),
                _ => newest,
            },
        };
        let records = page.iter().map(|known| HistoryRecord {
            id: Some(known.id.clone()),
            from_user: known.client_message_id.is_some(),
            user_msg_id: known.client_message_id.filter(|_| !self.odd.unnumbered),
            text: match known.client_message_id {
                Some(_) => "Where is my order?",
                None => self.whole_text(&known.id).unwrap_or("text"),
            }
            .into(),
            choices: Box::default(),
            media: Box::default(),
            is_blank: false,
            agent: false,
            created_on: Some(Timestamp::from_millis(self.on_clock(known.at))),
            session_id: None,
            event: event(),
        });
        Ok(HistoryPage { records: records.collect(), more })
    }
}
