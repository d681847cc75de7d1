//! Uploads of files in all forms of the platform's clients: Web, mobile and webhook (protocol.md 13).
//!
//! A file goes as a whole, or in chunks under a token. The token of the path decides which file a chunk belongs to. The bot
//! names the files of a message that it gets.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use actix_web::http::{StatusCode, header};
use actix_web::web::{self, Bytes, Data, Path, PayloadConfig};
use actix_web::{HttpRequest, HttpResponse, Resource};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::assertion::{self, TimeCheck};
use super::clock;
use super::endpoints::authorized;
use super::fault_injection::inject_fault;
use super::faults::Endpoint;
use super::multipart_form::MultipartForm;
use super::observations::FileObservation;
use super::platform_state::{BotUser, PlatformState, UserEntry, locked};
use super::step::Step;

/// Largest body. The Web SDK repeats earlier parts in each request.
const BODY_MAX: usize = 40 << 20;
/// Life of a file's token.
const TOKEN_TTL: std::time::Duration = std::time::Duration::from_hours(1);

/// Switches of uploads: open questions and faults.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct FileBehaviour {
    /// Largest file, in bytes.
    pub limit: usize,
    /// Whether the platform tells the URL of a file, as it does since 11.21.
    pub urls: bool,
    /// Whether tokens of files are expired as soon as they are given.
    pub tokens_expired: bool,
    /// Numbers of the chunks of each file that are lost when they come for the first time.
    pub lost_chunks: BTreeSet<usize>,
    /// Whether a message of files without a text stalls the bot: neither it nor the next one gets an answer.
    pub stalls: bool,
}

impl Default for FileBehaviour {
    fn default() -> Self {
        Self {
            limit: 25 << 20,
            urls: true,
            tokens_expired: false,
            lost_chunks: BTreeSet::new(),
            stalls: false,
        }
    }
}

/// All files, and those whose chunks come.
#[derive(Default)]
pub(super) struct UploadedFiles {
    pending: Mutex<HashMap<String, PendingFile>>,
    files: Mutex<HashMap<String, Arc<SimulatedFile>>>,
}

impl UploadedFiles {
    /// Forgets all files.
    pub(super) fn clear(&self) {
        locked(&self.pending).clear();
        locked(&self.files).clear();
    }
}

/// A file whose chunks come.
struct PendingFile {
    user: Arc<UserEntry>,
    expires: Timestamp,
    chunks: BTreeMap<usize, Vec<u8>>,
    lost: BTreeSet<usize>,
}

/// A file that the platform has.
pub(super) struct SimulatedFile {
    pub(super) name: String,
    pub(super) content: Bytes,
}

/// Sender of a request.
type Uploader = Result<Arc<UserEntry>, Box<HttpResponse>>;

/// Adds the routes below one prefix of the API.
pub(super) fn routes(config: &mut web::ServiceConfig, api: &str) {
    let resource = |path: &str| -> Resource {
        web::resource(format!("{api}{path}")).app_data(PayloadConfig::new(BODY_MAX))
    };
    for token in ["/attachment/file/token", "/users/{user}/file/token"] {
        config.service(resource(token).route(web::post().to(give_token)));
    }
    config.service(resource("/attachment/file").route(web::post().to(take_whole)));
    config
        .service(resource("/attachments/file/{bot}/{channel}").route(web::post().to(take_whole_by_webhook)));
    config
        .service(resource("/attachments/{bot}/{channel}/token").route(web::post().to(give_token_by_webhook)));
    for file in [
        "/attachment/file/{token}",
        "/users/{user}/file/{token}",
        "/attachments/{bot}/{channel}/token/{token}",
    ] {
        config.service(
            resource(&format!("{file}/chunk"))
                .route(web::post().to(take_chunk))
                .route(web::put().to(put_together)),
        );
        config.service(resource(file).route(web::put().to(put_together)));
    }
    config.service(resource("/attachment/v2/stream/{bot}/file/{file}/url").route(web::get().to(tell_url)));
}

/// Adds the route of the files themselves.
pub(super) fn file_routes(config: &mut web::ServiceConfig) {
    config.route("/sandbox/files/{file}", web::get().to(read_file));
}

/// Returns the uploader of a request with an access token.
fn by_token(request: &HttpRequest, platform: &PlatformState) -> Uploader {
    let grant = authorized(request, platform).map_err(|_| Box::new(refusal(401, "Unauthorized")))?;
    Ok(grant.user)
}

