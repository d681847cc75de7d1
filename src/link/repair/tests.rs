use super::*;

const SETTLE: Duration = Duration::from_secs(3);

fn at(ms: u64) -> Timestamp {
    Timestamp::from_millis(1_000_000 + ms)
}

fn lost() -> Repair {
    Repair::new(Cause::Lost, Some("ms-0".into()), &RecentReplies::default(), None, false)
}

/// A read is due, and this is where it begins.
fn begins(repair: &mut Repair, now: Timestamp) -> Option<Box<str>> {
    assert_eq!(repair.step(now, true), Step::Read);
    repair.read_after()
}

/// A page that shows where it begins, and is the last one.
fn page(repair: &mut Repair, now: Timestamp, urgent: bool) {
    assert!(repair.on_answer());
    repair.on_reach(true, false, false);
    repair.on_page(None, false, urgent, now, SETTLE);
}

fn empty(repair: &mut Repair, now: Timestamp) -> bool {
    assert!(repair.on_answer());
    let short = repair.on_reach(false, true, false) == Trust::Short;
    repair.on_page(None, false, false, now, SETTLE);
    short
}

fn failed(repair: &mut Repair, now: Timestamp, urgent: bool) {
    assert!(repair.on_answer());
    repair.on_failure(false, urgent, now, SETTLE);
}

#[test]
fn a_turn_has_it_read_at_the_start_in_the_middle_and_at_the_end() {
    let mut repair = lost();
    assert_eq!(repair.step(at(0), true), Step::Wait, "no link yet");
    repair.on_connected(at(0));
    begins(&mut repair, at(0));
    assert_eq!(repair.step(at(1), true), Step::Wait, "one read at a time");
    page(&mut repair, at(10), true);
    assert_eq!(repair.step(at(1499), true), Step::Wait);
    begins(&mut repair, at(1500));
    failed(&mut repair, at(1600), true);
    assert_eq!(repair.wake_at(), Some(at(3000)));
    begins(&mut repair, at(3000));
    assert!(!repair.is_settled());
    page(&mut repair, at(3001), true);
    assert!(repair.is_settled());
    assert_eq!(repair.step(at(3001), true), Step::Over(None));
}

#[test]
fn an_idle_conversation_has_it_read_twice() {
    for settle in [SETTLE, Duration::ZERO] {
        let mut repair = lost();
        repair.on_connected(at(0));
        for now in [at(0), at(0) + settle] {
            assert_eq!(begins(&mut repair, now).as_deref(), Some("ms-0"));
            assert!(repair.on_answer());
            repair.on_reach(true, false, false);
            repair.on_page(None, false, false, now, settle);
        }
        assert_eq!(repair.step(at(0) + settle, true), Step::Over(None));
    }
}

/// The answer to the read that is due: whether something known stands on it, and whether anything does.
fn answer(repair: &mut Repair, knows_before: bool, is_empty: bool) -> Trust {
    assert!(repair.on_answer());
    let trust = repair.on_reach(knows_before, is_empty, false);
    repair.on_page(None, false, false, at(3000), SETTLE);
    trust
}

#[test]
fn an_empty_answer_is_made_sure_of_by_the_newest_page() {
    let mut repair = lost();
    repair.on_connected(at(0));
    assert_eq!(begins(&mut repair, at(0)).as_deref(), Some("ms-0"));
    answer(&mut repair, false, true);
    assert_eq!(begins(&mut repair, at(3000)), None);
    assert_eq!(answer(&mut repair, true, false), Trust::All);
    assert_eq!(repair.step(at(3000), true), Step::Over(None));
}

#[test]
fn much_that_was_said_since_is_no_sign_of_a_short_history() {
    let mut repair = lost();
    repair.on_connected(at(0));
    begins(&mut repair, at(0));
    answer(&mut repair, false, true);
    assert_eq!(begins(&mut repair, at(3000)), None);
    assert_eq!(answer(&mut repair, false, false), Trust::None);
    assert_eq!(begins(&mut repair, at(3000)).as_deref(), Some("ms-0"));
    assert_eq!(answer(&mut repair, false, false), Trust::All);
    assert_eq!(repair.step(at(3000), true), Step::Over(None));
}

#[test]
fn a_short_history_is_told_once_and_its_newest_page_taken() {
    let mut repair = lost();
    repair.on_connected(at(0));
    begins(&mut repair, at(0));
    answer(&mut repair, false, true);
    for (after, trust) in [(None, Trust::None), (Some("ms-0"), Trust::None), (None, Trust::Short)] {
        assert_eq!(begins(&mut repair, at(3000)).as_deref(), after);
        assert_eq!(answer(&mut repair, false, after.is_some()), trust);
    }
    assert_eq!(repair.step(at(3000), true), Step::Over(None));
}

