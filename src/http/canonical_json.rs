//! JSON by value: two texts of the same value compare and hash alike.
//!
//! Pure. Objects are read strictly. A repeated key has no agreed meaning (RFC 8259, section 4), so it is refused. There
//! are two readings: [`visit_object`] reads one level of an object and leaves its values as text; [`JsonValue`] reads a
//! whole value.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;

use crate::domain::Sha256;
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// A string, borrowed if it has no escapes.
#[derive(Deserialize)]
pub(super) struct JsonText<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// Visits the members of an object in order, repeated keys included, until `visit` breaks. The rest stays unread then, and
/// the result is an error.
pub(super) fn visit_object<'a>(
    text: &'a str,
    visit: impl FnMut(Cow<'a, str>, &'a RawValue) -> ControlFlow<()>,
) -> serde_json::Result<()> {
    struct MemberVisitor<F>(F);

    impl<'a, F: FnMut(Cow<'a, str>, &'a RawValue) -> ControlFlow<()>> Visitor<'a> for MemberVisitor<F> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'a>>(mut self, mut map: A) -> Result<(), A::Error> {
            while let Some((JsonText(key), value)) = map.next_entry()? {
                if (self.0)(key, value).is_break() {
                    return Err(A::Error::custom("the reading was stopped"));
                }
            }
            Ok(())
        }
    }

    let mut deserializer = serde_json::Deserializer::from_str(text);
    deserializer.deserialize_map(MemberVisitor(visit))?;
    deserializer.end()
}

/// A whole value. `serde_json` limits its depth to 128.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum JsonValue {
    Null,
    Bool(bool),
    /// A number without a fraction that fits into 128 bits, in any notation.
    Whole(i128),
    Fraction(f64),
    Text(String),
    Array(Vec<Self>),
    Object(BTreeMap<String, Self>),
}

impl JsonValue {
    /// Converts a JSON number.
    fn number(value: f64) -> Self {
        const WHOLE: f64 = 1e38;
        if value.fract() == 0.0 && value.abs() < WHOLE {
            #[expect(clippy::cast_possible_truncation, reason = "no fraction, and within i128")]
            let whole = value as i128;
            Self::Whole(whole)
        } else {
            Self::Fraction(value)
        }
    }

    /// Feeds the value to a hash. Equal values give equal bytes, different values different ones, as each part carries
    /// its kind and its length.
    pub(super) fn hash(&self, hash: &mut Sha256) {
        match self {
            Self::Null => hash.update(b"n"),
            Self::Bool(false) => hash.update(b"f"),
            Self::Bool(true) => hash.update(b"t"),
            Self::Whole(whole) => {
                hash.update(b"w");
                hash.update(whole.to_be_bytes());
            }
            Self::Fraction(value) => {
                hash.update(b"d");
                hash.update(value.to_bits().to_be_bytes());
            }
            Self::Text(text) => hash_text(hash, text),
            Self::Array(items) => {
                hash.update(b"a");
                hash.update((items.len() as u64).to_be_bytes());
                for item in items {
                    item.hash(hash);
                }
            }
            Self::Object(members) => {
                hash.update(b"o");
                hash.update((members.len() as u64).to_be_bytes());
                for (key, value) in members {
                    hash_text(hash, key);
                    value.hash(hash);
                }
            }
        }
    }
}

/// Feeds a text and its length to a hash.
pub(super) fn hash_text(hash: &mut Sha256, text: &str) {
    hash.update(b"s");
    hash.update((text.len() as u64).to_be_bytes());
    hash.update(text);
}

