//! A shard without its loop: tests call the sweep and the lease check, and there is no membership thread.

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::task::LocalSet;
use tokio::time::Instant;
use url::Url;

use super::*;
use crate::config::Config;
use crate::domain::fixtures::{raw_json, sandbox_conversation};
use crate::domain::{Callback, LiveSignal, ReplyChunk, TurnOutcome};
use crate::hub::subscription::{Subscription, subscription};
use crate::hub::tests::{accept_by, metrics, quick, store as memory};
use crate::hub::threads::{open_shard, setups};
use crate::hub::waiters::Completion;
use crate::link::ConversationHost as _;
use crate::store::{AcceptResult, ClaimMode, DrainReason, Fence, Incarnation, OutboxEvent, QueueId};
use rtm_sandbox::{Sandbox, SandboxOptions};
use tokio::time::timeout;

const ME: Incarnation = Incarnation(1);
const GUARD: Duration = Duration::from_secs(5);

async fn local(test: impl Future<Output = ()>) {
    LocalSet::new().run_until(test).await;
}

/// Returns a shard that owns every partition. Its leases are valid for two thirds of `lease` from now.
async fn owner(platform: &str, lease: Duration) -> Rc<Shard> {
    owner_with_events(platform, lease, store::outbox_events().0).await
}

/// Returns the same shard, with a sender for its outbox events.
async fn owner_with_events(platform: &str, lease: Duration, events: store::OutboxEventSender) -> Rc<Shard> {
    let mut config = Config::dev(Url::parse(platform).unwrap());
    quick(&mut config, |_| ());
    let leases = Arc::new(LeaseTable::new(ME, lease, 1));
    let setup =
        setups(&config, &memory(), &metrics(), &leases, &events, &Arc::default()).unwrap().pop().unwrap();
    let shard = open_shard(setup).await.unwrap();
    for partition in Partition::all() {
        let claim = shard.setup.store.claim(partition, ME, lease, ClaimMode::Free).await.unwrap();
        leases.claimed(partition, claim.fence().unwrap(), Instant::now());
    }
    shard.sync_ownership();
    shard
}

/// Returns the next outbox event that reports no claim.
async fn next_event(events: &mut store::OutboxEventReceiver) -> OutboxEvent {
    loop {
        match timeout(GUARD, events.next()).await.expect("an event").expect("a sender") {
            OutboxEvent::Assigned(..) => {}
            other => return other,
        }
    }
}

/// Drains alice's partition, and returns the event for the webhook worker.
async fn releasing(
    shard: &Rc<Shard>,
    events: &mut store::OutboxEventReceiver,
    reason: DrainReason,
) -> (Fence, Instant, oneshot::Sender<()>) {
    let ours = Partition::of(&alice());
    shard.setup.leases.drain(ours, reason);
    shard.sync_ownership();
    let OutboxEvent::Revoking { partition, fence, by, done } = next_event(events).await else {
        panic!("a release")
    };
    assert_eq!((partition, Ownership::Draining(fence, reason)), (ours, shard.setup.leases.ownership(ours)));
    (fence, by, done)
}

/// Returns an accepted message, and the receiver of its end.
async fn post(shard: &Shard, number: u128) -> (Arc<AcceptedMessage>, oneshot::Receiver<Completion>) {
    let accept = accept_by(ME, number, "alice", "Hello");
    let (waiter, completion) = oneshot::channel();
    shard.waiters.borrow_mut().add(accept.message.conversation.clone(), accept.id, waiter);
    let AcceptResult::New(message) = shard.setup.store.accept(accept).await.unwrap() else {
        panic!("a new one")
    };
    (message, completion)
}

async fn answered(completion: oneshot::Receiver<Completion>) {
    let completion = timeout(GUARD, completion).await.expect("an end").unwrap();
    let Completion::Ended(message) = completion else { panic!("{completion:?}") };
    assert!(matches!(message.progress.outcome, Some(TurnOutcome::Answered(_))), "{message:?}");
}