#[test]
fn a_page_that_begins_elsewhere_is_not_trusted() {
    let mut repair = lost();
    repair.on_connected(at(0));
    begins(&mut repair, at(0));
    page(&mut repair, at(1), false);
    begins(&mut repair, at(3000));
    assert!(repair.on_answer());
    assert_eq!(repair.on_reach(false, false, true), Trust::None);
    repair.on_page(None, false, false, at(3000), SETTLE);
    assert_eq!(begins(&mut repair, at(3000)), None, "the newest page tells");
}

#[test]
fn it_is_made_sure_of_too_where_the_first_read_failed() {
    let mut repair = lost();
    repair.on_connected(at(0));
    begins(&mut repair, at(0));
    failed(&mut repair, at(1), false);
    assert_eq!(begins(&mut repair, at(3000)).as_deref(), Some("ms-0"));
    assert!(!empty(&mut repair, at(3001)));
    assert_eq!(begins(&mut repair, at(3001)), None);
    assert!(empty(&mut repair, at(3002)), "history holds nothing at all");
    assert_eq!(repair.step(at(3002), true), Step::Over(None));
}

#[test]
fn what_cannot_be_read_is_read_later_and_then_given_up() {
    let mut repair = lost();
    repair.on_connected(at(0));
    let mut now = at(0);
    for wait in [3000, 15_000, 60_000] {
        begins(&mut repair, now);
        failed(&mut repair, now, false);
        now = now + Duration::from_millis(wait);
        assert_eq!(repair.wake_at(), Some(now));
    }
    assert!(repair.is_settled() && repair.is_last());
    begins(&mut repair, now);
    failed(&mut repair, now, false);
    assert_eq!(repair.step(now, true), Step::Over(Some(GapReason::HistoryUnreadable)));
}

#[test]
fn what_cannot_be_joined_yet_is_read_later() {
    let mut repair = lost();
    repair.on_connected(at(0));
    begins(&mut repair, at(0));
    page(&mut repair, at(0), false);
    begins(&mut repair, at(3000));
    assert!(repair.on_answer());
    repair.on_page(None, true, false, at(3000), SETTLE);
    assert!(repair.is_settled() && !repair.is_last());
    begins(&mut repair, at(18_000));
    page(&mut repair, at(18_000), false);
    assert_eq!(repair.step(at(18_000), true), Step::Over(None));
}

#[test]
fn pages_follow_each_other_and_reads_begin_at_the_gap() {
    let mut repair = lost();
    repair.on_connected(at(0));
    assert_eq!(begins(&mut repair, at(0)).as_deref(), Some("ms-0"));
    assert!(repair.on_answer());
    repair.on_reach(false, false, false);
    repair.on_page(Some("ms-10".into()), false, false, at(1), SETTLE);
    assert_eq!(begins(&mut repair, at(1)).as_deref(), Some("ms-10"));
    page(&mut repair, at(2), false);
    assert_eq!(begins(&mut repair, at(3000)).as_deref(), Some("ms-0"));
}

#[test]
fn pages_do_not_go_on_for_ever() {
    let mut repair = lost();
    repair.on_connected(at(0));
    let mut n = 0;
    for read in 0..2 {
        for _ in 0..MAX_PAGES {
            begins(&mut repair, at(read * 3000));
            assert!(repair.on_answer());
            repair.on_reach(false, false, false);
            n += 10;
            repair.on_page(Some(format!("ms-{n}").into()), false, false, at(read * 3000), SETTLE);
        }
        assert_eq!(repair.after.as_deref(), Some(&*format!("ms-{n}")), "the next read goes on there");
    }
    assert_eq!(repair.step(at(3000), true), Step::Over(Some(GapReason::HistoryTooShort)));
}

#[test]
fn without_history_a_loss_is_told_and_nothing_else() {
    for (cause, missing) in [(Cause::Lost, Some(GapReason::HistoryUnreadable)), (Cause::Away, None)] {
        let mut repair = Repair::new(cause, Some("ms-0".into()), &RecentReplies::default(), None, false);
        assert_eq!(repair.step(at(0), false), Step::Wait);
        repair.on_connected(at(0));
        assert_eq!(repair.step(at(0), false), Step::Over(missing));
    }
}

