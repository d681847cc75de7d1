//! Unescapes HTML's character references, which the platform writes into texts (protocol.md 7.3).
//!
//! RTM recordings have only `&quot;`. A webhook client also undoes the other names known here.

use std::borrow::Cow;

/// Replaces character references once: `&amp;quot;` becomes `&quot;`. Known are the five names of XML and numbers.
/// Any other `&` stays as it is.
pub(super) fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('&') {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        let (found, after) = character(after).unwrap_or(('&', after));
        plain.push_str(before);
        plain.push(found);
        rest = after;
    }
    plain.push_str(rest);
    // Every reference is longer than its character.
    if plain.len() == text.len() { Cow::Borrowed(text) } else { Cow::Owned(plain) }
}

/// Returns the character of a reference, and the text behind it. `text` is the text behind the `&`.
fn character(text: &str) -> Option<(char, &str)> {
    // The longest references are numbers such as `#x0010FFFF;`.
    const LONGEST: usize = 11;
    let end = text.bytes().take(LONGEST).position(|byte| byte == b';')?;
    let (name, after) = (text.get(..end)?, text.get(end + 1..)?);
    let found = match name {
        "quot" => '"',
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "apos" => '\'',
        _ => {
            // Rust's number parsing would take a sign.
            let number = name.strip_prefix('#').filter(|number| !number.contains('+'))?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16),
                None => number.parse(),
            };
            char::from_u32(code.ok()?).filter(|c| !c.is_control() || matches!(c, '\t' | '\n' | '\r'))?
        }
    };
    Some((found, after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn references_are_unescaped_once() {
        assert_eq!(
            unescape("&quot;&apos;&#39;&#x27;&lt;&gt;&amp;&#x1F600;"),
            "\"\u{27}\u{27}\u{27}<>&\u{1f600}"
        );
        assert_eq!(unescape("&amp;quot;"), "&quot;");
        assert_eq!(unescape("a&&lt;b&;"), "a&<b&;");
        let same = [
            "",
            "plain",
            "a & b",
            "&",
            "&;",
            "&nbsp;",
            "&quot",
            "&#0;",
            "&#x110000;",
            "&#+65;",
            "&#xD800;",
            "&ä;",
        ];
        for same in same {
            assert!(matches!(unescape(same), Cow::Borrowed(text) if text == same), "{same}");
        }
    }

    proptest! {
        #[test]
        fn escaped_text_unescapes_to_itself(text: String) {
            let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
            prop_assert_eq!(unescape(&escaped), text);
        }

        #[test]
        fn unescaped_text_is_never_longer(text in "[&#;xquotamp0-9äa-f]{0,40}") {
            let plain = unescape(&text);
            prop_assert!(plain.len() <= text.len());
            prop_assert_eq!(plain.len() == text.len(), plain == text);
        }
    }
}
