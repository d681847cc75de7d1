//! Reads JSON of other programs leniently.
//!
//! One reader serves every layer, so no layer refuses a value that another accepted. A caller asks for single members,
//! and each is read by itself. A member of the wrong type counts as absent and never spoils its neighbours. So this file
//! derives no `Deserialize`, which refuses a whole object for one odd or doubled member. Values are borrowed from the
//! text. No function recurses, so nesting costs no stack.
//!
//! This file does not know what any member means.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer as _;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Deserializer, Value};

/// Value of a member as written, or `None` if the member is absent or `null`.
pub(crate) type JsonMember<'a> = Option<&'a RawValue>;

/// Deepest nesting of an event. Many readers stop at 128 levels, and our documents have up to six around an event.
const MAX_DEPTH: u32 = 120;

/// Largest whole number that a double holds exactly.
const MAX_EXACT: f64 = 9_007_199_254_740_991.0;

/// Returns a JSON value with [`MAX_DEPTH`] levels at most. A deeper value becomes a text that holds its JSON, so that
/// every reader can take it and no part is lost.
pub(crate) fn limit_depth(json: &str) -> Cow<'_, str> {
    let (mut depth, mut in_string, mut escaped) = (0_u32, false, false);
    let (mut limited, mut from) = (String::new(), 0);
    for (at, byte) in json.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => {
                if depth == MAX_DEPTH {
                    limited.push_str(json.get(from..at).unwrap_or_default());
                    from = at;
                }
                depth += 1;
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == MAX_DEPTH {
                    push_quoted(&mut limited, json.get(from..=at).unwrap_or_default());
                    from = at + 1;
                }
            }
            _ => {}
        }
    }
    if limited.is_empty() {
        return Cow::Borrowed(json);
    }
    limited.push_str(json.get(from..).unwrap_or_default());
    Cow::Owned(limited)
}

/// Appends a text as a JSON string.
fn push_quoted(json: &mut String, text: &str) {
    // A text has no part that fails to serialise.
    json.push_str(&serde_json::to_string(text).unwrap_or_default());
}

/// Parses a value that strict readers refuse. A number beyond the range of a double becomes a text, half a surrogate pair
/// U+FFFD, and a deep value a text. Returns `None` if the text is no JSON.
pub(crate) fn value(json: &str) -> Option<Value> {
    serde_json::from_str::<&RawValue>(json).ok()?;
    let limited = limit_depth(json);
    let (mut strict, mut rest) = (String::with_capacity(limited.len()), &*limited);
    while let Some(at) = rest.find(|c: char| c == '"' || c == '-' || c.is_ascii_digit()) {
        let (before, token) = rest.split_at(at);
        strict.push_str(before);
        let is_string = token.starts_with('"');
        let length =
            if is_string { string_length(token) } else { token.find([',', '}', ']', ' ', '\n', '\r', '\t']) };
        let (token, behind) = token.split_at_checked(length.unwrap_or(token.len()))?;
        rest = behind;
        if is_string {
            let text = string(serde_json::from_str(token).ok()?)?;
            push_quoted(&mut strict, &text);
        } else if token.parse().is_ok_and(f64::is_finite) {
            strict.push_str(token);
        } else {
            push_quoted(&mut strict, token);
        }
    }
    strict.push_str(rest);
    serde_json::from_str(&strict).ok()
}

/// Returns the length of the string at the start of a text, quotes included.
fn string_length(text: &str) -> Option<usize> {
    let mut escaped = false;
    let end = text.bytes().skip(1).position(|byte| {
        let is_end = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        is_end
    })?;
    Some(end + 2)
}

/// Returns the members of these names in their order, or `None` if the text is not one JSON object. The last of
/// several members with the same name counts, as in JavaScript.
pub(crate) fn members<'a, const N: usize>(text: &'a str, names: [&str; N]) -> Option<[JsonMember<'a>; N]> {
    object(text, MembersVisitor { names }).map(|(members, _)| members)
}

