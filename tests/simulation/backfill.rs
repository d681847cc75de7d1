//! The rules of the backfill: the reads of history, their results, and the gaps that are journaled.

use std::sync::Arc;

use rtm_bridge::domain::{
    ConversationRecord, Correlation, EntryBody, Fingerprint, GapReason, LastTurn, MessageId, ResendPolicy,
    Timestamp, TurnRules,
};
use rtm_bridge::link::{ConnectFailure, HistoryFailure, Input};
use rtm_bridge::rtm::{BotResponse, HistoryPage, HistoryRecord};
use rtm_bridge::store::{ConversationChange, ConversationSnapshot};

use super::bench::{Bench, incoming, ms, outgoing};
use super::support::{accepted, last_turn, plain, reply};

/// Returns the gaps of the journal, and its replies by their ids, in order.
fn journal(bench: &Bench) -> Vec<String> {
    let changes = bench.writes.iter().flat_map(|write| &write.changes);
    let entries = changes.filter_map(|change| match change {
        ConversationChange::Append(entry) => Some(&entry.body),
        _ => None,
    });
    let told = entries.filter_map(|body| match body {
        EntryBody::Reply(reply) => reply.message_id.as_deref().map(str::to_owned),
        EntryBody::Gap(gap) => Some(gap.as_str().to_owned()),
        _ => None,
    });
    told.collect()
}

fn gaps(bench: &Bench) -> Vec<String> {
    journal(bench).into_iter().filter(|told| GapReason::ALL.iter().any(|gap| gap.as_str() == told)).collect()
}

/// A reply that was said this long after the start of the bench.
fn said(bench: &Bench, id: &str, at: u64) -> HistoryRecord {
    let began = bench.now;
    HistoryRecord { created_on: Some(began + ms(at)), ..outgoing(id) }
}

/// A conversation of an earlier owner, with "ms-0" as its last reply.
fn known() -> ConversationSnapshot {
    let mut record = ConversationRecord {
        seq: 1,
        last_platform_message: Some("ms-0".into()),
        ..ConversationRecord::default()
    };
    record.recent.push(Fingerprint::of("ms-0"), false);
    ConversationSnapshot { record, ..ConversationSnapshot::default() }
}

/// A conversation whose idle link broke and is open again.
fn broken() -> Bench {
    let mut bench = Bench::connected();
    bench.idle(3);
    bench.writes.clear();
    bench
}

fn reads(bench: &Bench) -> Vec<Option<&str>> {
    bench.history_reads.iter().map(|(after, _)| after.as_deref()).collect()
}

#[test]
fn reply_without_a_listener_is_backfilled_after_the_reconnect() {
    let mut bench = broken();
    bench.lose(1006);
    bench.reconnect();
    bench.history(vec![outgoing("ms-1"), outgoing("ms-2")]);
    bench.pass(ms(3000));
    bench.history(vec![outgoing("ms-1"), outgoing("ms-2"), outgoing("ms-3")]);
    assert_eq!(journal(&bench), ["ms-1", "ms-2", "ms-3"]);
    let reply = bench.reply("ms-3");
    assert_eq!((reply.correlation, reply.in_reply_to, reply.late), (Correlation::History, None, false));
    bench.pass(ms(200_000));
    assert_eq!(reads(&bench), [Some("ms-first"); 2], "twice and no more");
}

#[test]
fn known_conversation_reads_history_at_its_first_connect() {
    let mut bench = Bench::opened(known(), |_| ());
    bench.post();
    bench.give(Input::Connected);
    assert_eq!(reads(&bench), [Some("ms-0")]);
    bench.history(vec![outgoing("ms-1")]);
    assert_eq!(journal(&bench), ["ms-1"]);
    let mut bench = Bench::new();
    bench.post();
    bench.give(Input::Connected);
    assert!(bench.history_reads.is_empty(), "nothing is known of this one");
}

