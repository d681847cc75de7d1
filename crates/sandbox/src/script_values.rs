//! Values of a script with a meaning: spans, patterns, close codes, statuses and names of shapes.
//!
//! Each is checked while it is read, so that a mistake is reported with its place.

use std::fmt;
use std::time::Duration;

use jiff::SignedDuration;
use regex::Regex;
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use url::Url;

use super::message_elements;

/// A span: a number of milliseconds, or a text such as `300ms`, `2s`, `5m` or `1h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SpanText(pub(super) Duration);

impl<'de> Deserialize<'de> for SpanText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SpanVisitor;
        impl Visitor<'_> for SpanVisitor {
            type Value = SpanText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a span such as 300ms, 2s, 5m or 1h, or a number of milliseconds")
            }

            fn visit_u64<E: Error>(self, ms: u64) -> Result<SpanText, E> {
                Ok(SpanText(Duration::from_millis(ms)))
            }

            fn visit_i64<E: Error>(self, ms: i64) -> Result<SpanText, E> {
                u64::try_from(ms)
                    .map_err(|_| E::custom("a span is not negative"))
                    .and_then(|ms| self.visit_u64(ms))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<SpanText, E> {
                let wrong = || E::invalid_value(serde::de::Unexpected::Str(text), &self);
                let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
                let factor = match &text[digits.len()..] {
                    "" | "ms" => 1,
                    "s" => 1000,
                    "m" => 60_000,
                    "h" => 3_600_000,
                    _ => return Err(wrong()),
                };
                let number: u64 = digits.trim().parse().map_err(|_| wrong())?;
                Ok(SpanText(Duration::from_millis(number.saturating_mul(factor))))
            }
        }
        deserializer.deserialize_any(SpanVisitor)
    }
}

/// Reads a span into a [`Duration`].
pub(super) fn span<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    SpanText::deserialize(deserializer).map(|span| span.0)
}

/// Reads a span that may be absent.
pub(super) fn optional_span<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    span(deserializer).map(Some)
}

/// Reads seconds, which may be negative.
pub(super) fn signed_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SignedDuration, D::Error> {
    i32::deserialize(deserializer).map(|seconds| SignedDuration::from_secs(seconds.into()))
}

/// Reads the URL of a receiver, which may be absent. The sandbox speaks no TLS.
pub(super) fn optional_http_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Url>, D::Error> {
    let wrong = || D::Error::custom("the URL of a receiver begins with http:// and a host");
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    let url = Url::parse(&text).ok().filter(|url| url.scheme() == "http" && url.has_host());
    url.map(Some).ok_or_else(wrong)
}

/// A regular expression. It is found anywhere in a text, in a time linear to it.
#[derive(Debug, Clone)]
pub(super) struct TextPattern(pub(super) Regex);

impl<'de> Deserialize<'de> for TextPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // The last line of the error says what is wrong. The others draw the place.
        let reason = |error: regex::Error| {
            let text = error.to_string();
            text.lines().last().unwrap_or(&text).trim_start_matches("error: ").to_owned()
        };
        Regex::new(&text)
            .map(Self)
            .map_err(|error| D::Error::custom(format!("no regular expression: {}", reason(error))))
    }
}

/// Name of a shape of message (`/template`).
#[derive(Debug, Clone)]
pub(super) struct ShapeName(pub(super) String);

impl<'de> Deserialize<'de> for ShapeName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        if message_elements::NAMES.contains(&name.as_str()) {
            return Ok(Self(name));
        }
        Err(D::Error::custom(format!(
            "no shape is called {name}; known: {}",
            message_elements::NAMES.join(", ")
        )))
    }
}

/// A close code that the platform can send.
#[derive(Debug, Clone, Copy)]
pub(super) struct CloseCodeNumber(pub(super) u16);

impl<'de> Deserialize<'de> for CloseCodeNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u16::deserialize(deserializer)? {
            1005 => Err(D::Error::custom("1005 cannot be sent; use do: closeWithoutCode")),
            1006 => Err(D::Error::custom("1006 cannot be sent; use do: drop")),
            code @ 1000..5000 => Ok(Self(code)),
            _ => Err(D::Error::custom("a close code is a number from 1000 to 4999")),
        }
    }
}

/// Status of an HTTP answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct HttpStatusNumber(pub(super) u16);

impl<'de> Deserialize<'de> for HttpStatusNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u16::deserialize(deserializer)? {
            status @ 200..600 => Ok(Self(status)),
            _ => Err(D::Error::custom("an HTTP status is a number from 200 to 599")),
        }
    }
}

#[cfg(test)]
mod schema {
    use std::borrow::Cow;

    use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

    use super::{CloseCodeNumber, HttpStatusNumber, ShapeName, SpanText, TextPattern};
    use crate::message_elements;

    macro_rules! inline_schema {
        ($type:ident, $schema:expr) => {
            impl JsonSchema for $type {
                fn inline_schema() -> bool {
                    true
                }
                fn schema_name() -> Cow<'static, str> {
                    stringify!($type).into()
                }
                fn json_schema(_: &mut SchemaGenerator) -> Schema {
                    $schema
                }
            }
        };
    }

    inline_schema!(
        SpanText,
        json_schema!({"type": ["integer", "string"], "minimum": 0, "pattern": "^[0-9]+ ?(ms|s|m|h)?$"})
    );
    inline_schema!(TextPattern, json_schema!({"type": "string", "format": "regex"}));
    inline_schema!(ShapeName, json_schema!({"type": "string", "enum": message_elements::NAMES}));
    inline_schema!(HttpStatusNumber, json_schema!({"type": "integer", "minimum": 200, "maximum": 599}));
    inline_schema!(CloseCodeNumber, json_schema!({"type": "integer", "minimum": 1000, "maximum": 4999}));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Duration, String> {
        serde_json::from_str::<SpanText>(json).map(|span| span.0).map_err(|error| error.to_string())
    }

    #[test]
    fn span_is_read_in_each_unit() {
        for (text, ms) in [
            ("250", 250),
            (r#""300ms""#, 300),
            (r#""2 s""#, 2000),
            (r#""5m""#, 300_000),
            (r#""1h""#, 3_600_000),
        ] {
            assert_eq!(read(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for wrong in ["-1", r#""soon""#, r#""5 weeks""#, r#""""#] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn bad_value_is_refused_with_its_reason() {
        let pattern = serde_json::from_str::<TextPattern>(r#""(a""#).unwrap_err().to_string();
        assert!(pattern.contains("unclosed group"), "{pattern}");
        let shape = serde_json::from_str::<ShapeName>(r#""nope""#).unwrap_err().to_string();
        assert!(shape.contains("quick_replies"), "{shape}");
        for (code, reason) in [("1005", "closeWithoutCode"), ("1006", "do: drop"), ("7", "1000 to 4999")] {
            let error = serde_json::from_str::<CloseCodeNumber>(code).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
