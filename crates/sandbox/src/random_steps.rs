//! Steps of a script that chance repeats or leaves out.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

use super::placeholders::Placeholders;
use super::random_span::RandomSpan;
use super::script_step::StepList;
use super::step::Step;

/// Most messages of a burst.
const BURST_MAX: u64 = 100;

/// Several messages with gaps between them.
#[derive(Debug, Clone, serde::Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct BurstSpec {
    /// Text of each message. `${n}` is its number, from 1.
    text: String,
    /// Number of messages, or its bounds.
    count: CountRange,
    /// Time between two messages, drawn for each.
    #[serde(default)]
    gap: RandomSpan,
}

/// Steps that are not always there.
#[derive(Debug, Clone, serde::Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SometimesSpec {
    /// Share of the answers that have the steps, from 0 to 1.
    chance: ChanceShare,
    /// The steps.
    reply: StepList,
}

/// A number of messages: always the same, or between two bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct CountRange {
    least: u64,
    most: u64,
}

/// A share from 0 to 1.
#[derive(Debug, Clone, Copy)]
struct ChanceShare(f64);

impl BurstSpec {
    pub(super) fn steps(&self, values: &Placeholders<'_>) -> Vec<Step> {
        let count = values.random.between(self.count.least, self.count.most);
        let mut steps = Vec::new();
        for number in 1..=count {
            if number > 1 {
                steps.push(Step::Wait(self.gap.draw(&values.random)));
            }
            steps.push(Step::Say(values.fill(&self.text.replace("${n}", &number.to_string()))));
        }
        steps
    }
}

impl SometimesSpec {
    pub(super) fn steps(&self, values: &Placeholders<'_>) -> Vec<Step> {
        if values.random.unit() < self.chance.0 { self.reply.steps(values) } else { Vec::new() }
    }
}

impl<'de> Deserialize<'de> for CountRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CountVisitor;
        impl<'de> Visitor<'de> for CountVisitor {
            type Value = CountRange;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a number from 1 to {BURST_MAX}, or two of them as bounds, such as [2, 5]")
            }

            fn visit_u64<E: Error>(self, count: u64) -> Result<CountRange, E> {
                checked(count, count)
            }

            fn visit_i64<E: Error>(self, count: i64) -> Result<CountRange, E> {
                let count = u64::try_from(count).unwrap_or_default();
                checked(count, count)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<CountRange, A::Error> {
                let (least, most) = (seq.next_element()?, seq.next_element()?);
                match (least, most, seq.next_element::<u64>()?) {
                    (Some(least), Some(most), None) => checked(least, most),
                    _ => Err(A::Error::custom("bounds are two numbers, such as [2, 5]")),
                }
            }
        }

        fn checked<E: Error>(least: u64, most: u64) -> Result<CountRange, E> {
            if (1..=most).contains(&least) && most <= BURST_MAX {
                return Ok(CountRange { least, most });
            }
            Err(E::custom(format!("a burst has 1 to {BURST_MAX} messages, and its bounds rise")))
        }
        deserializer.deserialize_any(CountVisitor)
    }
}

impl<'de> Deserialize<'de> for ChanceShare {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let chance = f64::deserialize(deserializer)?;
        if (0.0..=1.0).contains(&chance) {
            return Ok(Self(chance));
        }
        Err(D::Error::custom("chance is a number from 0 to 1"))
    }
}

#[cfg(test)]
mod schema {
    use std::borrow::Cow;

    use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

    use super::{BURST_MAX, ChanceShare, CountRange};

    impl JsonSchema for CountRange {
        fn inline_schema() -> bool {
            true
        }

        fn schema_name() -> Cow<'static, str> {
            "CountRange".into()
        }

        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            let count = json_schema!({"type": "integer", "minimum": 1, "maximum": BURST_MAX});
            json_schema!({"anyOf": [count, {"type": "array", "items": count, "minItems": 2, "maxItems": 2}]})
        }
    }

    impl JsonSchema for ChanceShare {
        fn inline_schema() -> bool {
            true
        }

        fn schema_name() -> Cow<'static, str> {
            "ChanceShare".into()
        }

        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            json_schema!({"type": "number", "minimum": 0, "maximum": 1})
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::random_sequence::RandomSequence;

    /// Returns the steps of 200 answers, as texts.
    fn drawn(json: &str) -> BTreeSet<String> {
        let steps: StepList = serde_json::from_str(json).unwrap();
        let answer = |seed| {
            let random = RandomSequence::of_message(1, "ann", seed);
            format!("{:?}", steps.steps(&Placeholders { text: "hi", random, ..Placeholders::default() }))
        };
        (0..200).map(answer).collect()
    }

    fn only(json: &str) -> String {
        let drawn = drawn(json);
        let [answer] = drawn.iter().collect::<Vec<_>>()[..] else { panic!("{drawn:?}") };
        answer.clone()
    }

    #[test]
    fn burst_says_its_messages_with_gaps() {
        assert_eq!(
            only(r#"{"burst": {"text": "${n} of ${text}", "count": 3, "gap": "20ms"}}"#),
            r#"[Say("1 of hi"), Wait(20ms), Say("2 of hi"), Wait(20ms), Say("3 of hi")]"#
        );
        let lengths: BTreeSet<_> = drawn(r#"{"burst": {"text": "${n}", "count": [2, 4]}}"#)
            .iter()
            .map(|answer| answer.matches("Say").count())
            .collect();
        assert_eq!(lengths, BTreeSet::from([2, 3, 4]));
    }

    #[test]
    fn chance_decides_about_steps() {
        let both = BTreeSet::from(["[]".to_owned(), r#"[Say("more")]"#.to_owned()]);
        assert_eq!(drawn(r#"{"sometimes": {"chance": 0.5, "reply": "more"}}"#), both);
        assert_eq!(only(r#"{"sometimes": {"chance": 1, "reply": "more"}}"#), r#"[Say("more")]"#);
        assert_eq!(only(r#"{"sometimes": {"chance": 0, "reply": "more"}}"#), "[]");
    }

    #[test]
    fn random_waits_and_streams_are_drawn_for_each_answer() {
        for json in [
            r#"{"wait": {"from": "1s", "to": "2s"}}"#,
            r#"{"stream": {"text": "a b", "gap": {"median": "1s", "sigma": 0.5}}}"#,
        ] {
            assert!(drawn(json).len() > 100, "{json}");
        }
    }

    #[test]
    fn bad_number_is_refused_with_its_reason() {
        for (json, reason) in [
            (r#"{"burst": {"text": "a", "count": 0}}"#, "1 to 100"),
            (r#"{"burst": {"text": "a", "count": -1}}"#, "1 to 100"),
            (r#"{"burst": {"text": "a", "count": [3, 2]}}"#, "bounds rise"),
            (r#"{"burst": {"text": "a", "count": [1, 101]}}"#, "1 to 100"),
            (r#"{"burst": {"text": "a", "count": [1]}}"#, "two numbers"),
            (r#"{"burst": {"text": "a", "count": [1, 2, 3]}}"#, "two numbers"),
            (r#"{"burst": {"text": "a", "count": "two"}}"#, "such as [2, 5]"),
            (r#"{"sometimes": {"chance": 1.1, "reply": "a"}}"#, "from 0 to 1"),
        ] {
            let error = serde_json::from_str::<StepList>(json).unwrap_err().to_string();
            assert!(error.contains(reason), "{json}: {error}");
        }
    }
}
