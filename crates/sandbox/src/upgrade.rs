//! Upgrades a request with a `sid` to a web socket (protocol.md 5).

use std::collections::HashMap;
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use actix_web::body::BoxBody;
use actix_web::http::header;
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};

use super::assertion::{self, TimeCheck};
use super::behaviour::{Behaviour, SecureHandshake, StaleSid};
use super::clock;
use super::connection_cut::{ConnectionCutter, CuttableBody};
use super::fault_injection::{error_response, inject_fault};
use super::faults::Endpoint;
use super::lenient_query::LenientQuery;
use super::platform_state::{PlatformState, SimulatedTicket, locked};
use super::socket_handle::SocketHandle;
use super::socket_task::{ConnectRequest, SocketTask};

/// A second descriptor of a connection, for its web socket.
#[derive(Default)]
pub(super) struct ConnectionHandle(pub(super) Mutex<Option<TcpStream>>);

pub(super) async fn upgrade(
    request: HttpRequest,
    payload: Payload,
    platform: Data<PlatformState>,
) -> Result<HttpResponse, actix_web::Error> {
    if let Some(answer) = inject_fault(&platform, Endpoint::Upgrade).await {
        return Ok(answer);
    }
    let behaviour = platform.behaviour();
    let parameters = LenientQuery::of(&request);
    let Some(ticket) = redeem(&platform, &behaviour, parameters.get("sid")) else {
        return stale_sid_response(&request, payload, &behaviour);
    };
    let selected = match select_subprotocol(&request, &platform, &behaviour, &ticket) {
        Ok(selected) => selected,
        Err(refusal) => return Ok(*refusal),
    };
    let selected: Vec<&str> = selected.as_deref().into_iter().collect();
    let (response, wire, frames) = actix_ws::handle_with_protocols(&request, payload, &selected)?;
    let limit = platform.options.payload_limit;
    let frames = frames.max_frame_size(limit).aggregate_continuations().max_continuation_size(limit);

    let connection =
        request.conn_data::<ConnectionHandle>().and_then(|connection| locked(&connection.0).take());
    let cutter = Arc::new(ConnectionCutter::new(connection));
    let id = platform.counts.socket_ids.fetch_add(1, Ordering::Relaxed) + 1;
    let socket = Arc::new(SocketHandle::new(id, wire, Arc::clone(&cutter)));
    let asked = ConnectRequest {
        mode: parameters.get("ConnectionMode").map(str::to_owned),
        is_reconnect: parameters.is_true("isReconnect"),
        skips_welcome: parameters.is_true("isSkipOnConnect"),
        query: request.query_string().to_owned(),
        origin: header_text(&request, header::ORIGIN),
    };
    let task = SocketTask { platform: platform.into_inner(), user: ticket.user, socket };
    let greeting = task.register(asked);
    actix_web::rt::spawn(task.run(frames, greeting));
    Ok(response.map_body(|_, body| BoxBody::new(CuttableBody::new(body, cutter))))
}

/// Returns the ticket of a valid `sid`, and removes it if it serves one socket only.
fn redeem(platform: &PlatformState, behaviour: &Behaviour, sid: Option<&str>) -> Option<SimulatedTicket> {
    let sid = sid?;
    let ticket = platform.tickets.with(sid, |tickets| {
        if behaviour.sid_single_use { tickets.remove(sid) } else { tickets.get(sid).cloned() }
    })?;
    (clock::elapsed(ticket.made_at, clock::now()) <= behaviour.sid_ttl).then_some(ticket)
}

fn stale_sid_response(
    request: &HttpRequest,
    payload: Payload,
    behaviour: &Behaviour,
) -> Result<HttpResponse, actix_web::Error> {
    match behaviour.stale_sid {
        StaleSid::Refuse(code) => Ok(error_response(code, "invalid sid")),
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

/// Returns a header of the request, if it is text.
pub(super) fn header_text(request: &HttpRequest, name: header::HeaderName) -> Option<String> {
    request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// Checks the secure handshake if the ticket asks for it, and returns the selected subprotocol. No source demands the
/// assertion of the grant, which may be weeks old. Any valid assertion of the same user passes.
fn select_subprotocol(
    request: &HttpRequest,
    platform: &PlatformState,
    behaviour: &Behaviour,
    ticket: &SimulatedTicket,
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
        // The grant used the `jti` up. This handshake only shows it again.
        let mut unused = HashMap::new();
        let times = if behaviour.handshake_checks_expiry {
            TimeCheck::Strict { now: clock::now(), used_jtis: &mut unused }
        } else {
            TimeCheck::Lenient
        };
        assertion::verify(assertion, &options.apps, &options.algorithms, times)
            .is_ok_and(|identity| identity.user == ticket.user.id.user)
    });
    let complete = offered.contains(&"x-rtm-v|1") && offered.contains(&nonce.as_str());
    let Some(jwt) = jwt.filter(|_| complete && behaviour.secure_handshake != SecureHandshake::Refuse) else {
        let refusal = error_response(403, "secure handshake failed");
        return Err(Box::new(refusal));
    };
    Ok(match behaviour.secure_handshake {
        SecureHandshake::Jwt => Some(jwt.to_owned()),
        SecureHandshake::Nonce => Some(nonce),
        SecureHandshake::Silent => None,
        SecureHandshake::Version | SecureHandshake::Unsupported | SecureHandshake::Refuse => {
            Some("x-rtm-v|1".to_owned())
        }
    })
}
