//! From a `sid` to a web socket (protocol.md 5).

use std::collections::HashMap;
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use actix_web::body::BoxBody;
use actix_web::http::{StatusCode, header};
use actix_web::web::{Data, Payload, Query};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;
use serde_json::json;

use super::assertion;
use super::behaviour::{Behaviour, Secure, StaleSid};
use super::clock;
use super::connection_cut::{Frames, Knife};
use super::fault_injection::{self, Struck};
use super::faults::Endpoint;
use super::platform::{Platform, Ticket, locked};
use super::simulated_socket::Socket;
use super::socket_task::{self, Request};

/// A second descriptor of a connection, kept until its web socket takes it.
#[derive(Default)]
pub(super) struct Connection(pub(super) Mutex<Option<TcpStream>>);

#[derive(Deserialize)]
pub(super) struct Parameters {
    sid: Option<String>,
    #[serde(rename = "ConnectionMode")]
    mode: Option<String>,
    #[serde(rename = "isReconnect")]
    is_reconnect: Option<String>,
}

pub(super) async fn upgrade(
    request: HttpRequest,
    payload: Payload,
    parameters: Query<Parameters>,
    platform: Data<Platform>,
) -> Result<HttpResponse, actix_web::Error> {
    platform.counts.upgrades.fetch_add(1, Ordering::Relaxed);
    platform.changed.send_replace(());
    if let Struck::Answer(answer) = fault_injection::strike(&platform, Endpoint::Upgrade).await {
        return Ok(answer);
    }
    let behaviour = platform.behaviour();
    let parameters = parameters.into_inner();
    let Some(ticket) = redeem(&platform, &behaviour, parameters.sid.as_deref()) else {
        return stale(&request, payload, &behaviour);
    };
    let selected = match handshake(&request, &platform, &behaviour, &ticket) {
        Ok(selected) => selected,
        Err(refusal) => return Ok(*refusal),
    };
    let selected: Vec<&str> = selected.as_deref().into_iter().collect();
    let (response, wire, frames) = actix_ws::handle_with_protocols(&request, payload, &selected)?;
    let limit = platform.options.payload_limit;
    let frames = frames.max_frame_size(limit).aggregate_continuations().max_continuation_size(limit);

    let connection = request.conn_data::<Connection>().and_then(|connection| locked(&connection.0).take());
    let knife = Arc::new(Knife::new(connection));
    let id = platform.counts.socket_ids.fetch_add(1, Ordering::Relaxed) + 1;
    let socket = Arc::new(Socket::new(id, wire, Arc::clone(&knife)));
    let asked = Request {
        mode: parameters.mode,
        is_reconnect: parameters.is_reconnect.as_deref() == Some("true"),
        query: request.query_string().to_owned(),
    };
    let greeting = socket_task::enter(&platform, &ticket.user, &socket, asked);
    actix_web::rt::spawn(socket_task::run(platform.into_inner(), ticket.user, socket, frames, greeting));
    Ok(response.map_body(|_, body| BoxBody::new(Frames::new(body, knife))))
}

/// The ticket of a `sid` that is still good; it is used up where it is good for one socket only.
fn redeem(platform: &Platform, behaviour: &Behaviour, sid: Option<&str>) -> Option<Ticket> {
    let sid = sid?;
    let ticket = platform.tickets.with(sid, |tickets| {
        if behaviour.sid_single_use { tickets.remove(sid) } else { tickets.get(sid).cloned() }
    })?;
    (clock::elapsed(ticket.made_at, clock::now()) <= behaviour.sid_ttl).then_some(ticket)
}

fn stale(
    request: &HttpRequest,
    payload: Payload,
    behaviour: &Behaviour,
) -> Result<HttpResponse, actix_web::Error> {
    match behaviour.stale_sid {
        StaleSid::Refuse(code) => {
            Ok(fault_injection::error(fault_injection::status(code), &json!(code), "invalid sid"))
        }
        StaleSid::OpenAndClose(code) => {
            let (response, wire, frames) = actix_ws::handle(request, payload)?;
            actix_web::rt::spawn(async move {
                let code = actix_ws::CloseCode::from(code);
                let _gone = wire.close(Some(code.into())).await;
                drop(frames);
            });
            Ok(response)
        }
    }
}

/// Checks the secure handshake where the ticket asks for it, and says which protocol is selected.
///
/// No source says that the assertion must be the very one of the grant, which may be weeks old: any that is good
/// now and names the same user will do.
fn handshake(
    request: &HttpRequest,
    platform: &Platform,
    behaviour: &Behaviour,
    ticket: &Ticket,
) -> Result<Option<String>, Box<HttpResponse>> {
    let Some(nonce) = &ticket.nonce else { return Ok(None) };
    let offered: Vec<&str> = request
        .headers()
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    let nonce = format!("nonce|{nonce}");
    let jwt = offered.iter().copied().find(|value| {
        let Some(assertion) = value.strip_prefix("jwt|") else { return false };
        let options = &platform.options;
        // An assertion with a `jti` was used up by its grant; here it is shown, not used.
        let mut unused = HashMap::new();
        assertion::verify(assertion, &options.clients, &options.algorithms, clock::now(), &mut unused)
            .is_ok_and(|identity| identity.user == ticket.user.who.user)
    });
    let complete = offered.contains(&"x-rtm-v|1") && offered.contains(&nonce.as_str());
    let Some(jwt) = jwt.filter(|_| complete && behaviour.secure != Secure::Refuse) else {
        let refusal = fault_injection::error(StatusCode::FORBIDDEN, &json!(403), "secure handshake failed");
        return Err(Box::new(refusal));
    };
    Ok(match behaviour.secure {
        Secure::Jwt => Some(jwt.to_owned()),
        Secure::Nonce => Some(nonce),
        Secure::Silent => None,
        Secure::Version | Secure::Unsupported | Secure::Refuse => Some("x-rtm-v|1".to_owned()),
    })
}
