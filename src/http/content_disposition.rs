//! `Content-Disposition`, of a request (RFC 6266) and of a part of a form (RFC 7578). Pure.

use super::header_parameters::{HeaderWithParameters, extended_text, header_text};
use crate::domain::FileName;

/// The names in a `Content-Disposition`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ContentDisposition {
    /// The name of the form's field.
    pub(super) field: Option<String>,
    /// The name of the file.
    pub(super) file_name: Option<FileName>,
}

/// The reason why the field is refused: a text that follows the place of the error.
pub(super) type DispositionError = String;

impl ContentDisposition {
    /// Reads the header of a request.
    ///
    /// # Errors
    /// The field is malformed, or its file name is.
    pub(super) fn of_request(field: &[u8]) -> Result<Self, DispositionError> {
        Self::read(field, str::to_owned)
    }

    /// Reads the header of a form's part.
    ///
    /// # Errors
    /// As [`ContentDisposition::of_request`].
    pub(super) fn of_part(field: &[u8]) -> Result<Self, DispositionError> {
        // Browsers write a quote in a form's names so.
        Self::read(field, |name| name.replace("%22", "\""))
    }

    fn read(field: &[u8], plain: impl Fn(&str) -> String) -> Result<Self, DispositionError> {
        let malformed = || "is malformed; write for example `attachment; filename*=UTF-8''a.pdf`".to_owned();
        let field = HeaderWithParameters::parse(field).ok_or_else(malformed)?;
        let parameter = |name| field.parameter(name).map_err(|_| format!("must have `{name}` only once"));
        let text = |value: Option<&[u8]>| value.map(|value| plain(&header_text(value)));
        // The extended form goes first; one that cannot be read is as good as none (RFC 6266, 4.3).
        let (extended, simple) = (parameter("filename*")?, text(parameter("filename")?));
        let file_name = extended.and_then(extended_text).filter(|name| !name.is_empty()).or(simple);
        if extended.is_some() && file_name.is_none() {
            return Err("has a `filename*` that is not in UTF-8 (RFC 8187)".to_owned());
        }
        let file_name = file_name.map(|name| FileName::new(&name)).transpose();
        let file_name = file_name.map_err(|error| format!("has a file name that {error}"))?;
        Ok(Self { field: text(parameter("name")?), file_name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_name(field: &str) -> Result<Option<String>, DispositionError> {
        let read = ContentDisposition::of_request(field.as_bytes())?;
        Ok(read.file_name.map(|name| name.to_string()))
    }

    #[test]
    fn extended_name_precedes_the_plain_one() {
        for (field, name) in [
            ("attachment; filename*=UTF-8''gr%C3%BC%C3%9Fe.pdf", Some("grüße.pdf")),
            ("attachment; filename=gruesse.pdf; filename*=UTF-8''gr%C3%BC%C3%9Fe.pdf", Some("grüße.pdf")),
            ("attachment; filename*=UTF-8''b.pdf; filename=a.pdf", Some("b.pdf")),
            ("attachment; filename=a.pdf; filename*=koi8-r''b.pdf", Some("a.pdf")),
            ("attachment; filename=a.pdf; filename*=UTF-8''", Some("a.pdf")),
            (r#"attachment; filename="say \"hi\".pdf""#, Some(r#"say "hi".pdf"#)),
            (r#"attachment; filename="a%22.pdf""#, Some("a%22.pdf")),
            ("inline; filename=a.pdf", Some("a.pdf")),
            ("attachment; filename*=UTF-8''..%2F..%2Fetc%2Fpasswd", Some("passwd")),
            ("attachment", None),
        ] {
            assert_eq!(file_name(field).unwrap().as_deref(), name, "{field}");
        }
    }

    #[test]
    fn ambiguous_or_unusable_name_is_refused() {
        for (field, reason) in [
            ("", "malformed"),
            ("attachment; filename=\"a", "malformed"),
            ("attachment; filename=a; filename=b", "only once"),
            ("attachment; filename*=UTF-8''a; filename*=UTF-8''b", "only once"),
            ("attachment; filename*=a.pdf", "RFC 8187"),
            ("attachment; filename*=UTF-8''a%0Ab", "control"),
            ("attachment; filename=..", "name a file"),
        ] {
            let error = file_name(field).unwrap_err();
            assert!(error.contains(reason), "{field}: {error}");
        }
    }

    #[test]
    fn part_names_field_and_file() {
        let part = ContentDisposition::of_part(br#"form-data; name="file"; filename="say %22hi%22.pdf""#);
        let part = part.unwrap();
        assert_eq!(part.field.as_deref(), Some("file"));
        assert_eq!(part.file_name.unwrap().as_str(), r#"say "hi".pdf"#);
    }
}