#[tokio::test]
async fn shard_takes_commands_of_its_thread_until_it_stops() {
    local(async {
        let shard = owner("http://127.0.0.1:9", Duration::from_secs(30)).await;
        let leases = Arc::clone(&shard.setup.leases);
        let here = |index| Shard::local(&leases, index).is_some();
        assert!(!here(0), "its loop does not run yet");
        let (commands, inbox) = mpsc::channel(1);
        let stopping = async {
            tokio::task::yield_now().await;
            assert!(here(0) && !here(1), "only the shard of this thread");
            let others = Arc::new(LeaseTable::new(ME, Duration::from_secs(30), 1));
            assert!(Shard::local(&others, 0).is_none(), "it belongs to another hub");
            commands.send(ShardCommand::Stop).await.unwrap();
        };
        assert!(tokio::join!(Rc::clone(&shard).run(inbox), stopping).0);
        assert!(!here(0), "it has stopped");
    })
    .await;
}

#[tokio::test]
#[expect(clippy::await_holding_refcell_ref, reason = "it makes the shard panic")]
async fn shard_that_panics_closes_its_conversations() {
    local(async {
        let shard = owner("http://127.0.0.1:9", Duration::from_secs(30)).await;
        let (commands, inbox) = mpsc::channel(1);
        // The answer to a query needs what the test holds.
        let held = shard.queries.waiting.borrow_mut();
        let answer = Hint::Answered(0, Box::default());
        commands.send(ShardCommand::Hint(answer)).await.unwrap();
        assert!(!Rc::clone(&shard).run(inbox).await);
        drop(held);
        assert!(shard.stopping.get() && commands.is_closed());
        assert_eq!(shard.partition(Partition::of(&alice())).unwrap().ownership.get(), Ownership::None);
    })
    .await;
}

#[tokio::test]
async fn message_to_an_evicted_conversation_is_answered() {
    local(async {
        let sandbox = Sandbox::start(SandboxOptions::default()).await.unwrap();
        let shard = owner(&sandbox.url(), Duration::from_mins(1)).await;
        let (message, completion) = post(&shard, 1).await;
        let conversation = message.new.conversation.clone();
        shard.on_accepted(message);
        let mailbox = shard.partition(Partition::of(&conversation)).unwrap().mailbox(&conversation).unwrap();
        let taken_in = async {
            while mailbox.open() == 0 {
                tokio::task::yield_now().await;
            }
        };
        timeout(GUARD, taken_in).await.expect("the message is loaded");
        // The eviction of the idlest conversation may coincide with a new message.
        mailbox.post(Input::Drain);
        answered(completion).await;
        shard.stop().await;
        sandbox.stop().await;
    })
    .await;
}

#[tokio::test]
async fn waiter_gets_an_end_that_came_before_it() {
    local(async {
        let sandbox = Sandbox::start(SandboxOptions::default()).await.unwrap();
        let shard = owner(&sandbox.url(), Duration::from_mins(1)).await;
        let (message, completion) = post(&shard, 1).await;
        let (conversation, id) = (message.new.conversation.clone(), message.id);
        // The waiter is still in the queue.
        shard.waiters.borrow_mut().clear();
        drop(completion);
        shard.on_accepted(message);
        let ended = async {
            while !shard
                .setup
                .store
                .message(&conversation, id, None)
                .await
                .unwrap()
                .unwrap()
                .progress
                .has_ended()
            {
                tokio::task::yield_now().await;
            }
        };
        timeout(GUARD, ended).await.expect("an end");
        tokio::task::yield_now().await;
        let (waiter, completion) = oneshot::channel();
        shard.on_command(ShardCommand::Wait { conversation, id, waiter });
        shard.on_command(ShardCommand::Stored(id));
        answered(completion).await;
        shard.stop().await;
        sandbox.stop().await;
    })
    .await;
}

