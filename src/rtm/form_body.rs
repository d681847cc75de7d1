//! The body of an upload: a form like that of the Web SDK, with its file in base64 (protocol.md 13.2).
//!
//! Pure. The file is encoded piece by piece while the form is sent, so the form needs no second copy of it. The Web SDK
//! sends base64 to these endpoints, and no source says that they take raw bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

/// Bytes of the file in one piece: a multiple of three, so that only the last piece is padded.
const PIECE: usize = 12 << 10;

/// A form with text fields and at most one file, which comes last.
#[derive(Debug)]
pub(super) struct FormBody {
    boundary: String,
    /// All parts, up to the content of the file.
    head: String,
    file: Bytes,
}

impl FormBody {
    /// Creates an empty form. The boundary must not occur in any field.
    pub(super) fn new(boundary: String) -> Self {
        Self { boundary, head: String::new(), file: Bytes::new() }
    }

    /// Adds a text field.
    pub(super) fn text(mut self, name: &str, value: &str) -> Self {
        let boundary = &self.boundary;
        let part =
            format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        self.head.push_str(&part);
        self
    }

    /// Adds the file.
    pub(super) fn file(mut self, name: &str, file_name: &str, media_type: &str, file: Bytes) -> Self {
        let (boundary, file_name) = (&self.boundary, file_name.replace('"', "%22"));
        let part = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{file_name}\"\r\n\
             Content-Type: {media_type}\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        );
        self.head.push_str(&part);
        self.file = file;
        self
    }

    /// Returns the value of `Content-Type`.
    pub(super) fn content_type(&self) -> String {
        format!("multipart/form-data; boundary={}", self.boundary)
    }

    /// Returns the number of the form's bytes.
    pub(super) fn length(&self) -> u64 {
        (self.head.len() + self.file.len().div_ceil(3) * 4 + self.tail().len()) as u64
    }

    /// Returns the form's bytes in pieces.
    pub(super) fn into_pieces(self) -> impl Iterator<Item = Bytes> {
        let tail = self.tail();
        let Self { head, mut file, .. } = self;
        let encoded = std::iter::from_fn(move || {
            let piece = file.split_to(file.len().min(PIECE));
            (!piece.is_empty()).then(|| Bytes::from(STANDARD.encode(piece)))
        });
        std::iter::once(Bytes::from(head)).chain(encoded).chain([Bytes::from(tail)])
    }

    fn tail(&self) -> String {
        // The line end closes the file's part. A text field brings its own.
        let line_end = if self.file.is_empty() { "" } else { "\r\n" };
        format!("{line_end}--{}--\r\n", self.boundary)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(form: FormBody) -> Vec<u8> {
        let length = form.length();
        let whole: Vec<u8> = form.into_pieces().flatten().collect();
        assert_eq!(whole.len() as u64, length);
        whole
    }

    #[test]
    fn form_has_the_fields_and_the_file_in_order() {
        let form = FormBody::new("b".to_owned()).text("chunkNo", "0").file(
            "chunk",
            "say \"hi\" größe.png",
            "image/png",
            Bytes::from_static(b"abcd"),
        );
        assert_eq!(form.content_type(), "multipart/form-data; boundary=b");
        let text = "--b\r\nContent-Disposition: form-data; name=\"chunkNo\"\r\n\r\n0\r\n\
                    --b\r\nContent-Disposition: form-data; name=\"chunk\"; filename=\"say %22hi%22 größe.png\"\r\n\
                    Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\nYWJjZA==\r\n--b--\r\n";
        assert_eq!(String::from_utf8(bytes(form)).unwrap(), text);
    }

    #[test]
    fn form_without_a_file_ends_behind_its_last_field() {
        let form = FormBody::new("b".to_owned()).text("a", "ü");
        let text = "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nü\r\n--b--\r\n";
        assert_eq!(String::from_utf8(bytes(form)).unwrap(), text);
    }

    proptest! {
        #[test]
        fn pieces_of_a_file_are_one_base64_text(length in 1usize..40_000, step in 1u8..7) {
            let file: Vec<u8> = (0..length).map(|at| (at.to_le_bytes()[0]).wrapping_mul(step)).collect();
            let form = FormBody::new("b".to_owned()).file("f", "n", "a/b", Bytes::from(file.clone()));
            let text = String::from_utf8(bytes(form)).unwrap();
            let content = text.split("\r\n\r\n").nth(1).unwrap().strip_suffix("\r\n--b--\r\n").unwrap();
            prop_assert_eq!(STANDARD.decode(content).unwrap(), file);
        }
    }
}