#[test]
fn own_close_is_followed_by_a_backfill() {
    let mut bench = Bench::connected();
    bench.idle(16);
    assert_eq!(bench.closes, 1);
    bench.post();
    bench.give(Input::Connected);
    assert_eq!(reads(&bench), [Some("ms-first")]);
}

#[test]
fn history_pages_are_read_in_order() {
    let mut bench = broken();
    bench.lose(1006);
    bench.reconnect();
    let first: Vec<_> = (1..=10).map(|n| outgoing(&format!("ms-{n}"))).collect();
    bench.give(Input::History(Ok(HistoryPage { records: first, more: true })));
    bench.history(vec![outgoing("ms-11")]);
    let told: Vec<String> = (1..=11).map(|n| format!("ms-{n}")).collect();
    assert_eq!(journal(&bench), told);
    assert_eq!(reads(&bench), [Some("ms-first"), Some("ms-10")]);
}

#[test]
fn reply_from_socket_and_history_is_journaled_once() {
    let mut bench = broken();
    bench.lose(1006);
    bench.reconnect();
    bench.say("ms-2");
    bench.history(vec![outgoing("ms-1"), outgoing("ms-2"), outgoing("ms-3")]);
    bench.say("ms-3");
    bench.pass(ms(3000));
    bench.history(vec![outgoing("ms-1"), outgoing("ms-2"), outgoing("ms-3")]);
    assert_eq!(journal(&bench), ["ms-2", "ms-1", "ms-3"]);
}

#[test]
fn new_owner_continues_from_the_message_before_the_gap() {
    let mut bench = broken();
    bench.lose(1006);
    bench.reconnect();
    bench.say("ms-2");
    let record = bench.writes.last().unwrap().record.clone();
    assert_eq!(record.last_platform_message.as_deref(), Some("ms-first"));
    let mut next = Bench::opened(ConversationSnapshot { record, ..ConversationSnapshot::default() }, |_| ());
    let message = next.post();
    next.give(Input::Connected);
    next.history(vec![outgoing("ms-1"), outgoing("ms-2"), incoming(&message)]);
    assert_eq!(journal(&next), ["ms-1"]);
    next.pass(ms(3000));
    next.say("ms-3");
    for _ in 0..2 {
        next.history(vec![outgoing("ms-1"), outgoing("ms-2"), incoming(&message)]);
        next.pass(ms(100));
    }
    let record = &next.writes.last().unwrap().record;
    assert_eq!(record.last_platform_message.as_deref(), Some("ms-3"), "it is closed");
}

#[test]
fn backfilled_reply_after_the_last_end_is_late_by_its_time() {
    let mut bench = Bench::connected();
    let message = bench.completed.last().unwrap().accepted.id;
    bench.lose(1006);
    let (late, later) = (said(&bench, "ms-1", 1000), said(&bench, "ms-2", 61_000));
    bench.pass(ms(70_000));
    bench.give(Input::Connected);
    bench.history(vec![late, later]);
    let reply = bench.reply("ms-1");
    assert_eq!(
        (reply.correlation, reply.in_reply_to, reply.late),
        (Correlation::History, Some(message), true)
    );
    assert_eq!(bench.reply("ms-2").in_reply_to, None);
}

#[test]
fn backfilled_reply_behind_an_ended_message_is_late() {
    let mut bench = Bench::connected();
    let message = bench.post_until(Some(5000));
    bench.ack(&message);
    bench.lose(1006);
    bench.pass(ms(6000));
    assert_eq!(bench.end(), (0, "no-reply"));
    if bench.history_reads.is_empty() {
        bench.give(Input::Connected);
    }
    bench.history(vec![incoming(&message), outgoing("ms-1")]);
    let reply = bench.reply("ms-1");
    assert_eq!((reply.in_reply_to, reply.late), (Some(message.id), true));
}

