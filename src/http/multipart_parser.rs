//! The parts of a `multipart/form-data` body (RFC 7578, RFC 2046 5.1), from bytes that come in any pieces.
//!
//! Pure. The parser keeps the head of a part, 8 KiB at most, or the bytes that may be the begin of a delimiter. It gives
//! everything else out at once. Its work is linear in the length of the body.

use bytes::{Buf as _, Bytes, BytesMut};
use memchr::memmem;

use super::header_parameters::HeaderWithParameters;

/// The longest boundary (RFC 2046, 5.1.1).
const BOUNDARY_MAX: usize = 70;
/// The largest head of a part, in bytes.
const HEAD_MAX: usize = 8 << 10;
/// Most spaces behind a boundary.
const PADDING_MAX: usize = 64;

/// The next finding of the parser.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum MultipartEvent {
    /// A part begins.
    PartBegun(PartHead),
    /// The next bytes of the part.
    Content(Bytes),
    /// The part ends.
    PartEnded,
    /// The last part has ended. The rest of the body has no meaning.
    FormEnded,
}

/// The headers of a part: names in lower case, and values without spaces around.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PartHead(Vec<(String, Bytes)>);

impl PartHead {
    /// Returns the first value of a header.
    pub(super) fn header(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }
}

/// The reason why a body is no form. The text follows "the body".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidMultipart {
    #[error("must be a form with a boundary of 1 to 70 characters in its `Content-Type`")]
    Boundary,
    #[error("must have a line end behind each boundary")]
    Delimiter,
    #[error("must have parts whose headers are 8 KiB at most, with a colon in each line")]
    Head,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ParserState {
    /// Before the first boundary.
    Preamble,
    /// Behind a boundary.
    Delimiter,
    /// In the headers of a part.
    Head,
    /// In the content of a part.
    Content,
    /// Behind the last boundary.
    Epilogue,
}

/// A parser of one body.
#[derive(Debug)]
pub(super) struct MultipartParser {
    /// A line end, two hyphens and the boundary.
    delimiter: memmem::Finder<'static>,
    buffer: BytesMut,
    /// The number of bytes of `buffer` in which a head does not end.
    searched: usize,
    state: ParserState,
}

impl MultipartParser {
    /// Creates the parser of a body with this `Content-Type`.
    ///
    /// # Errors
    /// [`InvalidMultipart::Boundary`].
    pub(super) fn new(content_type: &HeaderWithParameters) -> Result<Self, InvalidMultipart> {
        let boundary = content_type.parameter("boundary").ok().flatten();
        let boundary = boundary.filter(|boundary| (1..=BOUNDARY_MAX).contains(&boundary.len()));
        let delimiter = [b"\r\n--", boundary.ok_or(InvalidMultipart::Boundary)?].concat();
        Ok(Self {
            delimiter: memmem::Finder::new(&delimiter).into_owned(),
            // The first boundary may stand at the begin of the body.
            buffer: BytesMut::from("\r\n"),
            searched: 0,
            state: ParserState::Preamble,
        })
    }

    /// Adds bytes of the body.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.state != ParserState::Epilogue {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// Returns the next event, or `None` if that takes more bytes.
    ///
    /// # Errors
    /// [`InvalidMultipart`]; the rest of the body has no meaning then.
    pub(super) fn next_event(&mut self) -> Result<Option<MultipartEvent>, InvalidMultipart> {
        loop {
            match self.state {
                ParserState::Preamble => {
                    let Some(at) = self.delimiter.find(&self.buffer) else {
                        self.buffer.advance(self.before_delimiter());
                        return Ok(None);
                    };
                    self.pass_delimiter(at);
                }
                ParserState::Delimiter => {
                    if self.buffer.starts_with(b"--") {
                        self.state = ParserState::Epilogue;
                        self.buffer.clear();
                        return Ok(Some(MultipartEvent::FormEnded));
                    }
                    if !self.skip_padding()? {
                        return Ok(None);
                    }
                }
                ParserState::Head => {
                    let Some(head) = self.head()? else { return Ok(None) };
                    self.state = ParserState::Content;
                    return Ok(Some(MultipartEvent::PartBegun(head)));
                }
                ParserState::Content => return Ok(self.content()),
                ParserState::Epilogue => return Ok(None),
            }
        }
    }

    fn pass_delimiter(&mut self, at: usize) {
        self.buffer.advance(at + self.delimiter.needle().len());
        self.state = ParserState::Delimiter;
    }

