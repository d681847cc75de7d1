//! A shard without its loop: no sweep, no glance and no keeper help it along.

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::task::LocalSet;
use tokio::time::Instant;
use url::Url;

use super::*;
use crate::config::Config;
use crate::domain::{BotName, Callback, LiveSignal, ReplyChunk, TurnOutcome, UserId};
use crate::hub::lease::Phase;
use crate::hub::observer::{Subscription, observer};
use crate::hub::shards::{open_shard, setups};
use crate::hub::tests::{accept_by, metrics, quick, store as memory};
use crate::link::ConversationHost as _;
use crate::store::{AcceptResult, ClaimMode, Fence, Hint, Incarnation, OutboxEvent, QueueId};
use rtm_sandbox::{Sandbox, SandboxOptions};
use tokio::time::timeout;

const ME: Incarnation = Incarnation(1);
const GUARD: Duration = Duration::from_secs(5);

/// A shard that owns every partition, surely so for two thirds of `lease` from now.
async fn owner(platform: &str, lease: Duration) -> Rc<Shard> {
    owner_telling(platform, lease, store::news().0).await
}

/// The same, and who is told what it owns.
async fn owner_telling(platform: &str, lease: Duration, news: store::OutboxEventSender) -> Rc<Shard> {
    let mut config = Config::dev(Url::parse(platform).unwrap());
    quick(&mut config, |_| ());
    let leases = Arc::new(Leases::new(ME, lease, 1));
    let setup = setups(&config, &memory(), &metrics(), &leases, &news).unwrap().pop().unwrap();
    let shard = open_shard(setup).await.unwrap();
    for partition in Partition::all() {
        let claim = shard.setup.store.claim(partition, ME, lease, ClaimMode::Free).await.unwrap();
        leases.own(partition, claim.fence().unwrap(), Instant::now());
    }
    shard.look();
    shard
}

/// The next news that are not of what is owned.
async fn news(listening: &mut store::OutboxEventReceiver) -> OutboxEvent {
    loop {
        match timeout(GUARD, listening.next()).await.expect("news").expect("somebody tells") {
            OutboxEvent::Owned(..) => {}
            other => return other,
        }
    }
}

/// Has alice's partition drained, and waits until the dispatcher is told.
async fn releasing(
    shard: &Rc<Shard>,
    listening: &mut store::OutboxEventReceiver,
    phase: Phase,
) -> (Fence, Instant, oneshot::Sender<()>) {
    let ours = Partition::of(&alice());
    shard.setup.leases.drain(ours, phase);
    shard.look();
    let OutboxEvent::Releasing { partition, fence, by, done } = news(listening).await else {
        panic!("a release")
    };
    assert_eq!((partition, Some((fence, phase))), (ours, shard.setup.leases.state(ours)));
    (fence, by, done)
}

/// A message that the store accepted, and who waits for its end.
async fn post(shard: &Shard, number: u128) -> (Arc<AcceptedMessage>, oneshot::Receiver<Option<Message>>) {
    let accept = accept_by(ME, number, "alice", "Hello");
    let (waiter, told) = oneshot::channel();
    shard.watch.borrow_mut().add(accept.message.conversation.clone(), accept.id, waiter);
    let AcceptResult::New(message) = shard.setup.store.accept(accept).await.unwrap() else {
        panic!("a new one")
    };
    (message, told)
}

async fn answered(told: oneshot::Receiver<Option<Message>>) {
    let told = timeout(GUARD, told).await.expect("an end").unwrap().unwrap();
    assert!(matches!(told.progress.outcome, Some(TurnOutcome::Answered(_))), "{told:?}");
}

#[tokio::test]
async fn a_message_to_a_conversation_that_is_giving_way_is_answered_at_once() {
    LocalSet::new()
        .run_until(async {
            let sandbox = Sandbox::start(SandboxOptions::default()).await.unwrap();
            let shard = owner(&sandbox.url(), Duration::from_mins(1)).await;
            let (message, told) = post(&shard, 1).await;
            let conversation = message.new.conversation.clone();
            shard.accepted(message);
            let mailbox = shard.part(Partition::of(&conversation)).unwrap().mailbox(&conversation).unwrap();
            let taken_in = async {
                while mailbox.open() == 0 {
                    tokio::task::yield_now().await;
                }
            };
            timeout(GUARD, taken_in).await.expect("it is loaded");
            // Whoever is idle longest is told to leave, also in the moment in which somebody writes.
            mailbox.post(Input::Drain);
            answered(told).await;
            shard.stop().await;
            sandbox.stop().await;
        })
        .await;
}