#[test]
fn record_before_the_open_message_is_not_its_reply() {
    let mut bench = Bench::opened(known(), |bot| bot.welcome = ms(0));
    let message = bench.post();
    bench.give(Input::Connected);
    bench.ack(&message);
    bench.history(vec![outgoing("ms-1"), incoming(&message), outgoing("ms-2")]);
    assert_eq!(bench.reply("ms-1").in_reply_to, None);
    let reply = bench.reply("ms-2");
    assert_eq!((reply.in_reply_to, reply.correlation), (Some(message.id), Correlation::History));
}

#[test]
fn unclear_record_waits_until_the_message_shows() {
    let mut bench = Bench::opened(known(), |bot| bot.welcome = ms(0));
    let message = bench.post_until(Some(2000));
    bench.give(Input::Connected);
    bench.ack(&message);
    let found = said(&bench, "ms-1", 0);
    bench.history(vec![found.clone()]);
    assert!(journal(&bench).is_empty());
    bench.pass(ms(3000));
    assert_eq!(bench.end(), (0, "no-reply"));
    bench.history(vec![found]);
    assert_eq!(journal(&bench), ["ms-1"]);
}

#[test]
fn stuck_turn_is_probed_once_before_its_deadline() {
    let mut bench = Bench::connected();
    let message = bench.post();
    bench.ack(&message);
    bench.pass(ms(9999));
    assert!(bench.history_reads.is_empty());
    bench.pass(ms(1));
    assert_eq!(reads(&bench), [Some("ms-first")]);
    bench.history(vec![incoming(&message), outgoing("ms-1")]);
    bench.pass(ms(1000));
    assert_eq!(bench.end(), (1, "quiet"));
    assert_eq!(bench.reply("ms-1").correlation, Correlation::History);
}

#[test]
fn probe_without_a_result_changes_nothing() {
    let mut bench = Bench::connected();
    bench.post();
    bench.pass(ms(10_000));
    bench.history(Vec::new());
    bench.pass(ms(20_000));
    assert_eq!(bench.end(), (0, "no-ack"));
    assert_eq!((bench.history_reads.len(), gaps(&bench).len()), (2, 0), "the second one before its deadline");
}

#[test]
fn probe_that_finds_the_message_proves_receipt() {
    let mut bench = Bench::connected();
    let message = bench.post();
    bench.pass(ms(10_000));
    bench.history(vec![incoming(&message)]);
    bench.pass(ms(20_000));
    assert_eq!(bench.end(), (0, "no-reply"));
}

#[test]
fn turn_is_not_probed_if_probes_are_off() {
    for change in
        [(|bot| bot.stuck_after = None) as fn(&mut rtm_bridge::config::BotConfig), |bot| bot.history = false]
    {
        let mut bench = Bench::with(|bot| {
            bot.welcome = ms(0);
            change(bot);
        });
        bench.post();
        bench.give(Input::Connected);
        bench.pass(ms(30_000));
        assert!(bench.history_reads.is_empty());
        assert_eq!(bench.end().1, "no-ack");
    }
}

#[test]
fn unreadable_history_is_journaled_as_a_gap() {
    let mut bench = broken();
    bench.lose(1006);
    bench.reconnect();
    bench.history_fails();
    bench.say("ms-9");
    assert_eq!(journal(&bench), ["historyUnreadable", "ms-9"]);
    bench.idle(2);
    assert_eq!((gaps(&bench).len(), bench.history_reads.len()), (1, 1), "said once");
    bench.lose(1006);
    bench.reconnect();
    assert_eq!(bench.history_reads[1].0.as_deref(), Some("ms-9"), "the next gap begins later");
}

