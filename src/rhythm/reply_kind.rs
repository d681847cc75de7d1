//! The kind of a reply, which all replies share that the bot says at the same place.

use std::sync::LazyLock;
use std::{iter, mem, str};

use memchr::memmem;

use crate::domain::{Fingerprint, ReplyChoice, ReplyMedia};

/// The words of a reply that count.
const WORDS: usize = 24;
/// The words of the user that are known.
const MOST_USER_WORDS: usize = 64;
/// The bytes of a text and of an event that are looked at.
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

/// The words of the user that a bot may repeat: those of the message, and the names. They are kept as hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserWords(Vec<u64>);

impl UserWords {
    /// Returns the words of these texts.
    pub fn of<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        // Short words are in any text, and the bot's own.
        let words = texts.into_iter().flat_map(words).filter(|word| word.bytes >= 3);
        Self(words.take(MOST_USER_WORDS).map(|word| word.hash).collect())
    }
}

impl ReplyKind {
    /// Returns the kind of a reply to this user.
    pub fn of(reply: &ReplyShape<'_>, user: &UserWords) -> Self {
        let mut shape = Hash::START;
        shape.bytes(template_name(reply.event).unwrap_or_default().as_bytes());
        shape.number(u64::from(reply.text.trim_end().ends_with(['?', '？', '؟'])));
        shape.number(reply.choices.len().min(3) as u64);
        for media in reply.media {
            shape.bytes(media.kind.as_str().as_bytes());
        }
        let mut exact = shape;
        let mut behind_number = false;
        for WordHash { hash, has_digit, .. } in words(reply.text).take(WORDS) {
            let is_number = has_digit || DATES.contains(&hash);
            // "10:30 am" and "22:30" are the same.
            if behind_number && (is_number || HALVES_OF_A_DAY.contains(&hash)) {
                continue;
            }
            behind_number = is_number;
            exact.number(match () {
                () if is_number => NUMBER,
                () if user.0.contains(&hash) => USER_WORD,
                () => hash,
            });
        }
        Self { exact: Fingerprint::from_bits(exact.0), template: Fingerprint::from_bits(shape.0) }
    }
}

/// The numbers that stand for each number, date or time, and for each word of the user.
const NUMBER: u64 = 1;
const USER_WORD: u64 = 2;

/// Days and months. Those of other languages make a kind of their own each.
const DATES: [u64; 30] = hashes([
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
]);
const HALVES_OF_A_DAY: [u64; 2] = hashes(["am", "pm"]);

/// A hash that is the same in every version. It takes eight bytes at a time, and mixes like the finaliser of `MurmurHash3`.
/// Collisions cost a wrong wait at worst.
#[derive(Clone, Copy)]
struct Hash(u64);

impl Hash {
    const START: Self = Self(0xcbf2_9ce4_8422_2325);

    const fn number(&mut self, number: u64) {
        let mixed = (self.0 ^ number).wrapping_mul(0xff51_afd7_ed55_8ccd);
        self.0 = mixed ^ (mixed >> 32);
    }

    const fn bytes(&mut self, bytes: &[u8]) {
        let mut left = bytes;
        while let Some((eight, rest)) = left.split_first_chunk() {
            self.number(u64::from_le_bytes(*eight));
            left = rest;
        }
        let mut last = 0;
        while let [rest @ .., byte] = left {
            last = last << 8 | *byte as u64;
            left = rest;
        }
        self.end(last, bytes.len());
    }

    /// Hashes the last bytes, and how many there were, so that two texts in a row are not one.
    const fn end(&mut self, last: u64, bytes: usize) {
        self.number(last);
        self.number(bytes as u64);
    }
}

const fn hashes<const COUNT: usize>(words: [&str; COUNT]) -> [u64; COUNT] {
    let mut hashes = [0; COUNT];
    let mut at = 0;
    #[expect(clippy::indexing_slicing, reason = "a constant: the compiler checks it")]
    while at < COUNT {
        let mut hash = Hash::START;
        hash.bytes(words[at].as_bytes());
        hashes[at] = hash.0;
        at += 1;
    }
    hashes
}

/// The hash of a word: of its letters and digits, in small letters.
#[derive(Clone, Copy, Debug)]
struct WordHash {
    hash: u64,
    has_digit: bool,
    /// The bytes of its letters and digits.
    bytes: usize,
}

impl WordHash {
    fn of(word: &str) -> Self {
        let mut letters = word.to_lowercase();
        letters.retain(char::is_alphanumeric);
        let mut hash = Hash::START;
        hash.bytes(letters.as_bytes());
        Self { hash: hash.0, has_digit: letters.contains(char::is_numeric), bytes: letters.len() }
    }
}

/// Returns the hashes of the words of a text.
fn words(text: &str) -> impl Iterator<Item = WordHash> {
    let text = text.get(..text.floor_char_boundary(SEARCHED)).unwrap_or(text);
    // Most texts are ASCII, and bytes take a tenth of the time of letters.
    let (ascii, other) = if text.is_ascii() { (text, "") } else { ("", text) };
    let mut ascii = ascii.bytes();
    iter::from_fn(move || next_ascii_word(&mut ascii))
        .chain(other.split_whitespace().map(WordHash::of))
        .filter(|word| word.bytes > 0)
}

/// Takes a word of an ASCII text, which may have no letter. Returns `None` behind the last byte.
fn next_ascii_word(text: &mut str::Bytes<'_>) -> Option<WordHash> {
    let mut byte = text.next()?;
    let (mut hash, mut eight, mut bytes, mut has_digit) = (Hash::START, 0, 0, false);
    loop {
        if byte.is_ascii_alphanumeric() {
            has_digit |= byte.is_ascii_digit();
            // Digits have this bit already.
            eight |= u64::from(byte | 0x20) << (bytes % 8 * 8);
            bytes += 1;
            if bytes % 8 == 0 {
                hash.number(mem::take(&mut eight));
            }
        } else if byte.is_ascii_whitespace() {
            break;
        }
        let Some(next) = text.next() else { break };
        byte = next;
    }
    hash.end(eight, bytes);
    Some(WordHash { hash: hash.0, has_digit, bytes })
}

static TEMPLATE_TYPE: LazyLock<memmem::Finder<'static>> =
    LazyLock::new(|| memmem::Finder::new("template_type"));

/// Returns the first `template_type` of a frame, also of one inside a text.
fn template_name(event: &str) -> Option<&str> {
    let bytes = event.as_bytes();
    let searched = bytes.get(..SEARCHED).unwrap_or(bytes);
    let at = TEMPLATE_TYPE.find(searched)? + TEMPLATE_TYPE.needle().len();
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
    fn letters_beyond_ascii_change_no_other_word() {
        let greeting = |name: &str, user: &str| kind(&format!("Grüße, {name}!"), user);
        assert_eq!(greeting("Alice", "I am ALICE"), greeting("Bob", "bob"));
        assert_eq!(greeting("Zoë", "zoë hier"), greeting("Bob", "bob"));
        assert_ne!(greeting("Alice", ""), greeting("Bob", ""));
        assert_eq!(kind("ab cd", ""), kind("\u{2003}ab\u{2003}cd", ""), "spaces of other scripts");
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
