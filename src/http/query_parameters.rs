//! The query of a URL: `bot`, and the parameters of its route.
//!
//! Pure. An unknown parameter is an error, so that no typo passes as a parameter without effect.

use std::borrow::Cow;

use super::api_error::{ApiError, FieldErrors};

/// Most items of a page.
const MAX_LIMIT: usize = 1000;

/// Values in the order of their names; `None` for an absent or invalid parameter.
pub(super) type ParameterValues<'q, const N: usize> = [Option<Cow<'q, str>>; N];

/// The parameters of a query.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct QueryParameters<'q, const N: usize> {
    /// The bot. `Err` if the query has an error, because its bot is then uncertain.
    pub(super) bot: Result<Option<Cow<'q, str>>, ()>,
    /// Other parameters.
    pub(super) others: ParameterValues<'q, N>,
}

impl<'q, const N: usize> QueryParameters<'q, N> {
    /// Reads a query. A parameter may occur once. Errors are added at `query/NAME`.
    pub(super) fn read(query: &'q str, names: [&'static str; N], errors: &mut FieldErrors) -> Self {
        let mut bot = None;
        let mut others = [const { None }; N];
        let mut failed = false;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            if errors.is_full() {
                break;
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let mut refuse = |at: &str, detail: Cow<'static, str>| {
                failed = true;
                errors.add(format!("query/{at}"), detail);
            };
            let name = match decode(name) {
                Ok(name) => name,
                Err(detail) => {
                    refuse(name, detail.into());
                    continue;
                }
            };
            let slot = match &*name {
                "bot" => Some(&mut bot),
                _ => names.iter().zip(&mut others).find(|(known, _)| **known == name).map(|(_, slot)| slot),
            };
            match (slot, decode(value)) {
                (None, _) => {
                    let known = ["bot"].into_iter().chain(names).collect::<Vec<_>>().join(", ");
                    refuse(&name, format!("is unknown; known parameters: {known}").into());
                }
                (Some(Some(_)), Ok(_)) => refuse(&name, "must occur only once".into()),
                (Some(_), Ok(value)) if value.is_empty() => refuse(&name, "must not be empty".into()),
                (Some(slot), Ok(value)) => *slot = Some(value),
                (Some(_), Err(detail)) => refuse(&name, detail.into()),
            }
        }
        Self { bot: if failed { Err(()) } else { Ok(bot) }, others }
    }
}

/// Parses the number of items in a page, from 1 to 1000.
pub(super) fn parse_limit(text: &str) -> Result<usize, &'static str> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let limit = text.parse().ok().filter(|limit| digits && (1..=MAX_LIMIT).contains(limit));
    limit.ok_or("must be a whole number from 1 to 1000")
}

/// Removes one level of percent-encoding. A `+` stays a plus.
///
/// # Errors
/// A `%` without two hexadecimal digits, or bytes that are not UTF-8.
pub(super) fn decode(text: &str) -> Result<Cow<'_, str>, &'static str> {
    let well_formed = text
        .split('%')
        .skip(1)
        .all(|rest| matches!(rest.as_bytes(), [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit()));
    if !well_formed {
        return Err("must be percent-encoded: two hexadecimal digits follow each `%`");
    }
    percent_encoding::percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| "must be UTF-8 under its percent-encoding")
}

/// Refuses every query parameter.
pub(super) fn without_query(query: &str) -> Result<(), ApiError> {
    let mut errors = FieldErrors::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        if errors.is_full() {
            break;
        }
        let name = pair.split('=').next().unwrap_or_default();
        errors.add(format!("query/{name}"), "is not known; this resource has no parameters");
    }
    if errors.is_empty() { Ok(()) } else { Err(errors.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::api_error::MAX_ERRORS;
    use proptest::prelude::*;

    fn read<'q, const N: usize>(
        query: &'q str,
        names: [&'static str; N],
    ) -> (QueryParameters<'q, N>, Vec<String>) {
        let mut errors = FieldErrors::default();
        let read = QueryParameters::read(query, names, &mut errors);
        (read, errors.into_vec().into_iter().map(|error| error.pointer.into_owned()).collect())
    }

    #[test]
    fn decode_removes_one_level() {
        for (text, expected) in [
            ("alice", "alice"),
            ("a%2Fb", "a/b"),
            ("a%252Fb", "a%2Fb"),
            ("Zo%C3%AB", "Zoë"),
            ("a+b%20c", "a+b c"),
            ("%25", "%"),
        ] {
            assert_eq!(decode(text).as_deref(), Ok(expected), "{text}");
        }
        for bad in ["%", "a%2", "%zz", "%C3", "%ff%fe", "%2%46"] {
            assert!(decode(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn query_names_one_bot_and_no_unknown_parameter() {
        let bot = |query: &'static str| {
            let (read, pointers) = read(query, []);
            (read.bot.map(|bot| bot.map(Cow::into_owned)), pointers)
        };
        let at = |pointers: &[&str]| pointers.iter().map(|&at| at.to_owned()).collect::<Vec<_>>();
        assert_eq!(bot(""), (Ok(None), vec![]));
        assert_eq!(bot("bot=a%2Db&"), (Ok(Some("a-b".to_owned())), vec![]));
        assert_eq!(bot("bot=a&bot=a"), (Err(()), at(&["query/bot"])));
        assert_eq!(bot("bot"), (Err(()), at(&["query/bot"])));
        assert_eq!(bot("bot=%zz"), (Err(()), at(&["query/bot"])));
        assert_eq!(bot("b%6Ft=a&Bot=b&x"), (Err(()), at(&["query/Bot", "query/x"])));
        assert_eq!(bot("%zz=a"), (Err(()), at(&["query/%zz"])));
    }

    #[test]
    fn reading_stops_when_the_answer_is_full() {
        for query in ["x&", "bot=%zz&", "after=1&"].map(|pair| pair.repeat(20_000)) {
            assert_eq!(read(&query, ["after"]).1.len(), MAX_ERRORS, "{query:.20}");
        }
    }

    #[test]
    fn route_adds_its_own_parameters() {
        let (query, pointers) = read("limit=5&bot=b&after=x%3D", ["after", "limit", "since"]);
        assert_eq!(query.bot, Ok(Some("b".into())));
        assert_eq!(query.others, [Some("x=".into()), Some("5".into()), None]);
        assert!(pointers.is_empty());
        let (query, pointers) = read("limit=5&limit=6&after=&bot=b", ["after", "limit"]);
        assert_eq!(query.bot, Err(()));
        assert_eq!(query.others, [None, Some("5".into())]);
        assert_eq!(pointers, ["query/limit", "query/after"]);
    }

    proptest! {
        #[test]
        fn any_text_is_decoded_or_refused(text in any::<String>()) {
            let _ = decode(&text);
        }

        #[test]
        fn any_query_is_read_or_refused(query in "\\PC{0,40}") {
            let (query, pointers) = read(&query, ["after"]);
            prop_assert_eq!(query.bot.is_err(), !pointers.is_empty());
        }
    }
}