#[test]
fn history_that_fails_is_retried_before_a_gap_is_journaled() {
    let mut bench = broken();
    bench.lose(1006);
    bench.reconnect();
    let fails = || Input::History(Err(HistoryFailure::Temporary));
    bench.give(fails());
    for wait in [3000, 15_000] {
        bench.pass(ms(wait));
        bench.give(fails());
    }
    assert!(journal(&bench).is_empty());
    bench.idle(1);
    bench.pass(ms(1));
    assert_eq!(bench.history_reads.len(), 4);
    bench.give(fails());
    assert_eq!(journal(&bench), ["historyUnreadable"]);
}

#[test]
fn anchor_forgotten_by_history_is_journaled_as_a_gap_first() {
    let mut bench = broken();
    bench.lose(1006);
    bench.reconnect();
    bench.history(Vec::new());
    bench.pass(ms(3000));
    bench.history(vec![outgoing("ms-8"), outgoing("ms-9")]);
    bench.history(Vec::new());
    assert!(journal(&bench).is_empty());
    bench.history(vec![outgoing("ms-8"), outgoing("ms-9")]);
    assert_eq!(journal(&bench), ["historyTooShort", "ms-8", "ms-9"]);
    assert_eq!(reads(&bench), [Some("ms-first"), None, Some("ms-first"), None]);
}

#[test]
fn history_beyond_the_page_limit_is_journaled_as_a_gap() {
    let mut bench = broken();
    bench.lose(1006);
    bench.reconnect();
    let mut n = 0;
    for _ in 0..2 {
        for _ in 0..10 {
            n += 1;
            let records = vec![outgoing(&format!("ms-{n}"))];
            bench.give(Input::History(Ok(HistoryPage { records, more: true })));
        }
        bench.pass(ms(3000));
    }
    assert_eq!(bench.history_reads.len(), 20);
    assert_eq!(journal(&bench).last().map(String::as_str), Some("historyTooShort"));
    assert_eq!(journal(&bench).len(), 21);
}

#[test]
fn loss_without_history_is_a_gap_and_an_own_close_is_not() {
    let without = |bot: &mut rtm_bridge::config::BotConfig| {
        bot.history = false;
        bot.welcome = ms(0);
    };
    let mut bench = Bench::opened(known(), without);
    bench.post();
    bench.give(Input::Connected);
    bench.say("ms-1");
    bench.pass(ms(1000));
    bench.idle(16);
    assert_eq!(bench.closes, 1);
    bench.post();
    bench.give(Input::Connected);
    bench.say("ms-2");
    bench.pass(ms(1000));
    assert!(gaps(&bench).is_empty());
    bench.lose(1006);
    assert!(gaps(&bench).is_empty(), "it is said when the link is there again");
    bench.reconnect();
    bench.say("ms-3");
    assert_eq!(journal(&bench), ["ms-1", "ms-2", "historyUnreadable", "ms-3"]);
    assert!(bench.history_reads.is_empty());
}

#[test]
fn draining_machine_backfills_for_an_open_turn_only() {
    let mut bench = Bench::connected();
    let message = bench.post();
    bench.ack(&message);
    bench.lose(1006);
    bench.give(Input::Drain);
    bench.reconnect();
    assert_eq!(bench.history_reads.len(), 1, "its turn waits for this one");
    let mut bench = broken();
    bench.lose(1006);
    bench.reconnect();
    bench.history(Vec::new());
    bench.give(Input::Drain);
    bench.pass(ms(10_000));
    assert_eq!(bench.history_reads.len(), 1);
}

#[test]
fn history_pages_older_than_the_gap_are_ignored() {
    let mut bench = Bench::connected();
    bench.respond(BotResponse { created_on: Some(bench.now), ..reply("ms-now", "now") });
    let old = |bench: &Bench, id: &str| HistoryRecord {
        created_on: Some(Timestamp::from_millis(bench.now.as_millis() - 3_600_000)),
        ..outgoing(id)
    };
    bench.writes.clear();
    bench.lose(1006);
    bench.reconnect();
    let page = vec![old(&bench, "ms-old-1"), old(&bench, "ms-old-2")];
    bench.history(page.clone());
    assert!(journal(&bench).is_empty());
    bench.pass(ms(3000));
    assert_eq!(reads(&bench), [Some("ms-now"), None]);
    let now = said(&bench, "ms-now", 0);
    bench.history([page, vec![now, said(&bench, "ms-1", 1)]].concat());
    assert_eq!(journal(&bench), ["ms-1"]);
}

