//! Sentences about reads: pages of a journal, gaps, and the state of a conversation.

use std::time::Duration;

use rtm_bridge::domain::{
    ConnectionStatus, ConversationId, ConversationState, Cursor, EntryBody, JournalPage, LinkState,
    MessageStatus, Partition, ReadStart, SessionRequest,
};
use rtm_bridge::store::{ConversationWrite, Hint};

use super::store_fixture::{ME, MESSAGE_TTL, OTHER, Owner, StoreFixture, accept, conversation, id, new};

/// The epoch of the journals in these sentences.
const EPOCH: u64 = 7;
const DAY: Duration = Duration::from_hours(24);

fn places(page: &JournalPage) -> Vec<u64> {
    page.entries.iter().map(|told| told.entry.seq).collect()
}

fn at(epoch: u64, seq: u64) -> ReadStart {
    ReadStart::Cursor(Cursor { epoch, seq, at: None })
}

/// Returns the end of a page without the time of its entry.
fn next(page: &JournalPage) -> (u64, u64) {
    (page.next.epoch, page.next.seq)
}

async fn page(fixture: &StoreFixture, of: &ConversationId, after: ReadStart, limit: usize) -> JournalPage {
    fixture.store.page(of, after, limit, None).await.unwrap()
}

/// Returns the place of a reader that has read everything.
async fn end(fixture: &StoreFixture, of: &ConversationId) -> ReadStart {
    ReadStart::Cursor(page(fixture, of, ReadStart::Latest, 1).await.next)
}

/// Creates an owner whose journal has that many replies.
async fn with_replies<'a>(fixture: &'a StoreFixture, of: &ConversationId, replies: usize) -> Owner<'a> {
    let mut owner = fixture.own(of).await;
    owner.record.epoch = EPOCH;
    say(&mut owner, replies).await;
    owner
}

async fn say(owner: &mut Owner<'_>, replies: usize) {
    let at = owner.now().await;
    let replies = (0..replies).map(|_| owner.reply(at, None, "hello")).collect();
    owner.write(replies).await.unwrap();
}

pub(super) async fn journal_is_read_page_by_page(fixture: StoreFixture) {
    let alice = conversation("alice");
    let _owner = with_replies(&fixture, &alice, 5).await;
    for (after, limit, expected, more) in [
        (ReadStart::Oldest, 1000, 1..6, false),
        (ReadStart::Oldest, 5, 1..6, false),
        (ReadStart::Oldest, 4, 1..5, true),
        (ReadStart::Oldest, 0, 1..2, true),
        (ReadStart::Oldest, usize::MAX, 1..6, false),
        (at(EPOCH, 0), 2, 1..3, true),
        (at(EPOCH, 3), 1, 4..5, true),
        (at(EPOCH, 3), 2, 4..6, false),
        (at(EPOCH, 5), 2, 6..6, false),
    ] {
        let page = page(&fixture, &alice, after, limit).await;
        let end = (EPOCH, expected.end - 1);
        assert_eq!((places(&page), page.more, page.gap), (expected.collect(), more, false), "{after:?}");
        assert_eq!(next(&page), end, "{after:?}");
    }
    let (mut after, mut read) = (ReadStart::Oldest, Vec::new());
    loop {
        let page = page(&fixture, &alice, after, 2).await;
        read.extend(places(&page));
        after = ReadStart::Cursor(page.next);
        if !page.more {
            break;
        }
    }
    assert_eq!(read, [1, 2, 3, 4, 5]);
}

pub(super) async fn reader_begins_at_the_oldest_or_after_the_newest(fixture: StoreFixture) {
    let alice = conversation("alice");
    // A reader that began before the first entry reads all of it.
    for after in [ReadStart::Oldest, ReadStart::Latest] {
        assert_eq!(page(&fixture, &alice, after, 9).await.next, Cursor::default());
    }
    let mut owner = with_replies(&fixture, &alice, 3).await;
    let latest = page(&fixture, &alice, ReadStart::Latest, 9).await;
    assert_eq!((places(&latest), latest.more, latest.gap), (vec![], false, false));
    assert_eq!((next(&latest), latest.next.at.is_some()), ((EPOCH, 3), true));
    say(&mut owner, 1).await;
    for (after, expected) in
        [(at(0, 0), 1..5), (ReadStart::Oldest, 1..5), (ReadStart::Cursor(latest.next), 4..5)]
    {
        let page = page(&fixture, &alice, after, 9).await;
        assert_eq!((places(&page), page.gap), (expected.collect(), false), "{after:?}");
    }
}