#[tokio::test]
async fn connect_ends_with_the_lease() {
    local(async {
        // This platform accepts connections and sends no byte.
        let platform = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", platform.local_addr().unwrap());
        let lease = Duration::from_secs(3);
        let shard = owner(&url, lease).await;
        let (message, _told) = post(&shard, 1).await;
        shard.on_accepted(message);
        let (mut connection, _) = timeout(GUARD, platform.accept()).await.expect("a connect").unwrap();
        let mut asked = [0; 1];
        timeout(GUARD, connection.read_exact(&mut asked)).await.expect("a request").unwrap();
        // The lease is not renewed, and the shard checks it regularly.
        let closed = async {
            let mut rest = Vec::new();
            connection.read_to_end(&mut rest).await.ok();
        };
        let checks = async {
            let mut lease_check = interval(lease / 12);
            loop {
                lease_check.tick().await;
                shard.sync_ownership();
            }
        };
        tokio::select! {
            closed = timeout(lease, closed) => closed.expect("the connect ends"),
            () = checks => {}
        }
        shard.stop().await;
    })
    .await;
}

#[tokio::test]
async fn oldest_open_message_is_reported_until_it_ends() {
    local(async {
        let sandbox = Sandbox::start(SandboxOptions::default()).await.unwrap();
        let shard = owner(&sandbox.url(), Duration::from_mins(1)).await;
        let part = Rc::clone(shard.partition(Partition::of(&alice())).unwrap());
        assert_eq!(part.oldest(), None);
        let (first, completion) = post(&shard, 1).await;
        let (second, second_completion) = post(&shard, 2).await;
        let accepted_at = [&first, &second].map(|message| message.accepted_at);
        let becomes = async |expected| {
            while part.oldest() != expected {
                tokio::task::yield_now().await;
            }
        };
        shard.on_accepted(first);
        shard.on_accepted(second);
        timeout(GUARD, becomes(Some(accepted_at[0]))).await.expect("the first message is the oldest");
        let shown = || {
            let text = shard.setup.metrics.text().unwrap();
            let value = text
                .lines()
                .find_map(|line| line.strip_prefix("rtm_bridge_oldest_open_message_age_seconds "));
            value.unwrap().parse::<f64>().unwrap()
        };
        let long_ago = Timestamp::from_millis(accepted_at[0].as_millis() - 5000);
        part.mailbox(&alice()).unwrap().set_open(2, Some(long_ago));
        shard.sweep();
        assert!((5.0..15.0).contains(&shown()), "{}", shown());
        answered(completion).await;
        answered(second_completion).await;
        timeout(GUARD, becomes(None)).await.expect("no message is open");
        shard.stop().await;
        assert!(shown() < f64::EPSILON, "a stopped shard has no open message");
        sandbox.stop().await;
    })
    .await;
}

/// A platform that refuses connections.
const NOWHERE: &str = "http://127.0.0.1:9";

fn alice() -> ConversationId {
    sandbox_conversation("alice")
}

/// Subscribes to alice's conversation at this shard.
async fn subscribe(shard: &Rc<Shard>) -> Subscription {
    let (publisher, subscription) = subscription();
    let (subscribed, confirmed) = oneshot::channel();
    shard.on_command(ShardCommand::Subscribe { conversation: alice(), publisher, subscribed });
    confirmed.await.expect("the shard accepts it");
    subscription
}

#[tokio::test]
async fn renewal_reaches_the_store_and_publishes_a_look() {
    local(async {
        let shard = owner(NOWHERE, Duration::from_mins(1)).await;
        let mut subscription = subscribe(&shard).await;
        // Another replica owns the conversation from now on.
        let (store, other) = (shard.setup.store.clone(), Incarnation(2));
        let partition = Partition::of(&alice());
        let fence = shard.setup.leases.ownership(partition).fence().unwrap();
        store.release(partition, fence).await.unwrap();
        store.claim(partition, other, Duration::from_mins(1), ClaimMode::Free).await.unwrap();
        let mut hints = store.listen(other);
        for _ in 0..20 {
            shard.maintain_subscriptions();
        }
        let look = timeout(GUARD, subscription.next()).await.expect("a look at each renewal");
        assert!(matches!(look, Some(LiveSignal::Look)));
        let renewed = async {
            loop {
                if let Hint::Observed(conversation, by) = hints.next().await {
                    return (conversation, by);
                }
            }
        };
        assert_eq!(timeout(GUARD, renewed).await.expect("the interest is renewed"), (alice(), ME));
        shard.stop().await;
    })
    .await;
}

