//! Files that callers upload, to attach them to a message afterwards.

use std::fmt;

use serde::Serialize;

/// The longest name of a file, in bytes of UTF-8.
const NAME_MAX_BYTES: usize = 255;

/// Extensions of files whose media type does not tell what they are.
const IMAGES: &[&str] = &["avif", "bmp", "gif", "heic", "jpeg", "jpg", "png", "svg", "tif", "tiff", "webp"];
const AUDIO: &[&str] = &["aac", "flac", "m4a", "mp3", "oga", "ogg", "opus", "wav", "wma"];
const VIDEO: &[&str] = &["3gp", "avi", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "ogv", "webm", "wmv"];
/// Media types that clients send for any file.
const GENERIC_TYPES: &[&str] =
    &["", "application/octet-stream", "binary/octet-stream", "application/x-www-form-urlencoded"];

/// The name of a file, without folders and control characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileName(Box<str>);

/// The reason why a name was refused. The text says which names are valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFileName {
    /// No name remains without the folders, or the name is one of a folder.
    #[error("must name a file")]
    Empty,
    /// The name is over 255 bytes.
    #[error("must have 255 bytes at most")]
    TooLong,
    /// The name has a control character.
    #[error("must not have control characters")]
    Control,
}

impl FileName {
    /// Checks a name. Folders before it are dropped, as RFC 6266 (4.3) advises.
    ///
    /// # Errors
    /// [`InvalidFileName`].
    pub fn new(path: &str) -> Result<Self, InvalidFileName> {
        let name = path.rsplit(['/', '\\']).next().unwrap_or_default().trim();
        if path.contains(char::is_control) {
            return Err(InvalidFileName::Control);
        }
        match name {
            "" | "." | ".." => Err(InvalidFileName::Empty),
            _ if name.len() > NAME_MAX_BYTES => Err(InvalidFileName::TooLong),
            _ => Ok(Self(name.into())),
        }
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the extension in lower case, if the name has one.
    pub fn extension(&self) -> Option<String> {
        let (stem, extension) = self.0.rsplit_once('.')?;
        (!stem.is_empty() && !extension.is_empty()).then(|| extension.to_lowercase())
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The kind of a file, in the terms of the platform's clients (protocol.md 13.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FileKind {
    /// A picture.
    Image,
    /// A sound.
    Audio,
    /// A film.
    Video,
    /// Any other file.
    Attachment,
}

/// A file that a caller uploads, without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileDescription {
    /// Its name.
    pub name: FileName,
    /// Its media type without parameters, in lower case. Empty if the caller named none.
    pub media_type: Box<str>,
}

impl FileDescription {
    /// Returns the kind of the file: by its media type, or by its extension if the type does not tell.
    pub fn kind(&self) -> FileKind {
        if GENERIC_TYPES.contains(&&*self.media_type) {
            let extension = self.name.extension().unwrap_or_default();
            let kinds = [(IMAGES, FileKind::Image), (AUDIO, FileKind::Audio), (VIDEO, FileKind::Video)];
            let found = kinds.into_iter().find(|(known, _)| known.contains(&&*extension));
            return found.map_or(FileKind::Attachment, |(_, kind)| kind);
        }
        match self.media_type.split('/').next() {
            Some("image") => FileKind::Image,
            Some("audio") => FileKind::Audio,
            Some("video") => FileKind::Video,
            _ => FileKind::Attachment,
        }
    }
}

/// A file on the platform, as a message attaches it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UploadedFile {
    /// The platform's id of the file.
    pub file_id: Box<str>,
    /// The file's name.
    pub file_name: Box<str>,
    /// The file's kind.
    pub file_type: FileKind,
    /// The number of its bytes.
    pub size: u64,
    /// Where the platform has it, if the platform tells.
    pub file_url: Option<Box<str>>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(path: &str) -> Result<String, InvalidFileName> {
        FileName::new(path).map(|name| name.to_string())
    }

    #[test]
    fn name_is_the_last_part_of_a_path() {
        for (path, file) in [
            ("a.pdf", "a.pdf"),
            ("Größe \"neu\".pdf", "Größe \"neu\".pdf"),
            ("../../etc/passwd", "passwd"),
            ("C:\\Users\\ann\\a.pdf", "a.pdf"),
            (" a b ", "a b"),
            (".profile", ".profile"),
        ] {
            assert_eq!(name(path).as_deref(), Ok(file));
        }
        for empty in ["", " ", ".", "..", "a/", "a\\..", "/"] {
            assert_eq!(name(empty), Err(InvalidFileName::Empty), "{empty:?}");
        }
        for control in ["a\nb", "a\0", "\u{85}", "a\r\n/b", "\u{7f}.txt"] {
            assert_eq!(name(control), Err(InvalidFileName::Control), "{control:?}");
        }
        assert!(name(&"é".repeat(127)).is_ok());
        assert_eq!(name(&"é".repeat(128)), Err(InvalidFileName::TooLong));
    }

    #[test]
    fn extension_follows_the_last_dot() {
        let extension = |path| FileName::new(path).unwrap().extension();
        assert_eq!(extension("a.tar.GZ").as_deref(), Some("gz"));
        for none in ["README", ".profile", "a."] {
            assert_eq!(extension(none), None, "{none}");
        }
    }

    #[test]
    fn kind_comes_from_type_or_extension() {
        for (media_type, path, kind) in [
            ("image/png", "a", FileKind::Image),
            ("audio/mpeg", "a.png", FileKind::Audio),
            ("video/mp4", "a.mp4", FileKind::Video),
            ("application/pdf", "a.png", FileKind::Attachment),
            ("application/octet-stream", "a.JPG", FileKind::Image),
            ("", "a.mp3", FileKind::Audio),
            ("application/x-www-form-urlencoded", "a.mov", FileKind::Video),
            ("application/octet-stream", "a.bin", FileKind::Attachment),
            ("", "png", FileKind::Attachment),
        ] {
            let file = FileDescription { name: FileName::new(path).unwrap(), media_type: media_type.into() };
            assert_eq!(file.kind(), kind, "{media_type} {path}");
        }
    }

    proptest! {
        #[test]
        fn valid_name_has_no_folder_and_is_its_own_name(path in any::<String>()) {
            if let Ok(name) = FileName::new(&path) {
                prop_assert!(!name.as_str().contains(['/', '\\']) && !name.as_str().contains(char::is_control));
                prop_assert!((1..=NAME_MAX_BYTES).contains(&name.as_str().len()));
                prop_assert_eq!(FileName::new(name.as_str()), Ok(name));
            }
        }
    }
}
