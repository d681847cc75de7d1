//! The claims of a token, as its issuer wrote them.

use serde_json::{Map, Value};

use super::token_verifier::TokenRefusal;
use crate::config::{CallerScopes, CallerTokenConfig};
use crate::domain::{BotName, UserId};

/// The rights that a token gives. `None` stands for a claim that the configuration does not name, so the token does not
/// narrow that right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRights {
    /// The only user.
    pub user: Option<UserId>,
    /// The scopes.
    pub scopes: Option<CallerScopes>,
    /// The bots. Names that no bot can have are left out.
    pub bots: Option<Vec<BotName>>,
    /// The name of the client.
    pub name: Option<Box<str>>,
}

/// The longest name of a client, in bytes.
const NAME_MAX: usize = 128;

impl TokenRights {
    /// Reads the rights of verified claims.
    ///
    /// # Errors
    /// [`TokenRefusal::Claim`] if a claim that must be text is missing or of another kind. A missing list of scopes or bots is
    /// an empty one.
    pub(super) fn read(
        config: &CallerTokenConfig,
        claims: &Map<String, Value>,
    ) -> Result<Self, TokenRefusal> {
        let text = |name: &Option<Box<str>>| -> Result<Option<&str>, TokenRefusal> {
            let Some(name) = name else { return Ok(None) };
            let value = find(claims, name).and_then(Value::as_str).filter(|text| !text.is_empty());
            value.map(Some).ok_or_else(|| TokenRefusal::Claim(name.clone()))
        };
        let user = match text(&config.user_claim)?.map(UserId::new) {
            Some(Ok(user)) => Some(user),
            Some(Err(_)) => return Err(TokenRefusal::Claim(config.user_claim.clone().unwrap_or_default())),
            None => None,
        };
        let name = text(&config.name_claim)?
            .map(|name| name.get(..name.floor_char_boundary(NAME_MAX)).unwrap_or(name).into());
        let list = |name: &Option<Box<str>>| name.as_ref().map(|name| words(find(claims, name)));
        Ok(Self {
            user,
            scopes: list(&config.scopes_claim).map(|words| scopes(&words)),
            bots: list(&config.bots_claim)
                .map(|words| words.into_iter().filter_map(|word| BotName::new(word).ok()).collect()),
            name,
        })
    }
}

/// Finds a claim by its name, or by a path with dots, such as `realm_access.roles`. Names of claims may hold dots too, so
/// the whole name goes first.
fn find<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(name) {
        return Some(value);
    }
    let (first, rest) = name.split_once('.')?;
    find(claims.get(first)?.as_object()?, rest)
}

/// Returns the words of a claim: a list of texts, or one text with spaces in between (RFC 8693, 4.2).
fn words(claim: Option<&Value>) -> Vec<&str> {
    match claim {
        Some(Value::String(text)) => text.split_ascii_whitespace().collect(),
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn scopes(words: &[&str]) -> CallerScopes {
    CallerScopes {
        send: words.contains(&"send"),
        read: words.contains(&"read"),
        admin: words.contains(&"admin"),
    }
}
