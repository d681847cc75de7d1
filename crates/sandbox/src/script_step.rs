//! The steps of a bot as a script and the control API write them down (docs/sandbox.md).

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, json};

use super::fault_spec::FaultSpec;
use super::message_elements;
use super::placeholders::Placeholders;
use super::random_span::RandomSpan;
use super::random_steps::{BurstSpec, SometimesSpec};
use super::script_values::{CloseCodeNumber, ShapeName};
use super::step::{CutMode, ReceiptKind, ReceiptScope, Step, StreamEndMarker};

/// Steps: a text, one step, or a list of them.
#[derive(Debug, Clone, Default)]
pub(super) struct StepList(Vec<ScriptStep>);

/// One step: a text that the bot says, or an action.
#[derive(Debug, Clone)]
pub(super) struct ScriptStep(StepAction);

/// An action. Its key is its name.
#[derive(Debug, Clone, serde::Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
enum StepAction {
    /// Says a text. `${text}`, `${user}` and groups of the rule's patterns are replaced.
    Say(String),
    /// Waits before the next step.
    Wait(RandomSpan),
    /// Says several texts with gaps between them.
    Burst(BurstSpec),
    /// Does something in a share of the answers.
    Sometimes(SometimesSpec),
    /// Asks with buttons.
    Buttons(ChoiceSpec),
    /// Asks with quick replies.
    QuickReplies(ChoiceSpec),
    /// Sends a message of a named shape.
    Shape(ShapeName),
    /// Sends a template of any kind.
    Template(TemplateSpec),
    /// Sends a picture, a sound, a film or a link.
    Media(MediaSpec),
    /// Sends this `message` array unchanged.
    Message(Vec<Value>),
    /// Streams a text.
    Stream(StreamSpec),
    /// Sends an event.
    Event(EventSpec),
    /// Sends this frame unchanged.
    Frame(Value),
    /// Sends this text as a frame, JSON or not.
    Raw(String),
    /// Lets a human agent say a text.
    AgentSay(String),
    /// Puts a text into the history only.
    OnlyHistory(String),
    /// Closes the socket with this code.
    Close(CloseCodeNumber),
    /// Plans a fault of the next requests.
    Fault(FaultSpec),
    /// Does something that needs no argument.
    Do(BareAction),
}

/// Action without an argument.
#[derive(Debug, Clone, Copy, serde::Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
enum BareAction {
    /// Acknowledges the message, for rules with `ack: never`.
    Ack,
    /// Sends `waiting_for_user_input`.
    WaitingForInput,
    /// Hands the conversation to a human agent.
    AgentStart,
    /// Reports the message as delivered to the agent.
    AgentDelivered,
    /// Reports the message as read by the agent.
    AgentRead,
    /// Reports all messages as read by the agent.
    AgentReadAll,
    /// Gives the conversation back to the bot.
    AgentEnd,
    /// Ends the session.
    EndSession,
    /// Empties the user's history.
    Forget,
    /// Closes the socket without a code.
    CloseWithoutCode,
    /// Drops the connection without a close frame.
    Drop,
    /// Resets the connection.
    Reset,
    /// Leaves the socket open and answers no more.
    Hang,
    /// Expires all tokens.
    ExpireTokens,
}

/// A question with its choices.
#[derive(Debug, Clone, serde::Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ChoiceSpec {
    /// The question.
    text: String,
    /// Titles of the choices, which are also what they send.
    choices: Vec<String>,
}

/// A template.
#[derive(Debug, Clone, serde::Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TemplateSpec {
    /// The template with its `template_type`.
    payload: Value,
    /// Readable text for clients that cannot draw it.
    #[serde(default)]
    body: String,
}

/// A medium.
#[derive(Debug, Clone, serde::Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct MediaSpec {
    /// Kind of the medium.
    kind: ScriptedMedia,
    /// Address of the medium.
    url: String,
    /// Text beside it.
    #[serde(default)]
    text: String,
}