#[tokio::test]
async fn resync_publishes_one_look() {
    local(async {
        let shard = owner(NOWHERE, Duration::from_mins(1)).await;
        let mut subscription = subscribe(&shard).await;
        let looks = &shard.setup.metrics.subscribers.wakeups;
        shard.setup.leases.request_resync();
        let before = looks.get();
        shard.maintain_subscriptions();
        assert!(matches!(timeout(GUARD, subscription.next()).await, Ok(Some(LiveSignal::Look))));
        let after = looks.get();
        assert_eq!(after, before + 1);
        shard.maintain_subscriptions();
        assert_eq!(looks.get(), after);
        shard.stop().await;
        assert!(subscription.next().await.is_none(), "a stopped shard closes its subscriptions");
        assert_eq!(shard.setup.metrics.subscribers.count.get(), 0);
    })
    .await;
}

#[tokio::test]
async fn lost_partition_publishes_a_look() {
    local(async {
        let shard = owner(NOWHERE, Duration::from_mins(1)).await;
        let mut subscription = subscribe(&shard).await;
        shard.setup.leases.remove(Partition::of(&alice()));
        shard.sync_ownership();
        assert!(matches!(timeout(GUARD, subscription.next()).await, Ok(Some(LiveSignal::Look))));
        shard.stop().await;
    })
    .await;
}