    /// Returns the number of bytes that are certainly no part of a delimiter, if the buffer holds no whole one.
    fn before_delimiter(&self) -> usize {
        (self.buffer.len() + 1).saturating_sub(self.delimiter.needle().len())
    }

    /// Skips spaces up to the line end, which stays. Returns `false` if it takes more bytes.
    fn skip_padding(&mut self) -> Result<bool, InvalidMultipart> {
        let padding = self.buffer.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        let behind = self.buffer.get(padding..).unwrap_or_default();
        if padding > PADDING_MAX || !b"\r\n".starts_with(behind.get(..2).unwrap_or(behind)) {
            // One hyphen may be the begin of the last boundary's end.
            return if self.buffer.as_ref() == b"-" { Ok(false) } else { Err(InvalidMultipart::Delimiter) };
        }
        if behind.len() < 2 {
            return Ok(false);
        }
        self.buffer.advance(padding);
        (self.state, self.searched) = (ParserState::Head, 0);
        Ok(true)
    }

    /// Takes the headers of a part, from the line end behind the boundary to the empty line.
    fn head(&mut self) -> Result<Option<PartHead>, InvalidMultipart> {
        let from = self.searched.saturating_sub(3);
        let found = memmem::find(self.buffer.get(from..).unwrap_or_default(), b"\r\n\r\n");
        let end = found.map(|at| from + at);
        if end.unwrap_or(self.buffer.len()) > HEAD_MAX {
            return Err(InvalidMultipart::Head);
        }
        let Some(end) = end else {
            self.searched = self.buffer.len();
            return Ok(None);
        };
        let mut lines = self.buffer.split_to(end).freeze();
        self.buffer.advance(4);
        let mut headers = Vec::new();
        // Each line begins with the end of the line before.
        while !lines.is_empty() {
            lines.advance(2);
            let line = lines.split_to(memmem::find(&lines, b"\r\n").unwrap_or(lines.len()));
            let colon = memchr::memchr(b':', &line).ok_or(InvalidMultipart::Head)?;
            let (name, value) = line.split_at_checked(colon).ok_or(InvalidMultipart::Head)?;
            let name = String::from_utf8_lossy(name.trim_ascii()).to_ascii_lowercase();
            headers.push((name, line.slice_ref(value.get(1..).unwrap_or_default().trim_ascii())));
        }
        Ok(Some(PartHead(headers)))
    }