pub(super) async fn empty_read_keeps_the_place(fixture: StoreFixture) {
    let (known, unknown) = (conversation("alice"), conversation("bob"));
    let mut owner = with_replies(&fixture, &known, 0).await;
    fixture.post(&known, 1).await;
    owner.write(Vec::new()).await.unwrap();
    for of in [&known, &unknown] {
        for seq in [0, 1, 9, u64::MAX] {
            for epoch in [0, EPOCH, u64::MAX] {
                let place = Cursor { epoch, seq, at: None };
                let page = page(&fixture, of, ReadStart::Cursor(place), 9).await;
                assert_eq!((places(&page), page.next, page.more, page.gap), (vec![], place, false, false));
            }
        }
    }
}

pub(super) async fn trimmed_entries_are_a_gap(fixture: StoreFixture) {
    let alice = conversation("alice");
    let _owner = with_replies(&fixture, &alice, 1003).await;
    for (after, first, gap) in [
        (at(0, 0), 4, true),
        (at(EPOCH, 0), 4, true),
        (at(EPOCH, 2), 4, true),
        (at(EPOCH, 3), 4, false),
        (at(EPOCH, 4), 5, false),
        (ReadStart::Oldest, 4, false),
    ] {
        let page = page(&fixture, &alice, after, 1).await;
        assert_eq!((places(&page), page.gap, page.more), (vec![first], gap, true), "{after:?}");
    }
}

pub(super) async fn journal_stays_while_a_message_is_open(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = with_replies(&fixture, &alice, 3).await;
    fixture.post(&alice, 1).await;
    fixture.pass(DAY).await;
    say(&mut owner, 1).await;
    let page = page(&fixture, &alice, at(EPOCH, 1), 9).await;
    assert_eq!((places(&page), page.gap), (vec![2, 3, 4], false));
}

pub(super) async fn lost_entries_are_a_gap_at_the_next_entry(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = with_replies(&fixture, &alice, 3).await;
    let journal = format!("{{{}}}:j:{alice}", Partition::of(&alice));
    if !fixture.tamper("DEL", &journal, &[]).await {
        return;
    }
    let latest = page(&fixture, &alice, ReadStart::Latest, 9).await.next;
    assert_eq!(latest, Cursor { epoch: EPOCH, seq: 3, at: None });
    for after in [at(EPOCH, 1), at(EPOCH, 3), at(0, 0)] {
        let page = page(&fixture, &alice, after, 9).await;
        assert_eq!((places(&page), page.gap, ReadStart::Cursor(page.next)), (vec![], false, after));
    }
    say(&mut owner, 1).await;
    for (after, gap) in [(at(EPOCH, 1), true), (at(EPOCH, 3), false), (at(0, 0), true)] {
        let page = page(&fixture, &alice, after, 9).await;
        assert_eq!((places(&page), page.gap), (vec![4], gap), "{after:?}");
    }
}

pub(super) async fn new_journal_is_a_gap(fixture: StoreFixture) {
    let alice = conversation("alice");
    let _owner = with_replies(&fixture, &alice, 3).await;
    fixture.pass(DAY).await;
    let old = [at(EPOCH, 1), at(EPOCH, 3)];
    for after in old {
        let page = page(&fixture, &alice, after, 9).await;
        assert_eq!((places(&page), page.gap, ReadStart::Cursor(page.next)), (vec![], false, after));
    }
    let mut owner = fixture.own(&alice).await;
    owner.record.epoch = EPOCH + 1;
    say(&mut owner, 5).await;
    for after in old {
        let page = page(&fixture, &alice, after, 2).await;
        assert_eq!((places(&page), page.gap, page.more), (vec![1, 2], true, true), "{after:?}");
        assert_eq!(next(&page), (EPOCH + 1, 2));
    }
}

pub(super) async fn lost_entries_are_a_gap(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = with_replies(&fixture, &alice, 3).await;
    let partition = Partition::of(&alice);
    for kind in ["c", "j"] {
        if !fixture.tamper("DEL", &format!("{{{partition}}}:{kind}:{alice}"), &[]).await {
            return;
        }
    }
    // Its owner still knows, and continues after the lost places.
    owner.take_up().await;
    say(&mut owner, 1).await;
    for (after, gap) in
        [(at(EPOCH, 1), true), (at(0, 0), true), (at(EPOCH, 3), false), (ReadStart::Oldest, false)]
    {
        let page = page(&fixture, &alice, after, 9).await;
        assert_eq!((places(&page), page.gap), (vec![4], gap), "{after:?}");
    }
}

