//! The promises to callers, checked from outside against the messages that they read and the platform's record.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::{fmt, io};

use rtm_sandbox::{SandboxScript, Step};
use serde_json::{Value, json};

use super::{Answer, Caller, Request};

/// All posted messages, each with a unique text and idempotency key.
#[derive(Default)]
pub(crate) struct Ledger {
    posts: RefCell<Vec<Post>>,
    texts: Cell<usize>,
}

#[derive(Debug, Clone)]
struct Post {
    user: String,
    text: String,
    body: Value,
    /// The location of the promised message. Empty without a promise, or if its answer was lost.
    location: Option<String>,
}

impl Post {
    /// Returns whether the platform may see the message twice.
    fn may_repeat(&self) -> bool {
        self.body["resend"] == "auto"
    }
}

/// The bot's behaviour for each message of a ledger.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bot {
    /// The number of replies.
    pub(crate) replies: usize,
}

impl Bot {
    /// Makes the sandbox's bot behave like this.
    pub(crate) fn speak(self, script: &SandboxScript) {
        script.bot(move |_, heard| {
            let reply = |number| Step::Say(reply(&heard.text, number));
            [Step::Ack].into_iter().chain((1..=self.replies).map(reply)).collect()
        });
    }
}

fn reply(text: &str, number: usize) -> String {
    format!("{text}, reply {number}")
}

/// The result of a message that has ended.
struct EndedMessage {
    post: Post,
    message: Value,
}

impl Ledger {
    /// Creates a new message of this user, with these fields besides its text.
    fn request(&self, user: &str, more: &Value) -> Post {
        let number = self.texts.replace(self.texts.get() + 1);
        let text = format!("{user}-{number}");
        let mut body = json!({ "text": text });
        for (field, value) in more.as_object().into_iter().flatten() {
            body[field] = value.clone();
        }
        Post { user: user.to_owned(), text, body, location: None }
    }

    /// Posts a new message of this user, with these fields besides its text, and records the promise.
    ///
    /// # Errors
    /// The request had no answer, so the message may or may not be accepted. [`Ledger::retry`] finds out.
    pub(crate) async fn post(
        &self,
        caller: Caller,
        user: &str,
        more: &Value,
        prefer: &str,
    ) -> io::Result<Answer> {
        let post = self.request(user, more);
        let index = self.posts.borrow().len();
        self.posts.borrow_mut().push(post.clone());
        self.send(caller, index, post, prefer).await
    }

    async fn send(&self, caller: Caller, index: usize, post: Post, prefer: &str) -> io::Result<Answer> {
        let request =
            Request::message(&post.user, &post.body).header("Idempotency-Key", &post.text).prefer(prefer);
        let answer = caller.try_send(request).await?;
        if let Some(location) = promised(&post.user, &answer) {
            let known = self.posts.borrow_mut()[index].location.replace(location.clone());
            assert!(known.is_none_or(|known| known == location), "one key, two messages: {answer}");
        }
        Ok(answer)
    }

    /// Posts again, with the same keys, all messages without a promise. The bridge accepts each now, or did so before.
    ///
    /// An idle thread may find its connection to the store dead, and a busy machine may keep the store from answering in
    /// time, so each message may be refused some more times.
    pub(crate) async fn retry(&self, caller: Caller) {
        let open: Vec<_> = self.posts.borrow().iter().cloned().enumerate().collect();
        for (index, post) in open.into_iter().filter(|(_, post)| post.location.is_none()) {
            let mut answer = self.send(caller, index, post.clone(), "wait=55").await.unwrap();
            for _ in 0..MORE_TRIES {
                if answer.status == 503 {
                    answer.problem(503, "store-unavailable");
                    answer = self.send(caller, index, post.clone(), "wait=55").await.unwrap();
                }
            }
            assert!(self.posts.borrow()[index].location.is_some(), "refused again: {answer}");
        }
    }

    /// Returns the number of promised messages.
    pub(crate) fn promised(&self) -> usize {
        self.posts.borrow().iter().filter(|post| post.location.is_some()).count()
    }

