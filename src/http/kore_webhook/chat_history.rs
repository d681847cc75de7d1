//! The reads of a client beside its calls: the description of the bot, and the history of the user (protocol.md 9.1, 7.10).

use actix_web::http::{StatusCode, header};
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use serde_json::json;

use super::super::ApiContext;
use super::super::api_error::ApiError;
use super::super::request_pipeline::json_response;
use super::{BOT_META, CHAT_HISTORY, DoorClient, serve};
use crate::hub::HistoryExcerpt;

/// Most messages of a page. The Web SDK asks for so many at most.
const LIMIT_MAX: u32 = 100;
/// The messages of a page whose client names no number.
const LIMIT: u32 = 10;

/// Serves the description of a bot.
pub(super) async fn get_meta(context: Data<ApiContext>, request: HttpRequest) -> HttpResponse {
    let work = |client: DoorClient<'_>| {
        // RTM tells no icon. Clients take their own one then.
        let meta = json!({"icon": "", "name": client.bot.chat_bot, "_id": client.bot.task_bot_id});
        std::future::ready(json_response(StatusCode::OK, &meta))
    };
    serve(&context, BOT_META, &request, work).await
}

/// Serves the history of the token's user.
pub(super) async fn get(context: Data<ApiContext>, request: HttpRequest) -> HttpResponse {
    serve(&context, CHAT_HISTORY, &request, |client| Box::pin(history(&context, &request, client))).await
}

async fn history(
    context: &ApiContext,
    request: &HttpRequest,
    client: DoorClient<'_>,
) -> Result<HttpResponse, ApiError> {
    if !client.bot.history {
        let none = json!({"total": 0, "moreAvailable": false, "icon": "", "messages": []});
        return json_response(StatusCode::OK, &none);
    }
    let conversation = client.conversation()?;
    let query = request.uri().query().unwrap_or_default();
    let pairs: Vec<_> = url::form_urlencoded::parse(query.as_bytes()).collect();
    // The last of several parameters of a name counts, as on the platform.
    let value = |names: [&str; 2]| {
        pairs
            .iter()
            .rev()
            .find(|(name, value)| names.contains(&&**name) && !value.is_empty())
            .map(|(_, value)| &**value)
    };
    let number = |names| value(names).and_then(|text: &str| text.parse().ok());
    let selection = HistoryExcerpt {
        limit: number(["limit", "limit"]).unwrap_or(LIMIT).clamp(1, LIMIT_MAX),
        offset: number(["offset", "skip"]),
        forward: value(["forward", "direction"]).map(|forward| matches!(forward, "true" | "1")),
        message_id: value(["msgId", "msgId"]),
    };
    let page = context.hub.platform_history(client.bot, &conversation, &selection).await??;
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "application/json"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(page))
}
