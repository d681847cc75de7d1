//! The kind of a reply, which all replies share that the bot says at the same place.

use std::borrow::Cow;

use memchr::memmem;

use crate::domain::{Fingerprint, ReplyChoice, ReplyMedia};

/// The words of a text that count.
const WORDS: usize = 64;
/// The bytes of an event that are searched for the name of its template.
const SEARCHED: usize = 4096;

/// The kind of a reply, as fingerprints. They do not tell its words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyKind {
    /// Its text without what changes from one time to the next, and its shape.
    pub exact: Fingerprint,
    /// Its shape alone: the template, whether it asks, and how many choices and media it offers.
    pub template: Fingerprint,
}

/// The parts of a reply that make its kind.
#[derive(Clone, Copy, Debug)]
pub struct ReplyShape<'a> {
    /// The text that the user reads.
    pub text: &'a str,
    /// The answers that it offers.
    pub choices: &'a [ReplyChoice],
    /// Its media.
    pub media: &'a [ReplyMedia],
    /// The platform's frame, as JSON.
    pub event: &'a str,
}

/// The words of the user that a bot may repeat: those of the message, and the names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserWords(Vec<Box<str>>);

impl UserWords {
    /// Returns the words of these texts.
    pub fn of<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        // Short words are in any text, and the bot's own.
        let words = texts.into_iter().flat_map(words).filter(|word| word.chars().count() >= 3);
        Self(words.take(WORDS).map(|word| word.to_lowercase().into()).collect())
    }

    fn contains(&self, word: &str) -> bool {
        self.0.iter().any(|known| **known == *word)
    }
}

impl ReplyKind {
    /// Returns the kind of a reply to this user.
    pub fn of(reply: &ReplyShape<'_>, user: &UserWords) -> Self {
        let asks = reply.text.trim_end().ends_with(['?', '？', '؟']);
        let media: String = reply.media.iter().map(|media| media.kind.as_str()).collect();
        let template = template_name(reply.event).unwrap_or_default();
        let shape = format!("{template}|{asks}|{}|{media}", reply.choices.len().min(3));
        let mut exact = shape.clone();
        for word in words(reply.text).take(WORDS) {
            let stable = stable_word(word, user);
            // "10:30 am" and "22:30" are the same.
            let again = stable == "#" && exact.ends_with('#')
                || matches!(&*stable, "am" | "pm") && exact.ends_with('#');
            if !again {
                exact.push(' ');
                exact.push_str(&stable);
            }
        }
        Self { exact: Fingerprint::of(&exact), template: Fingerprint::of(&shape) }
    }
}

/// Returns a word as it stands for all of its kind. `#` stands for numbers, days and months, `@` for words of the user.
fn stable_word<'a>(word: &'a str, user: &UserWords) -> Cow<'a, str> {
    if word.bytes().any(|byte| byte.is_ascii_digit()) || word.chars().any(char::is_numeric) {
        return Cow::Borrowed("#");
    }
    let word: Cow<'a, str> =
        if word.chars().any(char::is_uppercase) { word.to_lowercase().into() } else { word.into() };
    if DATES.contains(&&*word) {
        Cow::Borrowed("#")
    } else if user.contains(&word) {
        Cow::Borrowed("@")
    } else {
        word
    }
}

/// Days and months. Those of other languages make a kind of their own each.
const DATES: [&str; 30] = [
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
    "today",
    "tomorrow",
    "yesterday",
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
    "mon",
    "tue",
    "wed",
    "thu",
    "fri",
    "sat",
    "sun",
    "tonight",
];

/// Returns the words of a text, without the marks around them.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let mark = |c: char| !c.is_alphanumeric();
    text.split_whitespace().map(move |word| word.trim_matches(mark)).filter(|word| !word.is_empty())
}

/// Returns the first `template_type` of a frame, also of one inside a text.
fn template_name(event: &str) -> Option<&str> {
    let bytes = event.as_bytes();
    let searched = bytes.get(..SEARCHED).unwrap_or(bytes);
    let at = memmem::find(searched, b"template_type")? + "template_type".len();
    let value = event.get(at..)?.trim_start_matches(['\\', '"', ':', ' ']);
    let end = value.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(value.len());
    value.get(..end.min(32)).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str, user: &str) -> ReplyKind {
        let reply = ReplyShape { text, choices: &[], media: &[], event: "{}" };
        ReplyKind::of(&reply, &UserWords::of([user]))
    }

    #[test]
    fn what_changes_from_one_time_to_the_next_is_taken_out() {
        for (one, other) in [
            ("Your balance is 12.50 EUR.", "Your balance is 1,300.00 EUR."),
            ("See you on Monday at 10:30 am.", "See you on Friday at 22:15."),
            ("Order AB-1234 was sent.", "Order ZX-9 was sent."),
            ("  It  is DONE!", "it is done"),
        ] {
            assert_eq!(kind(one, ""), kind(other, ""), "{one}");
        }
        assert_eq!(kind("Hello Alice!", "I am Alice"), kind("Hello Bob!", "bob here"));
    }

    #[test]
    fn other_words_questions_templates_and_choices_are_other_kinds() {
        let plain = kind("Anything else", "");
        assert_ne!(plain.exact, kind("Nothing else", "").exact);
        assert_eq!(plain.template, kind("Nothing else", "").template);
        assert_ne!(plain.template, kind("Anything else?", "").template);
        let shaped = |event, choices| {
            let reply = ReplyShape { text: "Anything else", choices, media: &[], event };
            ReplyKind::of(&reply, &UserWords::default())
        };
        let choice = ReplyChoice { title: "Yes".into(), payload: "yes".into() };
        assert_ne!(plain, shaped(r#"{"payload":{"template_type":"button"}}"#, &[]));
        assert_eq!(
            shaped(r#"{"template_type": "button"}"#, &[]),
            shaped(r#"{"text":"{\"template_type\":\"button\"}"}"#, &[]),
            "a template inside a text is the same"
        );
        assert_ne!(plain, shaped("{}", std::slice::from_ref(&choice)));
    }

    #[test]
    fn any_text_has_a_kind() {
        let long = "word ".repeat(100_000);
        for text in ["", "?", "…", "\u{0}", "🦀 🦀", "٣", long.as_str()] {
            let _kind = kind(text, text);
        }
        for event in ["template_type", "template_type\":", "\"template_type\":\"é\"", "é template_type é"]
        {
            assert_eq!(template_name(event), None, "{event}");
        }
    }
}