#[test]
fn reply_missed_by_an_earlier_owner_is_backfilled() {
    let mut open = known();
    let at = Timestamp::from_millis(1_763_844_000_000);
    // The earlier owner lost its link and reconnected minutes later. It was gone before history had answered.
    (open.record.said_at, open.record.connected_at) = (Some(at), Some(at + ms(600_000)));
    let mut bench = Bench::opened(open, |_| ());
    bench.post();
    bench.give(Input::Connected);
    let missed = HistoryRecord { created_on: Some(at + ms(60_000)), ..outgoing("ms-1") };
    bench.history(vec![missed]);
    assert_eq!(journal(&bench), ["ms-1"]);
}

#[test]
fn anchor_time_stays_until_the_gap_is_closed() {
    let mut bench = Bench::connected();
    let at = bench.now;
    let say = |bench: &mut Bench, id: &str, at| {
        let said = BotResponse { created_on: Some(at), ..reply(id, id) };
        bench.respond(said);
    };
    say(&mut bench, "ms-0", at);
    bench.lose(1006);
    bench.reconnect();
    let later = bench.now;
    say(&mut bench, "ms-2", later);
    let record = bench.writes.last().unwrap().record.clone();
    assert_eq!((record.last_platform_message.as_deref(), record.said_at), (Some("ms-0"), Some(at)));
    let said = |id: &str, at| HistoryRecord { created_on: Some(at), ..outgoing(id) };
    let page = vec![said("ms-1", at + ms(1)), said("ms-2", later)];
    bench.history(page.clone());
    bench.pass(ms(3000));
    bench.history(page);
    bench.pass(ms(100));
    let record = &bench.writes.last().unwrap().record;
    assert_eq!(record.last_platform_message.as_deref(), Some("ms-2"));
    assert_eq!(record.said_at, Some(later));
}

#[test]
fn turn_of_an_earlier_owner_takes_late_replies_by_time() {
    let mut open = known();
    let at = Timestamp::from_millis(1_763_844_999_000);
    let message = MessageId::new(at, 1);
    open.record.last_turn = Some(last_turn(message, at));
    let mut bench = Bench::opened(open, |_| ());
    bench.post();
    bench.give(Input::Connected);
    let record = HistoryRecord { created_on: Some(at + ms(500)), ..outgoing("ms-1") };
    bench.history(vec![record]);
    let reply: &Arc<_> = bench.replies.last().unwrap();
    assert_eq!((reply.in_reply_to, reply.late), (Some(message), true));
}

/// A user and a bot that talk without a pause, and the history of the platform.
struct BusyTalk {
    bench: Bench,
    history: Vec<HistoryRecord>,
    /// Whether history tells the numbers of the user's messages.
    numbered: bool,
    /// The number of answered reads.
    answered: usize,
    /// The number of reads that fail next.
    failures: usize,
}

impl BusyTalk {
    /// A conversation with one turn, whose link was lost and is open again. The bot spoke meanwhile.
    fn broken(numbered: bool) -> Self {
        let bench = Bench::with(|bot| bot.welcome = ms(0));
        let mut talk = Self { bench, history: Vec::new(), numbered, answered: 0, failures: 0 };
        talk.talk(1);
        talk.bench.lose(1006);
        for _ in 0..3 {
            talk.remember(outgoing);
        }
        talk.bench.reconnect();
        talk
    }

    fn remember(&mut self, record: impl FnOnce(&str) -> HistoryRecord) -> Box<str> {
        let id: Box<str> = format!("ms-{}", self.history.len()).into();
        self.history.push(HistoryRecord { created_on: Some(self.bench.now), ..record(&id) });
        id
    }

