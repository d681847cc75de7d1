//! Callers of several sorts that send requests in sequence through the service. They repeat a request only if its kept
//! connection was being closed, or if its connection broke with a killed pod.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use rtm_sandbox::{SandboxScript, Step};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::client::Client;
use super::figures::Figures;
use super::spawn;
use crate::support::{Answer, Caller, Receiver, Request, until};

/// The number of replies to each message.
const REPLIES: u64 = 2;

/// A sort of callers. It is the prefix of their names.
struct Sort {
    name: &'static str,
    users: usize,
    /// The bot's thinking time before each reply.
    think: Duration,
    /// The longest pause between two messages.
    pause: Duration,
    /// The header `Prefer` of their requests.
    prefer: &'static str,
}

const SORTS: [Sort; 5] = [
    Sort { name: "talker", users: 8, think: millis(20), pause: millis(300), prefer: "wait=55" },
    // Their turns are open when a pod leaves.
    Sort { name: "slow", users: 4, think: millis(2000), pause: millis(300), prefer: "wait=55" },
    // Their connections are idle when a pod leaves.
    Sort { name: "rare", users: 8, think: millis(20), pause: millis(9000), prefer: "wait=55" },
    // Many who say little. Their number is set by `REHEARSAL_CROWD`.
    Sort { name: "crowd", users: 0, think: millis(20), pause: millis(32_000), prefer: "wait=55" },
    // They learn of the answer by a webhook. In the time of a failover they send fewer messages than a conversation takes.
    Sort { name: "sender", users: 3, think: millis(20), pause: millis(1500), prefer: "respond-async" },
];

/// The pause of a caller before it repeats a request whose connection broke.
const PAUSE: Duration = millis(100);

const fn millis(number: u64) -> Duration {
    Duration::from_millis(number)
}

/// The callers and the promises that they got.
pub(super) struct Load {
    service: Caller,
    key: String,
    pub(super) figures: Figures,
    /// The location and the text of each accepted message, by user and in order.
    accepted: RefCell<BTreeMap<String, Vec<(String, String)>>>,
    /// The accepted messages without a seen answer, with their users.
    open: RefCell<Vec<(String, (String, String))>>,
    /// The texts of messages that may or may not have reached the bot.
    doubtful: RefCell<Vec<String>>,
    answered: watch::Sender<usize>,
    ended: CancellationToken,
    /// The positions that each user's reader received.
    told: RefCell<BTreeMap<String, Vec<u64>>>,
}

impl Load {
    pub(super) fn new(service: Caller, key: &str, script: &SandboxScript) -> Rc<Self> {
        script.bot(|who, heard| {
            let sort = SORTS.iter().find(|sort| who.user().starts_with(sort.name));
            let think = Step::Wait(sort.map_or(Duration::ZERO, |sort| sort.think));
            let say = |number| Step::Say(format!("{}, reply {number}", heard.text));
            vec![Step::Ack, think.clone(), say(1), think, say(2)]
        });
        Rc::new(Self {
            service,
            key: format!("Bearer {key}"),
            figures: Figures::default(),
            accepted: RefCell::default(),
            open: RefCell::default(),
            doubtful: RefCell::default(),
            answered: watch::Sender::default(),
            ended: CancellationToken::new(),
            told: RefCell::default(),
        })
    }

    fn users() -> impl Iterator<Item = (String, &'static Sort)> {
        SORTS.iter().flat_map(|sort| {
            let users = if sort.name == "crowd" { crowd() } else { sort.users };
            (0..users).map(move |number| (format!("{}-{number}", sort.name), sort))
        })
    }

    /// Waits until so many more messages are answered.
    pub(super) async fn answered(&self, more: usize) {
        let wanted = *self.answered.borrow() + more;
        self.answered.subscribe().wait_for(|answered| *answered >= wanted).await.unwrap();
    }

    /// Waits until every user has had an accepted message.
    pub(super) async fn everybody_spoke(&self) {
        let users = Self::users().count();
        while self.accepted.borrow().len() < users {
            self.answered(1).await;
        }
    }

    /// Waits until every user has had an answer to a message that was sent after this call.
    pub(super) async fn everybody_speaks_again(&self) {
        let before: BTreeMap<_, _> =
            self.accepted.borrow().iter().map(|(user, messages)| (user.clone(), messages.len())).collect();
        // A message may be under way, so the second one from now on is new.
        let spoke = |user: &str, messages: usize| messages > before.get(user).map_or(0, |before| before + 1);
        while !self.accepted.borrow().iter().all(|(user, messages)| spoke(user, messages.len())) {
            self.answered(1).await;
        }
    }

    /// Stops the posts of new messages.
    pub(super) fn end(&self) {
        self.ended.cancel();
    }