/// Kind of a medium.
#[derive(Debug, Clone, Copy, serde::Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
enum ScriptedMedia {
    /// A picture.
    Image,
    /// A sound.
    Audio,
    /// A film.
    Video,
    /// A link.
    Link,
}

/// A streamed text.
#[derive(Debug, Clone, serde::Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StreamSpec {
    /// The text. It is cut behind each space.
    text: String,
    /// Time between two pieces, drawn once for the stream.
    #[serde(default)]
    gap: RandomSpan,
    /// End of the stream.
    #[serde(default)]
    end: StreamEndMarker,
}

/// An event of the platform.
#[derive(Debug, Clone, serde::Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct EventSpec {
    /// `type` of the frame.
    r#type: String,
    /// Members that replace the usual ones; null removes one.
    #[serde(default)]
    fields: Option<Value>,
}

impl StepList {
    /// Returns the steps for a message.
    pub(super) fn steps(&self, values: &Placeholders<'_>) -> Vec<Step> {
        self.0.iter().flat_map(|step| step.0.steps(values)).collect()
    }
}

impl StepAction {
    fn steps(&self, values: &Placeholders<'_>) -> Vec<Step> {
        let choices = |spec: &ChoiceSpec, build: fn(&str, &[&str]) -> Value| {
            let titles: Vec<&str> = spec.choices.iter().map(String::as_str).collect();
            Step::Message(values.fill_all(&[build(&spec.text, &titles)]))
        };
        let step = match self {
            Self::Say(text) => Step::Say(values.fill(text)),
            Self::Wait(span) => Step::Wait(span.draw(&values.random)),
            Self::Burst(spec) => return spec.steps(values),
            Self::Sometimes(spec) => return spec.steps(values),
            Self::Buttons(spec) => choices(spec, message_elements::buttons),
            Self::QuickReplies(spec) => choices(spec, message_elements::quick_replies),
            Self::Shape(name) => Step::Message(message_elements::named(&name.0).unwrap_or_default()),
            Self::Template(TemplateSpec { payload, body }) => {
                Step::Message(values.fill_all(&[message_elements::template(payload, body)]))
            }
            Self::Media(MediaSpec { kind, url, text }) => {
                let kind = match kind {
                    ScriptedMedia::Image => "image",
                    ScriptedMedia::Audio => "audio",
                    ScriptedMedia::Video => "video",
                    ScriptedMedia::Link => "link",
                };
                let element =
                    message_elements::media(kind, &json!({"url": url, "text": text, "title": text}));
                Step::Message(values.fill_all(&[element]))
            }
            Self::Message(elements) => Step::Message(values.fill_all(elements)),
            Self::Stream(StreamSpec { text, gap, end }) => Step::Stream {
                chunks: values.fill(text).split_inclusive(' ').map(str::to_owned).collect(),
                gap: gap.draw(&values.random),
                end: *end,
            },
            Self::Event(EventSpec { r#type, fields }) => {
                Step::EventWith(r#type.clone(), fields.clone().unwrap_or_else(|| json!({})))
            }
            Self::Frame(frame) => {
                Step::Frame(message_elements::with_strings(frame, &|text| values.fill(text)))
            }
            Self::Raw(text) => Step::Raw(text.clone()),
            Self::AgentSay(text) => Step::AgentSay(values.fill(text)),
            Self::OnlyHistory(text) => Step::OnlyHistory(values.fill(text)),
            Self::Close(code) => Step::Close(code.0),
            Self::Fault(fault) => {
                Step::Fault(fault.endpoint, fault.times.unwrap_or(usize::MAX), fault.fault())
            }
            Self::Do(action) => action.step(),
        };
        vec![step]
    }
}

impl BareAction {
    fn step(self) -> Step {
        match self {
            Self::Ack => Step::Ack,
            Self::WaitingForInput => Step::WaitingForInput,
            Self::AgentStart => Step::AgentStart,
            Self::AgentDelivered => Step::AgentReceipt(ReceiptKind::Delivered, ReceiptScope::Answered),
            Self::AgentRead => Step::AgentReceipt(ReceiptKind::Read, ReceiptScope::Answered),
            Self::AgentReadAll => Step::AgentReceipt(ReceiptKind::Read, ReceiptScope::All),
            Self::AgentEnd => Step::AgentEnd,
            Self::EndSession => Step::EndSession,
            Self::Forget => Step::Forget,
            Self::CloseWithoutCode => Step::CloseWithoutCode,
            Self::Drop => Step::Drop(CutMode::Fin),
            Self::Reset => Step::Drop(CutMode::Reset),
            Self::Hang => Step::Hang,
            Self::ExpireTokens => Step::ExpireTokens,
        }
    }
}

impl<'de> Deserialize<'de> for ScriptStep {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StepVisitor)
    }
}