/// Returns the members of these names as [`members`] does. Returns `None` also if the object has any other member.
pub(crate) fn only_members<'a, const N: usize>(
    text: &'a str,
    names: [&str; N],
) -> Option<[JsonMember<'a>; N]> {
    let (members, has_others) = object(text, MembersVisitor { names })?;
    (!has_others).then_some(members)
}

/// Returns all members in their order, each with its name, or `None` if the text is not one JSON object.
pub(crate) fn entries(text: &str) -> Option<Vec<(Cow<'_, str>, &RawValue)>> {
    object(text, EntriesVisitor)
}

/// Reads the one JSON object that the text is.
fn object<'a, S: DeserializeSeed<'a>>(text: &'a str, seed: S) -> Option<S::Value> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let mut json = Deserializer::from_str(text);
    let read = seed.deserialize(&mut json).ok()?;
    json.end().ok()?;
    Some(read)
}

struct EntriesVisitor;

impl<'de> DeserializeSeed<'de> for EntriesVisitor {
    type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(name) = map.next_key_seed(NameVisitor)? {
            entries.push((name, map.next_value()?));
        }
        Ok(entries)
    }
}

/// Reads a key as text. Half a surrogate pair becomes U+FFFD.
struct NameVisitor;

impl<'de> DeserializeSeed<'de> for NameVisitor {
    type Value = Cow<'de, str>;

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_bytes(self)
    }
}

impl<'de> Visitor<'de> for NameVisitor {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
        Ok(String::from_utf8_lossy(bytes))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        Ok(Cow::Owned(String::from_utf8_lossy(bytes).into_owned()))
    }
}

struct MembersVisitor<'n, const N: usize> {
    names: [&'n str; N],
}

impl<'de, const N: usize> DeserializeSeed<'de> for MembersVisitor<'_, N> {
    /// The members, and whether there are others.
    type Value = ([JsonMember<'de>; N], bool);

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for MembersVisitor<'_, N> {
    type Value = ([JsonMember<'de>; N], bool);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut members, mut has_others) = ([None; N], false);
        while let Some(place) = map.next_key_seed(KeyVisitor { names: &self.names })? {
            if let Some(member) = place.and_then(|at| members.get_mut(at)) {
                let raw: &RawValue = map.next_value()?;
                *member = (raw.get() != "null").then_some(raw);
            } else {
                has_others = true;
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok((members, has_others))
    }
}

/// Finds the position of a key among the names. Keys are read as bytes. A key with half a surrogate pair is no text,
/// but must not cost the object.
struct KeyVisitor<'n> {
    names: &'n [&'n str],
}

impl<'de> DeserializeSeed<'de> for KeyVisitor<'_> {
    type Value = Option<usize>;

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_bytes(self)
    }
}

impl Visitor<'_> for KeyVisitor<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_bytes<E>(self, key: &[u8]) -> Result<Self::Value, E> {
        Ok(self.names.iter().position(|name| name.as_bytes() == key))
    }
}

/// Returns the elements of an array, or `None` for any other value.
pub(crate) fn elements(raw: &RawValue) -> Option<Vec<&RawValue>> {
    raw.get().starts_with('[').then(|| serde_json::from_str(raw.get()).ok()).flatten()
}

/// Iterates over the strings of a JSON value, each with the key before it, if there is one. Both are as written, with
/// quotes.
pub(crate) fn strings(json: &str) -> impl Iterator<Item = (Option<&str>, &str)> {
    let (mut rest, mut key) = (json, None);
    std::iter::from_fn(move || {
        loop {
            let text = rest.get(rest.find('"')?..)?;
            let (string, behind) = text.split_at_checked(string_length(text)?)?;
            rest = behind;
            if !behind.trim_start().starts_with(':') {
                return Some((key.take(), string));
            }
            key = Some(string);
        }
    })
}

/// Returns the text of a string, or `None` for any other value. Half a surrogate pair becomes U+FFFD. JavaScript
/// leaves one where it cuts a text within an emoji.
pub(crate) fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    struct LossyText;

    impl Visitor<'_> for LossyText {
        type Value = String;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }

        fn visit_bytes<E>(self, bytes: &[u8]) -> Result<String, E> {
            Ok(String::from_utf8_lossy(bytes).into_owned())
        }
    }

    let inner = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        Deserializer::from_str(raw.get()).deserialize_bytes(LossyText).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// Returns a non-empty string, or a number as written. Returns `None` for any other value.
