//! Uploads of the channel: a whole file, or a token, chunks and their end (protocol.md 13, column C).
//!
//! The bridge passes each step on to the platform under the same token, so any replica takes it. The user is that of the
//! token, because these requests name no other.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderMap};
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use super::super::ApiContext;
use super::super::api_error::{ApiError, FieldErrors};
use super::super::detachable_connection::DetachableConnection;
use super::super::request_body::{BYTES_PER_SECOND, READ_TIME};
use super::super::request_pipeline::json_response;
use super::form_fields::FormFields;
use super::{DoorClient, FILE, FILE_CHUNK, FILE_END, FILE_TOKEN, serve};
use crate::domain::{FileDescription, FileName, ProblemKind};
use crate::hub::{HubError, StepFailure, UploadFailure, UploadStep};

/// Most bytes of a form beside its file.
const FORM_OVERHEAD: usize = 64 << 10;
/// The life of a file's token, which the platform does not tell. Some clients need a time.
const TOKEN_TTL: Duration = Duration::from_hours(1);

/// Serves the upload of a whole file.
pub(super) async fn post_whole(
    context: Data<ApiContext>,
    request: HttpRequest,
    payload: Payload,
) -> HttpResponse {
    let work = |client| Box::pin(whole(&context, &request, payload, client));
    serve(&context, FILE, &request, work).await
}

/// Serves a request for a token.
pub(super) async fn post_token(context: Data<ApiContext>, request: HttpRequest) -> HttpResponse {
    serve(&context, FILE_TOKEN, &request, |client| Box::pin(token(&context, client))).await
}

/// Serves a chunk.
pub(super) async fn post_chunk(
    context: Data<ApiContext>,
    request: HttpRequest,
    payload: Payload,
) -> HttpResponse {
    let work = |client| Box::pin(chunk(&context, &request, payload, client));
    serve(&context, FILE_CHUNK, &request, work).await
}

/// Serves the end of an upload in chunks.
pub(super) async fn put_end(
    context: Data<ApiContext>,
    request: HttpRequest,
    payload: Payload,
) -> HttpResponse {
    let work = |client| Box::pin(end(&context, &request, payload, client));
    serve(&context, FILE_END, &request, work).await
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FileAnswer<'a> {
    file_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_url: Option<&'a str>,
}

async fn whole(
    context: &ApiContext,
    request: &HttpRequest,
    payload: Payload,
    client: DoorClient<'_>,
) -> Result<HttpResponse, ApiError> {
    let conversation = client.conversation()?;
    let _places = context.upload_shares.acquire(client.caller().holder(), &client.bot.name)?;
    let form = read_form(context, request, payload, &client).await?;
    let part = form.field("file").ok_or_else(|| invalid("must have a field `file`"))?;
    if part.content.is_empty() {
        return Err(invalid("must have a file of one byte at least"));
    }
    if part.content.len() > client.bot.max_attachment_bytes {
        let detail =
            format!("The file exceeds {} bytes, the limit of this bot.", client.bot.max_attachment_bytes);
        return Err(ApiError::new(ProblemKind::PayloadTooLarge, detail));
    }
    let file = description(&form, part.file_name.as_deref(), &part.media_type)?;
    let pieces = stream::iter([Ok::<Bytes, ApiError>(part.content.clone())]);
    let uploaded = context.hub.upload(client.bot, &conversation, &file, pieces).await?;
    let uploaded = uploaded.map_err(|failure| match failure {
        UploadFailure::Body(error) => error,
        UploadFailure::Platform(problem) => problem.into(),
    })?;
    let answer = FileAnswer { file_id: &uploaded.file_id, file_url: uploaded.file_url.as_deref() };
    json_response(StatusCode::OK, &answer)
}

async fn token(context: &ApiContext, client: DoorClient<'_>) -> Result<HttpResponse, ApiError> {
    let conversation = client.conversation()?;
    let file = FileDescription {
        name: FileName::new("file").map_err(|_| super::unauthorized())?,
        media_type: "".into(),
    };
    let given = context.hub.upload_step(client.bot, &conversation, &file, UploadStep::Token).await?;
    let token = given.map_err(platform_failure)?;
    let expires = (context.clock.now() + TOKEN_TTL).as_millis() / 1000;
    json_response(StatusCode::OK, &json!({"fileToken": token, "expiresOn": expires}))
}

async fn chunk(
    context: &ApiContext,
    request: &HttpRequest,
    payload: Payload,
    client: DoorClient<'_>,
) -> Result<HttpResponse, ApiError> {
    let conversation = client.conversation()?;
    let _places = context.upload_shares.acquire(client.caller().holder(), &client.bot.name)?;
    let form = read_form(context, request, payload, &client).await?;
    let part = form.field("chunk").ok_or_else(|| invalid("must have a field `chunk`"))?;
    let number = form.number("chunkNo").ok_or_else(|| invalid("must have a number `chunkNo`"))?;
    let file = description(&form, part.file_name.as_deref(), &part.media_type)?;
    let token = request.match_info().get("token").unwrap_or_default();
    let step = UploadStep::Chunk { token, number, bytes: &part.content };
    let sent = context.hub.upload_step(client.bot, &conversation, &file, step).await?;
    sent.map_err(platform_failure)?;
    json_response(StatusCode::OK, &json!({"chunkNo": number.to_string()}))
}