    fn say(&mut self) {
        let id = self.remember(outgoing);
        self.bench.respond(BotResponse { created_on: Some(self.bench.now), ..reply(&id, &id) });
    }

    /// Answers the open reads as the platform does.
    fn answer(&mut self) {
        while let Some((after, _)) = self.bench.history_reads.get(self.answered) {
            let from = match after {
                Some(_) => 1 + self.history.iter().position(|record| record.id == *after).unwrap(),
                None => self.history.len().saturating_sub(10),
            };
            self.answered += 1;
            let page = if self.failures > 0 {
                self.failures -= 1;
                Err(HistoryFailure::Temporary)
            } else {
                let records = self.history[from..].iter().take(10).cloned().collect();
                Ok(HistoryPage { records, more: self.history.len() > from + 10 })
            };
            self.bench.give(Input::History(page));
        }
    }

    /// Lets turns of two replies follow each other. Reads are answered during turns.
    fn talk(&mut self, turns: usize) {
        for _ in 0..turns {
            let message =
                self.bench.post_with(|new| new.rules = TurnRules::new(Some(2), None, None).unwrap());
            let user_msg_id = self.numbered.then_some(message.client_message_id);
            self.remember(|id| HistoryRecord { id: Some(id.into()), user_msg_id, ..incoming(&message) });
            self.bench.give(Input::Connected);
            self.answer();
            self.say();
            self.say();
            self.bench.pass(ms(150));
        }
    }

    /// Hands the conversation over to a new owner, which connects for the next turn.
    fn hand_off(&mut self) {
        let (now, next_position) = (self.bench.now, self.history.len() as u64);
        let open = ConversationSnapshot {
            record: self.bench.record(),
            next_position,
            ..ConversationSnapshot::default()
        };
        let writes = std::mem::take(&mut self.bench.writes);
        self.bench = Bench::opened(open, |bot| bot.welcome = ms(0));
        (self.bench.now, self.bench.writes, self.answered) = (now, writes, 0);
    }

    /// Fails unless the journal holds each reply once, and no gap.
    #[track_caller]
    fn is_whole(&self) {
        let mut journal = journal(&self.bench);
        let replies = self.history.iter().filter(|record| !record.from_user);
        let mut told: Vec<_> = replies.filter_map(|record| record.id.as_deref()).map(str::to_owned).collect();
        journal.sort();
        told.sort();
        assert_eq!(journal, told);
    }
}

#[test]
fn failed_reads_of_a_busy_conversation_leave_no_gap() {
    let mut talk = BusyTalk::broken(true);
    talk.failures = 2;
    // The retry comes 15 s after the read at 3 s.
    talk.talk(125);
    talk.is_whole();
    assert_eq!(talk.bench.history_reads.len(), 3, "no page behind the first message over the new link");
    talk.bench.lose(1006);
    talk.bench.reconnect();
    let last = talk.history.last().unwrap().id.clone();
    assert_eq!(talk.bench.history_reads[3].0, last, "the gap is closed");
}

#[test]
fn handoffs_of_a_busy_conversation_leave_no_gap() {
    for numbered in [true, false] {
        let mut talk = BusyTalk::broken(numbered);
        talk.answer();
        // The new owner begins where this one began, if it has not closed the gap.
        talk.talk(11);
        talk.hand_off();
        talk.talk(11);
        talk.hand_off();
        talk.talk(25);
        talk.is_whole();
        assert_eq!(talk.bench.history_reads.len(), if numbered { 14 } else { 20 }, "{numbered}");
        talk.bench.lose(1006);
        talk.bench.reconnect();
        let reads = reads(&talk.bench);
        assert_eq!(*reads.last().unwrap(), talk.history.last().unwrap().id.as_deref(), "the gap is closed");
    }
}

