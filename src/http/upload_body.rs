//! A file in the body of a request: the body itself, or the only part of a form.
//!
//! [`UploadHead`] checks the head. [`UploadBody`] gives out the bytes of the file as they come, and keeps none of them. It
//! measures pauses and not the whole time, because its reader waits for the platform in between.

use std::time::Duration;

use actix_web::http::header::{self, HeaderMap};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use tokio::time::{Instant, timeout};

use super::api_error::{ApiError, FieldErrors};
use super::content_disposition::ContentDisposition;
use super::header_parameters::HeaderWithParameters;
use super::multipart_parser::{MultipartEvent, MultipartParser, PartHead};
use super::request_body::{BYTES_PER_SECOND, READ_TIME};
use crate::domain::{FileDescription, ProblemKind};

/// Most bytes of a form beside its file: delimiters, headers, preamble and epilogue.
const FORM_OVERHEAD: usize = 64 << 10;

/// The form of an upload, by the head of its request.
#[derive(Debug)]
pub(super) enum UploadHead {
    /// The body is the file.
    Raw(FileDescription),
    /// The body is a form, in which the file is a part.
    Form(Box<MultipartParser>),
}

/// The body of an upload.
pub(super) struct UploadBody<P> {
    payload: P,
    form: Option<Box<MultipartParser>>,
    /// Whether the form's file has ended.
    file_ended: bool,
    /// The largest file.
    max_file: usize,
    /// Bytes of the file so far.
    file_bytes: usize,
    /// Bytes of the body so far.
    body_bytes: usize,
    /// The longest pause that the body may make now.
    patience: Duration,
}

impl UploadHead {
    /// Checks type and length of the body, and the name of the file. An error of the name is added to `errors`.
    ///
    /// # Errors
    /// `unsupported-media-type`, `payload-too-large`.
    pub(super) fn check(
        headers: &HeaderMap,
        max_file: usize,
        errors: &mut FieldErrors,
    ) -> Result<Option<Self>, ApiError> {
        let encoding = headers.get(header::CONTENT_ENCODING);
        if encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(unsupported("The body must not be compressed: send it without `Content-Encoding`."));
        }
        let content_type = headers.get(header::CONTENT_TYPE).map(header::HeaderValue::as_bytes);
        let content_type = content_type.and_then(HeaderWithParameters::parse);
        let content_type = content_type.filter(|content_type| is_media_type(&content_type.value));
        let Some(content_type) = content_type else {
            return Err(unsupported(
                "The body must be a file with its `Content-Type`, or a form of the type `multipart/form-data`.",
            ));
        };
        let is_form = content_type.value == "multipart/form-data";
        let most = if is_form { max_file.saturating_add(FORM_OVERHEAD) } else { max_file };
        let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
        if announced.and_then(|length| length.parse().ok()).is_some_and(|length: usize| length > most) {
            return Err(too_large(max_file));
        }
        if is_form {
            let form = MultipartParser::new(&content_type).map(Box::new).map_err(|error| error.to_string());
            return Ok(errors.record("header/Content-Type", form).map(Self::Form));
        }
        let mut values = headers.get_all(header::CONTENT_DISPOSITION);
        let disposition = match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => {
                ContentDisposition::of_request(value.as_bytes()).map(|disposition| disposition.file_name)
            }
            (Some(_), Some(_)) => Err("must occur only once".to_owned()),
        };
        let missing = || "must name the file: `attachment; filename*=UTF-8''a.pdf`".to_owned();
        let name = disposition.and_then(|name| name.ok_or_else(missing));
        let name = errors.record("header/Content-Disposition", name);
        Ok(name.map(|name| Self::Raw(FileDescription { name, media_type: content_type.value.into() })))
    }
}