#[tokio::test]
async fn an_end_that_comes_before_who_waits_for_it_is_told_all_the_same() {
    LocalSet::new()
        .run_until(async {
            let sandbox = Sandbox::start(SandboxOptions::default()).await.unwrap();
            let shard = owner(&sandbox.url(), Duration::from_mins(1)).await;
            let (message, told) = post(&shard, 1).await;
            let (conversation, id) = (message.new.conversation.clone(), message.id);
            // Nobody waits, or rather: whoever does is still on the way through the queue.
            shard.watch.borrow_mut().clear();
            drop(told);
            shard.accepted(message);
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
            let (waiter, told) = oneshot::channel();
            shard.on_command(Command::Watch { conversation, id, waiter });
            shard.on_command(Command::Stored(id));
            answered(told).await;
            shard.stop().await;
            sandbox.stop().await;
        })
        .await;
}

#[tokio::test]
async fn a_connect_under_way_ends_with_the_lease() {
    LocalSet::new()
        .run_until(async {
            // A platform that takes connections and says nothing.
            let platform = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}", platform.local_addr().unwrap());
            let lease = Duration::from_secs(3);
            let shard = owner(&url, lease).await;
            let (message, _told) = post(&shard, 1).await;
            shard.accepted(message);
            let (mut connection, _) = timeout(GUARD, platform.accept()).await.expect("a connect").unwrap();
            let mut asked = [0; 1];
            timeout(GUARD, connection.read_exact(&mut asked)).await.expect("a request").unwrap();
            // Nobody renews the lease; the shard looks at it as it does all the time.
            let given_up = async {
                let mut rest = Vec::new();
                connection.read_to_end(&mut rest).await.ok();
            };
            let looking = async {
                let mut glance = interval(lease / 12);
                loop {
                    glance.tick().await;
                    shard.look();
                }
            };
            tokio::select! {
                given_up = timeout(lease, given_up) => given_up.expect("the connect is given up"),
                () = looking => {}
            }
            shard.stop().await;
        })
        .await;
}

#[tokio::test]
async fn the_oldest_open_message_is_known_until_it_ends() {
    LocalSet::new()
        .run_until(async {
            let sandbox = Sandbox::start(SandboxOptions::default()).await.unwrap();
            let shard = owner(&sandbox.url(), Duration::from_mins(1)).await;
            let part = Rc::clone(shard.part(Partition::of(&alice())).unwrap());
            assert_eq!(part.oldest(), None);
            let (first, told) = post(&shard, 1).await;
            let (second, then_told) = post(&shard, 2).await;
            let accepted_at = [&first, &second].map(|message| message.accepted_at);
            let becomes = async |expected| {
                while part.oldest() != expected {
                    tokio::task::yield_now().await;
                }
            };
            shard.accepted(first);
            shard.accepted(second);
            timeout(GUARD, becomes(Some(accepted_at[0]))).await.expect("the first is the oldest");
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
            answered(told).await;
            answered(then_told).await;
            timeout(GUARD, becomes(None)).await.expect("nothing is open any more");
            shard.stop().await;
            assert!(shown() < f64::EPSILON, "a shard that stopped has nothing open");
            sandbox.stop().await;
        })
        .await;
}

/// Where nobody connects.
const NOWHERE: &str = "http://127.0.0.1:9";

fn alice() -> ConversationId {
    ConversationId { bot: BotName::sandbox(), user: UserId::new("alice").unwrap() }
}

/// Somebody who reads alice's conversation at this shard.
async fn reader(shard: &Rc<Shard>) -> Subscription {
    let (teller, observer) = observer();
    let (known, seated) = oneshot::channel();
    shard.on_command(Command::Observe { conversation: alice(), teller, known });
    seated.await.expect("the shard takes it");
    observer
}