#[test]
fn resent_message_does_not_end_the_gap() {
    let mut bench = Bench::connected();
    let message = bench.post_with(|new| {
        new.resend = ResendPolicy::Auto;
        new.rules = TurnRules::new(None, None, Some(60_000)).unwrap();
    });
    bench.lose(1006);
    bench.reconnect();
    for wait in [1500, 1500, 15_000] {
        bench.give(Input::History(Err(HistoryFailure::Temporary)));
        bench.pass(ms(wait));
    }
    assert_eq!(bench.sends.len(), 2);
    let page = HistoryPage { records: vec![incoming(&message), outgoing("ms-1")], more: true };
    bench.give(Input::History(Ok(page)));
    assert_eq!(reads(&bench).last(), Some(&Some("ms-1")), "the first copy came before the loss");
}

#[test]
fn reply_after_the_deadline_of_the_first_turn_is_backfilled() {
    for fails in [false, true] {
        let mut bench = Bench::with(|bot| bot.welcome = ms(0));
        let message = bench.post_until(Some(2000));
        bench.give(Input::Connected);
        bench.ack(&message);
        bench.pass(ms(1500));
        bench.history(Vec::new());
        bench.pass(ms(500));
        assert_eq!(bench.end(), (0, "no-reply"));
        bench.lose(1006);
        bench.reconnect();
        if fails {
            bench.history_fails();
            assert_eq!(journal(&bench), ["historyUnreadable"]);
            continue;
        }
        let page = vec![incoming(&message), outgoing("ms-1")];
        bench.history(page.clone());
        assert_eq!((bench.reply("ms-1").in_reply_to, bench.reply("ms-1").late), (Some(message.id), true));
        bench.pass(ms(3000));
        bench.history([page, vec![said(&bench, "ms-2", 0)]].concat());
        assert_eq!(journal(&bench), ["ms-1", "ms-2"]);
    }
}

#[test]
fn reply_of_the_first_turn_is_backfilled_by_a_new_owner() {
    let bench = Bench::new();
    let message = accepted(0, bench.now, plain());
    let record = ConversationRecord {
        last_turn: Some(LastTurn::of(&message, bench.now)),
        connected_at: Some(bench.now),
        ..ConversationRecord::default()
    };
    let open = ConversationSnapshot { record, next_position: 1, ..ConversationSnapshot::default() };
    let mut bench = Bench::opened(open, |_| ());
    bench.give(Input::Connected);
    bench.history(vec![incoming(&message), outgoing("ms-1")]);
    assert_eq!((bench.reply("ms-1").in_reply_to, bench.reply("ms-1").late), (Some(message.id), true));
}

#[test]
fn history_is_read_before_the_deadline_without_a_link() {
    let mut bench = Bench::connected();
    let message = bench.post_until(Some(8000));
    bench.ack(&message);
    bench.lose(1006);
    while bench.now < message.accepted_at + ms(7900) {
        bench.pass(ms(100));
        bench.give(Input::ConnectFailed(ConnectFailure::Unavailable {
            words: "refused".into(),
            retry_after: None,
        }));
        if let Some((after, _)) = bench.history_reads.first() {
            assert_eq!(after.as_deref(), Some("ms-first"));
            bench.history(vec![incoming(&message), outgoing("ms-1")]);
            break;
        }
    }
    bench.pass(ms(2100));
    assert_eq!(bench.end(), (1, "deadline"));
}

#[test]
fn silent_turn_looks_into_history_before_its_deadline() {
    let mut bench = Bench::connected();
    let message = bench.post_until(Some(6000));
    bench.ack(&message);
    bench.pass(ms(5900));
    assert_eq!(reads(&bench), [Some("ms-first")], "the bot may have spoken to a dead socket");
    bench.history(vec![incoming(&message), outgoing("ms-1")]);
    bench.pass(ms(1000));
    assert_eq!(bench.end().0, 1);
}
