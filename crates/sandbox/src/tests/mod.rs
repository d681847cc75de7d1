//! Black-box tests of a running sandbox. Their client knows only the documented protocol.

mod control;
mod conversation;
mod http;
mod scripts;
mod sdk;
mod sockets;
mod uploads;
mod webhook;

use std::pin::Pin;

use actix_ws::{Item, ProtocolError};
use awc::Client;
use awc::http::StatusCode;
use awc::ws::{CloseCode, CloseReason, Frame, Message};
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::*;

/// Runs a test against a new sandbox and one caller. A test that waits in vain fails after 20 s.
fn run(test: impl AsyncFnOnce(Sandbox, SandboxScript, Caller)) {
    run_with(SandboxOptions::default(), test);
}

fn run_with(options: SandboxOptions, test: impl AsyncFnOnce(Sandbox, SandboxScript, Caller)) {
    actix_web::rt::System::new().block_on(async {
        let sandbox = Sandbox::start(options).await.unwrap();
        let (script, caller) = (sandbox.script(), Caller::of(&sandbox, "ann"));
        let test = test(sandbox, script, caller);
        tokio::time::timeout(Duration::from_secs(20), test).await.expect("the test waits in vain");
    });
}

trait Framed: Stream<Item = Result<Frame, ProtocolError>> + Sink<Message, Error = ProtocolError> {}
impl<T: Stream<Item = Result<Frame, ProtocolError>> + Sink<Message, Error = ProtocolError>> Framed for T {}

/// An open socket.
struct Link {
    frames: Pin<Box<dyn Framed>>,
    protocol: Option<String>,
}

/// End of a socket as its client sees it.
#[derive(Debug, PartialEq)]
enum End {
    /// A close frame, with its code if it had one.
    Close(Option<u16>),
    /// No close frame.
    Gone,
}

impl Link {
    async fn say(&mut self, id: impl Into<Value>, text: &str) {
        let id = id.into();
        self.send(&json!({
            "clientMessageId": id, "id": id, "resourceid": "/bot.message",
            "message": {"body": text, "attachments": []},
            "botInfo": {"chatBot": "Help", "taskBotId": BOT_ID}, "client": "sdk", "meta": {},
        }))
        .await;
    }

    async fn send(&mut self, frame: &Value) {
        self.frames.send(Message::Text(frame.to_string().into())).await.unwrap();
    }

    /// Returns the next message, with its fragments joined.
    async fn frame(&mut self) -> Result<Vec<u8>, End> {
        let mut whole = Vec::new();
        loop {
            match self.frames.next().await {
                Some(Ok(
                    Frame::Text(bytes) | Frame::Binary(bytes) | Frame::Continuation(Item::Last(bytes)),
                )) => {
                    whole.extend(bytes);
                    return Ok(whole);
                }
                Some(Ok(Frame::Continuation(
                    Item::FirstText(bytes) | Item::FirstBinary(bytes) | Item::Continue(bytes),
                ))) => whole.extend(bytes),
                Some(Ok(Frame::Ping(_) | Frame::Pong(_))) => {}
                Some(Ok(Frame::Close(reason))) => return Err(End::Close(reason.map(|r| r.code.into()))),
                Some(Err(_)) | None => return Err(End::Gone),
            }
        }
    }

    async fn json(&mut self) -> Value {
        serde_json::from_slice(&self.frame().await.unwrap()).unwrap()
    }

    /// Returns the types of the next frames, or the texts of responses.
    async fn brief(&mut self, frames: usize) -> Vec<String> {
        let mut brief = Vec::new();
        for _ in 0..frames {
            let frame = self.json().await;
            let text = frame.pointer("/message/0/cInfo/body").and_then(Value::as_str);
            brief.push(text.or_else(|| frame["type"].as_str()).unwrap_or_default().to_owned());
        }
        brief
    }

    async fn end(&mut self) -> End {
        loop {
            if let Err(end) = self.frame().await {
                return end;
            }
        }
    }
}