impl<'de> Deserialize<'de> for JsonValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ValueVisitor;

        impl<'de> Visitor<'de> for ValueVisitor {
            type Value = JsonValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON value")
            }

            fn visit_unit<E>(self) -> Result<JsonValue, E> {
                Ok(JsonValue::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<JsonValue, E> {
                Ok(JsonValue::Bool(value))
            }

            fn visit_u64<E>(self, value: u64) -> Result<JsonValue, E> {
                Ok(JsonValue::Whole(value.into()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<JsonValue, E> {
                Ok(JsonValue::Whole(value.into()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<JsonValue, E> {
                Ok(JsonValue::number(value))
            }

            fn visit_str<E>(self, value: &str) -> Result<JsonValue, E> {
                Ok(JsonValue::Text(value.to_owned()))
            }

            fn visit_string<E>(self, value: String) -> Result<JsonValue, E> {
                Ok(JsonValue::Text(value))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<JsonValue, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(JsonValue::Array(items))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<JsonValue, A::Error> {
                let mut members = BTreeMap::new();
                while let Some(key) = map.next_key::<String>()? {
                    if members.contains_key(&key) {
                        return Err(A::Error::custom("a key occurs twice in one object"));
                    }
                    members.insert(key, map.next_value()?);
                }
                Ok(JsonValue::Object(members))
            }
        }

        deserializer.deserialize_any(ValueVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> serde_json::Result<JsonValue> {
        serde_json::from_str(text)
    }

    fn digest(value: &JsonValue) -> [u8; 32] {
        let mut hash = Sha256::default();
        value.hash(&mut hash);
        hash.finish()
    }

    #[test]
    fn equal_values_hash_alike_in_any_notation() {
        for (one, other) in [
            (r#"{"a":1,"b":[true,null]}"#, "{ \"b\" : [ true , null ] ,\n \"a\" : 1.0 }"),
            ("1000000000000000000", "1e18"),
            ("-0.0", "0"),
            (r#""\u00e9\/""#, r#""é/""#),
            ("2.50", "25e-1"),
        ] {
            assert_eq!(digest(&read(one).unwrap()), digest(&read(other).unwrap()), "{one}");
        }
    }

    #[test]
    fn different_values_hash_differently() {
        let texts = [
            "null",
            "false",
            "true",
            "0",
            "1",
            "1.5",
            "\"\"",
            "\"1\"",
            "[]",
            "[1]",
            "[[1]]",
            "[1,2]",
            "[2,1]",
            "{}",
            r#"{"a":1}"#,
            r#"{"a":"1"}"#,
            r#"{"a":null}"#,
            r#"[["a"],"b"]"#,
            r#"["a",["b"]]"#,
        ];
        let digests: std::collections::HashSet<_> =
            texts.iter().map(|text| digest(&read(text).unwrap())).collect();
        assert_eq!(digests.len(), texts.len());
    }

    #[test]
    fn ambiguous_json_is_refused() {
        assert!(read(r#"{"a":1,"a":1}"#).unwrap_err().to_string().contains("twice"));
        assert!(read(r#"[{"a":{"\u0061":1,"a":2}}]"#).is_err());
        assert!(read("1e999").is_err());
        assert!(read(&"[".repeat(200)).is_err());
    }

    /// Returns the first members of an object, at most `limit`.
    fn members(text: &str, limit: usize) -> (Vec<(String, &str)>, serde_json::Result<()>) {
        let mut members = Vec::new();
        let read = visit_object(text, |key, value| {
            members.push((key.into_owned(), value.get()));
            if members.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        (members, read)
    }

    #[test]
    fn object_keeps_order_and_repeated_keys() {
        let (found, read) = members(r#" {"b": [1, 2] , "\u0061":null,"b":{} } "#, 9);
        let expected = [("b", "[1, 2]"), ("a", "null"), ("b", "{}")];
        assert_eq!(found, expected.map(|(key, value)| (key.to_owned(), value)));
        assert!(read.is_ok());
        let error = |text| members(text, 9).1.unwrap_err();
        assert!(error("[1]").is_data());
        assert!(error("{} x").is_syntax());
    }

    #[test]
    fn object_is_read_until_the_visitor_breaks() {
        let text = format!("{{{} this is no JSON", r#""a":1,"#.repeat(120_000));
        let (members, read) = members(&text, 3);
        assert_eq!(members.len(), 3);
        assert!(read.unwrap_err().is_data(), "the syntax error is behind what is read");
    }

    fn any_value() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            (-1e9..1e9).prop_map(|n: f64| n.into()),
            ".{0,8}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                prop::collection::btree_map(".{0,4}", inner, 0..6)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn white_space_does_not_change_the_hash(value in any_value()) {
            let tight = read(&value.to_string()).unwrap();
            let loose = read(&serde_json::to_string_pretty(&value).unwrap()).unwrap();
            prop_assert_eq!(digest(&tight), digest(&loose));
        }
    }
}
