//! The conversations that the store knows, for operators (api.md 2).

use std::borrow::Cow;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;

use super::api_error::{ApiError, FieldErrors};
use super::auth::{CallerIdentity, RequiredScope};
use super::query_parameters::{QueryParameters, parse_limit};
use super::request_pipeline::{json_response, record, serve};
use super::{ApiContext, CONVERSATIONS};
use crate::domain::{BotName, ConnectionStatus, ConversationId, LinkState, Timestamp, UserId};
use crate::hub::ListedConversation;
use crate::store::{ConversationPlace, ConversationQuery};

/// The page size if the caller does not give one.
const DEFAULT_LIMIT: usize = 100;

/// Pages of the index that one request reads for its `state`. The owners have a second for each of them.
const ROUNDS: usize = 8;

/// Serves `GET /conversations`.
pub(super) async fn list(context: Data<ApiContext>, request: HttpRequest) -> HttpResponse {
    serve(&context, CONVERSATIONS, &request, page(&context, &request)).await
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ListedView<'a> {
    bot: &'a BotName,
    user: &'a UserId,
    state: LinkState,
    connection: &'a ConnectionStatus,
    open_messages: u64,
    last_activity_at: Timestamp,
    owner: Option<&'a str>,
}

async fn page(context: &ApiContext, request: &HttpRequest) -> Result<HttpResponse, ApiError> {
    #[derive(Serialize)]
    struct ConversationPageBody<'a> {
        conversations: Vec<ListedView<'a>>,
        next: Option<String>,
    }
    let caller = context.authorize(request, RequiredScope::Admin)?;
    let mut errors = FieldErrors::default();
    let query = request.uri().query().unwrap_or_default();
    let QueryParameters { bot, others: [state, active, after, limit] } =
        QueryParameters::read(query, ["state", "active", "after", "limit"], &mut errors);
    let bot = bot.ok().flatten().and_then(|bot| errors.record("query/bot", BotName::new(&bot)));
    let state = state.and_then(|state| errors.record("query/state", parse_state(&state)));
    let active = active.and_then(|active| errors.record("query/active", ActivityFilter::parse(&active)));
    let after = after.and_then(|cursor| {
        let place = parse_cursor(&cursor).ok_or("is not a cursor: take `next` of the page before");
        errors.record("query/after", place)
    });
    let limit = limit.map_or(Some(DEFAULT_LIMIT), |limit| errors.record("query/limit", parse_limit(&limit)));
    let query = visible(&caller, bot)?;
    let (Some(limit), true) = (limit, errors.is_empty()) else { return Err(errors.into()) };
    record("caller", &caller.name());
    let now = context.clock.now();
    let mut query = ConversationQuery { after, ..query };
    if let Some(active) = active {
        active.narrow(&mut query, now);
    }
    let (found, next) = read(context, query, state, limit).await?;
    let conversations = found.iter().map(ListedView::of).collect();
    let next = next.as_ref().map(cursor);
    json_response(StatusCode::OK, &ConversationPageBody { conversations, next })
}

/// Reads `limit` conversations in this state. It may end with fewer, because only their owners know the state.
async fn read(
    context: &ApiContext,
    mut query: ConversationQuery,
    state: Option<LinkState>,
    limit: usize,
) -> Result<(Vec<ListedConversation>, Option<ConversationPlace>), ApiError> {
    let mut found = Vec::new();
    for _ in 0..ROUNDS {
        query.limit = limit - found.len();
        let (listed, next) = context.hub.conversations(&query).await?;
        found.extend(
            listed.into_iter().filter(|listed| state.is_none_or(|state| state == listed.connection.state)),
        );
        query.after = next;
        if query.after.is_none() || state.is_none() || found.len() >= limit {
            break;
        }
    }
    Ok((found, query.after))
}

impl<'a> ListedView<'a> {
    fn of(listed: &'a ListedConversation) -> Self {
        let ListedConversation { summary, connection, owner } = listed;
        Self {
            bot: summary.conversation.bot(),
            user: summary.conversation.user(),
            state: connection.state,
            connection,
            open_messages: summary.open_messages,
            last_activity_at: summary.last_activity_at,
            owner: owner.as_deref(),
        }
    }
}

/// Returns a query for the conversations that this caller may see, narrowed to a bot if one is given.
///
/// # Errors
/// `forbidden` for a bot outside the configuration of the caller.
fn visible(caller: &CallerIdentity, bot: Option<BotName>) -> Result<ConversationQuery, ApiError> {
    caller.check_covers_users()?;
    if let Some(bot) = &bot {
        caller.check_bot(bot.as_str())?;
    }
    let bots = bot.map(|bot| vec![bot]).or_else(|| caller.bots().map(<[_]>::to_vec));
    Ok(ConversationQuery { bots, user_prefix: caller.user_prefix().into(), ..ConversationQuery::default() })
}

