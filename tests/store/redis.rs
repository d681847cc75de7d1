//! The promises of Redis alone: the answers of a full, hung, cut off, killed or empty server.

use std::rc::Rc;
use std::time::Duration;

use rtm_bridge::domain::{BotName, ConversationRecord, MessageContent, Partition};
use rtm_bridge::store::{
    AcceptError, AcceptRequest, AcceptResult, ClaimMode, ConversationChange, ConversationWrite, Hint,
    RHYTHM_MAX_BYTES, RedisStore, Store, StoreError, StoreRefusal,
};

use super::store_fixture::{
    LEASE, ME, MESSAGE_TTL, Owner, StoreFixture, accept, alone, conversation, entries, id, new, with_key,
};
use crate::support::{Proxy, RedisOptions, RedisServer, Servers, nothing_left, run, until};

/// The timeout of a command in these tests.
const TIMEOUT: Duration = Duration::from_millis(250);

/// A server, and a store that reaches it through a proxy.
async fn behind_a_proxy() -> (RedisServer, Proxy, Store) {
    let server = RedisServer::start(RedisOptions::default()).await;
    let proxy = Proxy::start(([127, 0, 0, 1], server.port).into());
    let mut config = server.config();
    config.url = format_url(proxy.address());
    config.command_timeout = TIMEOUT;
    let store = Store::Redis(RedisStore::new(&config).unwrap());
    // The store is connected and has loaded its scripts.
    store.now().await.unwrap();
    (server, proxy, store)
}

fn format_url(address: std::net::SocketAddr) -> rtm_bridge::config::StoreUrl {
    use rtm_bridge::config::{HostPort, RedisServers, RedisTopology, StoreUrl};
    let address = HostPort { host: address.ip().to_string(), port: address.port() };
    StoreUrl::Redis(RedisServers { topology: RedisTopology::Alone(address), tls: false, database: 0 })
}

async fn own<'a>(store: &'a Store, user: &str) -> Owner<'a> {
    let conversation = conversation(user);
    let claim = store.claim(Partition::of(&conversation), ME, LEASE, ClaimMode::Free).await.unwrap();
    Owner { store, fence: claim.fence().unwrap(), conversation, record: ConversationRecord::default() }
}

/// Returns the first answer after the network is healed. The store may have to reconnect first.
async fn back<T>(mut ask: impl AsyncFnMut() -> Result<T, StoreError>) -> T {
    let mut answer = None;
    until("Redis is back", async || match ask().await {
        Ok(told) => {
            answer = Some(told);
            true
        }
        Err(error) => {
            assert!(error.is_passing(), "{error:?}");
            false
        }
    })
    .await;
    answer.unwrap()
}

#[test]
fn accept_after_a_lost_answer_is_repeated() {
    run(async {
        let (_server, proxy, store) = behind_a_proxy().await;
        let alice = conversation("alice");
        let first = new(store.accept(accept(&alice, 1)).await);
        let wish = with_key(accept(&alice, 2), "shop", "k", 1);
        proxy.lose_answers().await;
        let lost = store.accept(wish.clone()).await.unwrap_err();
        assert_eq!(lost, AcceptError::Store(StoreError::Unknown(TIMEOUT)));
        proxy.heal().await;
        let read = back(async || store.message(&alice, id(2), None).await).await;
        let done = read.expect("it was carried out").accepted;
        for _ in 0..2 {
            let again = new(store.accept(wish.clone()).await);
            assert_eq!(again.client_message_id, done.client_message_id);
            assert_eq!(again.position, first.position + 1);
        }
        let owner = own(&store, "alice").await;
        let (open, _) = store.open(owner.fence, &alice).await.unwrap();
        assert_eq!(open.lane.iter().map(|open| open.accepted.id).collect::<Vec<_>>(), [id(1), id(2)]);
    });
}