    /// Waits until all messages have ended and checks all promises, with requests to these callers in turn.
    pub(crate) async fn check(&self, callers: &[Caller], script: &SandboxScript) {
        let ended = self.ended(callers, false).await;
        self.compare(&ended, script);
    }

    /// Waits until all messages have ended, and checks that the platform saw each once at most and in order. Returns the
    /// ids of each user's messages. Replies may be anywhere in the journal.
    pub(crate) async fn check_sends(
        &self,
        callers: &[Caller],
        script: &SandboxScript,
        summary: &mut LedgerSummary,
    ) -> BTreeMap<String, BTreeSet<String>> {
        let ended = self.ended(callers, false).await;
        self.compare_sends(&ended, script);
        let mut ids: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for EndedMessage { post, message } in ended {
            summary.add(&message);
            ids.entry(post.user).or_default().insert(message["id"].as_str().unwrap().to_owned());
        }
        ids
    }

    /// Checks like [`Ledger::check`] after Redis lost data. A message may be lost, but not duplicated. Returns the
    /// number of lost messages.
    pub(crate) async fn check_after_loss(&self, callers: &[Caller], script: &SandboxScript) -> usize {
        let ended = self.ended(callers, true).await;
        self.compare(&ended, script);
        self.promised() - ended.len()
    }

    /// All promised messages as they ended, the same on every replica.
    async fn ended(&self, callers: &[Caller], may_be_gone: bool) -> Vec<EndedMessage> {
        let mut all = Vec::new();
        let posts = self.posts.borrow().clone();
        for (number, post) in posts.into_iter().enumerate() {
            let Some(location) = &post.location else { continue };
            let first = callers[number % callers.len()];
            let answer = read(first, location).await;
            if may_be_gone && (answer.status == 404 || is_lost(&answer)) {
                continue;
            }
            let message = answer.message(200);
            assert!(!message["endedAt"].is_null(), "it never ends: {message}");
            for other in callers {
                let read = read(*other, location).await.message(200);
                for field in ["id", "status", "endedAt", "endedBy", "clientMessageId"] {
                    assert_eq!(read[field], message[field], "{field} of {location} depends on who is asked");
                }
            }
            all.push(EndedMessage { post, message });
        }
        all
    }

    /// Compares the messages with the platform's record.
    fn compare(&self, ended: &[EndedMessage], script: &SandboxScript) {
        self.compare_sends(ended, script);
        self.compare_replies(ended, script);
    }

    /// Checks that the platform saw each message once at most, in order and over one socket at a time, and that no reply is
    /// in two messages.
    fn compare_sends(&self, ended: &[EndedMessage], script: &SandboxScript) {
        let posts = self.posts.borrow();
        let users: BTreeSet<&str> = posts.iter().map(|post| &*post.user).collect();
        for user in users {
            let observed = script.observed(user);
            assert!(observed.messages.count() <= observed.messages.len(), "too many to be kept");
            let mut texts: BTreeMap<&str, usize> = BTreeMap::new();
            let mut ids: BTreeMap<String, usize> = BTreeMap::new();
            for heard in observed.messages.iter() {
                *texts.entry(&heard.text).or_default() += 1;
                *ids.entry(heard.client_message_id.to_string()).or_default() += 1;
            }
            let of_user = || ended.iter().filter(|ended| ended.post.user == user);
            for post in posts.iter().filter(|post| post.user == user && !post.may_repeat()) {
                let seen = texts.get(&*post.text).copied().unwrap_or_default();
                assert!(seen <= 1, "the platform saw {:?} {seen} times", post.text);
            }
            let twice: Vec<_> = ids.iter().filter(|(_, count)| **count > 1).collect();
            assert!(
                twice.len() <= posts.iter().filter(|post| post.user == user && post.may_repeat()).count(),
                "the platform saw these twice: {twice:?}"
            );
            // Positions in the conversation: messages are sent in the order of their posts, with no other sender.
            let mut sockets: Vec<u64> = observed.messages.iter().map(|heard| heard.socket).collect();
            sockets.dedup();
            let count = sockets.len();
            sockets.sort_unstable();
            sockets.dedup();
            assert_eq!(count, sockets.len(), "two sockets of {user} sent in turns");

            let mut replies: BTreeMap<String, &str> = BTreeMap::new();
            for EndedMessage { message, .. } in of_user() {
                for reply in message["replies"].as_array().unwrap() {
                    let id = reply["messageId"].as_str().unwrap().to_owned();
                    let twice = replies.insert(id, message["text"].as_str().unwrap());
                    assert!(twice.is_none(), "{reply} is in {message} and with {twice:?}");
                }
            }
        }
    }

