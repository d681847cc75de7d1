use super::read_pages::{MAX_NEW_PAGES, MAX_PAGES};
use super::*;

const SETTLE: Duration = Duration::from_secs(3);

fn at(ms: u64) -> Timestamp {
    Timestamp::from_millis(1_000_000 + ms)
}

fn after_loss() -> Backfill {
    Backfill::new(GapCause::Lost, Some("ms-0".into()), &RecentReplies::default(), None, &[])
}

fn stuck_probe(now: Timestamp) -> Backfill {
    let mut probe = Backfill::new(GapCause::Stuck, Some("ms-0".into()), &RecentReplies::default(), None, &[]);
    probe.on_connected(now);
    probe
}

/// Starts the read that is due and returns where it begins.
fn read(backfill: &mut Backfill, now: Timestamp) -> Option<Box<str>> {
    match backfill.step(now, true) {
        BackfillStep::Read(after) => after,
        step => panic!("{step:?}"),
    }
}

fn page_before(next: impl Into<Box<str>>) -> PageSummary {
    PageSummary { next: Some(next.into()), has_new: true, ..PageSummary::default() }
}

/// Answers with a last page that holds a known message.
fn answer_known(backfill: &mut Backfill, now: Timestamp, urgent: bool) {
    assert!(backfill.on_answer());
    backfill.on_reach(true, false, false, true);
    backfill.on_page(PageSummary::default(), urgent, now, SETTLE);
}

/// Answers with an empty page. Returns whether history proved too short.
fn answer_empty(backfill: &mut Backfill, now: Timestamp) -> bool {
    assert!(backfill.on_answer());
    let short = backfill.on_reach(false, true, false, true) == PageTrust::Short;
    backfill.on_page(PageSummary::default(), false, now, SETTLE);
    short
}

fn answer_failed(backfill: &mut Backfill, now: Timestamp, urgent: bool) {
    assert!(backfill.on_answer());
    backfill.on_failure(false, urgent, now, SETTLE);
}

#[test]
fn reads_for_a_turn_come_first_in_the_middle_and_last() {
    let mut backfill = after_loss();
    assert_eq!(backfill.step(at(0), true), BackfillStep::Wait, "no link yet");
    backfill.on_connected(at(0));
    read(&mut backfill, at(0));
    assert_eq!(backfill.step(at(1), true), BackfillStep::Wait, "one read at a time");
    answer_known(&mut backfill, at(10), true);
    assert_eq!(backfill.step(at(1499), true), BackfillStep::Wait);
    read(&mut backfill, at(1500));
    answer_failed(&mut backfill, at(1600), true);
    assert_eq!(backfill.wake_at(), Some(at(3000)));
    read(&mut backfill, at(3000));
    assert!(!backfill.is_settled());
    answer_known(&mut backfill, at(3001), true);
    assert!(backfill.is_settled());
    assert_eq!(backfill.step(at(3001), true), BackfillStep::Close(None));
}

#[test]
fn reads_for_an_idle_conversation_are_two() {
    for settle in [SETTLE, Duration::ZERO] {
        let mut backfill = after_loss();
        backfill.on_connected(at(0));
        for now in [at(0), at(0) + settle] {
            assert_eq!(read(&mut backfill, now).as_deref(), Some("ms-0"));
            assert!(backfill.on_answer());
            backfill.on_reach(true, false, false, true);
            backfill.on_page(PageSummary::default(), false, now, settle);
        }
        assert_eq!(backfill.step(at(0) + settle, true), BackfillStep::Close(None));
    }
}

/// Answers with a last page. `knows_before` says that it holds a known message.
fn answer(backfill: &mut Backfill, knows_before: bool, is_empty: bool) -> PageTrust {
    assert!(backfill.on_answer());
    let trust = backfill.on_reach(knows_before, is_empty, false, true);
    backfill.on_page(PageSummary::default(), false, at(3000), SETTLE);
    trust
}

#[test]
fn empty_page_is_checked_by_the_newest_page() {
    let mut backfill = after_loss();
    backfill.on_connected(at(0));
    assert_eq!(read(&mut backfill, at(0)).as_deref(), Some("ms-0"));
    answer(&mut backfill, false, true);
    assert_eq!(read(&mut backfill, at(3000)), None);
    assert_eq!(answer(&mut backfill, true, false), PageTrust::All);
    assert_eq!(backfill.step(at(3000), true), BackfillStep::Close(None));
}

