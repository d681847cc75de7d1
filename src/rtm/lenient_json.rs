//! Lenient reading of JSON that others wrote.
//!
//! Only the members that are asked for are looked at, and each of them alone: a member of the wrong type is
//! an absent one and never spoils its neighbours. That is why nothing here derives `Deserialize`, which
//! refuses a whole object for one odd or doubled member. Values are borrowed from the text; nothing recurses,
//! so nesting costs no stack.
//!
//! What it does not know: what any member means.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer as _;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::Deserializer;
use serde_json::value::RawValue;

/// A member's value as it is written; none where the member is absent or `null`.
pub(super) type Member<'a> = Option<&'a RawValue>;

/// How deep a frame may nest. What is handed on must be readable by whoever gets it, and readers stop at
/// depths from about this one.
const MAX_DEPTH: u32 = 128;

/// The largest whole number that a double holds without doubt.
const MAX_EXACT: f64 = 9_007_199_254_740_991.0;

/// Whether the text nests deeper than [`MAX_DEPTH`]. Says nothing about whether it is JSON.
pub(super) fn is_too_deep(text: &str) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_u32, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// The members of these names, in their order, or none where the text is not one JSON object. Of members
/// that share a name the last counts, as everywhere in JavaScript.
pub(super) fn pick<'a, const N: usize>(text: &'a str, names: [&str; N]) -> Option<[Member<'a>; N]> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let mut json = Deserializer::from_str(text);
    let members = Pick { names }.deserialize(&mut json).ok()?;
    json.end().ok()?;
    Some(members)
}

struct Pick<'n, const N: usize> {
    names: [&'n str; N],
}

impl<'de, const N: usize> DeserializeSeed<'de> for Pick<'_, N> {
    type Value = [Member<'de>; N];

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for Pick<'_, N> {
    type Value = [Member<'de>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = [None; N];
        while let Some(place) = map.next_key_seed(Place { names: &self.names })? {
            if let Some(member) = place.and_then(|at| members.get_mut(at)) {
                let raw: &RawValue = map.next_value()?;
                *member = (raw.get() != "null").then_some(raw);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(members)
    }
}

/// Where a key stands among the names. Keys are read as bytes, because a key with half a surrogate pair in
/// it is no text, and still no reason to lose the object.
struct Place<'n> {
    names: &'n [&'n str],
}

impl<'de> DeserializeSeed<'de> for Place<'_> {
    type Value = Option<usize>;

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_bytes(self)
    }
}

impl Visitor<'_> for Place<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_bytes<E>(self, key: &[u8]) -> Result<Self::Value, E> {
        Ok(self.names.iter().position(|name| name.as_bytes() == key))
    }
}

/// The elements of an array; none where it is something else.
pub(super) fn elements(raw: &RawValue) -> Option<Vec<&RawValue>> {
    raw.get().starts_with('[').then(|| serde_json::from_str(raw.get()).ok()).flatten()
}

/// The text of a string; none where it is something else. Half a surrogate pair, which JavaScript leaves
/// behind where it cuts a text within an emoji, becomes U+FFFD.
pub(super) fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    struct Lossy;

    impl Visitor<'_> for Lossy {
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
        Deserializer::from_str(raw.get()).deserialize_bytes(Lossy).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// A string that says something, or a number as it is written; none where it is something else.
pub(super) fn label(raw: &RawValue) -> Option<Cow<'_, str>> {
    let text = raw.get();
    if text.starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
        return Some(Cow::Borrowed(text));
    }
    string(raw).filter(|text| !text.is_empty())
}

/// A whole number of 0 or more, written as a number, as a float (`17.0`, `1.7e1`) or as a string of digits.
pub(super) fn number(raw: &RawValue) -> Option<u64> {
    if raw.get().starts_with('"') { digits(string(raw)?.trim()) } else { whole(raw.get()) }
}

/// The number that these are the digits of.
pub(super) fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// The number that JSON writes so, if it is whole and 0 or more.
pub(super) fn whole(text: &str) -> Option<u64> {
    text.parse().ok().or_else(|| {
        let float: f64 = text.parse().ok()?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "whole, not negative and within what both types hold exactly"
        )]
        let whole = || float as u64;
        ((0.0..=MAX_EXACT).contains(&float) && float.fract() == 0.0).then(whole)
    })
}