pub(super) async fn replaced_entry_is_a_gap(fixture: StoreFixture) {
    let alice = conversation("alice");
    let _owner = with_replies(&fixture, &alice, 3).await;
    let read = page(&fixture, &alice, ReadStart::Oldest, 3).await.next;
    let latest = page(&fixture, &alice, ReadStart::Latest, 3).await.next;
    assert_eq!((read, read.at.is_some()), (latest, true));
    fixture.pass(Duration::from_secs(1)).await;
    // The store loses all of it, and no owner remembers.
    let partition = Partition::of(&alice);
    for kind in ["c", "j"] {
        if !fixture.tamper("DEL", &format!("{{{partition}}}:{kind}:{alice}"), &[]).await {
            return;
        }
    }
    let _next = with_replies(&fixture, &alice, 5).await;
    for (after, first, gap) in [(ReadStart::Cursor(read), 1, true), (at(EPOCH, 3), 4, false)] {
        let page = page(&fixture, &alice, after, 9).await;
        assert_eq!((places(&page), page.gap), ((first..6).collect(), gap), "{after:?}");
    }
}

pub(super) async fn foreign_places_are_a_gap(fixture: StoreFixture) {
    let alice = conversation("alice");
    let _owner = with_replies(&fixture, &alice, 3).await;
    for after in [
        at(EPOCH + 1, 2),
        at(EPOCH - 1, 3),
        at(EPOCH + 1, 0),
        at(0, 2),
        at(EPOCH, 4),
        at(EPOCH, u64::MAX),
        at(u64::MAX, u64::MAX),
    ] {
        let page = page(&fixture, &alice, after, 2).await;
        assert_eq!((places(&page), page.gap, page.more), (vec![1, 2], true, true), "{after:?}");
        assert_eq!(next(&page), (EPOCH, 2));
    }
}

pub(super) async fn hole_ends_a_page_and_is_a_gap_before_the_next(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = with_replies(&fixture, &alice, 2).await;
    owner.record.seq += 3;
    say(&mut owner, 2).await;
    for limit in [2, 3, 9] {
        let first = page(&fixture, &alice, ReadStart::Oldest, limit).await;
        assert_eq!((places(&first), first.more, first.gap), (vec![1, 2], true, false));
        let second = page(&fixture, &alice, ReadStart::Cursor(first.next), limit).await;
        assert_eq!((places(&second), second.more, second.gap), (vec![6, 7], false, true));
    }
    let inside = page(&fixture, &alice, at(EPOCH, 4), 9).await;
    assert_eq!((places(&inside), inside.gap), (vec![6, 7], true));
}

pub(super) async fn end_comes_with_its_current_message(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = with_replies(&fixture, &alice, 0).await;
    fixture.post(&alice, 1).await;
    let mut close = accept(&alice, 2);
    close.message.session = SessionRequest::Close;
    new(fixture.store.accept(close).await);
    let at = owner.now().await;
    let changes = vec![
        owner.reply(at, Some(id(1)), "in time"),
        owner.end(at, id(1)),
        owner.reply(at, Some(id(1)), "late"),
        owner.end(at, id(2)),
        owner.reply(at, None, "unsolicited"),
    ];
    owner.write(changes).await.unwrap();
    let page = page(&fixture, &alice, ReadStart::Oldest, 9).await;
    assert_eq!(places(&page), [1, 2, 3, 4, 5]);
    let told: Vec<_> = page.entries.iter().map(|told| told.message.as_ref()).collect();
    let [None, Some(first), None, Some(second), None] = &told[..] else { panic!("{told:?}") };
    for (number, told) in [(1, first), (2, second)] {
        let read = fixture.store.message(&alice, id(number), None).await.unwrap().unwrap();
        assert_eq!(format!("{told:?}"), format!("{read:?}"));
        assert_eq!(told.progress.status(), MessageStatus::Answered);
    }
    assert_eq!(first.progress.replies.len(), 2, "the late one joined it");
    assert_eq!(second.accepted.new.session, SessionRequest::Close);
    let EntryBody::Reply(reply) = &page.entries[4].entry.body else { panic!("{page:?}") };
    assert_eq!(&*reply.text, "unsolicited");
}

pub(super) async fn end_of_an_expired_message_comes_alone(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = with_replies(&fixture, &alice, 0).await;
    fixture.post(&alice, 1).await;
    owner.settle(id(1)).await;
    fixture.pass(MESSAGE_TTL).await;
    let page = page(&fixture, &alice, ReadStart::Oldest, 9).await;
    let [told] = &page.entries[..] else { panic!("{page:?}") };
    assert!(matches!(told.entry.body, EntryBody::Ended { message, .. } if message == id(1)));
    assert!(told.message.is_none());
}