#[tokio::test]
async fn a_renewal_tells_the_store_and_has_readers_look() {
    LocalSet::new()
        .run_until(async {
            let shard = owner(NOWHERE, Duration::from_mins(1)).await;
            let mut observer = reader(&shard).await;
            // Another replica owns the conversation from here on.
            let (store, other) = (shard.setup.store.clone(), Incarnation(2));
            let partition = Partition::of(&alice());
            let (fence, _) = shard.setup.leases.state(partition).unwrap();
            store.release(partition, fence).await.unwrap();
            store.claim(partition, other, Duration::from_mins(1), ClaimMode::Free).await.unwrap();
            let mut hints = store.listen(other);
            for _ in 0..20 {
                shard.tend_readers();
            }
            let look = timeout(GUARD, observer.next()).await.expect("it looks at each renewal");
            assert!(matches!(look, Some(LiveSignal::Look)));
            let renewed = async {
                loop {
                    if let Hint::Observed(conversation, by) = hints.next().await {
                        return (conversation, by);
                    }
                }
            };
            assert_eq!(timeout(GUARD, renewed).await.expect("it goes on observing"), (alice(), ME));
            shard.stop().await;
        })
        .await;
}

#[tokio::test]
async fn a_miss_has_all_readers_look_once() {
    LocalSet::new()
        .run_until(async {
            let shard = owner(NOWHERE, Duration::from_mins(1)).await;
            let mut observer = reader(&shard).await;
            let looks = &shard.setup.metrics.subscribers.wakeups;
            shard.setup.leases.missed();
            let before = looks.get();
            shard.tend_readers();
            assert!(matches!(timeout(GUARD, observer.next()).await, Ok(Some(LiveSignal::Look))));
            let after = looks.get();
            assert_eq!(after, before + 1);
            shard.tend_readers();
            assert_eq!(looks.get(), after);
            shard.stop().await;
            assert!(observer.next().await.is_none(), "a shard that stops lets its readers go");
            assert_eq!(shard.setup.metrics.subscribers.count.get(), 0);
        })
        .await;
}

#[tokio::test]
async fn a_partition_that_changes_hands_has_its_readers_look() {
    LocalSet::new()
        .run_until(async {
            let shard = owner(NOWHERE, Duration::from_mins(1)).await;
            let mut observer = reader(&shard).await;
            Leases::drop(&shard.setup.leases, Partition::of(&alice()));
            shard.look();
            assert!(matches!(timeout(GUARD, observer.next()).await, Ok(Some(LiveSignal::Look))));
            shard.stop().await;
        })
        .await;
}

#[tokio::test]
async fn pieces_go_to_the_replicas_where_somebody_reads_and_nowhere_else() {
    LocalSet::new()
        .run_until(async {
            let shard = owner(NOWHERE, Duration::from_mins(1)).await;
            let piece =
                |index| Arc::new(ReplyChunk { message_id: None, index, text: "piece".into(), last: false });
            let mut hints = shard.setup.store.listen(Incarnation(2));
            shard.chunk(&alice(), piece(0));
            shard.on_command(Command::Observed(alice(), Incarnation(2)));
            let mut observer = reader(&shard).await;
            for index in 1..50 {
                shard.chunk(&alice(), piece(index));
            }
            let pieces = async {
                let mut pieces = Vec::new();
                while pieces.len() < 49 {
                    if let Hint::Chunk(conversation, chunk) = hints.next().await {
                        assert_eq!(conversation, alice());
                        pieces.push(chunk.index);
                    }
                }
                pieces
            };
            let pieces = timeout(GUARD, pieces).await.expect("every piece");
            assert!(pieces.iter().copied().eq(1..50), "{pieces:?}");
            for index in 1..50 {
                let Some(LiveSignal::Chunk(chunk)) = observer.next().await else { panic!("a piece") };
                assert_eq!(chunk.index, index);
            }
            assert_eq!(shard.setup.metrics.subscribers.chunks.get(), 49);
            shard.stop().await;
        })
        .await;
}