struct StepVisitor;

impl<'de> Visitor<'de> for StepVisitor {
    type Value = ScriptStep;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, or an action such as `wait: 300ms`")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<ScriptStep, E> {
        Ok(ScriptStep(StepAction::Say(text.to_owned())))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<ScriptStep, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ScriptStep, A::Error> {
        StepAction::deserialize(MapAccessDeserializer::new(map)).map(ScriptStep)
    }
}

impl<'de> Deserialize<'de> for StepList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor;
        impl<'de> Visitor<'de> for ListVisitor {
            type Value = StepList;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a step, or a list of steps")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<StepList, E> {
                StepVisitor.visit_str(text).map(|step| StepList(vec![step]))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<StepList, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<StepList, A::Error> {
                StepVisitor.visit_map(map).map(|step| StepList(vec![step]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<StepList, A::Error> {
                let mut steps = Vec::new();
                while let Some(step) = seq.next_element()? {
                    steps.push(step);
                }
                Ok(StepList(steps))
            }
        }
        deserializer.deserialize_any(ListVisitor)
    }
}

#[cfg(test)]
mod schema {
    use std::borrow::Cow;

    use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

    use super::{ScriptStep, StepAction, StepList};

    impl JsonSchema for ScriptStep {
        fn schema_name() -> Cow<'static, str> {
            "ScriptStep".into()
        }

        fn json_schema(generator: &mut SchemaGenerator) -> Schema {
            let action = generator.subschema_for::<StepAction>();
            json_schema!({"description": "A text that the bot says, or an action.", "anyOf": [{"type": "string"}, action]})
        }
    }

    impl JsonSchema for StepList {
        fn schema_name() -> Cow<'static, str> {
            "StepList".into()
        }

        fn json_schema(generator: &mut SchemaGenerator) -> Schema {
            let step = generator.subschema_for::<ScriptStep>();
            json_schema!({"description": "A step, or a list of steps.", "anyOf": [step, {"type": "array", "items": step}]})
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(json: &str) -> String {
        let random = crate::random_sequence::RandomSequence::default();
        let pattern = regex::Regex::new(r"(?P<order>\d+) (\w+)").unwrap();
        let text = "order 4711 now";
        let values =
            Placeholders { text, user: "ann", groups: pattern.captures_iter(text).collect(), random };
        format!("{:?}", serde_json::from_str::<StepList>(json).unwrap().steps(&values))
    }

    #[test]
    fn text_step_and_list_are_steps() {
        assert_eq!(steps(r#""Hi""#), r#"[Say("Hi")]"#);
        assert_eq!(steps(r#"{"wait": "1s"}"#), "[Wait(1s)]");
        assert_eq!(steps(r#"["Hi", {"do": "hang"}, {"close": 1008}]"#), r#"[Say("Hi"), Hang, Close(1008)]"#);
    }

    #[test]
    fn known_placeholders_are_replaced() {
        let filled = steps(r#""${user} said ${text}: ${order}, ${2}, ${1}, ${none}, $5, ${""#);
        assert_eq!(filled, r#"[Say("ann said order 4711 now: 4711, now, 4711, ${none}, $5, ${")]"#);
        let asked = steps(r#"{"buttons": {"text": "Order ${order}?", "choices": ["Yes", "${2}"]}}"#);
        assert!(asked.contains("Order 4711?") && asked.contains(r#"String("now")"#), "{asked}");
    }
}
