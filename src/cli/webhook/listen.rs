//! `rtm-bridge webhook listen`
//!
//! ```text
//! POST ─► worker: reads the body ─► queue ─► judged, shown, answered in the order of arrival, one by one
//! ```

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};

use actix_web::http::{Method, StatusCode};
use actix_web::web::{Bytes, Data, Payload};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use clap::Args;
use tokio::sync::{mpsc, oneshot};

use super::arrived::{Headers, judge};
use super::shown::{Shown, Verdict};
use super::{BODY_MAX, NoWebhook, Secrets};
use crate::cli::{Failure, asked_to_end, print};
use crate::runtime;
use crate::store::Clock;
use crate::webhook::signature::SigningSecret;

/// Deliveries that wait to be shown; more wait in their connections.
const WAITING_MAX: usize = 64;
/// Ids that are remembered, to know a repeated delivery.
const KNOWN_MAX: usize = 10_000;
/// What a delivery that cannot be trusted is answered with.
const UNTRUSTED: u16 = 401;

/// Listen for deliveries, verify them, and show what they tell. Ctrl-C ends it.
///
/// Whatever path they are posted to, they are answered with 204, or as --status says; where there are secrets and none
/// of them fits, with 401.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    rtm-bridge webhook listen --secret-file webhook.secret\n  \
    rtm-bridge webhook listen --secret-file webhook.secret --status 500,503,204\n  \
    rtm-bridge webhook listen --json > deliveries.jsonl")]
pub(super) struct Listen {
    /// Where it listens; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9099")]
    addr: SocketAddr,
    #[command(flatten)]
    secrets: Secrets,
    /// What is answered; of several, each to one delivery in turn, and the last to all that follow. To see retries.
    #[arg(long, value_name = "STATUS", value_delimiter = ',', default_value = "204", value_parser = clap::value_parser!(u16).range(200..=599))]
    status: Vec<u16>,
    /// Print a line of JSON for each, and nothing else on standard output.
    #[arg(long)]
    json: bool,
}

/// A request on its way to who answers it.
struct Arrival {
    path: String,
    headers: Headers,
    /// None where it is too long.
    body: Option<Bytes>,
    answer: oneshot::Sender<u16>,
}

impl Listen {
    pub(super) fn run(self) -> Result<(), Failure> {
        let secrets = self.secrets.read()?;
        runtime::block_on(self.listen(&secrets)).map_err(Failure::Runtime)?
    }

    async fn listen(&self, secrets: &[SigningSecret]) -> Result<(), Failure> {
        let failed = |source| NoWebhook::Listen(self.addr, source);
        let listener = TcpListener::bind(self.addr).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let (sender, mut arrivals) = mpsc::channel(WAITING_MAX);
        let sender = Data::new(sender);
        let app = move || App::new().app_data(sender.clone()).default_service(web::to(take));
        let server =
            HttpServer::new(app).workers(1).disable_signals().listen(listener).map_err(failed)?.run();
        let handle = server.handle();
        let mut server = std::pin::pin!(server);
        self.greet(address, secrets.len())?;

        let mut desk = Desk { secrets, statuses: &self.status, clock: Clock::wall(), taken: VecDeque::new() };
        let mut ended = std::pin::pin!(asked_to_end());
        loop {
            tokio::select! {
                biased;
                ended = &mut ended => {
                    ended.map_err(Failure::Runtime)?;
                    break;
                }
                failed = &mut server => {
                    let source = failed.err().unwrap_or_else(|| io::ErrorKind::Other.into());
                    return Err(NoWebhook::Deaf(source).into());
                }
                Some(arrival) = arrivals.recv() => print(&desk.answer(arrival, self.json))?,
            }
        }
        let ((), _ended) = tokio::join!(handle.stop(false), server);
        Ok(())
    }

    fn greet(&self, address: SocketAddr, secrets: usize) -> io::Result<()> {
        let check = match secrets {
            0 => "Signatures are not checked; --secret-file FILE has them checked.".to_owned(),
            1 => "Signatures are checked with 1 secret.".to_owned(),
            more => format!("Signatures are checked with {more} secrets."),
        };
        let text = format!("Listening for deliveries on http://{address}. {check} Ctrl-C ends it.\n");
        if self.json { io::stderr().write_all(text.as_bytes()) } else { print(&text) }
    }
}

/// Where deliveries are judged and answered, one by one.
struct Desk<'a> {
    secrets: &'a [SigningSecret],
    statuses: &'a [u16],
    clock: Clock,
    /// Ids of what was taken, oldest first.
    taken: VecDeque<String>,
}

impl Desk<'_> {
    /// Answers a delivery, and returns what is to be printed of it.
    fn answer(&mut self, arrival: Arrival, json: bool) -> String {
        let Arrival { path, headers, body, answer } = arrival;
        let at = self.clock.now();
        let (body, verdict) = match &body {
            None => (&[][..], Verdict::Refused(format!("its body is longer than {BODY_MAX} bytes"))),
            Some(body) if self.secrets.is_empty() => (&body[..], Verdict::Unchecked),
            Some(body) => match judge(self.secrets, &headers, body, Some(at)) {
                Ok(_) => (&body[..], Verdict::Verified),
                Err(why) => (&body[..], Verdict::Refused(why.to_string())),
            },
        };
        let refused = matches!(verdict, Verdict::Refused(_));
        let status = if refused { UNTRUSTED } else { self.next_status() };
        let id = headers.get("webhook-id").unwrap_or_default();
        let repeated = !refused && self.taken.iter().any(|known| known == id);
        if !repeated && !id.is_empty() && (200..300).contains(&status) {
            if self.taken.len() == KNOWN_MAX {
                self.taken.pop_front();
            }
            self.taken.push_back(id.to_owned());
        }
        // Who asked may be gone, and will ask again.
        let _gone = answer.send(status);
        let shown = Shown { at, path: &path, headers: &headers, body, verdict, repeated, status };
        if json { shown.json() } else { shown.text() }
    }

    /// The statuses in turn; the last one stays.
    fn next_status(&mut self) -> u16 {
        match self.statuses {
            [first, rest @ ..] => {
                if !rest.is_empty() {
                    self.statuses = rest;
                }
                *first
            }
            [] => 204,
        }
    }
}

/// Takes a request, of whatever path.
async fn take(request: HttpRequest, payload: Payload, desk: Data<mpsc::Sender<Arrival>>) -> HttpResponse {
    if request.method() != Method::POST {
        return HttpResponse::MethodNotAllowed()
            .insert_header(("allow", "POST"))
            .body("This is `rtm-bridge webhook listen`: it takes deliveries, which are posted.\n");
    }
    let body = match payload.to_bytes_limited(BODY_MAX).await {
        Ok(Ok(body)) => Some(body),
        // It broke off; nobody hears the answer.
        Ok(Err(_)) => return HttpResponse::BadRequest().finish(),
        Err(_) => None,
    };
    let headers = request.headers().iter().map(|(name, value)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    });
    let (answer, answered) = oneshot::channel();
    let arrival = Arrival { path: request.path().to_owned(), headers: headers.collect(), body, answer };
    // Both fail only while it ends.
    let status = if desk.send(arrival).await.is_ok() { answered.await.ok() } else { None };
    let status = status.and_then(|status| StatusCode::from_u16(status).ok());
    HttpResponse::build(status.unwrap_or(StatusCode::SERVICE_UNAVAILABLE)).finish()
}
