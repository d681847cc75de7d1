//! POST of attachments (api.md 1): a file for a later message goes to the platform while it arrives.

use actix_web::http::header::{self, HeaderMap};
use actix_web::http::{StatusCode, Uri};
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};

use super::api_error::{ApiError, FieldErrors};
use super::auth::{CallerIdentity, RequiredScope};
use super::conversation_address::ConversationAddress;
use super::detachable_connection::DetachableConnection;
use super::request_pipeline::{json_response, record, serve};
use super::upload_body::{UploadBody, UploadHead};
use super::{ATTACHMENTS, ApiContext};
use crate::hub::{HubError, UPLOAD_CHUNK_BYTES, UploadFailure};

/// Memory of an upload beside its chunk: bytes that were read and not taken yet, and bytes on their way out.
const BUFFERS: usize = 128 << 10;

/// Serves `POST /conversations/{user}/attachments`.
pub(super) async fn post(context: Data<ApiContext>, request: HttpRequest, payload: Payload) -> HttpResponse {
    serve(&context, ATTACHMENTS, &request, Box::pin(upload(&context, &request, payload))).await
}

/// Checks the head of an upload: its conversation and its file. Returns `None` if it added an error to `errors`.
///
/// # Errors
/// `forbidden`, `not-found`, `unsupported-media-type`, `payload-too-large`; `draining`.
pub(super) fn check_head<'c>(
    context: &'c ApiContext,
    caller: &CallerIdentity,
    uri: &Uri,
    headers: &HeaderMap,
    errors: &mut FieldErrors,
) -> Result<Option<(ConversationAddress<'c>, UploadHead)>, ApiError> {
    let address = ConversationAddress::read(&context.config, caller, uri, errors)?;
    let Some(address) = address else { return Ok(None) };
    let head = UploadHead::check(headers, address.bot.max_attachment_bytes, errors)?;
    if context.hub.is_draining() {
        return Err(HubError::Draining.into());
    }
    Ok(head.map(|head| (address, head)))
}

async fn upload(
    context: &ApiContext,
    request: &HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let caller = context.authorize(request, RequiredScope::Send)?;
    let mut errors = FieldErrors::default();
    let checked = check_head(context, &caller, request.uri(), request.headers(), &mut errors)?;
    let (Some((address, head)), true) = (checked, errors.is_empty()) else {
        return Err(ApiError::from(errors).closing_connection());
    };
    let ConversationAddress { conversation, bot } = address;
    record("bot", &bot.name);
    record("caller", &caller.name());
    let _places = context.upload_shares.acquire(caller.holder(), &bot.name).map_err(refused)?;
    let memory = context.memory().acquire(caller.holder(), memory_of(request.headers()));
    let memory = memory.ok_or(HubError::Overloaded("memory of requests")).map_err(refused)?;
    if let Some(connection) = DetachableConnection::of_request(request) {
        connection.allow_body(bot.max_attachment_bytes);
        connection.with_places(|places| places.body = Some(memory));
    }
    let (file, body) = UploadBody::open(head, payload, bot.max_attachment_bytes).await?;
    let uploaded = context.hub.upload(bot, &conversation, &file, Box::pin(body.into_pieces())).await;
    let uploaded = uploaded.map_err(refused)?.map_err(|failure| match failure {
        UploadFailure::Body(error) => error,
        UploadFailure::Platform(problem) => ApiError::from(problem).closing_connection(),
    })?;
    json_response(StatusCode::CREATED, &uploaded)
}

/// Returns the refusal of an upload whose body is unread.
fn refused(error: HubError) -> ApiError {
    ApiError::from(error).closing_connection()
}

/// Returns the memory of an upload: a chunk of the file, or all of a smaller one.
fn memory_of(headers: &HeaderMap) -> usize {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    announced.map_or(UPLOAD_CHUNK_BYTES, |length: usize| length.min(UPLOAD_CHUNK_BYTES)) + BUFFERS
}
