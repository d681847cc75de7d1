//! The way to a socket of the platform: JWT, grant, ticket (protocol.md 2 to 4).

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};

use crate::bench_error::BenchError;
use crate::http::HttpConnection;
use crate::setup;

/// Returns path and query of a new socket's URL for this user, with the connection mode.
pub(crate) async fn ticket(
    connection: &mut HttpConnection,
    address: SocketAddr,
    user: &str,
) -> Result<String, BenchError> {
    let now =
        SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| BenchError::Proc("the clock"))?.as_secs();
    let claims = json!({ "iss": setup::CLIENT_ID, "sub": user, "iat": now, "exp": now + 600,
                         "aud": "https://idproxy.kore.com/authorize", "isAnonymous": false });
    let key = EncodingKey::from_secret(setup::CLIENT_SECRET.as_bytes());
    let assertion = jsonwebtoken::encode(&Header::default(), &claims, &key)?;
    let bot = json!({ "chatBot": setup::CHAT_BOT, "taskBotId": setup::TASK_BOT_ID });

    let body = json!({ "assertion": assertion, "botInfo": bot, "token": {} });
    let grant = post(connection, address, "/oAuth/token/jwtgrant", "", &body).await?;
    let token = grant
        .pointer("/authorization/accessToken")
        .and_then(Value::as_str)
        .ok_or(BenchError::Unreadable { what: "jwtgrant", detail: "no access token" })?;

    let authorization = format!("Authorization: bearer {token}\r\n");
    let body = json!({ "botInfo": bot, "token": {} });
    let start = post(connection, address, "/rtm/start", &authorization, &body).await?;
    let url = start
        .get("url")
        .and_then(Value::as_str)
        .ok_or(BenchError::Unreadable { what: "rtm/start", detail: "no url" })?;
    let (_, rest) =
        url.split_once("://").ok_or(BenchError::Unreadable { what: "rtm/start", detail: "no scheme" })?;
    let path = rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/");
    Ok(format!("{path}&ConnectionMode=Default"))
}

async fn post(
    connection: &mut HttpConnection,
    address: SocketAddr,
    path: &'static str,
    headers: &str,
    body: &Value,
) -> Result<Value, BenchError> {
    let body = body.to_string();
    let request = format!(
        "POST {}{path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n{headers}\
         Content-Length: {}\r\n\r\n{body}",
        setup::API_PATH,
        body.len()
    );
    let answer = connection.exchange(request.as_bytes()).await?;
    if answer.status != 200 {
        let body = String::from_utf8_lossy(answer.body).into_owned();
        return Err(BenchError::Status { what: path, status: answer.status, body });
    }
    Ok(serde_json::from_slice(answer.body)?)
}