#[test]
fn write_after_a_lost_answer_is_repeated() {
    run(async {
        let (_server, proxy, store) = behind_a_proxy().await;
        let alice = conversation("alice");
        new(store.accept(accept(&alice, 1)).await);
        let mut owner = own(&store, "alice").await;
        owner.write(Vec::new()).await.unwrap();
        let at = owner.now().await;
        let changes = vec![
            ConversationChange::Sent { message: id(1), at },
            owner.reply(at, Some(id(1)), "hello"),
            owner.end(at, id(1)),
        ];
        proxy.lose_answers().await;
        assert_eq!(owner.write(changes.clone()).await, Err(StoreError::Unknown(TIMEOUT)));
        proxy.heal().await;
        let again = owner.last(changes);
        let told = back(async || store.write(owner.fence, &alice, &again).await).await;
        assert!(!told.lost);
        assert_eq!(entries(&store, &alice).await.len(), 2);
        let message = store.message(&alice, id(1), None).await.unwrap().unwrap();
        assert_eq!((message.progress.replies.len(), message.progress.ended_at), (1, Some(at)));
        // The count continues.
        owner.write(Vec::new()).await.unwrap();
    });
}

#[test]
fn rhythm_after_a_lost_answer_is_written_once() {
    run(async {
        let (_server, proxy, store) = behind_a_proxy().await;
        let bot = BotName::sandbox();
        proxy.lose_answers().await;
        assert_eq!(store.put_rhythm(&bot, None, b"learned").await, Err(StoreError::Unknown(TIMEOUT)));
        proxy.heal().await;
        let stored = back(async || store.rhythm(&bot).await).await.expect("it was carried out");
        assert_eq!(store.put_rhythm(&bot, None, b"learned").await, Ok(true));
        assert_eq!(store.rhythm(&bot).await, Ok(Some(stored)));
    });
}

#[test]
fn operation_on_a_hung_server_ends_at_the_timeout() {
    run(async {
        let (mut server, proxy, store) = behind_a_proxy().await;
        let alice = conversation("alice");
        let ask = async || {
            let began = tokio::time::Instant::now();
            let answer = store.message(&alice, id(1), None).await;
            assert!(began.elapsed() < TIMEOUT * 4, "{:?}", began.elapsed());
            answer.map(|message| message.is_some())
        };
        assert_eq!(ask().await, Ok(false));
        server.pause();
        for _ in 0..3 {
            assert!(ask().await.unwrap_err().is_passing());
        }
        server.resume();
        assert!(!back(ask).await);
        proxy.hang().await;
        for _ in 0..3 {
            assert!(ask().await.unwrap_err().is_passing());
        }
        proxy.heal().await;
        assert!(!back(ask).await);
        proxy.cut().await;
        until("it is known to be away", async || {
            ask().await == Err(StoreError::Unavailable(StoreRefusal::Unreachable))
        })
        .await;
        proxy.heal().await;
        assert!(!back(ask).await);
    });
}

#[test]
fn emptied_store_recovers_by_itself() {
    run(async {
        let (mut server, _proxy, store) = behind_a_proxy().await;
        let alice = conversation("alice");
        let partition = Partition::of(&alice);
        new(store.accept(accept(&alice, 1)).await);
        let mut owner = own(&store, "alice").await;
        owner.write(Vec::new()).await.unwrap();
        server.restart_empty().await;
        // The scripts are gone too.
        assert!(back(async || store.message(&alice, id(1), None).await).await.is_none());
        assert_eq!(owner.write(Vec::new()).await, Err(StoreError::Lost));
        assert_eq!(store.renew(partition, owner.fence, LEASE).await, Err(StoreError::Lost));
        let claim = store.claim(partition, ME, LEASE, ClaimMode::Free).await.unwrap();
        assert!(claim.fence().unwrap().epoch > owner.fence.epoch);
        owner.fence = claim.fence().unwrap();
        new(store.accept(accept(&alice, 2)).await);
        // The owner begins anew and learns that its open messages are gone.
        assert_eq!(owner.write(Vec::new()).await, Err(StoreError::OutOfStep));
        owner.take_up().await;
        let end = owner.end(owner.now().await, id(1));
        assert!(owner.write(vec![end]).await.unwrap().lost);
        owner.settle(id(2)).await;
        assert_eq!(entries(&store, &alice).await.len(), 1);
    });
}

#[test]
fn listener_after_a_break_hears_again() {
    run(async {
        let (mut server, proxy, store) = behind_a_proxy().await;
        let mut ear = store.listen(ME);
        let mut subscribed = async || while !matches!(ear.next().await, Hint::Subscribed) {};
        subscribed().await;
        proxy.cut().await;
        proxy.heal().await;
        subscribed().await;
        server.restart_empty().await;
        subscribed().await;
    });
}

