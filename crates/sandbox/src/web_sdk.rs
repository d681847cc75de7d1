//! Endpoints and headers that Kore's own Web SDK needs beside the protocol: CORS, its theme, and pictures.

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{self, HeaderMap, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::web::{self, Data, Path};
use actix_web::{Error, HttpRequest, HttpResponse};
use serde_json::{Value, json};

use super::endpoints::host;
use super::fault_injection::error_response;
use super::platform_state::PlatformState;
use super::scripted_bot::ScriptedBot;

const BOT_PICTURE: &[u8] = include_bytes!("../assets/bot.png");
const PARCEL_PICTURE: &[u8] = include_bytes!("../assets/parcel.png");

/// Adds the routes below one prefix of the API.
pub(super) fn routes(config: &mut web::ServiceConfig, api: &str) {
    config
        .route(&format!("{api}/websdkthemes/{{bot}}/activetheme"), web::get().to(active_theme))
        .route(&format!("{api}/botmeta/{{bot}}"), web::get().to(bot_meta));
}

/// Adds the routes of the pictures.
pub(super) fn picture_routes(config: &mut web::ServiceConfig) {
    let picture = |bytes: &'static [u8]| {
        web::get().to(move || async move { HttpResponse::Ok().content_type("image/png").body(bytes) })
    };
    config
        .route("/sandbox/bot.png", picture(BOT_PICTURE))
        .route("/sandbox/parcel.png", picture(PARCEL_PICTURE));
}

/// Lets pages of every origin call the platform, as the real one does: answers preflights, and marks each answer.
/// Control of the sandbox is left out, so that no page can read it.
pub(super) async fn allow_every_origin(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let path = request.path();
    let is_control = path.starts_with("/sandbox/");
    if request.method() == Method::OPTIONS && path.starts_with("/api") {
        let response = preflight_response(request.headers());
        return Ok(request.into_response(response));
    }
    let mut response = next.call(request).await?.map_into_boxed_body();
    // Browsers ask for no leave before a web socket.
    if !is_control && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        mark(response.headers_mut());
    }
    Ok(response)
}

fn preflight_response(asked: &HeaderMap) -> HttpResponse {
    let mut response = HttpResponse::NoContent();
    response.insert_header((header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, PUT"));
    // `*` would not cover `authorization`.
    if let Some(names) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        response.insert_header((header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone()));
    }
    let mut response = response.finish();
    mark(response.headers_mut());
    response
}

fn mark(headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Retry-After"));
}

/// Answers with a whole theme. An active theme without colours makes the window's bubbles transparent.
async fn active_theme() -> HttpResponse {
    const BLUE: &str = "#0078d4";
    const DARK: &str = "#202124";
    const GREY: &str = "#eef1f5";
    const WHITE: &str = "#ffffff";
    HttpResponse::Ok().json(json!({
        "activeTheme": true,
        "themeName": "Sandbox",
        "generalAttributes": {"bubbleShape": "rounded", "borderColor": GREY, "fontStyle": "Arial"},
        "botMessage": {"bubbleColor": GREY, "fontColor": DARK, "borderColor": GREY},
        "userMessage": {"bubbleColor": BLUE, "fontColor": WHITE, "borderColor": BLUE},
        "widgetHeader": {"backgroundColor": BLUE, "fontColor": WHITE, "borderColor": BLUE},
        "widgetFooter": {"backgroundColor": WHITE, "fontColor": DARK, "borderColor": GREY, "placeHolder": DARK},
        "widgetBody": {"backgroundColor": WHITE},
        "buttons": {
            "defaultButtonColor": WHITE, "defaultFontColor": BLUE, "onHoverButtonColor": BLUE,
            "onHoverFontColor": WHITE, "backgroundColor": WHITE, "borderColor": BLUE,
        },
    }))
}

/// Answers with the bot's picture and name, for clients of the webhook channel.
async fn bot_meta(bot: Path<String>, request: HttpRequest, platform: Data<PlatformState>) -> HttpResponse {
    let bot = bot.into_inner();
    if !platform.options.has_bot(&bot) {
        return error_response(404, "no bot has this id");
    }
    let name: Value = platform.options.scripted_bot(&bot).map_or("Sandbox", ScriptedBot::name).into();
    HttpResponse::Ok()
        .json(json!({"icon": format!("{}/sandbox/bot.png", platform.site(host(&request))), "name": name}))
}