/// Returns the uploader of a request to the webhook's endpoints, with an access token or the channel's JWT.
fn by_webhook(request: &HttpRequest, platform: &PlatformState) -> Uploader {
    let by_token = by_token(request, platform);
    let Some(bot) = request.match_info().get("bot").filter(|_| by_token.is_err()) else { return by_token };
    let token = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some((_, jwt)) = token.and_then(|token| token.split_once(' ')) else { return by_token };
    let options = &platform.options;
    let verified = {
        let used_jtis = &mut locked(&platform.used_jtis);
        let times = TimeCheck::Strict { now: clock::now(), used_jtis };
        assertion::verify(jwt.trim(), &options.apps, &options.algorithms, times)
    };
    match verified {
        Ok(identity) => Ok(platform.user(&BotUser { bot: Some(bot.to_owned()), user: identity.user })),
        Err(error) => Err(Box::new(refusal(401, &error.to_string()))),
    }
}

/// Returns the response of a planned fault. A refused token has the status in the envelope, too.
async fn fault(platform: &PlatformState, endpoint: Endpoint) -> Option<HttpResponse> {
    let answer = inject_fault(platform, endpoint).await?;
    let is_refused_token = answer.status() == StatusCode::UNAUTHORIZED;
    Some(if is_refused_token { refusal(401, "Unauthorized") } else { answer })
}

/// Builds a response with the envelope of uploads, whose status is a text.
fn refusal(status: u16, msg: &str) -> HttpResponse {
    let code = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let error = json!({"msg": msg, "code": status, "httpStatus": status.to_string()});
    HttpResponse::build(code).json(json!({ "errors": [error] }))
}

// Each body is read, because a connection with an unread body cannot be reused.
async fn give_token(request: HttpRequest, _body: Bytes, platform: Data<PlatformState>) -> HttpResponse {
    give_token_to(by_token(&request, &platform), &platform).await
}

async fn give_token_by_webhook(
    request: HttpRequest,
    _body: Bytes,
    platform: Data<PlatformState>,
) -> HttpResponse {
    give_token_to(by_webhook(&request, &platform), &platform).await
}

async fn give_token_to(uploader: Uploader, platform: &PlatformState) -> HttpResponse {
    if let Some(answer) = fault(platform, Endpoint::FileToken).await {
        return answer;
    }
    let user = match uploader {
        Ok(user) => user,
        Err(refusal) => return *refusal,
    };
    let (token, now) = (platform.ids.secret(), clock::now());
    let expires = if platform.behaviour().files.tokens_expired { now } else { clock::after(now, TOKEN_TTL) };
    let file = PendingFile { user, expires, chunks: BTreeMap::new(), lost: BTreeSet::new() };
    let mut pending = locked(&platform.uploads.pending);
    pending.retain(|_, file| file.expires > now);
    pending.insert(token.clone(), file);
    HttpResponse::Ok().json(json!({"fileToken": token, "expiresOn": expires.as_second()}))
}

async fn take_whole(request: HttpRequest, body: Bytes, platform: Data<PlatformState>) -> HttpResponse {
    take_whole_from(by_token(&request, &platform), &request, &body, &platform).await
}

async fn take_whole_by_webhook(
    request: HttpRequest,
    body: Bytes,
    platform: Data<PlatformState>,
) -> HttpResponse {
    take_whole_from(by_webhook(&request, &platform), &request, &body, &platform).await
}

async fn take_whole_from(
    uploader: Uploader,
    request: &HttpRequest,
    body: &Bytes,
    platform: &PlatformState,
) -> HttpResponse {
    if let Some(answer) = fault(platform, Endpoint::File).await {
        return answer;
    }
    let user = match uploader {
        Ok(user) => user,
        Err(refusal) => return *refusal,
    };
    let form = form(request, body);
    match form.field("file") {
        Some(file) => store(platform, &user, &form, file.content.clone(), None),
        None => refusal(400, "file is needed"),
    }
}

async fn take_chunk(request: HttpRequest, body: Bytes, platform: Data<PlatformState>) -> HttpResponse {
    if let Some(answer) = fault(&platform, Endpoint::FileChunk).await {
        return answer;
    }
    if let Err(refusal) = by_webhook(&request, &platform) {
        return *refusal;
    }
    let form = form(&request, &body);
    let number = form.text("chunkNo").and_then(|number| number.trim().parse::<usize>().ok());
    let (Some(number), Some(chunk)) = (number, form.field("chunk")) else {
        return refusal(400, "chunkNo and chunk are needed");
    };
    let behaviour = platform.behaviour();
    let mut pending = locked(&platform.uploads.pending);
    let Some(file) = open_file(&mut pending, &request) else { return refusal(400, "invalid file token") };
    let is_lost = behaviour.files.lost_chunks.contains(&number) && file.lost.insert(number);
    if !is_lost {
        file.chunks.insert(number, chunk.content.clone());
    }
    if file.chunks.values().map(Vec::len).sum::<usize>() > behaviour.files.limit {
        return refusal(413, "file size exceeded the limit");
    }
    HttpResponse::Ok().json(json!({"chunkNo": number.to_string()}))
}

