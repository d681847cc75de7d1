//! Text for a terminal, without the characters by which its author could steer the terminal or deceive its reader.
//!
//! Bots, callers and servers write parts of what a terminal shows. Control characters begin escape sequences. Controls of
//! the direction show a text in another order than it has (Unicode Technical Report 36).

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io;

/// Returns the text with a replacement character for each character that a terminal may not get. Line feeds and tabs stay.
pub(crate) fn masked(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    text.replace("\r\n", "\n").replace(is_unsafe, "\u{fffd}").into()
}

/// Returns the text on one line, as by [`masked`].
pub(crate) fn masked_line(text: &str) -> String {
    masked(text).replace('\n', " ")
}

/// Returns JSON with escapes for the characters that a terminal may not get. They occur in strings only, so the value is
/// the same.
pub(crate) fn escaped_json(json: &str) -> Cow<'_, str> {
    if !json.contains(is_unsafe) {
        return Cow::Borrowed(json);
    }
    let mut escaped = String::with_capacity(json.len() + 16);
    for character in json.chars() {
        if is_unsafe(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a String cannot fail.
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(character);
        }
    }
    escaped.into()
}

/// Returns whether a terminal may not get this character. These are control characters other than line feed and tab,
/// separators of lines and paragraphs, controls of the direction, and language tags.
const fn is_unsafe(character: char) -> bool {
    matches!(character,
        '\0'..='\u{8}' | '\u{b}'..='\u{1f}' | '\u{7f}'..='\u{9f}'
        | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A writer that masks all but the colours of the program itself: `ESC [`, digits and semicolons, `m`.
#[derive(Debug)]
pub(super) struct MaskedWriter<W>(pub(super) W);

impl<W: io::Write> io::Write for MaskedWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let mut rest = &*text;
        while let Some(at) = rest.find('\u{1b}') {
            let (before, sequence) = rest.split_at(at);
            self.0.write_all(masked(before).as_bytes())?;
            let length = colour_length(sequence).unwrap_or(1);
            let (sequence, behind) = sequence.split_at(length);
            self.0.write_all(if length > 1 { sequence } else { "\u{fffd}" }.as_bytes())?;
            rest = behind;
        }
        self.0.write_all(masked(rest).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Returns the length of the colour that the text begins with.
fn colour_length(text: &str) -> Option<usize> {
    let parameters = text.strip_prefix("\u{1b}[")?;
    let end = parameters.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    parameters.get(end..)?.starts_with('m').then_some("\u{1b}[".len() + end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use io::Write as _;
    use proptest::prelude::*;

    #[test]
    fn characters_that_steer_or_deceive_are_masked() {
        for unsafe_text in [
            "\x1b[2J",
            "\u{9b}31m",
            "\x07",
            "\x08",
            "\r",
            "\x7f",
            "\u{202e}",
            "\u{2066}",
            "\u{200f}",
            "\u{61c}",
            "\u{2028}",
            "\u{feff}",
            "\u{e0041}",
        ] {
            let masked = masked(unsafe_text);
            assert!(masked.starts_with('\u{fffd}'), "{unsafe_text:?}: {masked:?}");
        }
        assert_eq!(masked("a\r\n\tb é 日本 👩‍👧"), "a\n\tb é 日本 👩‍👧", "text stays, joined emoji too");
        assert_eq!(masked_line("title\nforged: line"), "title forged: line");
    }

    #[test]
    fn log_keeps_its_colours_and_nothing_else() {
        let mut written = Vec::new();
        write!(
            MaskedWriter(&mut written),
            "\x1b[2m12:00\x1b[0m \x1b[38;5;9mE\x1b[m \x1b]0;x\x07 \x1b[2J \x1b[3"
        )
        .unwrap();
        let text = String::from_utf8(written).unwrap();
        assert_eq!(
            text,
            "\x1b[2m12:00\x1b[0m \x1b[38;5;9mE\x1b[m \u{fffd}]0;x\u{fffd} \u{fffd}[2J \u{fffd}[3"
        );
    }

    proptest! {
        #[test]
        fn escaped_json_has_the_same_value(text in any::<String>(), more in "[\u{0}-\u{ff}\u{2000}-\u{2070}\u{e0001}]{0,8}") {
            let text = text + &more;
            let json = serde_json::to_string(&text).unwrap();
            let escaped = escaped_json(&json);
            prop_assert!(!escaped.contains(is_unsafe));
            prop_assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), text);
        }

        #[test]
        fn masked_text_has_no_unsafe_character(text in any::<String>()) {
            prop_assert!(!masked(&text).contains(is_unsafe));
            let line = masked_line(&text);
            prop_assert!(!line.contains(['\n', '\r']), "{:?}", line);
        }
    }
}