/// The wanted activity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ActivityFilter {
    /// Conversations with an open message, or a change within half a minute.
    Active,
    /// All others.
    Resting,
    /// Conversations that were active within this span.
    Within(Duration),
}

impl ActivityFilter {
    fn parse(text: &str) -> Result<Self, &'static str> {
        match text {
            "true" => Ok(Self::Active),
            "false" => Ok(Self::Resting),
            span => parse_span(span)
                .map(Self::Within)
                .ok_or("must be `true`, `false`, or a span such as `90s`, `15m`, `6h` or `1d`"),
        }
    }

    /// Narrows a query. All active conversations stand before those at rest.
    fn narrow(self, query: &mut ConversationQuery, now: Timestamp) {
        match self {
            Self::Active => query.since = Some(Timestamp::from_millis(u64::MAX)),
            Self::Within(span) => query.since = Some(now - span),
            Self::Resting if query.after.as_ref().is_none_or(|after| after.rested_at.is_none()) => {
                query.after = behind_active();
            }
            Self::Resting => {}
        }
    }
}

/// Returns the place behind all active conversations. It belongs to no conversation.
fn behind_active() -> Option<ConversationPlace> {
    // Later than any rest, and a number that scripts read exactly.
    const LATEST: Timestamp = Timestamp::from_millis(1 << 52);
    let conversation = ConversationId::new(BotName::sandbox(), UserId::new("-").ok()?);
    Some(ConversationPlace { rested_at: Some(LATEST), conversation })
}

/// Parses a number of seconds, minutes, hours or days.
fn parse_span(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok())??;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return None,
    };
    number.checked_mul(seconds).map(Duration::from_secs)
}

fn parse_state(word: &str) -> Result<LinkState, Cow<'static, str>> {
    let state = LinkState::ALL.into_iter().find(|state| state.as_str() == word);
    state.ok_or_else(|| format!("must be one of {}", LinkState::ALL.map(LinkState::as_str).join(", ")).into())
}

/// Returns a place as opaque text.
fn cursor(place: &ConversationPlace) -> String {
    let rested_at = place.rested_at.map(|at| at.as_millis().to_string()).unwrap_or_default();
    URL_SAFE_NO_PAD.encode(format!("{rested_at} {}", place.conversation))
}

fn parse_cursor(text: &str) -> Option<ConversationPlace> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
    let (rested_at, conversation) = text.split_once(' ')?;
    let rested_at = match rested_at {
        "" => None,
        millis => Some(Timestamp::from_millis(millis.parse().ok()?)),
    };
    let (bot, user) = conversation.split_once('/')?;
    let conversation = ConversationId::new(BotName::new(bot).ok()?, UserId::new(user).ok()?);
    Some(ConversationPlace { rested_at, conversation })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::fixtures::conversation;

    #[test]
    fn activity_is_a_choice_or_a_span() {
        for (text, expected) in [
            ("true", ActivityFilter::Active),
            ("false", ActivityFilter::Resting),
            ("90s", ActivityFilter::Within(Duration::from_secs(90))),
            ("15m", ActivityFilter::Within(Duration::from_mins(15))),
            ("6h", ActivityFilter::Within(Duration::from_hours(6))),
            ("1d", ActivityFilter::Within(Duration::from_hours(24))),
        ] {
            assert_eq!(ActivityFilter::parse(text), Ok(expected));
        }
        for bad in ["", "s", "True", "1", "-1s", "+1s", "1.5h", "1w", "1 s", "99999999999999999999d", "1é"] {
            assert!(ActivityFilter::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn state_of_a_link_is_named_as_in_the_api() {
        for state in LinkState::ALL {
            assert_eq!(parse_state(state.as_str()), Ok(state));
        }
        assert!(parse_state("open").unwrap_err().contains("ready"));
    }

    #[test]
    fn resting_conversations_begin_behind_the_active_ones() {
        let mut query = ConversationQuery::default();
        ActivityFilter::Resting.narrow(&mut query, Timestamp::default());
        assert!(query.after.is_some() && query.after == behind_active());
        let place = ConversationPlace {
            rested_at: Some(Timestamp::from_millis(5)),
            conversation: conversation("b", "u"),
        };
        query.after = Some(place.clone());
        ActivityFilter::Resting.narrow(&mut query, Timestamp::default());
        assert_eq!(query.after, Some(place));
    }

    proptest! {
        #[test]
        fn cursor_as_text_reads_back(rested_at in prop::option::of(any::<u64>()), user in "[a-zé/ :]{1,20}") {
            let rested_at = rested_at.map(Timestamp::from_millis);
            let place = ConversationPlace { rested_at, conversation: conversation("b", &user) };
            prop_assert_eq!(parse_cursor(&cursor(&place)), Some(place));
        }

        #[test]
        fn any_text_is_a_cursor_or_refused(text in "\\PC{0,40}") {
            let _ = parse_cursor(&text);
        }
    }
}