#[test]
fn an_answer_of_an_earlier_loss_says_nothing_by_what_it_lacks() {
    let mut repair = lost();
    repair.on_connected(at(0));
    begins(&mut repair, at(0));
    repair.on_gone(Cause::Lost);
    repair.on_connected(at(10));
    assert_eq!(repair.step(at(10), true), Step::Wait, "one read at a time");
    assert_eq!(repair.wake_at(), None);
    assert!(!repair.on_answer());
    begins(&mut repair, at(20));
    assert!(repair.on_answer());
    repair.on_failure(true, false, at(20), SETTLE);
    assert_eq!(repair.step(at(20), true), Step::Over(Some(GapReason::HistoryUnreadable)));
}

#[test]
fn a_look_for_a_stuck_turn_is_one_read_that_proves_nothing_lost() {
    let mut probe = Repair::probe(Some("ms-0".into()), &RecentReplies::default(), None, false, at(0));
    begins(&mut probe, at(0));
    assert!(!empty(&mut probe, at(1)));
    assert_eq!(probe.step(at(1), true), Step::Over(None));
    let mut probe = Repair::probe(Some("ms-0".into()), &RecentReplies::default(), None, false, at(0));
    probe.on_gone(Cause::Lost);
    probe.on_connected(at(5));
    begins(&mut probe, at(5));
    page(&mut probe, at(6), true);
    assert_eq!(probe.step(at(6), true), Step::Wait, "it is a loss now");
}

#[test]
fn a_new_owner_begins_where_the_newest_replies_still_tell_what_is_known() {
    let mut recent: RecentReplies = ["a", "ms-0"].into_iter().map(Fingerprint::of).collect();
    let mut repair = Repair::new(Cause::Lost, Some("ms-0".into()), &recent, None, false);
    assert!(repair.is_before("a") && repair.is_before("ms-0") && !repair.is_before("ms-1"));
    let mut record = "ms-0".to_owned();
    for n in 1..1000 {
        let id = format!("ms-{n}");
        recent.push(Fingerprint::of(&id), true);
        if !repair.stays(&id, Some(at(n))) {
            record = id;
        }
        let kept = recent.iter().position(|reply| reply == Fingerprint::of(&record));
        assert!(kept.is_some(), "{record} at {n}");
    }
    assert_eq!(repair.into_newest().map(|(_, id)| id).as_deref(), Some("ms-999"));
    let next = Repair::new(Cause::Away, Some(record.into()), &recent, None, false);
    assert!(!next.is_before("ms-999"), "what came since the record's message is not before the gap");
}

#[test]
fn an_empty_answer_after_a_full_one_is_doubted() {
    let mut repair = lost();
    repair.on_connected(at(0));
    begins(&mut repair, at(0));
    page(&mut repair, at(0), false);
    begins(&mut repair, at(3000));
    assert!(!empty(&mut repair, at(3000)));
    assert_eq!(begins(&mut repair, at(3000)), None, "the newest page");
    page(&mut repair, at(3001), true);
    assert_eq!(repair.step(at(3001), true), Step::Over(None));
}

#[test]
fn what_is_said_since_the_link_is_there_does_not_move_the_place() {
    let mut repair = lost();
    assert!(!repair.is_settled_before(Some(at(0))), "no read is of any use yet");
    repair.on_connected(at(10));
    assert!(repair.is_settled_before(Some(at(9))) && repair.is_settled_before(None));
    assert!(!repair.is_settled_before(Some(at(10))));
    let probe = Repair::probe(Some("ms-0".into()), &RecentReplies::default(), None, false, at(10));
    assert!(!probe.is_settled_before(Some(at(9))));
}

#[test]
fn a_gap_before_the_first_reply_goes_on_behind_that_one() {
    let mut repair = Repair::new(Cause::Lost, None, &RecentReplies::default(), None, false);
    repair.on_connected(at(0));
    assert!(!repair.stays("ms-1", Some(at(5))), "a new owner has a place now");
    assert!(repair.stays("ms-9", Some(at(9))), "and begins there");
    assert_eq!(begins(&mut repair, at(10)), None);
    assert!(repair.on_answer());
    assert!(!repair.on_newest_page(Some(at(5)), at(11)), "it reaches back");
    assert!(!repair.on_newest_page(None, at(11)), "it is all there is");
    assert!(repair.on_newest_page(Some(at(6)), at(11)));
    assert_eq!(begins(&mut repair, at(11)).as_deref(), Some("ms-1"));
}

#[test]
fn what_an_earlier_owner_took_is_not_too_old() {
    let recent: RecentReplies = ["ms-0", "ms-1"].into_iter().map(Fingerprint::of).collect();
    let repair = Repair::new(Cause::Away, Some("ms-0".into()), &recent, Some(at(100)), false);
    assert!(!repair.is_too_old(Some("ms-1"), Some(at(50))));
    assert!(repair.is_too_old(Some("ms-2"), Some(at(50))) && !repair.is_too_old(Some("ms-2"), Some(at(100))));
}
