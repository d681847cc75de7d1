//! GET of a conversation's events: as a page, as a long poll, or as a stream (api.md 3).
//!
//! All three read the same pages of the journal. A reader that waits subscribes before it reads, so it misses no entry
//! in between.

mod event_filter;
mod event_stream;
mod event_view;
mod page_reader;
mod stream_feed;
mod stream_memory;

use actix_web::body::None as NoBody;
use actix_web::http::header::{self, HeaderMap, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use serde::Serialize;
use tokio::time::Instant;

use self::event_filter::EventFilter;
use self::event_stream::{EventStream, StreamAccess, StreamPlaces};
use self::event_view::EventView;
use self::page_reader::{PageReader, ReaderPage};
use self::stream_feed::StreamFeed;
use self::stream_memory::StreamMemory;
use super::api_error::{self, ApiError, FieldErrors};
use super::auth::{CallerIdentity, RequiredScope};
use super::concurrency_limit::ConcurrencyPermit;
use super::content_negotiation::prefers_stream;
use super::conversation_address::ConversationAddress;
use super::detachable_connection::DetachableConnection;
use super::long_work::PIECE_BYTES;
use super::prefer_header::{PREFERENCE_APPLIED, PreferHeader};
use super::query_parameters::parse_limit;
use super::request_pipeline::{json_bytes, record, serve};
use super::{ApiContext, EVENTS};
use crate::domain::{ConversationId, Cursor, InvalidCursor, ReadStart, Timestamp};
use crate::hub::HubError;
use crate::wall_clock;

pub(super) use self::event_stream::KEEP_ALIVE;

/// Default number of events in a page.
const DEFAULT_LIMIT: usize = 100;
/// Delay of a client's reconnect in milliseconds. It is random, so that the clients of a lost replica do not come at
/// once.
const RECONNECT_MILLIS: std::ops::RangeInclusive<u32> = 1000..=3000;

/// Serves `GET /conversations/{user}/events`.
pub(super) async fn get(context: Data<ApiContext>, request: HttpRequest) -> HttpResponse {
    serve(&context, EVENTS, &request, read(&context, &request)).await
}

async fn read(context: &Data<ApiContext>, request: &HttpRequest) -> Result<HttpResponse, ApiError> {
    let headers = request.headers();
    let caller = context.authorize(request, RequiredScope::Read)?;
    let mut errors = FieldErrors::default();
    let (address, [after, limit, types, _token]) = ConversationAddress::read_with(
        &context.config,
        &caller,
        request.uri(),
        ["after", "limit", "types", "token"],
        &mut errors,
    )?;
    let after =
        after.map_or(Some(ReadStart::Oldest), |text| errors.record("query/after", parse_after(&text)));
    let limit = limit.map_or(Some(DEFAULT_LIMIT), |text| errors.record("query/limit", parse_limit(&text)));
    let filter = types
        .map_or(Some(EventFilter::default()), |text| errors.record("query/types", EventFilter::parse(&text)));
    let prefer = PreferHeader::from_headers(headers).of_read();
    let streams = prefers_stream(headers);
    let resumed = if streams { last_event_id(headers, &mut errors) } else { None };
    let (Some(address), Some(after), Some(limit), Some(filter), true) =
        (address, after, limit, filter, errors.is_empty())
    else {
        return Err(errors.into());
    };
    record("bot", &address.bot.name);
    record("caller", &caller.name());
    let conversation = address.conversation;
    if streams {
        let after = resumed.map_or(after, ReadStart::Cursor);
        if request.method() == Method::HEAD {
            return Ok(stream_head().finish().set_body(NoBody::new()).map_into_boxed_body());
        }
        let body = open_stream(context, &caller, request, conversation, after, filter).await?.into_body();
        if let Some(connection) = DetachableConnection::detachable(request) {
            return Ok(stream_head().force_close().body(connection.detaching_body(body)));
        }
        let mut response = stream_head().force_close().body(body);
        // HTTP/1.0 has no chunks (RFC 9112, 6.1): the stream ends with its connection.
        response.head_mut().no_chunking(true);
        return Ok(response);
    }
    let reader = PageReader {
        hub: &context.hub,
        conversation: &conversation,
        filter,
        limit,
        work: &context.long_reads,
        memory: &context.memory,
        holder: caller.holder(),
    };
    let page = reader.long_poll(after, prefer.wait.filter(|wait| !wait.is_zero())).await?;
    let body = page_body(context, &caller, page, &conversation).await.map_err(|_| api_error::internal())?;
    let mut response = json_bytes(StatusCode::OK, body);
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    if let Some(applied) = prefer.applied()? {
        response.headers_mut().insert(PREFERENCE_APPLIED, applied);
    }
    Ok(response)
}

/// The members of a page behind its events.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PageEnd {
    next: String,
    has_more: bool,
    gap: bool,
}

