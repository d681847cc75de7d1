//! A shard without its loop: no sweep, no glance and no keeper help it along.

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::task::LocalSet;
use tokio::time::Instant;
use url::Url;

use super::*;
use crate::config::Config;
use crate::domain::Outcome;
use crate::hub::shards::{open_shard, setups};
use crate::hub::tests::{accept_by, metrics, quick, store};
use crate::sandbox::{Options, Sandbox};
use crate::store::{Accepted, Claiming, Incarnation};
use tokio::time::timeout;

const ME: Incarnation = Incarnation(1);
const GUARD: Duration = Duration::from_secs(5);

/// A shard that owns every partition, surely so for two thirds of `lease` from now.
async fn owner(platform: &str, lease: Duration) -> Rc<Shard> {
    let mut config = Config::dev(Url::parse(platform).unwrap());
    quick(&mut config, |_| ());
    let leases = Arc::new(Leases::new(ME, lease, 1));
    let setup = setups(&config, &store(), &metrics(), &leases).unwrap().pop().unwrap();
    let shard = open_shard(setup).await.unwrap();
    for partition in Partition::all() {
        let claim = shard.setup.store.claim(partition, ME, lease, Claiming::Free).await.unwrap();
        leases.own(partition, claim.fence().unwrap(), Instant::now());
    }
    shard.look();
    shard
}

/// A message that the store accepted, and who waits for its end.
async fn post(shard: &Shard, number: u128) -> (Arc<AcceptedMessage>, oneshot::Receiver<Option<Message>>) {
    let accept = accept_by(ME, number, "alice", "Hello");
    let (waiter, told) = oneshot::channel();
    shard.watch.borrow_mut().add(accept.message.conversation.clone(), accept.id, waiter);
    let Accepted::New(message) = shard.setup.store.accept(accept).await.unwrap() else { panic!("a new one") };
    (message, told)
}

async fn answered(told: oneshot::Receiver<Option<Message>>) {
    let told = timeout(GUARD, told).await.expect("an end").unwrap().unwrap();
    assert!(matches!(told.progress.outcome, Some(Outcome::Answered(_))), "{told:?}");
}

#[tokio::test]
async fn a_message_to_a_conversation_that_is_giving_way_is_answered_at_once() {
    LocalSet::new()
        .run_until(async {
            let sandbox = Sandbox::start(Options::default()).await.unwrap();
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
            mailbox.post(Mail::Drain);
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
            let sandbox = Sandbox::start(Options::default()).await.unwrap();
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