    /// Lets all callers send and read until [`Load::end`] and until the readers have all events.
    pub(super) async fn run(self: &Rc<Self>) {
        let readers: Vec<_> = Self::users()
            .map(|(user, _)| {
                let load = Rc::clone(self);
                spawn(async move { load.read(&user).await })
            })
            .collect();
        join_all(Self::users().map(async |(user, sort)| {
            let mut client = Client::new(self.service.0);
            let mut number = 0;
            if sort.name == "crowd" {
                // Their first messages open sockets, which the connect limit has to allow.
                timeout(sort.pause.mul_f64(4.0 * fastrand::f64()), self.ended.cancelled()).await.ok();
            }
            while !self.ended.is_cancelled() {
                self.send(&mut client, &user, sort, number).await;
                number += 1;
                // The first pause of a caller is shorter, so that callers spread out.
                let pause = sort.pause.mul_f64(fastrand::f64());
                timeout(pause, self.ended.cancelled()).await.ok();
            }
        }))
        .await;
        join_all(Self::users().map(async |(user, _)| {
            self.everything_ended(&user).await;
            let last = self.page(&user).await.last().copied();
            let told = || self.told.borrow().get(&user).and_then(|told| told.last().copied());
            until("the reader knows all", async || told() == last).await;
        }))
        .await;
        for reader in readers {
            assert!(!reader.is_finished(), "a reader has failed");
            reader.abort();
        }
    }

    /// Sends one message and waits for its end.
    async fn send(&self, client: &mut Client, user: &str, sort: &Sort, number: usize) {
        let text = format!("{user}-{number}");
        let turn = json!({"expectReplies": REPLIES, "deadlineMs": 30_000});
        let request = Request::message(user, &json!({"text": text, "turn": turn}))
            .header("Idempotency-Key", &text)
            .prefer(sort.prefer);
        let began = Instant::now();
        let Some(answer) = self.ask(client, request).await else {
            self.doubtful.borrow_mut().push(text);
            return;
        };
        let location = answer.header("location").expect("a 2xx says where its message is").to_owned();
        let accepted = (location.clone(), text.clone());
        self.accepted.borrow_mut().entry(user.to_owned()).or_default().push(accepted.clone());
        if answer.status == 200 {
            let thinks = sort.think * u32::try_from(REPLIES).unwrap();
            self.figures.turn(began.elapsed().saturating_sub(thinks));
        }
        // After a wait that was cut short, the caller waits again at the location of the 202.
        let rest = if sort.prefer == "respond-async" { "wait=0" } else { "wait=55" };
        match self.ask(client, Request::get(location).prefer(rest)).await.map(|answer| answer.json()) {
            Some(message) if message["status"] == "answered" => {
                is_answered(&message, &text);
                self.answered.send_modify(|answered| *answered += 1);
            }
            Some(message) if is_uncertain(&message["error"]) && self.figures.broke() => {
                self.accepted
                    .borrow_mut()
                    .entry(user.to_owned())
                    .or_default()
                    .retain(|known| *known != accepted);
                self.doubtful.borrow_mut().push(text);
            }
            _ => self.open.borrow_mut().push((user.to_owned(), accepted)),
        }
    }

    /// Sends a request and returns its answer if that is a success.
    async fn ask(&self, client: &mut Client, request: Request) -> Option<Answer> {
        let what = format!("{request}");
        let request = request.header("Authorization", &self.key);
        let failure = loop {
            match client.send(request.clone()).await {
                Ok(answer) if matches!(answer.status, 200 | 202) => {
                    self.figures.request(None);
                    return Some(answer);
                }
                // The message was in flight on the killed pod.
                Ok(answer)
                    if answer.status == 502 && is_uncertain(&answer.json()) && self.figures.broke() =>
                {
                    self.figures.request(None);
                    return None;
                }
                Ok(answer) => break format!("{what}: {answer}"),
                Err(_) if self.figures.broke() => sleep(PAUSE).await,
                // Pools repeat such a request if that is safe: a GET, or with a key (RFC 9112, 9.3.1).
                Err(error) if error.kind() == ErrorKind::NotConnected => self.figures.late(),
                Err(error) => break format!("{what}: {error}"),
            }
        };
        self.figures.request(Some(failure));
        None
    }

    /// Reads a conversation live, forever, and reconnects if a stream ends.
    async fn read(&self, user: &str) {
        let mut last = None::<String>;
        loop {
            let request =
                Request::get(format!("/conversations/{user}/events")).header("Authorization", &self.key);
            let request =
                if let Some(last) = &last { request.header("Last-Event-ID", last) } else { request };
            self.figures.stream();
            let mut stream = match self.service.try_events_with(request).await {
                Ok(stream) => stream,
                Err(error) => {
                    assert!(self.figures.broke(), "{user}: {error}");
                    sleep(PAUSE).await;
                    continue;
                }
            };
            loop {
                let event = match stream.try_next().await {
                    Ok(Some(event)) => event,
                    Ok(None) => break,
                    Err(error) => {
                        assert!(self.figures.broke(), "{user}: {error}");
                        break;
                    }
                };
                // The connect limit delays reads of history, which may then not reach back to a talker's last reply.
                let is_late = event.data["data"]["reason"] == "historyTooShort";
                assert!(event.kind != "gap" || is_late, "{user}: {event:?}");
                if let Some(place) = event.data["seq"].as_u64() {
                    self.told.borrow_mut().entry(user.to_owned()).or_default().push(place);
                }
            }
            last = stream.last_id.or(last);
        }
    }

