//! `rtm-bridge webhook listen`
//!
//! ```text
//! POST ─► HTTP worker: reads the body ─► queue ─► verifies, prints and answers one by one, in the received order
//! ```

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};

use actix_web::http::{Method, StatusCode};
use actix_web::web::{Bytes, Data, Payload};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use clap::Args;
use tokio::sync::{mpsc, oneshot};

use super::received::{DeliveryHeaders, verify_delivery};
use super::render::{DeliveryReport, SignatureCheck};
use super::{BODY_MAX, SecretArgs, WebhookCommandError};
use crate::cli::{CommandError, print, stop_signal};
use crate::store::Clock;
use crate::webhook::signature::SignatureKey;
use crate::{runtime, telemetry};

/// The most deliveries in the queue. More wait in their connections.
const QUEUE_MAX: usize = 64;
/// The most ids that are remembered to recognise a repeated delivery.
const ACCEPTED_MAX: usize = 10_000;
/// The answer to a delivery that fails the verification.
const UNAUTHORIZED: u16 = 401;

/// Receive deliveries, verify them, and print their content. Ctrl-C stops it.
///
/// The receiver answers 204 on every path, or as --status says. It answers 401 if it has secrets and none of them signed
/// the delivery.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    rtm-bridge webhook listen --secret-file webhook.secret\n  \
    rtm-bridge webhook listen --secret-file webhook.secret --status 500,503,204\n  \
    rtm-bridge webhook listen --json > deliveries.jsonl")]
pub(super) struct ListenCommand {
    /// The address to listen on; port 0 chooses a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9099")]
    addr: SocketAddr,
    #[command(flatten)]
    secrets: SecretArgs,
    /// The statuses of the answers, one for each delivery; the last one repeats. A failure shows the bridge's retries.
    #[arg(long, value_name = "STATUS", value_delimiter = ',', default_value = "204", value_parser = clap::value_parser!(u16).range(200..=599))]
    status: Vec<u16>,
    /// Print one line of JSON for each delivery, and nothing else on standard output.
    #[arg(long)]
    json: bool,
}

/// A request in the queue.
struct QueuedDelivery {
    path: String,
    headers: DeliveryHeaders,
    /// `None` if the body is too long.
    body: Option<Bytes>,
    answer: oneshot::Sender<u16>,
}

impl ListenCommand {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let secrets = self.secrets.read()?;
        runtime::block_on(self.listen(&secrets)).map_err(CommandError::Runtime)?
    }

    async fn listen(&self, secrets: &[SignatureKey]) -> Result<(), CommandError> {
        let failed = |source| WebhookCommandError::Listen(self.addr, source);
        let listener = TcpListener::bind(self.addr).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let (sender, mut deliveries) = mpsc::channel(QUEUE_MAX);
        let sender = Data::new(sender);
        let app = move || App::new().app_data(sender.clone()).default_service(web::to(enqueue));
        let server =
            HttpServer::new(app).workers(1).disable_signals().listen(listener).map_err(failed)?.run();
        let handle = server.handle();
        let mut server = std::pin::pin!(server);
        self.print_start(address, secrets.len())?;

        let coloured = telemetry::shows_colour(&io::stdout());
        let (clock, accepted) = (Clock::wall(), VecDeque::new());
        let mut receiver = DeliveryReceiver { secrets, statuses: &self.status, clock, accepted };
        let mut stop = std::pin::pin!(stop_signal());
        loop {
            tokio::select! {
                biased;
                stopped = &mut stop => {
                    stopped.map_err(CommandError::Runtime)?;
                    break;
                }
                failed = &mut server => {
                    let source = failed.err().unwrap_or_else(|| io::ErrorKind::Other.into());
                    return Err(WebhookCommandError::Server(source).into());
                }
                Some(delivery) = deliveries.recv() => {
                    let report = |report: &DeliveryReport<'_>| {
                        if self.json { report.json() } else { report.text(coloured) }
                    };
                    print(&receiver.answer(delivery, report))?;
                }
            }
        }
        let ((), _ended) = tokio::join!(handle.stop(false), server);
        Ok(())
    }

    fn print_start(&self, address: SocketAddr, secrets: usize) -> io::Result<()> {
        let check = match secrets {
            0 => "Signatures are not checked; give --secret-file FILE to check them.".to_owned(),
            1 => "Signatures are checked with 1 secret.".to_owned(),
            more => format!("Signatures are checked with {more} secrets."),
        };
        let text = format!("Listening for deliveries on http://{address}. {check} Ctrl-C stops it.\n");
        if self.json { io::stderr().write_all(text.as_bytes()) } else { print(&text) }
    }
}