    /// Takes content up to the next delimiter, or as much as is there.
    fn content(&mut self) -> Option<MultipartEvent> {
        let length = match self.delimiter.find(&self.buffer) {
            Some(0) => {
                self.pass_delimiter(0);
                return Some(MultipartEvent::PartEnded);
            }
            Some(at) => at,
            None => self.before_delimiter(),
        };
        (length > 0).then(|| MultipartEvent::Content(self.buffer.split_to(length).freeze()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parser(boundary: &str) -> MultipartParser {
        let content_type = format!("multipart/form-data; boundary=\"{boundary}\"");
        MultipartParser::new(&HeaderWithParameters::parse(content_type.as_bytes()).unwrap()).unwrap()
    }

    /// The parts of a form, each with its disposition, and whether the form ended.
    type ReadParts = (Vec<(Option<String>, Vec<u8>)>, bool);

    /// Returns the parts of a body that comes in these pieces: the first header, and the content. Checks that the parser
    /// keeps little.
    fn parts(boundary: &str, pieces: &[&[u8]]) -> Result<ReadParts, InvalidMultipart> {
        let mut parser = parser(boundary);
        let (mut parts, mut ended) = (Vec::new(), false);
        for piece in pieces {
            parser.push(piece);
            while let Some(event) = parser.next_event()? {
                match event {
                    MultipartEvent::PartBegun(head) => {
                        let disposition = head.header("content-disposition");
                        let disposition = disposition.map(|text| String::from_utf8_lossy(text).into_owned());
                        parts.push((disposition, Vec::new()));
                    }
                    MultipartEvent::Content(bytes) => parts.last_mut().unwrap().1.extend(bytes),
                    MultipartEvent::PartEnded => {}
                    MultipartEvent::FormEnded => ended = true,
                }
            }
            assert!(parser.buffer.len() <= HEAD_MAX, "{}", parser.buffer.len());
        }
        Ok((parts, ended))
    }

    fn one(body: &[u8]) -> Result<ReadParts, InvalidMultipart> {
        parts("x", &[body])
    }

    #[test]
    fn form_of_a_common_client_is_read() {
        let body =
            b"--x\r\nContent-Disposition: form-data; name=\"a\"\r\ncontent-type:text/plain\r\n\r\n1\r\n\
                     --x  \r\n\r\n--xy\r\n\r\n--x--\r\n";
        let (parts, ended) = one(body).unwrap();
        assert!(ended);
        assert_eq!(parts[0], (Some("form-data; name=\"a\"".to_owned()), b"1".to_vec()));
        // A part without headers, whose content begins like a boundary.
        assert_eq!(parts[1], (None, b"--xy\r\n".to_vec()));
        assert_eq!(parts.len(), 2);
    }

    #[test]
    fn preamble_and_epilogue_are_skipped() {
        let (parts, ended) = one(b"read\r\nme\r\n--x\r\n\r\na\r\n--x--\r\n--x\r\n\r\nb\r\n--x--").unwrap();
        assert_eq!((parts, ended), (vec![(None, b"a".to_vec())], true));
        assert_eq!(one(b"no boundary at all").unwrap(), (Vec::new(), false));
        assert_eq!(one(b"--x--").unwrap(), (Vec::new(), true));
    }

    #[test]
    fn malformed_form_is_refused() {
        assert_eq!(one(b"--xy\r\n\r\na"), Err(InvalidMultipart::Delimiter));
        assert_eq!(one(b"--x\r\nno colon\r\n\r\n"), Err(InvalidMultipart::Head));
        let spaces = [b"--x".to_vec(), vec![b' '; 100]].concat();
        assert_eq!(one(&spaces), Err(InvalidMultipart::Delimiter));
        let endless = [b"--x\r\na:".to_vec(), vec![b'b'; HEAD_MAX]].concat();
        assert_eq!(one(&endless), Err(InvalidMultipart::Head));
        for content_type in
            ["multipart/form-data", "multipart/form-data; boundary=\"\"", "a; boundary=b; boundary=b"]
        {
            let content_type = HeaderWithParameters::parse(content_type.as_bytes()).unwrap();
            assert_eq!(MultipartParser::new(&content_type).unwrap_err(), InvalidMultipart::Boundary);
        }
        let long = format!("a; boundary={}", "b".repeat(71));
        assert!(MultipartParser::new(&HeaderWithParameters::parse(long.as_bytes()).unwrap()).is_err());
    }

    /// Generates content that holds boundaries and parts of them.
    fn content() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            prop::sample::select(vec![
                b"\r\n".to_vec(),
                b"\r\n--".to_vec(),
                b"\r\n--bound".to_vec(),
                b"--boundary".to_vec(),
                b"\r".to_vec(),
                b"-".to_vec(),
            ]),
        ];
        prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn parts_come_back_in_any_pieces(
            contents in prop::collection::vec(content(), 0..4),
            preamble in "[a-z\r\n-]{0,20}",
            cuts in prop::collection::vec(1usize..30, 1..200),
        ) {
            let clean = |content: &Vec<u8>| memmem::find(content, b"\r\n--boundary").is_none();
            prop_assume!(contents.iter().all(clean));
            let mut body = preamble.into_bytes();
            for (number, content) in contents.iter().enumerate() {
                let head = format!("\r\n--boundary\r\nContent-Disposition: {number}\r\n\r\n");
                body.extend_from_slice(head.as_bytes());
                body.extend_from_slice(content);
            }
            body.extend_from_slice(b"\r\n--boundary--epilogue");
            let (mut pieces, mut rest) = (Vec::new(), body.as_slice());
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, behind) = rest.split_at((*cut).min(rest.len()));
                pieces.push(piece);
                rest = behind;
            }
            let (parts, ended) = parts("boundary", &pieces).unwrap();
            prop_assert!(ended);
            let expected = contents.into_iter().enumerate();
            let expected: Vec<_> = expected.map(|(number, content)| (Some(number.to_string()), content)).collect();
            prop_assert_eq!(parts, expected);
        }

        #[test]
        fn any_body_in_any_pieces_reads_the_same(pieces in prop::collection::vec(content(), 0..20)) {
            let apart: Vec<_> = pieces.iter().map(Vec::as_slice).collect();
            let whole = pieces.concat();
            prop_assert_eq!(parts("boundary", &apart), parts("boundary", &[&whole]));
        }
    }
}