/// Writes a page as JSON. A long one is written in turns.
async fn page_body(
    context: &ApiContext,
    caller: &CallerIdentity,
    mut read: ReaderPage,
    conversation: &ConversationId,
) -> serde_json::Result<Vec<u8>> {
    const BEGIN: &[u8] = b"{\"events\":[";
    let mut body = BEGIN.to_vec();
    let write = |body: &mut Vec<u8>, event: EventView<'_>| {
        if body.len() > BEGIN.len() {
            body.push(b',');
        }
        context.metrics.event_streams.event_sent(event.kind);
        serde_json::to_writer(body, &event)
    };
    let mut piece = 0;
    let mut turn = None;
    // An entry leaves memory when it is written.
    for entry in std::mem::take(&mut read.page.entries) {
        if body.len() - piece >= PIECE_BYTES {
            drop(turn.take());
            turn = Some(context.long_work.turn(caller.holder()).await);
            piece = body.len();
        }
        if let Some(event) = EventView::from_entry(&entry, conversation) {
            write(&mut body, event)?;
        }
    }
    if let Some(live) = &read.live {
        write(&mut body, EventView::from_live(live))?;
    }
    let page = &read.page;
    let end = PageEnd { next: page.next.to_string(), has_more: page.more, gap: page.gap };
    let end = serde_json::to_vec(&end)?;
    body.extend_from_slice(b"],");
    // The members of the end continue the object of the page.
    body.extend_from_slice(end.strip_prefix(b"{").unwrap_or_default());
    Ok(body)
}

/// Opens a stream. Its first page is read before the response, so that an early failure becomes a normal refusal.
async fn open_stream(
    context: &Data<ApiContext>,
    caller: &CallerIdentity,
    request: &HttpRequest,
    conversation: ConversationId,
    after: ReadStart,
    filter: EventFilter,
) -> Result<EventStream, ApiError> {
    let all = ConcurrencyPermit::acquire(&context.open_streams, context.live().max_streams)
        .ok_or(HubError::Overloaded("open event streams"))?;
    let share = context.stream_share.acquire(caller.holder(), 1);
    let share = share.ok_or(HubError::Overloaded("this caller's share of open event streams"))?;
    // A stream is counted as a stream only, but among all that its caller has open.
    let places = DetachableConnection::of_request(request)
        .map(|connection| connection.with_places(|places| std::mem::take(&mut places.caller)));
    let mut memory = StreamMemory::acquire(&context.memory, caller.holder())?;
    let subscription = context.hub.subscribe(&conversation).await?;
    let first = memory.read(&context.hub, &conversation, after).await?;
    let feed = StreamFeed::new(conversation.clone(), filter, first, fastrand::u32(RECONNECT_MILLIS));
    let places = StreamPlaces { _all: all, _share: share, _open: places.and_then(|places| places.open) };
    let access = StreamAccess { revoked: caller.revoked(), until: caller.expires().map(instant_of) };
    let context = context.clone();
    Ok(EventStream { context, conversation, subscription, feed, memory, access, _places: places })
}

/// Returns the instant of a time of the wall clock. A time that has passed is now.
fn instant_of(time: Timestamp) -> Instant {
    Instant::now() + time.since(wall_clock::now())
}

fn stream_head() -> HttpResponseBuilder {
    let mut response = HttpResponse::Ok();
    response
        .insert_header((header::CONTENT_TYPE, "text/event-stream"))
        // A proxy that compresses would hold events back until its buffer is full (RFC 9111, 5.2.2.6).
        .insert_header((header::CACHE_CONTROL, "no-store, no-transform"))
        .insert_header((header::VARY, "Accept"))
        // Reverse proxies that buffer responses do not buffer one with this header (nginx's, which others know).
        .insert_header(("X-Accel-Buffering", "no"));
    response
}

fn parse_after(text: &str) -> Result<ReadStart, String> {
    match text {
        "latest" => Ok(ReadStart::Latest),
        cursor => cursor.parse().map(ReadStart::Cursor).map_err(|error| format!("{error}, or use `latest`")),
    }
}

/// Returns the cursor of a client that reconnects. Browsers send an empty value for no cursor.
fn last_event_id(headers: &HeaderMap, errors: &mut FieldErrors) -> Option<Cursor> {
    let value = headers.get("last-event-id").filter(|value| !value.is_empty())?;
    let cursor = value.to_str().unwrap_or_default().parse();
    errors.record("header/Last-Event-ID", cursor.map_err(|error: InvalidCursor| error.to_string()))
}

#[cfg(test)]
mod tests;