#[test]
fn newest_page_full_of_new_replies_is_not_a_short_history() {
    let mut backfill = after_loss();
    backfill.on_connected(at(0));
    read(&mut backfill, at(0));
    answer(&mut backfill, false, true);
    assert_eq!(read(&mut backfill, at(3000)), None);
    assert_eq!(answer(&mut backfill, false, false), PageTrust::None);
    assert_eq!(read(&mut backfill, at(3000)).as_deref(), Some("ms-0"));
    assert_eq!(answer(&mut backfill, false, false), PageTrust::All);
    assert_eq!(backfill.step(at(3000), true), BackfillStep::Close(None));
}

#[test]
fn short_history_is_reported_once_and_its_newest_page_taken() {
    let mut backfill = after_loss();
    backfill.on_connected(at(0));
    read(&mut backfill, at(0));
    answer(&mut backfill, false, true);
    for (after, trust) in [(None, PageTrust::None), (Some("ms-0"), PageTrust::None), (None, PageTrust::Short)]
    {
        assert_eq!(read(&mut backfill, at(3000)).as_deref(), after);
        assert_eq!(answer(&mut backfill, false, after.is_some()), trust);
    }
    assert_eq!(backfill.step(at(3000), true), BackfillStep::Close(None));
}

#[test]
fn page_that_begins_elsewhere_is_not_trusted() {
    let mut backfill = after_loss();
    backfill.on_connected(at(0));
    read(&mut backfill, at(0));
    answer_known(&mut backfill, at(1), false);
    read(&mut backfill, at(3000));
    assert!(backfill.on_answer());
    assert_eq!(backfill.on_reach(false, false, true, true), PageTrust::None);
    backfill.on_page(PageSummary::default(), false, at(3000), SETTLE);
    assert_eq!(read(&mut backfill, at(3000)), None, "the newest page tells");
}

#[test]
fn empty_page_after_a_failed_read_is_checked_too() {
    let mut backfill = after_loss();
    backfill.on_connected(at(0));
    read(&mut backfill, at(0));
    answer_failed(&mut backfill, at(1), false);
    assert_eq!(read(&mut backfill, at(3000)).as_deref(), Some("ms-0"));
    assert!(!answer_empty(&mut backfill, at(3001)));
    assert_eq!(read(&mut backfill, at(3001)), None);
    assert!(answer_empty(&mut backfill, at(3002)), "history holds nothing at all");
    assert_eq!(backfill.step(at(3002), true), BackfillStep::Close(None));
}

#[test]
fn failed_reads_are_retried_and_then_given_up() {
    let mut backfill = after_loss();
    backfill.on_connected(at(0));
    let mut now = at(0);
    for wait in [3000, 15_000, 60_000] {
        read(&mut backfill, now);
        answer_failed(&mut backfill, now, false);
        now = now + Duration::from_millis(wait);
        assert_eq!(backfill.wake_at(), Some(now));
    }
    assert!(backfill.is_settled() && backfill.is_last());
    read(&mut backfill, now);
    answer_failed(&mut backfill, now, false);
    assert_eq!(backfill.step(now, true), BackfillStep::Close(Some(GapReason::HistoryUnreadable)));
}

#[test]
fn unclear_record_is_read_again_later() {
    let mut backfill = after_loss();
    backfill.on_connected(at(0));
    read(&mut backfill, at(0));
    answer_known(&mut backfill, at(0), false);
    read(&mut backfill, at(3000));
    assert!(backfill.on_answer());
    backfill.on_page(PageSummary { has_unclear: true, ..PageSummary::default() }, false, at(3000), SETTLE);
    assert!(backfill.is_settled() && !backfill.is_last());
    read(&mut backfill, at(18_000));
    answer_known(&mut backfill, at(18_000), false);
    assert_eq!(backfill.step(at(18_000), true), BackfillStep::Close(None));
}

#[test]
fn pages_follow_each_other_and_each_read_begins_at_the_gap() {
    let mut backfill = after_loss();
    backfill.on_connected(at(0));
    assert_eq!(read(&mut backfill, at(0)).as_deref(), Some("ms-0"));
    assert!(backfill.on_answer());
    backfill.on_reach(false, false, false, true);
    backfill.on_page(page_before("ms-10"), false, at(1), SETTLE);
    assert_eq!(read(&mut backfill, at(1)).as_deref(), Some("ms-10"));
    answer_known(&mut backfill, at(2), false);
    assert_eq!(read(&mut backfill, at(3000)).as_deref(), Some("ms-0"));
}