/// A backend that talks for one user.
struct Caller {
    http: Client,
    url: String,
    script: SandboxScript,
    user: &'static str,
}

impl Caller {
    fn of(sandbox: &Sandbox, user: &'static str) -> Self {
        Self { http: Client::builder().finish(), url: sandbox.url(), script: sandbox.script(), user }
    }

    fn assertion(&self, more: &Value) -> String {
        let iat = clock::now().as_second();
        let mut claims =
            json!({"iss": CLIENT_ID, "sub": self.user, "iat": iat, "exp": iat + 600, "aud": "x"});
        for (name, value) in more.as_object().unwrap() {
            claims[name] = value.clone();
        }
        encode(&Header::default(), &claims, &EncodingKey::from_secret(CLIENT_SECRET.as_bytes())).unwrap()
    }

    async fn post_grant(&self, assertion: &str) -> (StatusCode, Value) {
        let body = json!({"assertion": assertion, "botInfo": {"chatBot": "Help", "taskBotId": BOT_ID}});
        let request = self.http.post(format!("{}/api/1.1/oAuth/token/jwtgrant", self.url));
        let mut response = request.send_json(&body).await.unwrap();
        (response.status(), response.json().await.unwrap())
    }

    async fn grant(&self) -> String {
        let (status, body) = self.post_grant(&self.assertion(&json!({}))).await;
        assert_eq!(status, 200, "{body}");
        body["authorization"]["accessToken"].as_str().unwrap().to_owned()
    }

    async fn post_start(&self, token: &str) -> (StatusCode, Value) {
        let request = self.http.post(format!("{}/api/rtm/start", self.url)).bearer_auth(token);
        let mut response = request.send_json(&json!({})).await.unwrap();
        (response.status(), response.json().await.unwrap())
    }

    async fn ticket(&self) -> String {
        let (status, body) = self.post_start(&self.grant().await).await;
        assert_eq!(status, 200, "{body}");
        body["url"].as_str().unwrap().to_owned()
    }

    /// Sends a request, and returns its status and JSON.
    async fn call(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let method = method.parse::<awc::http::Method>().unwrap();
        let request = self.http.request(method, format!("{}{path}", self.url));
        let mut response = request.send_body(body.to_owned()).await.unwrap();
        let body = response.body().await.unwrap();
        (response.status().as_u16(), serde_json::from_slice(&body).unwrap_or_default())
    }

    async fn history(&self, token: &str, query: &str) -> (StatusCode, Value) {
        let url = format!("{}/api/1.1/botmessages/rtm?botId={BOT_ID}&{query}", self.url);
        let mut response = self.http.get(url).bearer_auth(token).send().await.unwrap();
        (response.status(), response.json().await.unwrap())
    }

    /// Opens a socket, or returns the status of the refusal.
    async fn open(&self, url: &str, protocols: &[&str]) -> Result<Link, u16> {
        let mut request = self.http.ws(url).max_frame_size(1 << 20);
        if !protocols.is_empty() {
            request = request.protocols(protocols);
        }
        match request.connect().await {
            Ok((response, frames)) => {
                let protocol = response.headers().get("sec-websocket-protocol");
                let protocol = protocol.map(|value| value.to_str().unwrap().to_owned());
                Ok(Link { frames: Box::pin(frames), protocol })
            }
            Err(awc::error::WsClientError::InvalidResponseStatus(status)) => Err(status.as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    /// Opens a socket with `more` appended to the URL, and leaves the frames of the connect unread.
    async fn connect(&self, more: &str) -> Link {
        let url = self.ticket().await + more;
        self.open(&url, &[]).await.map_err(|status| format!("refused: {status}")).unwrap()
    }

    /// Opens a socket without greeting.
    async fn connect_quietly(&self) -> Link {
        self.script.next_connect(self.user, Vec::new());
        self.connect("").await
    }
}