async fn end(
    context: &ApiContext,
    request: &HttpRequest,
    payload: Payload,
    client: DoorClient<'_>,
) -> Result<HttpResponse, ApiError> {
    let conversation = client.conversation()?;
    let form = read_form(context, request, payload, &client).await?;
    let count = form.number("totalChunks").ok_or_else(|| invalid("must have a number `totalChunks`"))?;
    let file = description(&form, form.text("filename"), "")?;
    let token = request.match_info().get("token").unwrap_or_default();
    let step = UploadStep::Complete { token, count };
    match context.hub.upload_step(client.bot, &conversation, &file, step).await? {
        Ok(file_id) => json_response(StatusCode::OK, &FileAnswer { file_id: &file_id, file_url: None }),
        // Clients send these again. They read the numbers from `msg`.
        Err(StepFailure::ChunksLost(numbers)) => {
            let error = json!({"msg": json!(numbers).to_string(), "code": 404, "httpStatus": "404"});
            json_response(StatusCode::NOT_FOUND, &json!({"errors": [error]}))
        }
        Err(failure) => Err(platform_failure(failure)),
    }
}

/// Checks the announced length of a form.
///
/// # Errors
/// `payload-too-large`.
pub(super) fn check_length(client: &DoorClient<'_>, headers: &HeaderMap) -> Result<(), ApiError> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let most = longest(client);
    if announced.is_some_and(|length: usize| length > most) { Err(too_large(most)) } else { Ok(()) }
}

/// Returns the most bytes of a form. Its file may come in base64, which takes a third more, and with parts of earlier requests.
fn longest(client: &DoorClient<'_>) -> usize {
    client.bot.max_attachment_bytes.saturating_mul(8) / 5 + FORM_OVERHEAD
}

fn too_large(most: usize) -> ApiError {
    let detail = format!("The form exceeds {most} bytes, the limit of this bot.");
    ApiError::new(ProblemKind::PayloadTooLarge, detail).closing_connection()
}

/// Reads a form. The request holds its memory until the answer is taken.
async fn read_form(
    context: &ApiContext,
    request: &HttpRequest,
    mut payload: Payload,
    client: &DoorClient<'_>,
) -> Result<FormFields, ApiError> {
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let content_type = content_type.unwrap_or_default().to_owned();
    let most = longest(client);
    let connection = DetachableConnection::of_request(request);
    if let Some(connection) = connection {
        connection.allow_body(most);
    }
    check_length(client, request.headers())?;
    let mut memory = context.memory().empty_permit(client.caller().holder());
    let begun = Instant::now();
    let mut body = BytesMut::new();
    loop {
        let time = READ_TIME + Duration::from_secs((body.len() / BYTES_PER_SECOND) as u64);
        let piece = match timeout_at(begun + time, payload.next()).await {
            Ok(Some(Ok(piece))) => piece,
            Ok(None) => break,
            Ok(Some(Err(_))) => return Err(invalid("must be complete; the connection broke")),
            Err(_) => return Err(invalid("must arrive within 10 s and 1 s more for each 16 KiB")),
        };
        if body.len() + piece.len() > most {
            return Err(too_large(most));
        }
        let before = body.capacity();
        body.extend_from_slice(&piece);
        if !memory.try_grow(body.capacity() - before) {
            return Err(ApiError::from(HubError::Overloaded("memory of requests")).closing_connection());
        }
    }
    if let Some(connection) = connection {
        connection.with_places(|places| places.body = Some(memory));
    }
    Ok(FormFields::read(&content_type, &body.freeze()))
}

/// Returns the description of a file: its own name, else the one that the form tells.
fn description(form: &FormFields, own: Option<&str>, media_type: &str) -> Result<FileDescription, ApiError> {
    let name = form.text("filename").or(own).unwrap_or("file");
    let name = FileName::new(name).map_err(|error| invalid(error.to_string()))?;
    Ok(FileDescription { name, media_type: media_type.into() })
}

fn platform_failure(failure: StepFailure) -> ApiError {
    match failure {
        StepFailure::Platform(problem) => problem.into(),
        StepFailure::ChunksLost(_) => {
            ApiError::new(ProblemKind::PlatformUnavailable, "The platform lost parts of the file.")
        }
    }
}

/// Returns the error of a body that is no such form.
fn invalid(detail: impl Into<std::borrow::Cow<'static, str>>) -> ApiError {
    let mut errors = FieldErrors::default();
    errors.add("", detail);
    ApiError::from(errors).closing_connection()
}