#[test]
fn read_with_too_many_pages_is_cut() {
    let mut backfill = after_loss();
    backfill.on_connected(at(0));
    let mut n = 0;
    for round in 0..2 {
        for _ in 0..MAX_NEW_PAGES {
            read(&mut backfill, at(round * 3000));
            assert!(backfill.on_answer());
            backfill.on_reach(false, false, false, true);
            n += 10;
            backfill.on_page(page_before(format!("ms-{n}")), false, at(round * 3000), SETTLE);
        }
        assert_eq!(backfill.start.after.as_deref(), Some(&*format!("ms-{n}")), "the next read goes on there");
    }
    assert_eq!(backfill.step(at(3000), true), BackfillStep::Close(Some(GapReason::HistoryTooShort)));
}

#[test]
fn pages_of_known_replies_count_less() {
    let mut backfill = after_loss();
    backfill.on_connected(at(0));
    for page in 1..=MAX_PAGES {
        read(&mut backfill, at(0));
        assert!(backfill.on_answer());
        backfill.on_reach(page == 1, false, false, true);
        let known = PageSummary { has_new: false, ..page_before(format!("ms-{page}")) };
        backfill.on_page(known, false, at(0), SETTLE);
        let ended = backfill.wake_at() == Some(at(3000));
        assert_eq!(ended, page == MAX_PAGES, "{page}");
    }
}

#[test]
fn first_message_over_the_current_link_ends_the_gap() {
    let mut backfill = after_loss();
    backfill.on_sent(1);
    backfill.on_connected(at(0));
    assert!(!backfill.ends_before(None) && !backfill.ends_before(Some(1)));
    backfill.on_sent(2);
    backfill.on_sent(3);
    assert!(backfill.ends_before(Some(2)) && !backfill.ends_before(Some(3)));
    backfill.on_gone(GapCause::Lost);
    backfill.on_connected(at(1));
    assert!(!backfill.ends_before(Some(2)), "replies were missed since");
}

#[test]
fn loss_without_history_is_reported_and_an_absence_is_not() {
    for (cause, missing) in [(GapCause::Lost, Some(GapReason::HistoryUnreadable)), (GapCause::Away, None)] {
        let mut backfill = Backfill::new(cause, Some("ms-0".into()), &RecentReplies::default(), None, &[]);
        assert_eq!(backfill.step(at(0), false), BackfillStep::Wait);
        backfill.on_connected(at(0));
        assert_eq!(backfill.step(at(0), false), BackfillStep::Close(missing));
    }
}

#[test]
fn answer_from_before_the_last_loss_does_not_count() {
    let mut backfill = after_loss();
    backfill.on_connected(at(0));
    read(&mut backfill, at(0));
    backfill.on_gone(GapCause::Lost);
    backfill.on_connected(at(10));
    assert_eq!(backfill.step(at(10), true), BackfillStep::Wait, "one read at a time");
    assert_eq!(backfill.wake_at(), None);
    assert!(!backfill.on_answer());
    read(&mut backfill, at(20));
    assert!(backfill.on_answer());
    backfill.on_failure(true, false, at(20), SETTLE);
    assert_eq!(backfill.step(at(20), true), BackfillStep::Close(Some(GapReason::HistoryUnreadable)));
}

#[test]
fn probe_of_a_stuck_turn_is_one_read_without_a_gap() {
    let mut probe = stuck_probe(at(0));
    read(&mut probe, at(0));
    assert!(!answer_empty(&mut probe, at(1)));
    assert_eq!(probe.step(at(1), true), BackfillStep::Close(None));
    let mut probe = stuck_probe(at(0));
    probe.on_gone(GapCause::Lost);
    probe.on_connected(at(5));
    read(&mut probe, at(5));
    answer_known(&mut probe, at(6), true);
    assert_eq!(probe.step(at(6), true), BackfillStep::Wait, "it is a loss now");
}

#[test]
fn record_moves_before_its_recent_replies_forget_the_anchor() {
    let mut recent: RecentReplies = ["a", "ms-0"].into_iter().map(Fingerprint::of).collect();
    let mut backfill = Backfill::new(GapCause::Lost, Some("ms-0".into()), &recent, None, &[]);
    assert!(
        backfill.start().is_before("a")
            && backfill.start().is_before("ms-0")
            && !backfill.start().is_before("ms-1")
    );
    let mut record = "ms-0".to_owned();
    for n in 1..1000 {
        let id = format!("ms-{n}");
        recent.push(Fingerprint::of(&id), true);
        if !backfill.on_live_reply(&id, Some(at(n))) {
            record = id;
        }
        let kept = recent.iter().position(|reply| reply == Fingerprint::of(&record));
        assert!(kept.is_some(), "{record} at {n}");
    }
    assert_eq!(backfill.into_newest().map(|(_, id)| id).as_deref(), Some("ms-999"));
    let next = Backfill::new(GapCause::Away, Some(record.into()), &recent, None, &[]);
    assert!(!next.start().is_before("ms-999"), "what came since the record's message is not before the gap");
}

