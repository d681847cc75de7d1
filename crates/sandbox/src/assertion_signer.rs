//! The helpers that sign assertions for clients: the customer's own (protocol.md 2.3), the API key's, and the
//! console's login. A product has them elsewhere. Here they let an SDK run without code.

use actix_web::web::{self, Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use secrecy::ExposeSecret as _;
use serde_json::{Map, Value, json};

use super::assertion::{AppKey, ClientApp};
use super::clock;
use super::endpoints::bearer;
use super::fault_injection::error_response;
use super::platform_state::PlatformState;
use super::scripted_bot::ScriptedBot;

/// `aud` of an assertion if the request names none.
const AUDIENCE: &str = "https://idproxy.kore.com/authorize";

/// Adds the routes below one prefix.
pub(super) fn routes(config: &mut web::ServiceConfig, prefix: &str) {
    config
        .route(&format!("{prefix}/users/sts"), web::post().to(sign))
        .route(&format!("{prefix}/oauth/token"), web::post().to(log_in))
        .route(&format!("{prefix}/platform/websdk"), web::post().to(bootstrap));
}

/// Members of a form or a JSON object. Texts of a form stay texts.
fn members(body: &[u8]) -> Map<String, Value> {
    if let Ok(members) = serde_json::from_slice(body) {
        return members;
    }
    url::form_urlencoded::parse(body).into_owned().map(|(name, value)| (name, Value::String(value))).collect()
}

fn text<'a>(members: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    members.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// Signs an assertion of an app for an identity.
///
/// # Errors
/// The app has a public key only. The answer says so.
#[expect(clippy::indexing_slicing, reason = "the value is an object")]
fn assertion(
    platform: &PlatformState,
    app: &ClientApp,
    identity: &str,
    audience: Option<&str>,
    anonymous: bool,
) -> Result<String, Box<HttpResponse>> {
    let AppKey::Secret(secret) = &app.key else {
        return Err(Box::new(error_response(400, "the sandbox has no private key of this app")));
    };
    let now = clock::now();
    let mut claims = json!({
        "iss": app.id, "sub": identity, "aud": audience.unwrap_or(AUDIENCE), "isAnonymous": anonymous,
        "iat": now.as_second(), "exp": clock::after(now, platform.options.assertion_ttl).as_second(),
    });
    if app.rules.enforce_jti {
        claims["jti"] = platform.ids.uuid("").into();
    }
    let algorithm = app.rules.algorithms.first().copied().unwrap_or(Algorithm::HS256);
    encode(&Header::new(algorithm), &claims, &EncodingKey::from_secret(secret.expose_secret().as_bytes()))
        .map_err(|_| Box::new(error_response(400, "the app's key does not fit its algorithm")))
}

fn jwt_response(signed: Result<String, Box<HttpResponse>>) -> HttpResponse {
    match signed {
        Ok(jwt) => HttpResponse::Ok().json(json!({"jwt": jwt})),
        Err(refusal) => *refusal,
    }
}

/// `users/sts`: signs for the app's id and secret, or for the console's token.
async fn sign(request: HttpRequest, body: Bytes, platform: Data<PlatformState>) -> HttpResponse {
    let members = members(&body);
    let Some(id) = text(&members, "clientId") else {
        return sign_for_console(&request, &platform);
    };
    let secret = text(&members, "clientSecret").unwrap_or_default();
    let app = platform.options.apps.iter().find(|app| app.id == id).filter(|app| match &app.key {
        AppKey::Secret(key) => key.expose_secret() == secret,
        AppKey::RsaPublicPem(_) => true,
    });
    let Some(app) = app else {
        return error_response(401, "wrong clientId or clientSecret");
    };
    let Some(identity) = text(&members, "identity") else {
        return error_response(400, "identity is needed");
    };
    let anonymous = match members.get("isAnonymous") {
        Some(Value::Bool(anonymous)) => *anonymous,
        Some(Value::String(text)) => text == "true",
        _ => false,
    };
    jwt_response(assertion(&platform, app, identity, text(&members, "aud"), anonymous))
}

/// Signs for the user who logged in to the console. The first app is the console's.
fn sign_for_console(request: &HttpRequest, platform: &PlatformState) -> HttpResponse {
    let user =
        bearer(request).and_then(|token| platform.logins.with(token, |logins| logins.get(token).cloned()));
    let (Some(user), Some(app)) = (user, platform.options.apps.first()) else {
        return error_response(401, "clientId and clientSecret, or a console's token, are needed");
    };
    jwt_response(assertion(platform, app, &user, None, false))
}

/// `oauth/token`: logs in to the console with any password.
async fn log_in(body: Bytes, platform: Data<PlatformState>) -> HttpResponse {
    let members = members(&body);
    let (Some("password"), Some(user), Some(_)) =
        (text(&members, "grant_type"), text(&members, "username"), text(&members, "password"))
    else {
        return error_response(401, "grant_type password, username and password are needed");
    };
    let token = platform.ids.secret();
    platform.logins.with(&token, |logins| logins.insert(token.clone(), user.to_owned()));
    HttpResponse::Ok().json(json!({"authorization": {"accessToken": token, "token_type": "bearer"}}))
}

/// `platform/websdk`: signs for an API key. Without configured keys, the first app takes each.
async fn bootstrap(request: HttpRequest, body: Bytes, platform: Data<PlatformState>) -> HttpResponse {
    let mut members = members(&body);
    if let Some(key) = request.headers().get("apikey").and_then(|key| key.to_str().ok()) {
        members.entry("apiKey").or_insert_with(|| key.into());
    }
    let apps = &platform.options.apps;
    let is_configured = apps.iter().any(|app| app.rules.api_key.is_some());
    let app = text(&members, "apiKey").and_then(|given| {
        apps.iter().find(|app| match &app.rules.api_key {
            Some(key) => key.expose_secret() == given,
            None => !is_configured,
        })
    });
    let Some(app) = app else {
        return error_response(401, "wrong apiKey");
    };
    let identity = text(&members, "ity").map_or_else(|| platform.ids.uuid(""), str::to_owned);
    let bot = platform.options.bots.first().map(String::as_str).unwrap_or_default();
    let name = platform.options.scripted_bot(bot).map_or("Sandbox", ScriptedBot::name);
    match assertion(&platform, app, &identity, None, !members.contains_key("ity")) {
        Ok(jwt) => HttpResponse::Ok()
            .json(json!({"jwt": jwt, "botInfo": {"name": name, "_id": bot}, "ity": identity})),
        Err(refusal) => *refusal,
    }
}