#[test]
fn full_store_refuses_accepts_and_takes_ends() {
    run(async {
        let server = RedisServer::start(RedisOptions { maxmemory: 8 << 20, ..RedisOptions::default() }).await;
        let store = Store::Redis(RedisStore::new(&server.config()).unwrap());
        let large = "x".repeat(32 * 1024);
        let mut open = Vec::new();
        // The known memory may be a moment old.
        until("it is full", async || {
            let number = open.len() as u128;
            let mut wish: AcceptRequest = accept(&conversation(&format!("user-{number}")), number);
            wish.message.content = MessageContent::new(&*large).unwrap();
            match store.accept(wish).await {
                Ok(AcceptResult::New(accepted) | AcceptResult::SentAtAccept(accepted)) => open.push(accepted),
                Ok(AcceptResult::Replayed(message)) => panic!("{message:?}"),
                Err(error) => {
                    assert_eq!(error, AcceptError::Full);
                    return true;
                }
            }
            false
        })
        .await;
        assert!(open.len() > 50, "{}", open.len());
        let rhythm = vec![0; RHYTHM_MAX_BYTES];
        let refused = store.put_rhythm(&BotName::sandbox(), None, &rhythm).await.unwrap_err();
        assert_eq!(refused, StoreError::Unavailable(StoreRefusal::OutOfMemory), "messages need the room");
        for message in open {
            let mut owner = own(&store, message.new.conversation.user().as_str()).await;
            let reply = owner.reply(owner.now().await, Some(message.id), &large);
            let end = owner.end(owner.now().await, message.id);
            owner.write(vec![reply, end]).await.unwrap();
        }
    });
}

#[test]
fn expired_store_keeps_only_permanent_keys() {
    run(async {
        let servers: Rc<Servers> = alone().await;
        let fixture = StoreFixture::on(&servers);
        for user in ["alice", "bob"] {
            let user = conversation(user);
            let mut owner = fixture.own(&user).await;
            for number in 0..5_u128 {
                let number = number + if user.user().as_str() == "bob" { 10 } else { 0 };
                let wish = with_key(accept(&user, number), "shop", &number.to_string(), 1);
                new(fixture.store.accept(AcceptRequest { watched: true, ..wish }).await);
                let at = owner.now().await;
                let changes = vec![
                    ConversationChange::Sent { message: id(number), at },
                    owner.reply(at, Some(id(number)), "hello"),
                    owner.reply(at, None, "unsolicited"),
                    owner.end(at, id(number)),
                    owner.reply(at, Some(id(number)), "late"),
                ];
                owner.record.write += 1;
                let write = ConversationWrite { warm_until: Some(at + LEASE), ..owner.last(changes) };
                fixture.store.write(owner.fence, &user, &write).await.unwrap();
            }
        }
        // A late reply must not restore a part of a message that is gone.
        let gone = conversation("alice");
        let mut owner = fixture.own(&gone).await;
        (owner.record.seq, owner.record.write) = (20, 5);
        fixture.pass(MESSAGE_TTL).await;
        let late = owner.reply(owner.now().await, Some(id(0)), "very late");
        owner.write(vec![late]).await.unwrap();
        fixture.store.heartbeat(&super::store_fixture::heartbeat(ME, 1)).await.unwrap();
        fixture.store.permit(gone.bot(), 5, 1, None).await.unwrap();
        let (servers, prefix) = fixture.redis().unwrap();
        fixture.rest().await;
        nothing_left(&servers.masters().await, prefix, MESSAGE_TTL).await;
    });
}

#[test]
fn tls_certificates_and_passwords_are_accepted() {
    run(async {
        for (tls, password, user) in [
            (false, Some("hush"), None),
            (true, None, None),
            (true, Some("hush"), Some(("bridge", "whisper"))),
        ] {
            let options = RedisOptions { password, user, tls, ..RedisOptions::default() };
            let server = RedisServer::start(options).await;
            let mut config = server.config();
            // A handshake on a busy machine takes a while.
            config.command_timeout = Duration::from_secs(5);
            Store::Redis(RedisStore::new(&config).unwrap()).now().await.unwrap();
            // Users who lack one of the rights are refused.
            (config.password, config.tls.client) = (None, None);
            config.command_timeout = TIMEOUT;
            let refused = Store::Redis(RedisStore::new(&config).unwrap()).now().await.unwrap_err();
            assert_eq!(refused, StoreError::Unavailable(StoreRefusal::NotAllowed));
        }
    });
}