pub(crate) fn string_or_number(raw: &RawValue) -> Option<Cow<'_, str>> {
    let text = raw.get();
    if text.starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
        return Some(Cow::Borrowed(text));
    }
    string(raw).filter(|text| !text.is_empty())
}

/// Returns a whole number of 0 or more, written as a number, a float (`17.0`, `1.7e1`) or a string of digits.
pub(crate) fn whole_number(raw: &RawValue) -> Option<u64> {
    if raw.get().starts_with('"') { parse_digits(string(raw)?.trim()) } else { parse_whole(raw.get()) }
}

/// Parses a text of digits only.
pub(crate) fn parse_digits(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Parses a JSON number if it is whole and 0 or more.
pub(crate) fn parse_whole(text: &str) -> Option<u64> {
    text.parse().ok().or_else(|| {
        let float: f64 = text.parse().ok()?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "whole, not negative and within what both types hold exactly"
        )]
        let exact = || float as u64;
        ((0.0..=MAX_EXACT).contains(&float) && float.fract() == 0.0).then(exact)
    })
}

/// Returns the value of a boolean or of its word, or `None` for any other value.
pub(crate) fn boolean(raw: &RawValue) -> Option<bool> {
    let text = string_or_number(raw).unwrap_or(Cow::Borrowed(raw.get()));
    if text.eq_ignore_ascii_case("true") {
        Some(true)
    } else if text.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}