impl<P, E> UploadBody<P>
where
    P: Stream<Item = Result<Bytes, E>> + Unpin,
{
    /// Reads up to the begin of the file.
    ///
    /// # Errors
    /// `invalid-request` for a body that is no form with a file, or that is incomplete or slow; `payload-too-large`.
    pub(super) async fn open(
        head: UploadHead,
        payload: P,
        max_file: usize,
    ) -> Result<(FileDescription, Self), ApiError> {
        let mut body = Self {
            payload,
            form: None,
            file_ended: false,
            max_file,
            file_bytes: 0,
            body_bytes: 0,
            patience: READ_TIME,
        };
        match head {
            UploadHead::Raw(file) => Ok((file, body)),
            UploadHead::Form(form) => {
                body.form = Some(form);
                let file = loop {
                    match body.next_event().await? {
                        Some(MultipartEvent::PartBegun(part)) => break described(&part)?,
                        Some(MultipartEvent::Content(_) | MultipartEvent::PartEnded) => {}
                        Some(MultipartEvent::FormEnded) | None => return Err(invalid(ONE_FILE)),
                    }
                };
                Ok((file, body))
            }
        }
    }

    /// Returns the bytes of the file, in pieces.
    pub(super) fn into_pieces(self) -> impl Stream<Item = Result<Bytes, ApiError>> {
        stream::try_unfold(self, |mut body| async move {
            let piece = body.next_piece().await?;
            Ok(piece.map(|piece| (piece, body)))
        })
    }

    async fn next_piece(&mut self) -> Result<Option<Bytes>, ApiError> {
        loop {
            let piece = if self.form.is_none() {
                self.read().await?
            } else {
                match self.next_event().await? {
                    Some(MultipartEvent::Content(bytes)) => Some(bytes),
                    Some(MultipartEvent::PartBegun(_)) => return Err(invalid(ONE_FILE)),
                    Some(MultipartEvent::PartEnded) => {
                        self.file_ended = true;
                        continue;
                    }
                    // The rest of the body is read, so that the connection can carry another request.
                    Some(MultipartEvent::FormEnded) => continue,
                    None if self.file_ended => None,
                    None => return Err(invalid("must be complete; the last part has no end")),
                }
            };
            self.file_bytes += piece.as_ref().map_or(0, Bytes::len);
            if self.file_bytes > self.max_file {
                return Err(too_large(self.max_file));
            }
            return match piece {
                Some(piece) if piece.is_empty() => continue,
                None if self.file_bytes == 0 => Err(invalid("must be a file of one byte at least")),
                piece => Ok(piece),
            };
        }
    }

    /// Returns the form's next event, or `None` at the end of the body.
    async fn next_event(&mut self) -> Result<Option<MultipartEvent>, ApiError> {
        loop {
            let Some(form) = &mut self.form else { return Ok(None) };
            match form.next_event() {
                Ok(Some(event)) => return Ok(Some(event)),
                Ok(None) => {}
                Err(error) => return Err(invalid(error.to_string())),
            }
            match self.read().await? {
                Some(bytes) => {
                    if let Some(form) = &mut self.form {
                        form.push(&bytes);
                    }
                }
                None => return Ok(None),
            }
        }
    }

    /// Reads the next bytes of the body. A body of 16 KiB a second may pause for 10 s; a slower one uses that time up.
    async fn read(&mut self) -> Result<Option<Bytes>, ApiError> {
        let begun = Instant::now();
        let Ok(read) = timeout(self.patience, self.payload.next()).await else {
            return Err(invalid("must arrive at 16 KiB a second at least, with pauses of 10 s at most"));
        };
        let bytes = match read {
            None => return Ok(None),
            Some(Ok(bytes)) => bytes,
            Some(Err(_)) => return Err(invalid("must be complete; the connection broke")),
        };
        let earned = Duration::from_micros((bytes.len() * 1_000_000 / BYTES_PER_SECOND) as u64);
        self.patience = (self.patience.saturating_sub(begun.elapsed()) + earned).min(READ_TIME);
        self.body_bytes += bytes.len();
        if self.body_bytes > self.max_file.saturating_add(FORM_OVERHEAD) {
            return Err(too_large(self.max_file));
        }
        Ok(Some(bytes))
    }
}

const ONE_FILE: &str = "must be a form with one part: a file with its name in `filename`";

/// Returns the description of a form's part, which must be a file.
fn described(part: &PartHead) -> Result<FileDescription, ApiError> {
    let disposition = part.header("content-disposition").unwrap_or_default();
    let disposition = ContentDisposition::of_part(disposition)
        .map_err(|error| invalid(format!("has a part whose `Content-Disposition` {error}")))?;
    let name = disposition.file_name.ok_or_else(|| match disposition.field {
        Some(field) => {
            let field: String = field.chars().take(60).collect();
            invalid(format!("{ONE_FILE}; the part {field:?} has none"))
        }
        None => invalid(ONE_FILE),
    })?;
    let encoding = part.header("content-transfer-encoding").unwrap_or(b"binary");
    if ![&b"binary"[..], b"7bit", b"8bit"].iter().any(|plain| encoding.eq_ignore_ascii_case(plain)) {
        return Err(unsupported("A part must not have a `Content-Transfer-Encoding` (RFC 7578, 4.7)."));
    }
    let content_type = part.header("content-type").and_then(HeaderWithParameters::parse);
    let content_type = content_type.map(|content_type| content_type.value);
    let media_type = content_type.filter(|value| is_media_type(value)).unwrap_or_default().into();
    Ok(FileDescription { name, media_type })
}

/// Returns whether a text is the name of a media type (RFC 9110, 8.3.1). It goes on to the platform.
fn is_media_type(text: &str) -> bool {
    let token = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
    };
    text.split_once('/').is_some_and(|(kind, subtype)| token(kind) && token(subtype))
}

fn unsupported(detail: &'static str) -> ApiError {
    ApiError::new(ProblemKind::UnsupportedMediaType, detail).closing_connection()
}

fn too_large(max_file: usize) -> ApiError {
    let detail = format!("The file exceeds {max_file} bytes, the limit of this bot. Send a smaller one.");
    ApiError::new(ProblemKind::PayloadTooLarge, detail).closing_connection()
}

/// Returns the error of a body of which the rest stays unread.
fn invalid(detail: impl Into<std::borrow::Cow<'static, str>>) -> ApiError {
    let mut errors = FieldErrors::default();
    errors.add("", detail);
    ApiError::from(errors).closing_connection()
}

#[cfg(test)]
mod tests;