    /// Sends one GET on a new connection.
    async fn get(&self, target: &str) -> Answer {
        let request = Request::get(target).header("Authorization", &self.key).prefer("wait=55");
        self.service.send(request).await
    }

    /// Returns the positions in a conversation's journal.
    async fn page(&self, user: &str) -> Vec<u64> {
        let (mut places, mut target) = (Vec::new(), format!("/conversations/{user}/events?limit=1000"));
        loop {
            let request = Request::get(&*target).header("Authorization", &self.key);
            let page = self.service.send(request).await.message(200);
            let events = page["events"].as_array().unwrap();
            places.extend(events.iter().map(|event| event["seq"].as_u64().unwrap()));
            if page["hasMore"] == false {
                return places;
            }
            let next = page["next"].as_str().unwrap();
            target = format!("/conversations/{user}/events?limit=1000&after={next}");
        }
    }

    /// Waits until all open messages have ended.
    async fn everything_ended(&self, user: &str) {
        let open: Vec<_> = self.open.borrow().iter().filter(|(of, _)| of == user).cloned().collect();
        for (_, (location, text)) in open {
            is_answered(&self.get(&location).await.message(200), &text);
        }
    }

    /// Checks all promises: answers, one send per message, journals without gaps, webhooks in order.
    pub(super) async fn check(&self, script: &SandboxScript, receiver: &Receiver) {
        assert_eq!(self.figures.failures(), Vec::<String>::new());
        let doubtful = self.doubtful.borrow().clone();
        // Who waits for each answer has one message in flight at a kill.
        for (user, _) in Self::users().filter(|(_, sort)| sort.prefer != "respond-async") {
            let own = doubtful.iter().filter(|text| text.starts_with(&format!("{user}-")));
            assert!(own.count() <= 1, "{user}: {doubtful:?}");
        }
        let accepted = self.accepted.borrow().clone();
        for (user, messages) in &accepted {
            let seen: Vec<_> =
                script.observed(user.as_str()).messages.iter().map(|heard| heard.text.clone()).collect();
            let seen: Vec<_> = seen.into_iter().filter(|text| !doubtful.contains(text)).collect();
            let texts: Vec<_> = messages.iter().map(|(_, text)| text.clone()).collect();
            assert_eq!(seen, texts, "what the platform saw of {user}, each once and in order");
            let mut log = self.page(user).await;
            // The journal keeps the newest thousand entries. Some may have come after the readers stopped.
            let told = &self.told.borrow()[user];
            log.retain(|place| Some(place) <= told.last());
            assert!(!log.is_empty(), "the reader of {user} was told {told:?}");
            assert!(told.ends_with(&log), "the reader of {user} was told {told:?}, the journal has {log:?}");
            assert!(told.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{user} was told {told:?}");
        }
        let told = receiver
            .requests_when(|told| {
                let told = distinct(told, &doubtful);
                accepted
                    .iter()
                    .all(|(user, messages)| told.get(user).is_some_and(|ids| ids.len() >= messages.len()))
            })
            .await;
        let told = distinct(&told, &doubtful);
        for (user, messages) in &accepted {
            let ids: Vec<_> = messages.iter().map(|(location, _)| id(location)).collect();
            let told: Vec<_> = told[user].iter().map(String::as_str).collect();
            assert_eq!(told, ids, "the webhooks of {user}, in order");
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the size of a test is no setting of the bridge")]
fn crowd() -> usize {
    std::env::var("REHEARSAL_CROWD").ok().and_then(|users| users.parse().ok()).unwrap_or_default()
}

/// Fails unless a message was answered with all replies to its text, in their order.
#[track_caller]
fn is_answered(message: &Value, text: &str) {
    let replies: Vec<_> =
        message["replies"].as_array().unwrap().iter().map(|reply| reply["text"].clone()).collect();
    let wanted: Vec<_> = (1..=REPLIES).map(|number| json!(format!("{text}, reply {number}"))).collect();
    assert_eq!((&message["status"], replies), (&json!("answered"), wanted), "{message}");
}

/// Returns whether the body of an answer says that nobody knows whether the bot has the message.
fn is_uncertain(problem: &Value) -> bool {
    problem["type"] == "/problems/uncertain"
}

/// Returns by user the messages whose end was delivered, in the order of the first delivery, without the doubtful ones.
fn distinct(told: &[crate::support::ReceivedRequest], doubtful: &[String]) -> BTreeMap<String, Vec<String>> {
    let mut ends: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for told in told {
        let body = told.json();
        if doubtful.iter().any(|text| body["data"]["text"] == **text) {
            continue;
        }
        assert_eq!(body["type"], "message.answered", "{body}");
        let ends = ends.entry(told.user()).or_default();
        let id = body["data"]["id"].as_str().unwrap();
        if !ends.iter().any(|known| known == id) {
            ends.push(id.to_owned());
        }
    }
    ends
}

/// Returns the message's id in its location.
fn id(location: &str) -> &str {
    let (_, rest) = location.split_once("/messages/").unwrap();
    rest.split_once('?').map_or(rest, |(id, _)| id)
}