/// Returns whether the member is present and true.
pub(crate) fn is_true(member: JsonMember<'_>) -> bool {
    member.and_then(boolean) == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn raw(text: &str) -> &RawValue {
        serde_json::from_str(text).unwrap()
    }

    fn picked<'a>(text: &'a str, name: &str) -> Option<&'a str> {
        members(text, [name]).and_then(|[member]| member).map(RawValue::get)
    }

    #[test]
    fn doubled_member_keeps_its_last_value() {
        assert_eq!(picked(r#" {"a":1,"b":2,"a":[3]} "#, "a"), Some("[3]"));
        assert_eq!(picked(r#"{"a":1,"a":null}"#, "a"), None);
        assert_eq!(picked(r#"{"b":1}"#, "a"), None);
    }

    #[test]
    fn escaped_keys_match_and_broken_keys_are_skipped() {
        assert_eq!(picked(r#"{"\u0061":1}"#, "a"), Some("1"));
        assert_eq!(picked(r#"{"\ud83d":0,"a":1}"#, "a"), Some("1"));
    }

    #[test]
    fn only_members_are_taken_without_others() {
        let only =
            |text| only_members(text, ["a", "b"]).map(|members| members.map(|member| member.is_some()));
        assert_eq!(only(r#"{"b":1}"#), Some([false, true]));
        assert_eq!(only("{}"), Some([false, false]));
        assert_eq!(only(r#"{"b":1,"c":null}"#), None);
        assert_eq!(only("[]"), None);
    }

    #[test]
    fn entries_have_their_order_and_names() {
        let found = entries(r#" {"b":1,"a\n":[2],"b":null,"\ud83d":{}} "#).unwrap();
        let found: Vec<_> = found.iter().map(|(name, raw)| (&**name, raw.get())).collect();
        assert_eq!(&found[..3], [("b", "1"), ("a\n", "[2]"), ("b", "null")]);
        assert!(found[3].0.starts_with('\u{fffd}') && found[3].1 == "{}");
        for text in ["", "[]", "{", "{} x", "7"] {
            assert!(entries(text).is_none(), "{text}");
        }
    }

    #[test]
    fn text_that_is_not_one_object_has_no_members() {
        for text in ["", " ", "[]", "1", "null", "{", r#"{"a":1"#, r#"{"a":1} x"#, r#"{"a":1}{}"#, "{a:1}"] {
            assert_eq!(members(text, ["a"]).map(|[a]| a.is_some()), None, "{text}");
        }
    }

    #[test]
    fn string_with_half_a_surrogate_pair_is_readable() {
        assert_eq!(string(raw(r#""plain""#)).unwrap(), "plain");
        assert_eq!(string(raw(r#""\"\\\n\ud83d\ude00""#)).unwrap(), "\"\\\n😀");
        assert!(string(raw(r#""cut \ud83d""#)).unwrap().starts_with("cut \u{fffd}"));
        assert_eq!(string(raw("1")), None);
        assert_eq!(string(raw("[\"a\"]")), None);
    }

    #[test]
    fn strings_are_found_with_their_keys() {
        let json = r#"[{"a":"x","b\"":["\\","y"],"c":{"d" : ""}},5,"z"]"#;
        let found: Vec<_> = strings(json).collect();
        assert_eq!(
            found,
            [
                (Some(r#""a""#), r#""x""#),
                (Some(r#""b\"""#), r#""\\""#),
                (None, r#""y""#),
                (Some(r#""d""#), r#""""#),
                (None, r#""z""#),
            ]
        );
        assert_eq!(strings("5").count() + strings("\"cut").count() + strings("").count(), 0);
    }

    #[test]
    fn whole_number_in_three_forms_is_read() {
        for text in ["17", "17.0", "1.7e1", "\"17\"", "\" 17 \""] {
            assert_eq!(whole_number(raw(text)), Some(17), "{text}");
        }
        for text in ["-1", "1.5", "1e300", "\"\"", "\"x\"", "\"+1\"", "\"1.0\"", "true", "{}", "\"-1\""] {
            assert_eq!(whole_number(raw(text)), None, "{text}");
        }
        assert_eq!(whole_number(raw("18446744073709551615")), Some(u64::MAX));
        assert_eq!(whole_number(raw("1512722848096.0")), Some(1_512_722_848_096));
    }

    #[test]
    fn boolean_or_its_word_is_read() {
        assert_eq!(boolean(raw("true")), Some(true));
        assert_eq!(boolean(raw("\"False\"")), Some(false));
        for text in ["1", "\"\"", "\"yes\"", "{}", "[true]"] {
            assert_eq!(boolean(raw(text)), None, "{text}");
        }
    }

    #[test]
    fn deep_value_becomes_a_text_with_its_json() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        let flat = [nested(120), format!("{:?}", nested(1000)), format!("[{}1]", "[],".repeat(1000))];
        for flat in flat {
            assert!(matches!(limit_depth(&flat), Cow::Borrowed(_)));
        }
        let around = |inner: &str| format!("{}{inner}{}", "[".repeat(120), "]".repeat(120));
        assert_eq!(limit_depth(&around(r#"{"a":["\""]},[1],2"#)), around(r#""{\"a\":[\"\\\"\"]}","[1]",2"#));
        let deep = limit_depth(&nested(500_000)).into_owned();
        assert!(serde_json::from_str::<Value>(&deep).is_ok());
    }

    #[test]
    fn odd_value_is_parsed() {
        let odd = r#"{"a":[1e999,-1E+999,-0,1.0,12345678901234567890123],"b":"\ud83d \u0000","\ud83d":null}"#;
        let value = value(odd).unwrap();
        assert_eq!(
            value["a"],
            serde_json::json!(["1e999", "-1E+999", -0.0, 1.0, 1.234_567_890_123_456_8e22])
        );
        assert!(value["b"].as_str().unwrap().ends_with(" \0"));
        assert_eq!(super::value("[1"), None);
        assert!(super::value(&format!(r#"{{"a":{}{}}}"#, "[".repeat(9000), "]".repeat(9000))).is_some());
    }

    proptest! {
        #[test]
        fn written_text_reads_back_unchanged(text: String) {
            let json = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(string(raw(&json)).unwrap(), text);
        }

        #[test]
        fn written_number_reads_back_unchanged(value: u64) {
            prop_assert_eq!(whole_number(raw(&value.to_string())), Some(value));
            let quoted = format!("\"{value}\"");
            prop_assert_eq!(whole_number(raw(&quoted)), Some(value));
        }
    }
}
