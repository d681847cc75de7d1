//! Spans of a script that are fixed, or drawn anew each time.

use std::fmt;
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, IntoDeserializer as _, MapAccess, Visitor};

use super::random_sequence::RandomSequence;
use super::script_values::SpanText;

/// The longest log-normal span of a script that names none.
const MOST: Duration = Duration::from_mins(1);

/// A span that is fixed, or the distribution of one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum RandomSpan {
    /// Always the same, such as `300ms`.
    Fixed(Duration),
    /// Any span between two bounds, as a call of a service takes: `{from: 500ms, to: 4s}`.
    Uniform(Duration, Duration),
    /// A log-normal span, as people and networks take: `{median: 300ms, sigma: 0.5}`.
    LogNormal {
        /// Half of the spans are shorter.
        median: Duration,
        /// Standard deviation of the logarithm. With 0.5, nine of ten spans are within 0.44 and 2.3 medians.
        sigma: f64,
        /// Longer spans are cut to it.
        most: Duration,
    },
}

impl RandomSpan {
    /// Returns the next span, in whole milliseconds.
    pub(super) fn draw(self, random: &RandomSequence) -> Duration {
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        match self {
            Self::Fixed(span) => span,
            Self::Uniform(from, to) => Duration::from_millis(random.between(millis(from), millis(to))),
            Self::LogNormal { median, sigma, most } => {
                let factor = (sigma * random.normal()).exp();
                let drawn = Duration::try_from_secs_f64(median.as_secs_f64() * factor).unwrap_or(most);
                Duration::from_millis(millis(drawn.min(most)))
            }
        }
    }
}

impl Default for RandomSpan {
    fn default() -> Self {
        Self::Fixed(Duration::ZERO)
    }
}

/// The members of a distribution.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SpanDistribution {
    #[serde(default)]
    from: Option<SpanText>,
    #[serde(default)]
    to: Option<SpanText>,
    #[serde(default)]
    median: Option<SpanText>,
    #[serde(default)]
    sigma: Option<f64>,
    #[serde(default)]
    most: Option<SpanText>,
}

impl SpanDistribution {
    fn span(self) -> Result<RandomSpan, &'static str> {
        match self {
            Self { from: Some(from), to: Some(to), median: None, sigma: None, most: None } => {
                let order = if from.0 <= to.0 { Ok(()) } else { Err("from is at most to") };
                order.map(|()| RandomSpan::Uniform(from.0, to.0))
            }
            Self { from: None, to: None, median: Some(median), sigma: Some(sigma), most } => {
                let most = most.map_or(MOST, |most| most.0);
                if !(0.0..=5.0).contains(&sigma) {
                    return Err("sigma is a number from 0 to 5");
                }
                Ok(RandomSpan::LogNormal { median: median.0, sigma, most })
            }
            _ => Err("a distribution has from and to, or median and sigma, and perhaps most"),
        }
    }
}

impl<'de> Deserialize<'de> for RandomSpan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RandomSpanVisitor;
        impl<'de> Visitor<'de> for RandomSpanVisitor {
            type Value = RandomSpan;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a span such as 300ms, or a distribution such as {from: 500ms, to: 4s}")
            }

            fn visit_u64<E: Error>(self, ms: u64) -> Result<RandomSpan, E> {
                SpanText::deserialize(ms.into_deserializer()).map(|span| RandomSpan::Fixed(span.0))
            }

            fn visit_i64<E: Error>(self, ms: i64) -> Result<RandomSpan, E> {
                SpanText::deserialize(ms.into_deserializer()).map(|span| RandomSpan::Fixed(span.0))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<RandomSpan, E> {
                SpanText::deserialize(text.into_deserializer()).map(|span| RandomSpan::Fixed(span.0))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RandomSpan, A::Error> {
                let distribution = SpanDistribution::deserialize(MapAccessDeserializer::new(map))?;
                distribution.span().map_err(A::Error::custom)
            }
        }
        deserializer.deserialize_any(RandomSpanVisitor)
    }
}

#[cfg(test)]
mod schema {
    use std::borrow::Cow;

    use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

    use super::{RandomSpan, SpanText};

    impl JsonSchema for RandomSpan {
        fn schema_name() -> Cow<'static, str> {
            "RandomSpan".into()
        }

        fn json_schema(generator: &mut SchemaGenerator) -> Schema {
            let span = generator.subschema_for::<SpanText>();
            json_schema!({
                "description": "A span, or its distribution: uniform between two spans, or log-normal. It is drawn anew each time.",
                "anyOf": [
                    span,
                    {
                        "type": "object",
                        "properties": {"from": span, "to": span},
                        "required": ["from", "to"],
                        "additionalProperties": false,
                    },
                    {
                        "type": "object",
                        "properties": {
                            "median": span,
                            "sigma": {"type": "number", "minimum": 0, "maximum": 5},
                            "most": span,
                        },
                        "required": ["median", "sigma"],
                        "additionalProperties": false,
                    },
                ],
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<RandomSpan, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    fn drawn(json: &str) -> Vec<u64> {
        let (span, random) = (read(json).unwrap(), RandomSequence::new(1));
        let mut drawn: Vec<u64> =
            (0..2001).map(|_| u64::try_from(span.draw(&random).as_millis()).unwrap()).collect();
        drawn.sort_unstable();
        drawn
    }

    #[test]
    fn fixed_span_is_always_the_same() {
        for json in ["300", r#""300ms""#] {
            assert!(drawn(json).iter().all(|&ms| ms == 300), "{json}");
        }
    }

    #[test]
    fn uniform_span_is_between_its_bounds() {
        let drawn = drawn(r#"{"from": "500ms", "to": "4s"}"#);
        assert!(drawn[0] >= 500 && drawn[0] < 520 && drawn[2000] <= 4000 && drawn[2000] > 3980, "{drawn:?}");
        assert!(drawn[1000].abs_diff(2250) < 150, "{}", drawn[1000]);
    }

    #[test]
    fn log_normal_span_has_its_median_and_a_tail() {
        let span = drawn(r#"{"median": "300ms", "sigma": 0.5}"#);
        assert!(span[1000].abs_diff(300) < 15, "{}", span[1000]);
        // One of twenty is over e^(1.645 sigma) medians.
        assert!(span[1900].abs_diff(683) < 60, "{}", span[1900]);
        let cut = drawn(r#"{"median": "300ms", "sigma": 2, "most": "1s"}"#);
        assert_eq!((cut[2000], cut[1000] < 1000), (1000, true));
        assert_eq!(drawn(r#"{"median": 300, "sigma": 5}"#)[2000], 60_000, "a minute without most");
    }

    #[test]
    fn bad_distribution_is_refused_with_its_reason() {
        for (json, reason) in [
            (r#"{"from": "4s", "to": "1s"}"#, "from is at most to"),
            (r#"{"from": "4s"}"#, "from and to, or median and sigma"),
            (r#"{"median": "4s"}"#, "from and to, or median and sigma"),
            (r#"{"from": 1, "to": 2, "sigma": 1}"#, "from and to, or median and sigma"),
            (r#"{"median": 1, "sigma": -1}"#, "from 0 to 5"),
            (r#"{"median": 1, "sigma": 1, "mean": 2}"#, "mean"),
            (r#""soon""#, "300ms"),
            ("-1", "not negative"),
            ("true", "{from: 500ms, to: 4s}"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(reason), "{json}: {error}");
        }
    }
}
