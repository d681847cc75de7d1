//! Header fields with parameters, such as `multipart/form-data; boundary=x` (RFC 9110, 5.6.6).
//!
//! Pure, and linear in the length of the field. The reading is lenient where clients are known to err. An empty parameter is
//! skipped. Spaces may surround each part. A value outside ASCII needs no quotes. A backslash stays if its character needs no
//! escape.

use percent_encoding::percent_decode;

/// A header field with parameters.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HeaderWithParameters {
    /// The text before the first parameter, in lower case.
    pub(super) value: String,
    /// Names in lower case, with the bytes of their values.
    parameters: Vec<(String, Vec<u8>)>,
}

impl HeaderWithParameters {
    /// Parses a field. Returns `None` if it has no value, or a parameter without a name or an end.
    pub(super) fn parse(field: &[u8]) -> Option<Self> {
        let end = field.iter().position(|byte| *byte == b';').unwrap_or(field.len());
        let (value, mut rest) = field.split_at_checked(end)?;
        let value = visible(value)?;
        let mut parameters = Vec::new();
        while let Some(parameter) = rest.strip_prefix(b";") {
            let parameter = parameter.trim_ascii_start();
            if parameter.is_empty() || parameter.starts_with(b";") {
                rest = parameter;
                continue;
            }
            let equals = parameter.iter().position(|byte| matches!(byte, b'=' | b';'))?;
            let (name, text) = parameter.split_at_checked(equals)?;
            let text = text.strip_prefix(b"=")?.trim_ascii_start();
            let (text, behind) = if let Some(quoted) = text.strip_prefix(b"\"") {
                unquote(quoted)?
            } else {
                let end = text.iter().position(|byte| *byte == b';').unwrap_or(text.len());
                let (text, behind) = text.split_at_checked(end)?;
                (text.trim_ascii_end().to_vec(), behind)
            };
            parameters.push((visible(name)?, text));
            rest = behind.trim_ascii_start();
        }
        rest.is_empty().then_some(Self { value, parameters })
    }

    /// Returns the bytes of a parameter. A parameter that occurs twice has no value.
    ///
    /// # Errors
    /// The parameter occurs twice.
    pub(super) fn parameter(&self, name: &str) -> Result<Option<&[u8]>, RepeatedParameter> {
        let mut found = self.parameters.iter().filter(|(known, _)| known == name);
        let value = found.next().map(|(_, value)| value.as_slice());
        if found.next().is_some() { Err(RepeatedParameter) } else { Ok(value) }
    }
}

/// A parameter that occurs twice, so that readers would disagree about its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RepeatedParameter;

/// Returns a text of visible ASCII characters in lower case.
fn visible(text: &[u8]) -> Option<String> {
    let text = text.trim_ascii();
    let fits = !text.is_empty() && text.iter().all(u8::is_ascii_graphic);
    fits.then(|| String::from_utf8_lossy(text).to_ascii_lowercase())
}

/// Returns the content of a quoted string, and the bytes behind it.
fn unquote(quoted: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut text = Vec::new();
    let mut rest = quoted;
    loop {
        rest = match rest {
            [b'"', behind @ ..] => return Some((text, behind)),
            [b'\\', escaped @ (b'"' | b'\\'), behind @ ..] => {
                text.push(*escaped);
                behind
            }
            [byte, behind @ ..] => {
                text.push(*byte);
                behind
            }
            [] => return None,
        };
    }
}

/// Reads bytes as UTF-8, or as ISO 8859-1 if they are none. Clients write file names in both.
pub(super) fn header_text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap_or_else(|_| bytes.iter().copied().map(char::from).collect())
}

/// Decodes an extended value such as `UTF-8''gr%C3%BC%C3%9Fe` (RFC 8187). Returns `None` for another form or charset.
pub(super) fn extended_text(value: &[u8]) -> Option<String> {
    let value = std::str::from_utf8(value).ok()?;
    let (charset, rest) = value.split_once('\'')?;
    let (_language, encoded) = rest.split_once('\'')?;
    let bytes: Vec<u8> = percent_decode(encoded.as_bytes()).collect();
    match charset.to_ascii_lowercase().as_str() {
        "utf-8" => String::from_utf8(bytes).ok(),
        "iso-8859-1" => Some(bytes.into_iter().map(char::from).collect()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::prelude::*;

    use super::*;

    fn parameter(field: &[u8], name: &str) -> Option<String> {
        let parsed = HeaderWithParameters::parse(field)?;
        parsed.parameter(name).ok()?.map(header_text)
    }

    #[test]
    fn parameters_are_read_in_their_known_forms() {
        for (field, value) in [
            (&b"form-data; name=a"[..], Some("a")),
            (b"form-data;NAME = \"a b\"", Some("a b")),
            (b"form-data; name=\"a\";", Some("a")),
            (b"form-data; ; x=y;name=a ; ", Some("a")),
            (br#"form-data; name="say \"hi\" \\ \d""#, Some(r#"say "hi" \ \d"#)),
            (br#"form-data; name="a;b=c""#, Some("a;b=c")),
            ("form-data; name=grüße.txt".as_bytes(), Some("grüße.txt")),
            (b"form-data; name=gr\xfc\xdfe", Some("grüße")),
            (b"form-data; name=\"\"", Some("")),
            (b"form-data", None),
            (b"form-data; name=a; name=b", None),
        ] {
            assert_eq!(parameter(field, "name").as_deref(), value, "{}", String::from_utf8_lossy(field));
        }
    }

    #[test]
    fn malformed_field_is_refused() {
        for field in [
            &b""[..],
            b"; name=a",
            b"form-data; name",
            b"form-data; =a",
            b"form-data; name=\"a",
            b"form-data; name=\"a\" b",
            b"form data; name=a",
        ] {
            assert_eq!(HeaderWithParameters::parse(field), None, "{}", String::from_utf8_lossy(field));
        }
    }

    #[test]
    fn extended_value_names_its_charset() {
        assert_eq!(extended_text(b"UTF-8''gr%C3%BC%C3%9Fe.txt").as_deref(), Some("grüße.txt"));
        assert_eq!(extended_text(b"utf-8'de'a%20b").as_deref(), Some("a b"));
        assert_eq!(extended_text(b"iso-8859-1''%e9").as_deref(), Some("é"));
        for bad in [&b"a.txt"[..], b"UTF-8'a", b"UTF-8''%ff", b"koi8-r''a"] {
            assert_eq!(extended_text(bad), None);
        }
    }

    proptest! {
        #[test]
        fn any_field_is_read_without_panic(field in prop::collection::vec(any::<u8>(), 0..200)) {
            let _read = HeaderWithParameters::parse(&field);
            let _text = extended_text(&field);
        }

        #[test]
        fn quoted_and_extended_text_come_back(text in "[^\u{0}-\u{1f}\u{7f}]{0,60}") {
            let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
            let encoded = utf8_percent_encode(&text, NON_ALPHANUMERIC);
            let field = format!("attachment; filename=\"{quoted}\"; filename*=UTF-8''{encoded}");
            let field = HeaderWithParameters::parse(field.as_bytes()).unwrap();
            prop_assert_eq!(header_text(field.parameter("filename").unwrap().unwrap()), text.clone());
            prop_assert_eq!(extended_text(field.parameter("filename*").unwrap().unwrap()), Some(text));
        }
    }
}