/// The receiver, which verifies and answers deliveries one by one.
struct DeliveryReceiver<'a> {
    secrets: &'a [SignatureKey],
    statuses: &'a [u16],
    clock: Clock,
    /// The ids of accepted deliveries, oldest first.
    accepted: VecDeque<String>,
}

impl DeliveryReceiver<'_> {
    /// Answers a delivery, and returns its printed form.
    fn answer(&mut self, delivery: QueuedDelivery, print: impl Fn(&DeliveryReport<'_>) -> String) -> String {
        let QueuedDelivery { path, headers, body, answer } = delivery;
        let at = self.clock.now();
        let (body, check) = match &body {
            None => (&[][..], SignatureCheck::Failed(format!("its body is longer than {BODY_MAX} bytes"))),
            Some(body) if self.secrets.is_empty() => (&body[..], SignatureCheck::Skipped),
            Some(body) => match verify_delivery(self.secrets, &headers, body, Some(at)) {
                Ok(_) => (&body[..], SignatureCheck::Valid),
                Err(error) => (&body[..], SignatureCheck::Failed(error.to_string())),
            },
        };
        let failed = matches!(check, SignatureCheck::Failed(_));
        let status = if failed { UNAUTHORIZED } else { self.next_status() };
        let id = headers.get("webhook-id").unwrap_or_default();
        let repeated = !failed && self.accepted.iter().any(|known| known == id);
        if !repeated && !id.is_empty() && (200..300).contains(&status) {
            if self.accepted.len() == ACCEPTED_MAX {
                self.accepted.pop_front();
            }
            self.accepted.push_back(id.to_owned());
        }
        // A sender that has disconnected will retry.
        let _gone = answer.send(status);
        print(&DeliveryReport { at, path: &path, headers: &headers, body, check, repeated, status })
    }

    /// Returns the next status. The last one repeats.
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

/// Reads a request, queues it, and waits for the answer.
async fn enqueue(
    request: HttpRequest,
    payload: Payload,
    queue: Data<mpsc::Sender<QueuedDelivery>>,
) -> HttpResponse {
    if request.method() != Method::POST {
        return HttpResponse::MethodNotAllowed()
            .insert_header(("allow", "POST"))
            .body("This is `rtm-bridge webhook listen`. POST deliveries to it.\n");
    }
    let body = match payload.to_bytes_limited(BODY_MAX).await {
        Ok(Ok(body)) => Some(body),
        // The connection broke, so the answer does not arrive.
        Ok(Err(_)) => return HttpResponse::BadRequest().finish(),
        Err(_) => None,
    };
    let headers = request.headers().iter().map(|(name, value)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    });
    let (answer, answered) = oneshot::channel();
    let delivery =
        QueuedDelivery { path: request.path().to_owned(), headers: headers.collect(), body, answer };
    // Both fail only while the receiver stops.
    let status = if queue.send(delivery).await.is_ok() { answered.await.ok() } else { None };
    let status = status.and_then(|status| StatusCode::from_u16(status).ok());
    HttpResponse::build(status.unwrap_or(StatusCode::SERVICE_UNAVAILABLE)).finish()
}
