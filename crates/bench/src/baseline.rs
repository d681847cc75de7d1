//! Two programs that each do half of the bridge's work, as separate processes with the same libraries. Their sum is the
//! lower bound for the bridge.
//!
//! * `bare-http` parses the bridge's request and answers a constant Message.
//! * `bare-socket` sends the bridge's frame on an awc socket and reads ack and reply.

use std::cell::Cell;
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::net::SocketAddr;
use std::process::ChildStdout;
use std::rc::Rc;
use std::time::{Duration, Instant};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use awc::ws;
use futures_util::{Sink, SinkExt as _, Stream, StreamExt as _};
use serde::Deserialize;

use crate::bench_error::BenchError;
use crate::child_process::{self, ChildProcess};
use crate::http::HttpConnection;
use crate::platform;
use crate::run_meter::{LoadRun, MeteredRun};
use crate::setup::{self, AnswerPace, BenchSizes};

/// The role of a child process of this program.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum ChildRole {
    BareHttp,
    BareSocket,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct MessageRequest {
    text: String,
    turn: ChildTurn,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ChildTurn {
    expect_replies: u32,
}

/// A body about as long as the bridge's answer to the same request.
const MESSAGE: &str = r#"{"id":"01JD9ZZZZZZZZZZZZZZZZZZZZZ","bot":"bench","user":"user-123","clientMessageId":1763845000123,"status":"answered","complete":true,"endedBy":"replyCount","text":"/echo quack","replies":[{"seq":17,"messageId":"ms-3cd6c77c-bd12-5547-8f7d-2e2a0f7a7929","inReplyTo":"01JD9ZZZZZZZZZZZZZZZZZZZZZ","correlation":"window","late":false,"text":"quack","agent":false,"createdOn":"2026-01-01T00:00:00.000Z","event":{"type":"bot_response","from":"bot","message":[{"type":"text","component":{"type":"text","payload":{"text":"quack"}},"cInfo":{"body":"quack"}}],"messageId":"ms-3cd6c77c-bd12-5547-8f7d-2e2a0f7a7929","botInfo":{"chatBot":"Sandbox","taskBotId":"st-sandbox"},"createdOn":"2026-01-01T00:00:00.000Z","traceId":"766866d48cfcbdfe"}}],"error":null,"callback":null,"acceptedAt":"2026-01-01T00:00:00.000Z","sentAt":"2026-01-01T00:00:00.000Z","ackedAt":"2026-01-01T00:00:00.000Z","firstReplyAt":"2026-01-01T00:00:00.000Z","endedAt":"2026-01-01T00:00:00.000Z"}"#;

async fn answer(
    request: HttpRequest,
    user: web::Path<String>,
    body: web::Json<MessageRequest>,
) -> HttpResponse {
    let waits = request.headers().get("prefer").is_some_and(|value| value.as_bytes().starts_with(b"wait="));
    if !waits || body.text.is_empty() || body.turn.expect_replies == 0 {
        return HttpResponse::BadRequest().finish();
    }
    HttpResponse::Ok()
        .insert_header((
            "Location",
            format!("/conversations/{user}/messages/01JD9ZZZZZZZZZZZZZZZZZZZZZ?bot=bench"),
        ))
        .content_type("application/json")
        .body(MESSAGE)
}

/// Runs the role `bare-http`.
pub(crate) fn serve_http(listen: SocketAddr) -> Result<(), BenchError> {
    actix_web::rt::System::new().block_on(async move {
        let app = || App::new().route("/conversations/{user}/messages", web::post().to(answer));
        let workers = std::thread::available_parallelism()?.get();
        HttpServer::new(app).workers(workers).keep_alive(Duration::from_secs(75)).bind(listen)?.run().await?;
        Ok(())
    })
}

/// Runs the role `bare-socket`.
///
/// The input has one URL per line up to an empty line. Then each line `go` starts a round, and the role writes the
/// number of its turns.
pub(crate) fn speak(span: Duration) -> Result<(), BenchError> {
    actix_web::rt::System::new().block_on(async move {
        let mut lines = std::io::stdin().lines();
        let mut sockets = Vec::new();
        let number = Rc::new(Cell::new(setup::FIRST_NUMBER));
        // Without a limit, because the default of 100 counts open sockets.
        let client = awc::Client::builder().connector(awc::Connector::new().limit(0)).finish();
        for url in lines.by_ref() {
            let url = url?;
            if url.is_empty() {
                break;
            }
            let (_, mut socket) =
                client.ws(url).connect().await.map_err(|error| BenchError::Awc(error.to_string()))?;
            // An uncounted turn first reads the welcome.
            turn(&mut socket, number.replace(number.get() + 1)).await?;
            sockets.push(socket);
        }
        println!("ready");
        for line in lines {
            if line? != "go" {
                break;
            }
            let end = Instant::now() + span;
            let tasks: Vec<_> = std::mem::take(&mut sockets)
                .into_iter()
                .map(|mut socket| {
                    let number = Rc::clone(&number);
                    actix_web::rt::spawn(async move {
                        let mut turns = 0_u64;
                        while Instant::now() < end {
                            turn(&mut socket, number.replace(number.get() + 1)).await?;
                            turns += 1;
                        }
                        Ok::<_, BenchError>((socket, turns))
                    })
                })
                .collect();
            let mut total = 0;
            for task in tasks {
                let (socket, turns) = task.await.map_err(std::io::Error::other)??;
                sockets.push(socket);
                total += turns;
            }
            println!("{total}");
        }
        Ok(())
    })
}

/// Starts the role `bare-http`.
pub(crate) async fn start_http() -> Result<ChildProcess, BenchError> {
    let address = child_process::free_address()?;
    let listen = address.to_string();
    let this = std::env::current_exe()?;
    let mut child =
        ChildProcess::start("bare-http", &this, &["--role", "bare-http", "--listen", &listen], address)?;
    child.listening().await?;
    Ok(child)
}

/// A process in the role `bare-socket`.
pub(crate) struct BareSocket {
    child: ChildProcess,
    said: Lines<BufReader<ChildStdout>>,
}

impl BareSocket {
    /// Starts the process with a socket for each caller.
    pub(crate) async fn start(sandbox: SocketAddr, sizes: BenchSizes) -> Result<Self, BenchError> {
        let this = std::env::current_exe()?;
        let millis = sizes.saturation.as_millis().to_string();
        let mut child = ChildProcess::talking(
            "bare-socket",
            &this,
            &["--role", "bare-socket", "--millis", &millis],
            sandbox,
        )?;
        let said = child.process.stdout.take().ok_or(BenchError::Proc("stdout"))?;
        let mut bare = Self { child, said: BufReader::new(said).lines() };
        let mut connection = HttpConnection::open(sandbox).await?;
        for caller in 0..sizes.callers {
            let path = platform::ticket(&mut connection, sandbox, &format!("bare-{caller}")).await?;
            bare.tell(&format!("ws://{sandbox}{path}"))?;
        }
        bare.tell("")?;
        match bare.hear()?.as_str() {
            "ready" => Ok(bare),
            _ => Err(BenchError::Unreadable { what: "bare-socket", detail: "not ready" }),
        }
    }

    /// Runs one round at saturation.
    pub(crate) fn round(&mut self, sandbox: &ChildProcess) -> Result<MeteredRun, BenchError> {
        let before = (self.child.cpu()?, sandbox.cpu()?);
        let began = Instant::now();
        self.tell("go")?;
        let turns = self
            .hear()?
            .parse()
            .map_err(|_| BenchError::Unreadable { what: "bare-socket", detail: "no number of turns" })?;
        let run = LoadRun { turns, elapsed: began.elapsed(), latency: None };
        let after = (self.child.cpu()?, sandbox.cpu()?);
        let (cpu, sandbox) = (after.0.saturating_sub(before.0), after.1.saturating_sub(before.1));
        Ok(MeteredRun { run, cpu, store: Duration::ZERO, sandbox })
    }

    fn tell(&mut self, line: &str) -> Result<(), BenchError> {
        let input = self.child.process.stdin.as_mut().ok_or(BenchError::Proc("stdin"))?;
        writeln!(input, "{line}")?;
        input.flush()?;
        Ok(())
    }

    fn hear(&mut self) -> Result<String, BenchError> {
        Ok(self.said.next().ok_or(BenchError::Closed { what: "bare-socket" })??)
    }
}

async fn turn<S, E>(socket: &mut S, number: u64) -> Result<(), BenchError>
where
    S: Sink<ws::Message, Error = E> + Stream<Item = Result<ws::Frame, E>> + Unpin,
    E: std::fmt::Display,
{
    socket
        .send(ws::Message::Text(setup::frame(number, AnswerPace::AtOnce).into()))
        .await
        .map_err(|error| BenchError::Awc(error.to_string()))?;
    loop {
        match socket.next().await {
            Some(Ok(ws::Frame::Text(text))) => {
                let sign = setup::SIGN.as_bytes();
                if text.windows(sign.len()).any(|window| window == sign) {
                    return Ok(());
                }
            }
            Some(Ok(ws::Frame::Close(_))) | None => {
                return Err(BenchError::Closed { what: "the awc socket" });
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(BenchError::Awc(error.to_string())),
        }
    }
}
