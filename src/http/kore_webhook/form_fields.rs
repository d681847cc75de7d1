//! The fields of an upload's form, as the platform's clients write them (protocol.md 13.2).
//!
//! Pure. The Web SDK writes its forms by hand: headers end in semicolons, and each request repeats the parts of the ones
//! before. So this reader is lenient, and the last field of a name counts. The bridge's own uploads are read strictly by
//! [`super::super::multipart_parser`].

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use memchr::memmem;

/// A field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UploadField {
    name: String,
    /// The name of the file, if the field is one.
    pub(super) file_name: Option<String>,
    /// The media type. Empty if the field has none.
    pub(super) media_type: String,
    /// The content. It is decoded if it came in base64.
    pub(super) content: Bytes,
}

/// The fields of a form, in their order.
#[derive(Debug, Default)]
pub(super) struct FormFields(Vec<UploadField>);

impl FormFields {
    /// Reads a body of this type. A body that is no form has no fields.
    pub(super) fn read(content_type: &str, body: &Bytes) -> Self {
        if content_type.trim_start().to_ascii_lowercase().starts_with("application/x-www-form-urlencoded") {
            let field = |(name, value): (Cow<'_, str>, Cow<'_, str>)| UploadField {
                name: name.into_owned(),
                file_name: None,
                media_type: String::new(),
                content: value.into_owned().into(),
            };
            return Self(url::form_urlencoded::parse(body).map(field).collect());
        }
        let Some(boundary) = parameter(content_type, "boundary").filter(|boundary| !boundary.is_empty())
        else {
            return Self::default();
        };
        let delimiter = format!("--{boundary}");
        let is_line = |at: &usize| at.checked_sub(1).is_none_or(|before| body.get(before) == Some(&b'\n'));
        let starts: Vec<usize> = memmem::find_iter(body, delimiter.as_bytes()).filter(is_line).collect();
        let ends = starts.iter().skip(1).copied().chain([body.len()]);
        let parts = starts.iter().zip(ends).filter_map(|(start, end)| {
            let start = start + delimiter.len();
            field(&body.slice(start.min(end)..end))
        });
        Self(parts.collect())
    }

    /// Returns the last field of a name.
    pub(super) fn field(&self, name: &str) -> Option<&UploadField> {
        self.0.iter().rev().find(|field| field.name == name)
    }

    /// Returns the text of a field.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(&self.field(name)?.content).ok().map(str::trim).filter(|text| !text.is_empty())
    }

    /// Returns a number, such as that of a chunk.
    pub(super) fn number(&self, name: &str) -> Option<usize> {
        self.text(name)?.parse().ok()
    }
}

/// Reads a part, from the end of its delimiter to the next one.
fn field(part: &Bytes) -> Option<UploadField> {
    let head_start = memmem::find(part, b"\n")? + 1;
    if part.starts_with(b"--") {
        return None;
    }
    let part = part.slice(head_start..);
    let head_end = memmem::find(&part, b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(part.get(..head_end)?).into_owned();
    let content = part.slice(head_end + 4..);
    let content = content.strip_suffix(b"\r\n").map_or_else(|| content.clone(), |cut| content.slice_ref(cut));
    let header = |wanted: &str| {
        head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.trim().eq_ignore_ascii_case(wanted).then(|| value.trim().trim_end_matches(';').trim())
        })
    };
    let disposition = header("content-disposition")?;
    let is_base64 =
        header("content-transfer-encoding").is_some_and(|encoding| encoding.eq_ignore_ascii_case("base64"));
    let media_type = header("content-type").unwrap_or_default();
    Some(UploadField {
        name: parameter(disposition, "name")?,
        file_name: parameter(disposition, "filename"),
        media_type: media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase(),
        content: if is_base64 { decoded(&content)? } else { content },
    })
}

/// Decodes base64. Line ends, and the begin of a data URL, do not count.
fn decoded(content: &[u8]) -> Option<Bytes> {
    let content = match memchr::memchr(b',', content) {
        Some(comma) if content.starts_with(b"data:") => content.get(comma + 1..)?,
        _ => content,
    };
    let digits: Vec<u8> = content.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    STANDARD.decode(digits).ok().map(Bytes::from)
}

/// Returns a parameter of a header's value: a token, or a quoted text.
fn parameter(value: &str, name: &str) -> Option<String> {
    let mut quoted = false;
    let is_separator = |character: char| {
        quoted ^= character == '"';
        character == ';' && !quoted
    };
    value.split(is_separator).skip(1).find_map(|parameter| {
        let (key, value) = parameter.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"').to_owned())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=\"----x\"";

    #[test]
    fn form_of_each_client_is_read() {
        let web = "------x\r\nContent-Disposition: form-data; name=\"fileExtension\"\r\n\r\npng\r\n\
                   ------x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"old.png\";\r\n\r\nold\r\n\
                   ------x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a;b.png\";\r\n\
                   Content-Type: Image/PNG; x=y\r\nContent-Transfer-Encoding: base64;\r\n\r\naGV\r\nsbG8=\r\n------x--";
        let form = FormFields::read(TYPE, &Bytes::from(web));
        assert_eq!((form.text("fileExtension"), form.text("missing")), (Some("png"), None));
        let file = form.field("file").unwrap();
        assert_eq!((file.file_name.as_deref(), &*file.media_type), (Some("a;b.png"), "image/png"));
        assert_eq!(&file.content[..], b"hello");
        let raw = "------x\r\ncontent-disposition: form-data; name=chunkNo\r\n\r\n3\r\n\
                   ------x\r\nContent-Disposition: form-data; name=\"chunk\"; filename=\"c\"\r\n\r\n\0\r\n--\r\n\r\n------x--\r\n";
        let form = FormFields::read(TYPE, &Bytes::from(raw));
        assert_eq!(form.number("chunkNo"), Some(3));
        assert_eq!(&form.field("chunk").unwrap().content[..], b"\0\r\n--\r\n");
        let plain = Bytes::from("totalChunks=2&filename=a+b.png");
        let form = FormFields::read("application/x-www-form-urlencoded; charset=utf-8", &plain);
        assert_eq!((form.number("totalChunks"), form.text("filename")), (Some(2), Some("a b.png")));
    }

    proptest! {
        #[test]
        fn any_body_is_read(body in prop::collection::vec(prop::sample::select(
            ["------x", "\r\n", "--", "name=\"a\"", "Content-Disposition: form-data; ", "b", ";", "\""].to_vec()), 0..40)) {
            let _form = FormFields::read(TYPE, &Bytes::from(body.concat()));
        }
    }
}