#[test]
fn empty_page_after_a_full_one_is_checked() {
    let mut backfill = after_loss();
    backfill.on_connected(at(0));
    read(&mut backfill, at(0));
    answer_known(&mut backfill, at(0), false);
    read(&mut backfill, at(3000));
    assert!(!answer_empty(&mut backfill, at(3000)));
    assert_eq!(read(&mut backfill, at(3000)), None, "the newest page");
    answer_known(&mut backfill, at(3001), true);
    assert_eq!(backfill.step(at(3001), true), BackfillStep::Close(None));
}

#[test]
fn reply_over_the_current_link_is_not_settled() {
    let mut backfill = after_loss();
    assert!(!backfill.is_settled_before(Some(at(0))), "no read is of any use yet");
    backfill.on_connected(at(10));
    assert!(backfill.is_settled_before(Some(at(9))) && !backfill.is_settled_before(None));
    assert!(!backfill.is_settled_before(Some(at(10))));
    let probe = stuck_probe(at(10));
    assert!(!probe.is_settled_before(Some(at(9))));
}

#[test]
fn gap_without_a_start_continues_behind_the_first_reply() {
    let mut backfill = Backfill::new(GapCause::Lost, None, &RecentReplies::default(), None, &[]);
    backfill.on_connected(at(0));
    assert!(!backfill.on_live_reply("ms-1", Some(at(5))), "a new owner has a place now");
    assert!(backfill.on_live_reply("ms-9", Some(at(9))), "and begins there");
    assert_eq!(read(&mut backfill, at(10)), None);
    assert!(backfill.on_answer());
    assert_eq!(backfill.on_newest_page(Some(at(5)), at(11)), None, "it reaches back");
    assert_eq!(backfill.on_newest_page(None, at(11)), None, "it is all there is");
    assert_eq!(backfill.on_newest_page(Some(at(6)), at(11)), Some(true), "no page showed the start");
    assert_eq!(read(&mut backfill, at(11)).as_deref(), Some("ms-1"));
}

#[test]
fn reply_stored_by_an_earlier_owner_is_not_too_old() {
    let recent: RecentReplies = ["ms-0", "ms-1"].into_iter().map(Fingerprint::of).collect();
    let backfill = Backfill::new(GapCause::Away, Some("ms-0".into()), &recent, Some(at(100)), &[]);
    assert!(!backfill.start().is_too_old(Some("ms-1"), Some(at(50))));
    assert!(
        backfill.start().is_too_old(Some("ms-2"), Some(at(50)))
            && !backfill.start().is_too_old(Some("ms-2"), Some(at(100)))
    );
}

#[test]
fn late_answer_to_the_read_in_the_middle_is_not_the_last() {
    let mut backfill = after_loss();
    backfill.on_connected(at(0));
    read(&mut backfill, at(0));
    answer_known(&mut backfill, at(10), true);
    read(&mut backfill, at(1500));
    answer_known(&mut backfill, at(3500), true);
    assert_eq!(
        read(&mut backfill, at(3500)).as_deref(),
        Some("ms-0"),
        "a record may have shown up meanwhile"
    );
    answer_known(&mut backfill, at(3600), true);
    assert_eq!(backfill.step(at(3600), true), BackfillStep::Close(None));
}

/// Answers with a page that promises more, and then with an empty one. Returns whether history proved too short.
fn answer_broken_promise(backfill: &mut Backfill) -> bool {
    assert!(backfill.on_answer());
    backfill.on_reach(false, false, false, false);
    backfill.on_page(page_before("ms-10"), false, at(3000), SETTLE);
    assert_eq!(read(backfill, at(3000)).as_deref(), Some("ms-10"));
    answer_empty(backfill, at(3000))
}

#[test]
fn empty_page_behind_one_that_promised_more_is_checked_by_the_newest_page() {
    let mut backfill = after_loss();
    backfill.on_connected(at(0));
    read(&mut backfill, at(0));
    answer_known(&mut backfill, at(10), false);
    assert_eq!(read(&mut backfill, at(3000)).as_deref(), Some("ms-0"));
    assert!(!answer_broken_promise(&mut backfill));
    assert_eq!(read(&mut backfill, at(3000)), None, "the page may have been the newest one");
    assert_eq!(answer(&mut backfill, false, false), PageTrust::None);
    assert_eq!(read(&mut backfill, at(3000)).as_deref(), Some("ms-0"));
    assert!(answer_broken_promise(&mut backfill), "twice: history does not reach back");
}