#[tokio::test]
async fn chunks_go_to_replicas_with_subscribers_only() {
    local(async {
        let shard = owner(NOWHERE, Duration::from_mins(1)).await;
        let chunk =
            |index| Arc::new(ReplyChunk { message_id: None, index, text: "chunk".into(), last: false });
        let mut hints = shard.setup.store.listen(Incarnation(2));
        shard.chunk(&alice(), chunk(0));
        shard.on_command(ShardCommand::Hint(Hint::Observed(alice(), Incarnation(2))));
        let mut subscription = subscribe(&shard).await;
        for index in 1..50 {
            shard.chunk(&alice(), chunk(index));
        }
        let chunks = async {
            let mut chunks = Vec::new();
            while chunks.len() < 49 {
                if let Hint::Chunk(conversation, chunk) = hints.next().await {
                    assert_eq!(conversation, alice());
                    chunks.push(chunk.index);
                }
            }
            chunks
        };
        let chunks = timeout(GUARD, chunks).await.expect("every chunk");
        assert!(chunks.iter().copied().eq(1..50), "{chunks:?}");
        for index in 1..50 {
            let Some(LiveSignal::Chunk(chunk)) = subscription.next().await else { panic!("a chunk") };
            assert_eq!(chunk.index, index);
        }
        assert_eq!(shard.setup.metrics.subscribers.chunks.get(), 49);
        let frame = Arc::from(raw_json(r#"{"type":"events"}"#));
        shard.platform(&alice(), &frame);
        let told = async {
            loop {
                if let Hint::Platform(conversation, frame) = hints.next().await {
                    return (conversation, frame.get().to_owned());
                }
            }
        };
        let told = timeout(GUARD, told).await.expect("a frame");
        assert_eq!(told, (alice(), frame.get().to_owned()));
        let live = async {
            // A look may come at any time.
            while !matches!(subscription.next().await, Some(LiveSignal::Platform(_))) {}
        };
        timeout(GUARD, live).await.expect("the local subscriber gets it too");
        shard.stop().await;
    })
    .await;
}

#[tokio::test]
async fn late_hint_at_an_erased_message_has_no_effect() {
    local(async {
        let shard = owner(NOWHERE, Duration::from_mins(1)).await;
        let (message, completion) = post(&shard, 1).await;
        let fence = shard.setup.leases.ownership(Partition::of(&alice())).fence().unwrap();
        let erased = shard.setup.store.erase(fence, &alice()).await.unwrap();
        shard.erased(&alice(), &erased);
        assert!(matches!(timeout(GUARD, completion).await, Ok(Ok(Completion::Erased))));
        shard.on_accepted(Arc::clone(&message));
        assert!(shard.active_partition(&alice()).unwrap().mailbox(&alice()).is_none(), "it is not taken up");
        let (later, _completion) = post(&shard, 2).await;
        shard.on_accepted(later);
        assert!(shard.active_partition(&alice()).unwrap().mailbox(&alice()).is_some());
        shard.stop().await;
    })
    .await;
}

#[tokio::test]
async fn webhook_worker_gets_owned_due_and_lost_in_this_order() {
    local(async {
        let sandbox = Sandbox::start(SandboxOptions::default()).await.unwrap();
        let (sender, mut events) = store::outbox_events();
        let shard = owner_with_events(&sandbox.url(), Duration::from_mins(1), sender).await;
        let ours = Partition::of(&alice());
        let fence = shard.setup.leases.ownership(ours).fence().unwrap();
        for expected in Partition::all() {
            let event = timeout(GUARD, events.next()).await.expect("an event for each");
            assert!(
                matches!(event, Some(OutboxEvent::Assigned(partition, _)) if partition == expected),
                "{event:?}"
            );
        }
        let mut accept = accept_by(ME, 1, "alice", "Hello");
        let url = "https://caller.example/hook";
        accept.message.callback = Some(Callback { url: url.into(), signer: None });
        let AcceptResult::New(message) = shard.setup.store.accept(accept).await.unwrap() else {
            panic!("new")
        };
        shard.on_accepted(message);
        let OutboxEvent::Due { partition, fence: under, queue, target } = next_event(&mut events).await
        else {
            panic!("a due delivery")
        };
        assert_eq!((partition, under, &*target), (ours, fence, url));
        assert_eq!(queue, QueueId::of(&alice(), None, url));
        shard.setup.leases.remove(ours);
        shard.sync_ownership();
        let lost = loop {
            match next_event(&mut events).await {
                // The bot may reply after the end of the turn.
                OutboxEvent::Due { .. } => {}
                other => break other,
            }
        };
        assert!(matches!(lost, OutboxEvent::Lost(partition, under) if (partition, under) == (ours, fence)));
        shard.stop().await;
        sandbox.stop().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn partition_is_drained_when_its_attempts_have_ended() {
    local(async {
        let (sender, mut events) = store::outbox_events();
        let shard = owner_with_events(NOWHERE, Duration::from_mins(1), sender).await;
        let leases = &shard.setup.leases;
        let began = Instant::now();
        let (fence, by, done) = releasing(&shard, &mut events, DrainReason::Rebalance).await;
        assert_eq!(by - began, Duration::from_secs(5), "the time of a handoff");
        tokio::time::sleep_until(by).await;
        assert!(!leases.is_drained(Partition::of(&alice()), fence), "an attempt is in flight");
        done.send(()).unwrap();
        timeout(GUARD, leases.drained.notified()).await.expect("the partition is drained");
        assert!(leases.is_drained(Partition::of(&alice()), fence));
        assert_eq!(Instant::now(), by, "without a delay");
        shard.stop().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn endless_attempts_delay_a_drain_by_a_second() {
    local(async {
        let (sender, mut events) = store::outbox_events();
        let shard = owner_with_events(NOWHERE, Duration::from_mins(1), sender).await;
        let leases = &shard.setup.leases;
        let leave_deadline = Instant::now() + Duration::from_secs(20);
        leases.leave(leave_deadline);
        let (fence, by, _done) = releasing(&shard, &mut events, DrainReason::Shutdown).await;
        assert_eq!(leave_deadline - by, Duration::from_secs(1), "cancelled with time to record it");
        timeout(GUARD * 5, leases.drained.notified()).await.expect("the partition is drained");
        assert!(leases.is_drained(Partition::of(&alice()), fence));
        assert_eq!(Instant::now(), leave_deadline);
        shard.stop().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn partition_without_attempts_is_drained_at_once() {
    local(async {
        let shard = owner(NOWHERE, Duration::from_mins(1)).await;
        let (leases, ours) = (&shard.setup.leases, Partition::of(&alice()));
        let began = Instant::now();
        leases.drain(ours, DrainReason::Rebalance);
        shard.sync_ownership();
        timeout(GUARD, leases.drained.notified()).await.expect("the partition is drained");
        assert!(leases.ownership(ours).fence().is_some_and(|fence| leases.is_drained(ours, fence)));
        assert_eq!(Instant::now(), began);
        shard.stop().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn partition_lost_during_its_drain_is_not_drained() {
    local(async {
        let (sender, mut events) = store::outbox_events();
        let shard = owner_with_events(NOWHERE, Duration::from_mins(1), sender).await;
        let (leases, ours) = (&shard.setup.leases, Partition::of(&alice()));
        let (fence, _, done) = releasing(&shard, &mut events, DrainReason::Rebalance).await;
        leases.remove(ours);
        shard.sync_ownership();
        assert!(
            matches!(next_event(&mut events).await, OutboxEvent::Lost(partition, _) if partition == ours)
        );
        done.send(()).unwrap();
        // All tasks are done when the paused clock advances.
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!leases.is_drained(ours, fence), "another replica owns it");
        shard.stop().await;
    })
    .await;
}

#[tokio::test]
async fn message_marked_at_its_accept_and_forgotten_is_sent() {
    local(async {
        let sandbox = Sandbox::start(SandboxOptions::default()).await.unwrap();
        let shard = owner(&sandbox.url(), Duration::from_mins(1)).await;
        let mut accept = accept_by(ME, 1, "alice", "Hello");
        let (id, conversation) = (accept.id, accept.message.conversation.clone());
        let part = Rc::clone(shard.partition(Partition::of(&conversation)).unwrap());
        (accept.owner, accept.send_at_accept) = (part.active_fence(), true);
        let (waiter, completion) = oneshot::channel();
        shard.waiters.borrow_mut().add(conversation.clone(), id, waiter);
        // The answer to the accept is lost, and the conversation is not in memory any more.
        part.unsent.borrow_mut().insert(id);
        let result = shard.setup.store.accept(accept).await.unwrap();
        assert!(matches!(result, AcceptResult::SentAtAccept(_)), "{result:?}");
        shard.wake(conversation);
        answered(completion).await;
        assert!(!part.unsent.borrow().contains(id), "its bytes were written");
    })
    .await;
}

#[tokio::test]
async fn conversations_are_told_of_a_lease_that_was_suspect_for_a_moment() {
    local(async {
        let shard = owner("http://127.0.0.1:9", Duration::from_millis(30)).await;
        let part = Rc::clone(shard.partition(Partition::of(&alice())).unwrap());
        assert!(part.told_lease_valid.get());
        while shard.may_act(part.partition) {
            tokio::task::yield_now().await;
        }
        // It is renewed before the shard looks.
        shard.setup.leases.renewed(part.partition, Instant::now());
        assert!(!part.told_lease_valid.get());
        shard.sync_ownership();
        assert!(part.told_lease_valid.get());
    })
    .await;
}

#[test]
fn oldest_unsent_messages_are_forgotten_beyond_a_bound() {
    let id = |number| MessageId::new(Timestamp::from_millis(1), number);
    let mut unsent = partition_state::RecentMessages::default();
    for number in 0..2000 {
        unsent.insert(id(number));
    }
    assert!(unsent.contains(id(1999)) && unsent.contains(id(976)) && !unsent.contains(id(975)));
    unsent.remove(id(1999));
    assert!(!unsent.contains(id(1999)));
}