    /// Checks that each answered message has all replies that the platform delivered to it.
    fn compare_replies(&self, ended: &[EndedMessage], script: &SandboxScript) {
        let users: BTreeSet<String> = self.posts.borrow().iter().map(|post| post.user.clone()).collect();
        for user in users {
            let observed = script.observed(&*user);
            let of_user = || ended.iter().filter(|ended| ended.post.user == user);
            let replies: BTreeMap<&str, &str> = of_user()
                .flat_map(|EndedMessage { message, .. }| {
                    let text = message["text"].as_str().unwrap();
                    let replies = message["replies"].as_array().unwrap();
                    replies.iter().map(move |reply| (reply["messageId"].as_str().unwrap(), text))
                })
                .collect();
            for EndedMessage { post, message } in
                of_user().filter(|ended| ended.message["status"] == "answered")
            {
                let was_heard = observed.messages.iter().any(|heard| heard.text == post.text);
                assert!(was_heard, "answered without the platform: {message}");
                for said in observed.delivered.iter().filter(|said| belongs(&said.text, &post.text)) {
                    let of = replies.get(&*said.message_id).copied();
                    assert_eq!(of, Some(&*post.text), "{said:?} is lost: {message}");
                }
            }
        }
    }
}

/// The ends of many messages, counted.
#[derive(Default)]
pub(crate) struct LedgerSummary {
    /// By status, or by problem.
    ends: BTreeMap<String, usize>,
    /// The longest time from the acceptance of a message to its end, in milliseconds.
    longest: i128,
}

impl LedgerSummary {
    fn add(&mut self, message: &Value) {
        let end = message["error"]["type"].as_str().or(message["status"].as_str()).unwrap_or_default();
        *self.ends.entry(end.trim_start_matches("/problems/").to_owned()).or_default() += 1;
        let at = |field: &str| message[field].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        let took = at("endedAt").duration_since(at("acceptedAt")).as_millis();
        self.longest = self.longest.max(took);
    }
}

impl fmt::Display for LedgerSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} messages ended: {:?}; the longest after {} ms",
            self.ends.values().sum::<usize>(),
            self.ends,
            self.longest
        )
    }
}

/// Returns whether a reply answers this text.
fn belongs(said: &str, text: &str) -> bool {
    said.strip_prefix(text).is_some_and(|rest| rest.starts_with(", reply "))
}

/// How often a request that the store refused is sent again after the faults.
const MORE_TRIES: usize = 4;

/// Waits for a message's end. A store that is slow on a busy machine gets some retries.
async fn read(caller: Caller, location: &str) -> Answer {
    let ask = async || caller.send(Request::get(location).prefer("wait=55")).await;
    let mut answer = ask().await;
    for _ in 0..MORE_TRIES {
        if answer.status == 503 {
            answer = ask().await;
        }
    }
    answer
}

/// Returns the location of the message that an answer promises or contains.
fn promised(user: &str, answer: &Answer) -> Option<String> {
    if answer.status < 300 {
        return Some(answer.header("location").expect("a 2xx says where its message is").to_owned());
    }
    let message = answer.json()["message"].clone();
    let (id, bot) = (message["id"].as_str()?, message["bot"].as_str()?);
    Some(format!("/conversations/{user}/messages/{id}?bot={bot}"))
}

/// Returns whether an answer reports the message as lost.
fn is_lost(answer: &Answer) -> bool {
    answer.status == 500 && answer.json()["type"] == "/problems/message-lost"
}