#[tokio::test]
async fn who_attempts_deliveries_is_told_what_is_owned_due_and_lost_in_this_order() {
    LocalSet::new()
        .run_until(async {
            let sandbox = Sandbox::start(SandboxOptions::default()).await.unwrap();
            let (teller, mut listening) = store::news();
            let shard = owner_telling(&sandbox.url(), Duration::from_mins(1), teller).await;
            let ours = Partition::of(&alice());
            let (fence, _) = shard.setup.leases.state(ours).unwrap();
            for expected in Partition::all() {
                let told = timeout(GUARD, listening.next()).await.expect("each is told");
                assert!(
                    matches!(told, Some(OutboxEvent::Owned(partition, _)) if partition == expected),
                    "{told:?}"
                );
            }
            let mut accept = accept_by(ME, 1, "alice", "Hello");
            let url = "https://caller.example/hook";
            accept.message.callback = Some(Callback { url: url.into(), signer: None });
            let AcceptResult::New(message) = shard.setup.store.accept(accept).await.unwrap() else {
                panic!("new")
            };
            shard.accepted(message);
            let OutboxEvent::Due { partition, fence: under, queue, target } = news(&mut listening).await
            else {
                panic!("its end is due")
            };
            assert_eq!((partition, under, &*target), (ours, fence, url));
            assert_eq!(queue, QueueId::of(&alice(), url));
            Leases::drop(&shard.setup.leases, ours);
            shard.look();
            let lost = loop {
                match news(&mut listening).await {
                    // What the bot said behind the turn's end.
                    OutboxEvent::Due { .. } => {}
                    other => break other,
                }
            };
            assert!(
                matches!(lost, OutboxEvent::Lost(partition, under) if (partition, under) == (ours, fence))
            );
            shard.stop().await;
            sandbox.stop().await;
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_partition_is_calm_when_its_attempts_have_ended() {
    LocalSet::new()
        .run_until(async {
            let (teller, mut listening) = store::news();
            let shard = owner_telling(NOWHERE, Duration::from_mins(1), teller).await;
            let leases = &shard.setup.leases;
            let began = Instant::now();
            let (fence, by, done) = releasing(&shard, &mut listening, Phase::Moving).await;
            assert_eq!(by - began, Duration::from_secs(5), "what a move may take");
            tokio::time::sleep_until(by).await;
            assert!(!leases.is_calm(Partition::of(&alice()), fence), "an attempt is in flight");
            done.send(()).unwrap();
            timeout(GUARD, leases.calmed.notified()).await.expect("it is calm");
            assert!(leases.is_calm(Partition::of(&alice()), fence));
            assert_eq!(Instant::now(), by, "at once");
            shard.stop().await;
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn attempts_that_never_end_hold_a_partition_up_no_longer_than_a_moment() {
    LocalSet::new()
        .run_until(async {
            let (teller, mut listening) = store::news();
            let shard = owner_telling(NOWHERE, Duration::from_mins(1), teller).await;
            let leases = &shard.setup.leases;
            let gone_by = Instant::now() + Duration::from_secs(20);
            leases.leave(gone_by);
            let (fence, by, _done) = releasing(&shard, &mut listening, Phase::Leaving).await;
            assert_eq!(gone_by - by, Duration::from_secs(1), "broken off while there is time to say so");
            timeout(GUARD * 5, leases.calmed.notified()).await.expect("it is calm");
            assert!(leases.is_calm(Partition::of(&alice()), fence));
            assert_eq!(Instant::now(), gone_by);
            shard.stop().await;
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_partition_is_calm_at_once_where_nobody_attempts_anything() {
    LocalSet::new()
        .run_until(async {
            let shard = owner(NOWHERE, Duration::from_mins(1)).await;
            let (leases, ours) = (&shard.setup.leases, Partition::of(&alice()));
            let began = Instant::now();
            leases.drain(ours, Phase::Moving);
            shard.look();
            timeout(GUARD, leases.calmed.notified()).await.expect("it is calm");
            assert!(leases.state(ours).is_some_and(|(fence, _)| leases.is_calm(ours, fence)));
            assert_eq!(Instant::now(), began);
            shard.stop().await;
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_is_lost_while_its_attempts_end_is_not_calm() {
    LocalSet::new()
        .run_until(async {
            let (teller, mut listening) = store::news();
            let shard = owner_telling(NOWHERE, Duration::from_mins(1), teller).await;
            let (leases, ours) = (&shard.setup.leases, Partition::of(&alice()));
            let (fence, _, done) = releasing(&shard, &mut listening, Phase::Moving).await;
            Leases::drop(leases, ours);
            shard.look();
            assert!(
                matches!(news(&mut listening).await, OutboxEvent::Lost(partition, _) if partition == ours)
            );
            done.send(()).unwrap();
            // Whatever is to follow has followed when the clock goes on.
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(!leases.is_calm(ours, fence), "it is not ours to release");
            shard.stop().await;
        })
        .await;
}