async fn put_together(request: HttpRequest, body: Bytes, platform: Data<PlatformState>) -> HttpResponse {
    if let Some(answer) = fault(&platform, Endpoint::FileCommit).await {
        return answer;
    }
    if let Err(refusal) = by_webhook(&request, &platform) {
        return *refusal;
    }
    let form = form(&request, &body);
    let Some(total) = form.text("totalChunks").and_then(|total| total.trim().parse::<usize>().ok()) else {
        return refusal(400, "totalChunks is needed");
    };
    let file = {
        let mut pending = locked(&platform.uploads.pending);
        let Some(file) = open_file(&mut pending, &request) else { return refusal(400, "invalid file token") };
        // No client sends more, and a wrong number must not take long.
        let missing: Vec<usize> =
            (0..total.min(BODY_MAX)).filter(|number| !file.chunks.contains_key(number)).take(1000).collect();
        if !missing.is_empty() {
            return refusal(404, &json!(missing).to_string());
        }
        let token = request.match_info().get("token").unwrap_or_default();
        pending.remove(token)
    };
    match file {
        Some(file) => {
            let content = file.chunks.into_values().collect::<Vec<_>>().concat();
            store(&platform, &file.user, &form, content, Some(total))
        }
        None => refusal(400, "invalid file token"),
    }
}

async fn tell_url(
    request: HttpRequest,
    path: Path<(String, String)>,
    platform: Data<PlatformState>,
) -> HttpResponse {
    if let Some(answer) = fault(&platform, Endpoint::FileUrl).await {
        return answer;
    }
    if let Err(refusal) = by_token(&request, &platform) {
        return *refusal;
    }
    let (_bot, file) = path.into_inner();
    if !platform.behaviour().files.urls || !locked(&platform.uploads.files).contains_key(&file) {
        return refusal(404, "not found");
    }
    let address = platform.address.get().map(ToString::to_string).unwrap_or_default();
    HttpResponse::Ok().json(json!({"fileUrl": format!("http://{address}/sandbox/files/{file}")}))
}

async fn read_file(file: Path<String>, platform: Data<PlatformState>) -> HttpResponse {
    match locked(&platform.uploads.files).get(&*file) {
        // A page that a client uploaded must not run in the sandbox's origin.
        Some(file) => HttpResponse::Ok()
            .content_type("application/octet-stream")
            .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
            .body(file.content.clone()),
        None => refusal(404, "not found"),
    }
}

fn form(request: &HttpRequest, body: &[u8]) -> MultipartForm {
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    MultipartForm::read(content_type.unwrap_or_default(), body)
}

/// Returns the file of the path's token, unless that has expired.
fn open_file<'p>(
    pending: &'p mut HashMap<String, PendingFile>,
    request: &HttpRequest,
) -> Option<&'p mut PendingFile> {
    let file = pending.get_mut(request.match_info().get("token")?)?;
    (file.expires > clock::now()).then_some(file)
}

/// Keeps a file, and answers with its id.
fn store(
    platform: &PlatformState,
    user: &UserEntry,
    form: &MultipartForm,
    content: Vec<u8>,
    chunks: Option<usize>,
) -> HttpResponse {
    if content.len() > platform.behaviour().files.limit {
        return refusal(413, "file size exceeded the limit");
    }
    let id = platform.ids.session();
    let name = form.text("filename").unwrap_or_default();
    let file = Arc::new(SimulatedFile { name: name.clone(), content: content.into() });
    let observed = FileObservation {
        at: clock::now(),
        id: id.clone(),
        name,
        extension: form.text("fileExtension").unwrap_or_default(),
        context: form.text("fileContext").unwrap_or_default(),
        chunks,
        content: file.content.clone(),
    };
    locked(&platform.uploads.files).insert(id.clone(), file);
    platform.hear(user, "file", || {
        json!({
            "fileId": observed.id, "fileName": observed.name, "fileExtension": observed.extension,
            "fileContext": observed.context, "chunks": observed.chunks, "size": observed.content.len(),
        })
    });
    platform.observe(user, |observations| observations.files.push(observed));
    HttpResponse::Ok().json(json!({ "fileId": id }))
}

/// Returns the bot's answer to the attachments of a message: their names and lengths. Returns `None` if there are none.
pub(super) fn answer(platform: &PlatformState, attachments: &[Value]) -> Option<Vec<Step>> {
    let files = locked(&platform.uploads.files);
    let text = |file: &Value, name: &str| file.get(name).and_then(Value::as_str).map(str::to_owned);
    let described = |file: &Value| {
        let id = text(file, "fileId").unwrap_or_default();
        let name = text(file, "fileName");
        match files.get(&id) {
            Some(known) => {
                format!("{} ({} bytes)", name.unwrap_or_else(|| known.name.clone()), known.content.len())
            }
            None => format!("{} (a file that I do not have)", name.unwrap_or(id)),
        }
    };
    let described: Vec<_> = attachments.iter().map(described).collect();
    (!described.is_empty()).then(|| vec![Step::Say(format!("I received {}.", described.join(", ")))])
}
