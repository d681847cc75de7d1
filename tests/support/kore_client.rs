//! A client of the platform's webhook channel, which calls the platform or the bridge's door alike.

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};

use super::{Answer, Caller, Request};

/// A client with its token.
pub(crate) struct KoreClient {
    server: Caller,
    token: String,
}

impl KoreClient {
    /// Returns the client of the sandbox's own app.
    pub(crate) fn new(server: Caller) -> Self {
        Self::with_claims(server, &json!({"sub": "any", "appId": "cs-sandbox"}), "sandbox-secret")
    }

    /// Returns a client whose JWT has these claims.
    pub(crate) fn with_claims(server: Caller, claims: &Value, secret: &str) -> Self {
        let key = EncodingKey::from_secret(secret.as_bytes());
        Self { server, token: jsonwebtoken::encode(&Header::default(), claims, &key).unwrap() }
    }

    /// Returns the token.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// Sends a request with the token.
    pub(crate) async fn send(&self, request: Request) -> Answer {
        self.server.send(request.header("Authorization", &format!("bearer {}", self.token))).await
    }

    /// Sends a call. Returns its status and its body.
    pub(crate) async fn call(&self, path: &str, body: &Value) -> (u16, Value) {
        let answer = self.send(Request::new("POST", path).json(body)).await;
        (answer.status, answer.json())
    }

    /// Says a text in version 2.
    pub(crate) async fn say(&self, user: &str, text: &str) -> (u16, Value) {
        let body =
            json!({"message": {"type": "text", "val": text}, "from": {"id": user}, "to": {"id": "any"}});
        self.call(V2, &body).await
    }

    /// Polls. Returns the status and the body.
    pub(crate) async fn poll(&self, id: &Value) -> (u16, Value) {
        let answer = self.send(Request::get(format!("{V2}/poll/{}", id.as_str().unwrap()))).await;
        (answer.status, answer.json())
    }
}

/// The path of version 1.
pub(crate) const V1: &str = "/chatbot/hooks/st-sandbox";
/// The path of version 2.
pub(crate) const V2: &str = "/chatbot/v2/webhook/st-sandbox";
