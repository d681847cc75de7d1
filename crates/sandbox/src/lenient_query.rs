//! The parameters of a request's query, as leniently as the platform reads them.

use std::collections::HashMap;

use actix_web::HttpRequest;

/// Parameters by their names. Clients may give a parameter twice, and the last one counts.
pub(super) struct LenientQuery(HashMap<String, String>);

impl LenientQuery {
    pub(super) fn of(request: &HttpRequest) -> Self {
        Self::parse(request.query_string())
    }

    fn parse(query: &str) -> Self {
        Self(url::form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(super) fn is_true(&self, name: &str) -> bool {
        self.get(name) == Some("true")
    }

    /// Returns a number, `None` if it is absent.
    ///
    /// # Errors
    /// The parameter is no number. The error names it.
    pub(super) fn number<T: std::str::FromStr>(&self, name: &'static str) -> Result<Option<T>, &'static str> {
        self.get(name).map(|text| text.parse().map_err(|_| name)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_of_two_parameters_counts() {
        let query = LenientQuery::parse("a=1&a=2&isReconnect=true&isReconnect=true&text=a%20b&n=x");
        assert_eq!(
            (query.get("a"), query.is_true("isReconnect"), query.get("text")),
            (Some("2"), true, Some("a b"))
        );
        assert_eq!(query.number::<usize>("a"), Ok(Some(2)));
        assert_eq!((query.number::<usize>("n"), query.number::<usize>("none")), (Err("n"), Ok(None)));
    }
}