/// Whether it says yes or no, as a boolean or as its word; none where it is something else.
pub(super) fn truth(raw: &RawValue) -> Option<bool> {
    let text = label(raw).unwrap_or(Cow::Borrowed(raw.get()));
    if text.eq_ignore_ascii_case("true") {
        Some(true)
    } else if text.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}

/// Whether the member is there and says yes.
pub(super) fn is_true(member: Member<'_>) -> bool {
    member.and_then(truth) == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn raw(text: &str) -> &RawValue {
        serde_json::from_str(text).unwrap()
    }

    fn picked<'a>(text: &'a str, name: &str) -> Option<&'a str> {
        pick(text, [name]).and_then(|[member]| member).map(RawValue::get)
    }

    #[test]
    fn the_last_of_doubled_members_counts_and_null_is_absence() {
        assert_eq!(picked(r#" {"a":1,"b":2,"a":[3]} "#, "a"), Some("[3]"));
        assert_eq!(picked(r#"{"a":1,"a":null}"#, "a"), None);
        assert_eq!(picked(r#"{"b":1}"#, "a"), None);
    }

    #[test]
    fn keys_are_compared_unescaped_and_broken_keys_do_no_harm() {
        assert_eq!(picked(r#"{"\u0061":1}"#, "a"), Some("1"));
        assert_eq!(picked(r#"{"\ud83d":0,"a":1}"#, "a"), Some("1"));
    }

    #[test]
    fn only_one_whole_object_is_picked_from() {
        for text in ["", " ", "[]", "1", "null", "{", r#"{"a":1"#, r#"{"a":1} x"#, r#"{"a":1}{}"#, "{a:1}"] {
            assert_eq!(pick(text, ["a"]).map(|[a]| a.is_some()), None, "{text}");
        }
    }

    #[test]
    fn strings_survive_half_a_surrogate_pair() {
        assert_eq!(string(raw(r#""plain""#)).unwrap(), "plain");
        assert_eq!(string(raw(r#""\"\\\n\ud83d\ude00""#)).unwrap(), "\"\\\n😀");
        assert!(string(raw(r#""cut \ud83d""#)).unwrap().starts_with("cut \u{fffd}"));
        assert_eq!(string(raw("1")), None);
        assert_eq!(string(raw("[\"a\"]")), None);
    }

    #[test]
    fn numbers_come_in_three_shapes() {
        for text in ["17", "17.0", "1.7e1", "\"17\"", "\" 17 \""] {
            assert_eq!(number(raw(text)), Some(17), "{text}");
        }
        for text in ["-1", "1.5", "1e300", "\"\"", "\"x\"", "\"+1\"", "\"1.0\"", "true", "{}", "\"-1\""] {
            assert_eq!(number(raw(text)), None, "{text}");
        }
        assert_eq!(number(raw("18446744073709551615")), Some(u64::MAX));
        assert_eq!(number(raw("1512722848096.0")), Some(1_512_722_848_096));
    }

    #[test]
    fn truth_is_a_boolean_or_its_word() {
        assert_eq!(truth(raw("true")), Some(true));
        assert_eq!(truth(raw("\"False\"")), Some(false));
        for text in ["1", "\"\"", "\"yes\"", "{}", "[true]"] {
            assert_eq!(truth(raw(text)), None, "{text}");
        }
    }

    #[test]
    fn depth_is_counted_outside_strings() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(!is_too_deep(&nested(128)));
        assert!(is_too_deep(&nested(129)));
        assert!(!is_too_deep(&format!("{:?}", nested(1000))));
        assert!(!is_too_deep(&format!(r#"{{"a\"{}":1}}"#, "[".repeat(1000))));
        assert!(!is_too_deep(&"[],".repeat(1000)));
    }

    proptest! {
        #[test]
        fn any_text_survives_being_written_and_read(text: String) {
            let json = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(string(raw(&json)).unwrap(), text);
        }

        #[test]
        fn any_number_survives(value: u64) {
            prop_assert_eq!(number(raw(&value.to_string())), Some(value));
            let quoted = format!("\"{value}\"");
            prop_assert_eq!(number(raw(&quoted)), Some(value));
        }
    }
}
