//! Forms of uploads, read as leniently as the platform does (protocol.md 13.2).
//!
//! The Web SDK writes them by hand. A header ends in a semicolon, a type is none, and the last boundary has no line end.
//! Each request repeats the parts of those before it, so the last part of a name counts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use memchr::memmem;

/// The fields of a form, in order.
#[derive(Debug, Default)]
pub(super) struct MultipartForm(Vec<FormField>);

/// A field of a form.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FormField {
    pub(super) name: String,
    pub(super) file_name: Option<String>,
    /// Content, decoded if the part is in base64.
    pub(super) content: Vec<u8>,
    /// Whether the part was in base64.
    pub(super) is_base64: bool,
}

impl MultipartForm {
    /// Reads a body of this type. A body without parts is a form without fields.
    pub(super) fn read(content_type: &str, body: &[u8]) -> Self {
        if content_type.starts_with("application/x-www-form-urlencoded") {
            let pairs = url::form_urlencoded::parse(body);
            let field = |(name, value): (std::borrow::Cow<'_, str>, std::borrow::Cow<'_, str>)| FormField {
                name: name.into_owned(),
                file_name: None,
                content: value.into_owned().into_bytes(),
                is_base64: false,
            };
            return Self(pairs.map(field).collect());
        }
        let Some((_, boundary)) = content_type.split_once("boundary=") else { return Self::default() };
        let boundary = boundary.split(';').next().unwrap_or_default().trim().trim_matches('"');
        let delimiter = format!("--{boundary}");
        let is_at_line_start = |at: &usize| *at == 0 || body.get(at - 1) == Some(&b'\n');
        let starts: Vec<usize> = memmem::find_iter(body, &delimiter).filter(is_at_line_start).collect();
        let ends = starts.iter().skip(1).copied().chain([body.len()]);
        let parts = starts.iter().zip(ends).filter_map(|(start, end)| body.get(start + delimiter.len()..end));
        Self(parts.filter_map(FormField::read).collect())
    }

    /// Returns the last field of this name.
    pub(super) fn field(&self, name: &str) -> Option<&FormField> {
        self.0.iter().rev().find(|field| field.name == name)
    }

    /// Returns the last text of this name.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.field(name).map(|field| String::from_utf8_lossy(&field.content).into_owned())
    }
}

impl FormField {
    /// Reads a part, from behind its boundary to the next one.
    fn read(part: &[u8]) -> Option<Self> {
        let part = part.strip_prefix(b"\r\n")?;
        let end = memmem::find(part, b"\r\n\r\n")?;
        let (head, content) = part.split_at_checked(end)?;
        let head = String::from_utf8_lossy(head);
        let content = content.get(4..)?;
        let content = content.strip_suffix(b"\r\n").unwrap_or(content);
        let encoding = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-transfer-encoding").then(|| value.trim().to_ascii_lowercase())
        });
        let decoded =
            encoding.filter(|encoding| encoding == "base64").and_then(|_| STANDARD.decode(content).ok());
        Some(Self {
            name: quoted(&head, " name=\"")?,
            file_name: quoted(&head, "filename=\"").map(|name| name.replace("%22", "\"")),
            is_base64: decoded.is_some(),
            content: decoded.unwrap_or_else(|| content.to_vec()),
        })
    }
}

/// Returns the text between this begin and the next quote.
fn quoted(head: &str, begin: &str) -> Option<String> {
    let (_, rest) = head.split_once(begin)?;
    rest.split_once('"').map(|(text, _)| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=--------MultipartData0.5";

    #[test]
    fn form_of_the_web_sdk_is_read() {
        let body = "----------MultipartData0.5\r\nContent-Disposition: form-data; name=\"fileExtension\";\r\n\r\npng\r\n\
             ----------MultipartData0.5\r\nContent-Disposition: form-data; name=\"file\"; filename=\"grün.png\"\r\n\
             Content-Type: UTF-8; charset=ISO-8859-1\r\nContent-Transfer-Encoding: base64\r\n\r\nAAEC\r\n\
             ----------MultipartData0.5--";
        let form = MultipartForm::read(TYPE, body.as_bytes());
        assert_eq!(form.text("fileExtension").as_deref(), Some("png"));
        let file = form.field("file").unwrap();
        assert_eq!((file.file_name.as_deref(), &*file.content), (Some("grün.png"), &[0, 1, 2][..]));
        assert!(file.is_base64);
    }

    #[test]
    fn last_part_of_a_name_counts() {
        let part = |text: &str| {
            format!(
                "----------MultipartData0.5\r\nContent-Disposition: form-data; name=\"chunk\"\r\n\r\n{text}\r\n"
            )
        };
        let body =
            [part("first"), part("[object Object]"), "----------MultipartData0.5--".to_owned()].concat();
        let form = MultipartForm::read(TYPE, body.as_bytes());
        assert_eq!(form.text("chunk").as_deref(), Some("[object Object]"));
        assert_eq!(form.field("absent"), None);
    }

    #[test]
    fn raw_bytes_and_pairs_are_read_too() {
        let body = b"--b\r\nContent-Disposition: form-data; name=\"chunk\"; filename=\"a\"\r\n\r\n\xff\r\n--b\x00\r\n--b--\r\n";
        let form = MultipartForm::read("multipart/form-data; boundary=\"b\"; x=y", body);
        // A boundary at the begin of a line counts, with any bytes behind it.
        assert_eq!(form.field("chunk").unwrap().content, b"\xff");
        let form =
            MultipartForm::read("application/x-www-form-urlencoded", b"totalChunks=2&filename=a+b.png");
        assert_eq!(form.text("filename").as_deref(), Some("a b.png"));
        assert!(MultipartForm::read("text/plain", b"x").0.is_empty());
    }
}