pub(super) async fn page_is_bounded_in_bytes(fixture: StoreFixture) {
    let alice = conversation("alice");
    let mut owner = with_replies(&fixture, &alice, 0).await;
    // Replies of two mebibytes each come with the end of their message, even if the journal has dropped some.
    let text = "x".repeat(1 << 20);
    for number in 1..5 {
        fixture.post(&alice, number).await;
        let at = owner.now().await;
        let changes = vec![owner.reply(at, Some(id(number)), &text)];
        owner.write(changes).await.unwrap();
    }
    for number in 1..5 {
        owner.settle(id(number)).await;
    }
    let (mut after, mut pages, mut ends) = (ReadStart::Oldest, 0, Vec::new());
    loop {
        let page = page(&fixture, &alice, after, 1000).await;
        let told: Vec<_> = page.entries.iter().filter_map(|told| told.message.as_ref()).collect();
        assert!(!page.entries.is_empty() && told.len() <= 2, "{} ends", told.len());
        ends.extend(told.iter().map(|message| message.accepted.id));
        pages += 1;
        after = ReadStart::Cursor(page.next);
        if !page.more {
            break;
        }
    }
    assert_eq!(ends, [id(1), id(2), id(3), id(4)]);
    assert!(pages > 2, "{pages}");
    assert_eq!(end(&fixture, &alice).await, after);
}

pub(super) async fn state_reports_record_and_lane(fixture: StoreFixture) {
    let alice = conversation("alice");
    let state = async || fixture.store.state(&alice, ME, 1).await.unwrap();
    assert_eq!(state().await, (ConversationState::default(), None), "nobody knows it");
    let accepted = new(fixture.store.accept(accept(&alice, 1)).await);
    fixture.post(&alice, 2).await;
    let (queued, owner) = state().await;
    assert_eq!((queued.open_messages, queued.last_seq, owner), (2, 0, None));
    let since = queued.last_activity_at.unwrap();
    assert!(accepted.accepted_at <= since && since <= fixture.store.now().await.unwrap());
    let mut owner = fixture.own(&alice).await;
    fixture.pass(Duration::from_millis(500)).await;
    let now = owner.now().await;
    owner.record.session_id = Some("s-1".into());
    owner.record.blocked_until = Some(now + DAY);
    let changes = vec![owner.reply(now, Some(id(1)), "hello"), owner.end(now, id(1))];
    owner.record.number_write(now);
    let write = ConversationWrite { follows: 0, ..owner.last(changes) };
    fixture.store.write(owner.fence, &alice, &write).await.unwrap();
    let (told, by) = state().await;
    assert_eq!(by, Some(ME));
    assert_eq!((told.open_messages, told.last_seq, told.session_id.as_deref()), (1, 2, Some("s-1")));
    assert_eq!(told.last_activity_at, Some(now));
    assert_eq!(told.connection.state, LinkState::Blocked);
    assert_eq!(told.connection.retry_at, Some(now + DAY));
    assert!(told.connection.reason.is_some());
    fixture.pass(DAY).await;
    let (told, _) = state().await;
    assert_eq!((told.connection, told.open_messages), (ConnectionStatus::default(), 1));
    let posted = new(fixture.store.accept(accept(&alice, 3)).await).accepted_at;
    assert!(state().await.0.last_activity_at >= Some(posted));
    fixture.store.release(Partition::of(&alice), owner.fence).await.unwrap();
    assert_eq!(state().await.1, None, "nobody owns it");
}

pub(super) async fn state_hints_the_question_to_the_owner(fixture: StoreFixture) {
    let alice = conversation("alice / {p1}:c: / Zoë");
    let mut ear = fixture.listen(ME).await;
    fixture.store.state(&alice, OTHER, 1).await.unwrap();
    let _owner = fixture.own(&alice).await;
    for (by, number) in [(ME, 2), (OTHER, u64::MAX)] {
        assert_eq!(fixture.store.state(&alice, by, number).await.unwrap().1, Some(ME));
    }
    let asked = ear
        .until("it is asked", |hint| match hint {
            Hint::Asked { conversation, by, number } => Some((conversation.clone(), *by, *number)),
            _ => None,
        })
        .await;
    assert_eq!(asked, (alice, OTHER, u64::MAX), "neither before it owned it, nor by itself");
}
