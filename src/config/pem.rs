//! The form of PEM that environment variables and JSON leave behind.

use std::borrow::Cow;

/// Returns the text with real line ends: `\n` as two characters is one, because no line of PEM has a backslash.
pub(super) fn with_line_ends(text: &str) -> Cow<'_, str> {
    if text.contains("-----BEGIN ") && text.contains("\\n") {
        text.replace("\\r", "").replace("\\n", "\n").into()
    } else {
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_of_two_characters_are_real_ones_in_pem_only() {
        let pem = "-----BEGIN X-----\nAAAA\n-----END X-----\n";
        assert_eq!(with_line_ends(&pem.replace('\n', "\\n")), pem);
        assert_eq!(with_line_ends(&pem.replace('\n', "\\r\\n")), pem);
        for text in [pem, r"a\nb", ""] {
            assert!(matches!(with_line_ends(text), Cow::Borrowed(same) if same == text));
        }
    }
}
