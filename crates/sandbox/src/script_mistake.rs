//! Mistakes of a script, in the words of docs/sandbox.md and with their places.
//!
//! The reader of YAML speaks of scalars, variants and its own options. An author of a script knows texts, lists and
//! members, so each of its errors is said in those words here.

use serde_saphyr::{DefaultMessageFormatter, Error, Location, MessageFormatter as _, Spanned};

/// A mistake of a script, with its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: {message}")]
pub struct ScriptMistake {
    /// Line, from 1.
    pub line: u64,
    /// Column in characters, from 1.
    pub column: u64,
    /// Description.
    pub message: String,
}

impl ScriptMistake {
    pub(super) fn at(place: &Spanned<String>, message: String) -> Self {
        let location = place.referenced;
        Self { line: location.line(), column: location.column(), message }
    }

    pub(super) fn of(error: &Error) -> Self {
        let error = error.without_snippet();
        let location = error.location().filter(|location| *location != Location::UNKNOWN);
        let (line, column) = location.map_or((1, 1), |location| (location.line(), location.column()));
        Self { line, column, message: message(error) }
    }
}

/// Describes an error of the reader.
fn message(error: &Error) -> String {
    match error {
        Error::AliasError { error, .. } | Error::WithSnippet { error, .. } => message(error),
        // Our own checks of values.
        Error::Message { msg, .. } | Error::SerdeVariantId { msg, .. } => msg.clone(),
        Error::ExternalMessage { msg, .. } => format!("this is no YAML: {}", msg.replace("scalar", "text")),
        Error::Eof { .. } => "the script is empty, or ends too early".to_owned(),
        Error::InvalidUtf8Input => "the script is not in UTF-8".to_owned(),
        Error::MultipleDocuments { .. } => {
            "a script is one document; remove this one and the `---` before it".to_owned()
        }
        Error::Unexpected { expected, .. } => unexpected(expected).to_owned(),
        Error::TaggedScalarCannotDeserializeIntoString { .. } => {
            "a text is needed here, without a tag such as `!!int`".to_owned()
        }
        Error::RecursiveReferencesRequireWeakTypes { .. } => {
            "an anchor cannot stand within itself".to_owned()
        }
        Error::NullIntoString { .. } => "a text is needed here, not an empty value".to_owned(),
        Error::InvalidBooleanStrict { .. } => "`true` or `false` is needed here".to_owned(),
        Error::InvalidScalar { ty, .. } => invalid_scalar(ty).to_owned(),
        Error::ExternallyTaggedEnumExpectedScalarOrMapping { .. }
        | Error::ExpectedStringKeyForExternallyTaggedEnum { .. } => {
            "a name is needed here, or one member such as `name: value`".to_owned()
        }
        Error::UnexpectedValueForUnitEnumVariant { .. } | Error::UnexpectedValueForUnit { .. } => {
            "this name stands alone, without a value".to_owned()
        }
        Error::ExpectedMappingEndAfterEnumVariantValue { .. } => unexpected("mapping end").to_owned(),
        // A step without a name.
        Error::SerdeInvalidType { expected, .. } if expected == "enum" => {
            "an action such as `wait: 300ms` is needed here".to_owned()
        }
        Error::SerdeInvalidType { unexpected, expected, .. }
        | Error::SerdeInvalidValue { unexpected, expected, .. } => {
            format!("{expected} is needed here, not {}", found(unexpected))
        }
        Error::SerdeUnknownVariant { variant, expected, .. } => {
            format!("`{variant}` is unknown here; known: {}", expected.join(", "))
        }
        Error::SerdeUnknownField { field, expected, .. } => {
            format!("the member `{field}` is unknown here; known: {}", expected.join(", "))
        }
        Error::SerdeMissingField { field, .. } => format!("the member `{field}` is missing"),
        Error::DuplicateMappingKey { key, .. } => match key {
            Some(key) => format!("the member `{key}` is given twice"),
            None => "a member is given twice".to_owned(),
        },
        Error::UnknownAnchor { .. } => "no anchor has this name".to_owned(),
        // Limits of the reader, and features that no script needs.
        other => format!("this cannot be read: {}", DefaultMessageFormatter.format_message(other)),
    }
}

/// Says what is needed in place of a node of another form.
fn unexpected(expected: &str) -> &'static str {
    match expected {
        "string scalar" => "a text is needed here, not a list or members",
        "sequence start" => "a list is needed here, such as `[a, b]` or lines with `- `",
        "mapping start" => "members are needed here, such as `name: value`",
        "mapping end" => "one member only is possible here; a list takes several, each behind a `- `",
        _ => "a single value is needed here",
    }
}

