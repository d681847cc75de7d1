//! GET of a conversation's events: as pages, held for a while, or as a stream (api.md 3).
//!
//! All three read the same pages of the journal; whoever waits is known to the hub before it reads, so that nothing
//! falls between reading and waiting.

mod event;
mod feed;
mod stream;

use std::time::Duration;

use actix_web::body::None as NoBody;
use actix_web::http::header::{self, HeaderMap, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use serde::Serialize;
use tokio::time::{Instant, timeout_at};

use self::event::{Event, is_told};
use self::feed::Feed;
use self::stream::Stream;
use super::accept::prefers_stream;
use super::address::Address;
use super::admission::Admission;
use super::auth::Scope;
use super::exchange::{note, resource, serve};
use super::line::Line;
use super::prefer::{PREFERENCE_APPLIED, Prefer, applied_wait};
use super::problem::{Failure, Mistakes};
use super::query::parse_limit;
use super::{EVENTS, Front};
use crate::domain::{ConversationId, Cursor, InvalidCursor, JournalPage, LiveSignal, ReadStart};
use crate::hub::{HubError, Subscription};

pub(super) use self::stream::KEEP_ALIVE;

/// Events of a page where the caller does not say.
const LIMIT: usize = 100;
/// After how many milliseconds a client that lost a stream comes back: between these, so that those of a replica
/// that went do not all come at once.
const RETRY: std::ops::RangeInclusive<u32> = 1000..=3000;

/// `GET /conversations/{user}/events`
pub(super) async fn get(front: Data<Front>, request: HttpRequest) -> HttpResponse {
    serve(&front, EVENTS, &request, read(&front, &request)).await
}

async fn read(front: &Data<Front>, request: &HttpRequest) -> Result<HttpResponse, Failure> {
    let headers = request.headers();
    let (caller, place) = front.enter(headers, Scope::Read)?;
    let mut mistakes = Mistakes::default();
    let (address, [after, limit]) =
        Address::read_with(&front.config, caller, request.uri(), ["after", "limit"], &mut mistakes)?;
    let after =
        after.map_or(Some(ReadStart::Oldest), |text| mistakes.note("query/after", parse_after(&text)));
    let limit = limit.map_or(Some(LIMIT), |text| mistakes.note("query/limit", parse_limit(&text)));
    let prefer = Prefer::of(headers, &mut mistakes);
    let streams = prefers_stream(headers);
    let resumed = if streams { last_event_id(headers, &mut mistakes) } else { None };
    let (Some(address), Some(after), Some(limit), Some(prefer), true) =
        (address, after, limit, prefer, mistakes.is_empty())
    else {
        return Err(mistakes.into());
    };
    note("bot", &address.bot.name);
    note("caller", &caller.name());
    let conversation = address.conversation;
    if streams {
        let after = resumed.map_or(after, ReadStart::Cursor);
        if request.method() == Method::HEAD {
            return Ok(stream_head().finish().set_body(NoBody::new()).map_into_boxed_body());
        }
        let body = open(front, conversation, after, place).await?.into_body();
        if let Some(line) = Line::of(request) {
            return Ok(stream_head().force_close().body(line.parting(body)));
        }
        let mut response = stream_head().force_close().body(body);
        // HTTP/1.0 knows no chunks (RFC 9112, 6.1): there the end of the connection is the end of the stream.
        response.head_mut().no_chunking(true);
        return Ok(response);
    }
    let page = hold(front, &conversation, after, limit, prefer.wait.filter(|wait| !wait.is_zero())).await?;
    let mut response = resource(StatusCode::OK, &view(front, &page, &conversation))?;
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    if let Some(wait) = prefer.wait {
        response.headers_mut().insert(PREFERENCE_APPLIED, applied_wait(wait)?);
    }
    Ok(response)
}

/// The page, or the first that has something to tell within `wait`.
async fn hold(
    front: &Front,
    conversation: &ConversationId,
    after: ReadStart,
    limit: usize,
    wait: Option<Duration>,
) -> Result<JournalPage, Failure> {
    let Some(wait) = wait else {
        return Ok(front.hub.page(conversation, after, limit, false).await?);
    };
    let until = Instant::now() + wait;
    let mut observer = match front.hub.observe(conversation).await {
        Ok(observer) => observer,
        // A replica that goes away begins no wait, and tells how things stand.
        Err(HubError::Draining) => return Ok(front.hub.page(conversation, after, limit, false).await?),
        Err(error) => return Err(error.into()),
    };
    let mut after = after;
    loop {
        let page = front.hub.page(conversation, after, limit, true).await?;
        if page.gap || page.entries.iter().any(is_told) {
            return Ok(page);
        }
        after = ReadStart::Cursor(page.next);
        if !page.more && !looks(&mut observer, until).await {
            return Ok(page);
        }
    }
}

/// Waits for new entries. False where there are none in time, or nobody will tell of them any more.
async fn looks(observer: &mut Subscription, until: Instant) -> bool {
    loop {
        match timeout_at(until, observer.next()).await {
            Ok(Some(LiveSignal::Look)) => return true,
            Ok(Some(LiveSignal::Chunk(_))) => {}
            Ok(None) | Err(_) => return false,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View<'a> {
    events: Vec<Event<'a>>,
    next: String,
    has_more: bool,
    gap: bool,
}

fn view<'a>(front: &Front, page: &'a JournalPage, conversation: &'a ConversationId) -> View<'a> {
    let events: Vec<_> = page.entries.iter().filter_map(|told| Event::of(told, conversation)).collect();
    for event in &events {
        front.metrics.event_streams.event_sent(event.kind);
    }
    View { events, next: page.next.to_string(), has_more: page.more, gap: page.gap }
}

/// A stream. Its first page is read before anything is answered, so that what fails then fails like any request.
async fn open(
    front: &Data<Front>,
    conversation: ConversationId,
    after: ReadStart,
    place: Option<Admission>,
) -> Result<Stream, Failure> {
    let stream = Admission::of(&front.streams, front.config.server.max_streams)
        .ok_or(HubError::Overloaded("open streams of events"))?;
    let observer = front.hub.observe(&conversation).await?;
    let first = front.hub.page(&conversation, after, stream::PAGE, true).await?;
    let feed = Feed::new(conversation.clone(), first, fastrand::u32(RETRY));
    Ok(Stream { front: front.clone(), conversation, observer, feed, _places: (stream, place) })
}

fn stream_head() -> HttpResponseBuilder {
    let mut response = HttpResponse::Ok();
    response
        .insert_header((header::CONTENT_TYPE, "text/event-stream"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((header::VARY, "Accept"))
        // Reverse proxies that collect what they pass on leave this alone (nginx's word, which others know).
        .insert_header(("X-Accel-Buffering", "no"));
    response
}

fn parse_after(text: &str) -> Result<ReadStart, String> {
    match text {
        "latest" => Ok(ReadStart::Latest),
        cursor => cursor.parse().map(ReadStart::Cursor).map_err(|error| format!("{error}, or say `latest`")),
    }
}

/// Where a client that lost its stream stands. An empty value is none: browsers know no other way to have none.
fn last_event_id(headers: &HeaderMap, mistakes: &mut Mistakes) -> Option<Cursor> {
    let value = headers.get("last-event-id").filter(|value| !value.is_empty())?;
    let cursor = value.to_str().unwrap_or_default().parse();
    mistakes.note("header/Last-Event-ID", cursor.map_err(|error: InvalidCursor| error.to_string()))
}

#[cfg(test)]
mod tests;