/// Says what is needed in place of a value of another type.
fn invalid_scalar(ty: &str) -> &'static str {
    match ty {
        "boolean" => "`true` or `false` is needed here",
        "floating point" => "a number is needed here",
        _ if ty.starts_with('i') => "a whole number is needed here",
        _ => "a whole number is needed here, which is not negative and not too large",
    }
}

/// Names a value that the reader found.
fn found(unexpected: &str) -> String {
    match unexpected {
        "sequence" => "a list".to_owned(),
        "map" => "members".to_owned(),
        "unit value" | "Option value" => "an empty value".to_owned(),
        _ => {
            let prefixes = ["floating point ", "boolean ", "integer "];
            let bare = prefixes.iter().find_map(|prefix| unexpected.strip_prefix(prefix));
            bare.or_else(|| unexpected.strip_prefix("string ")).unwrap_or(unexpected).to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::BotScript;

    /// Words of the reader of YAML and of Serde, which mean nothing to an author of a script.
    const FOREIGN: [&str; 12] = [
        "scalar",
        "sequence",
        "mapping",
        "variant",
        "field",
        "unit",
        "enum",
        "Option",
        "deserialize",
        "u16",
        "u32",
        "policy",
    ];

    #[track_caller]
    fn told(yaml: &str, expected: &str) {
        let mistakes = BotScript::parse(yaml).expect_err("the script has a mistake");
        let [mistake] = mistakes.as_slice() else { panic!("{mistakes:?}") };
        assert_eq!(mistake.to_string(), expected, "{yaml}");
        assert!(!FOREIGN.iter().any(|word| expected.contains(word)), "{expected}");
    }

    #[test]
    fn node_of_another_form_is_told_in_plain_words() {
        told("", "1:1: the script is empty, or ends too early");
        told("- a", "1:1: members are needed here, such as `name: value`");
        told("bots: st-1", "1:7: a list is needed here, such as `[a, b]` or lines with `- `");
        told("bots: [{id: [a]}]", "1:13: a text is needed here, not a list or members");
        told(
            "bots: [{id: st-1, welcome: {say: a, wait: 3}}]",
            "1:37: one member only is possible here; a list takes several, each behind a `- `",
        );
        told(
            "bots: [{id: st-1, welcome: {event: x}}]",
            "1:36: members are needed here, such as `name: value`",
        );
        told(
            "bots: [{id: st-1}]\n---\nbots: []",
            "3:1: a script is one document; remove this one and the `---` before it",
        );
    }

    #[test]
    fn step_or_text_that_is_none_is_told() {
        told("bots: [{id: st-1, welcome: {}}]", "1:28: an action such as `wait: 300ms` is needed here");
        told("bots: [{id: !!int x}]", "1:19: a text is needed here, without a tag such as `!!int`");
        told("bots: [&a {id: st-1, welcome: *a}]", "1:31: an anchor cannot stand within itself");
    }

    #[test]
    fn value_of_another_type_is_told_in_plain_words() {
        told(
            "bots: [{id: st-1, welcome: [1.5]}]",
            "1:29: a text, or an action such as `wait: 300ms` is needed here, not `1.5`",
        );
        told(
            "bots: [{id: st-1, welcome: null}]",
            "1:19: a text, a step, or a list of steps is needed here, not an empty value",
        );
        told("bots: [{id: st-1}]\nbehaviour: {pong: 1}", "2:19: `true` or `false` is needed here");
        let number = "a whole number is needed here, which is not negative and not too large";
        told("bots: [{id: st-1}]\nratePerMinute: many", &format!("2:16: {number}"));
        told("bots: [{id: st-1, welcome: {close: abc}}]", &format!("1:36: {number}"));
        told("bots: [{id: st-1}]\nbehaviour: {clockLead: x}", "2:24: a whole number is needed here");
        told(
            "bots: [{id: st-1}]\nfaults: [{endpoint: start, fault: {status: 7}}]",
            "2:44: an HTTP status is a number from 200 to 599",
        );
    }

    #[test]
    fn name_that_is_wrong_is_told_with_the_known_ones() {
        told("bots: [{}]", "1:8: the member `id` is missing");
        told("bots: [{id: st-1}]\nbots: []", "2:1: the member `bots` is given twice");
        told(
            "bots: [{id: st-1}]\nbehaviour: {ack: nope}",
            "2:18: `nope` is unknown here; known: before, after, never, twice, withoutReplyTo",
        );
        told(
            "bot: []",
            "1:1: the member `bot` is unknown here; known: apps, bots, faults, behaviour, tokenTtl, assertionTtl, \
             ratePerMinute",
        );
        told("bots: [{id: st-1, welcome: *x}]", "1:28: no anchor has this name");
        told("bots: [{id: st-1, welcome: hi\n", "1:8: this is no YAML: unclosed bracket '{'");
    }
}
