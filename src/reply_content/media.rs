//! Pictures, sounds, films, files and links of a message (protocol.md 7.3, 13.6).

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::content_draft::ContentDraft;
use super::json_members::JsonMembers;
use super::labels::first_label;
use super::read_depth::ReadDepth;
use crate::domain::MediaKind;
use crate::domain::lenient_json::{elements, string};

/// Members that hold an address, with the kind that the name tells.
const ADDRESSES: [(&str, Option<MediaKind>); 18] = [
    ("audioUrl", Some(MediaKind::Audio)),
    ("audio_url", Some(MediaKind::Audio)),
    ("videoUrl", Some(MediaKind::Video)),
    ("video_url", Some(MediaKind::Video)),
    ("imageUrl", Some(MediaKind::Image)),
    ("image_url", Some(MediaKind::Image)),
    ("imageUri", Some(MediaKind::Image)),
    ("rawUrl", Some(MediaKind::Image)),
    ("fileUrl", None),
    ("file_url", None),
    ("contentUrl", None),
    ("mediaUrl", None),
    ("url", None),
    ("page_url", Some(MediaKind::Link)),
    ("linkUrl", Some(MediaKind::Link)),
    ("formLink", Some(MediaKind::Link)),
    ("link", Some(MediaKind::Link)),
    ("uri", Some(MediaKind::Link)),
];
/// Members that hold a picture, as an address or as an object with one.
const IMAGES: [&str; 3] = ["image", "images", "thumbnail"];
/// Names of a file's title, the first one wins.
const TITLES: [&str; 12] = [
    "title",
    "text",
    "fileName",
    "filename",
    "name",
    "altText",
    "alt",
    "accessibilityText",
    "caption",
    "page_title",
    "file_title",
    "snippet_title",
];

/// Returns the kind that a word of the platform means: a component's type, a file's type, a media type.
pub(super) fn media_kind(word: &str) -> Option<MediaKind> {
    let word = word.to_ascii_lowercase();
    let starts = |start: &str| word.starts_with(start);
    Some(match &*word {
        "mp3" | "voice" => MediaKind::Audio,
        "link" | "url" | "web_url" => MediaKind::Link,
        "file" | "document" | "attachment" | "pdf" | "txt" => MediaKind::File,
        _ if starts("image") => MediaKind::Image,
        _ if starts("audio") => MediaKind::Audio,
        _ if starts("video") => MediaKind::Video,
        _ if starts("application/") || starts("text/") => MediaKind::File,
        _ => return None,
    })
}

impl ContentDraft {
    /// Reads the addresses of an object. `kind` is what the objects around it call themselves. `is_named` says that the
    /// text names the media if no other words do.
    pub(super) fn read_media(
        &mut self,
        object: &JsonMembers<'_>,
        kind: Option<MediaKind>,
        is_named: bool,
        depth: ReadDepth,
    ) {
        let title = first_label(object, &TITLES, depth);
        let is_file = object.string("template_type").is_some_and(|name| name == "attachment");
        let kind = if is_file { Some(MediaKind::File) } else { kind };
        for (name, known) in ADDRESSES {
            // A `link` may be words too.
            let is_address = |url: &Cow<'_, str>| !matches!(name, "link" | "uri") || url.contains(':');
            let Some(url) = object.string(name).filter(is_address) else { continue };
            let default = if name.starts_with("file") { MediaKind::File } else { MediaKind::Link };
            let url = depth.plain(&url);
            let title = title.as_deref().filter(|title| *title != url);
            self.push_media(known.or(kind).unwrap_or(default), Some(url.trim()), title, is_named);
        }
        for raw in object.of(&IMAGES) {
            self.read_image(raw, title.as_deref(), is_named, depth);
        }
    }

    /// Reads an object that is a file of this kind. Returns false if it has no address.
    pub(super) fn read_file(&mut self, raw: &RawValue, kind: Option<MediaKind>, depth: ReadDepth) -> bool {
        let Some(file) = JsonMembers::read(raw.get()) else { return false };
        let (Some(url), Some(kind)) = (["link", "url"].iter().find_map(|name| file.string(name)), kind)
        else {
            return false;
        };
        let title = first_label(&file, &TITLES, depth);
        self.push_media(kind, Some(depth.plain(&url).trim()), title.as_deref(), true);
        true
    }

    fn read_image(&mut self, raw: &RawValue, title: Option<&str>, is_named: bool, depth: ReadDepth) {
        let Some(depth) = depth.down() else { return };
        if let Some(url) = string(raw) {
            let url = depth.plain(&url);
            if url.contains(':') {
                self.push_media(MediaKind::Image, Some(url.trim()), title, is_named);
            }
        } else if let Some(all) = elements(raw) {
            for raw in all {
                self.read_image(raw, title, is_named, depth);
            }
        } else if let Some(image) = JsonMembers::read(raw.get()) {
            let own_title = first_label(&image, &TITLES, depth);
            let names = ["image_src", "image_url", "imageUrl", "url", "src", "link"];
            for raw in image.of(&names).take(1) {
                self.read_image(raw, own_title.as_deref().or(title), is_named, depth);
            }
        }
    }

    /// Reads attached files. Other systems attach cards too.
    pub(super) fn read_attachments(&mut self, raw: &RawValue, depth: ReadDepth) {
        let Some(depth) = depth.down().filter(|depth| depth.reads_files) else { return };
        for raw in elements(raw).unwrap_or_else(|| vec![raw]) {
            let Some(file) = JsonMembers::read(raw.get()) else { continue };
            let kind = ["fileType", "type", "contentType"].iter().find_map(|name| file.string(name));
            let kind = kind.and_then(|kind| media_kind(&kind)).unwrap_or(MediaKind::File);
            if let Some(card) = ["content", "payload"].iter().find_map(|name| file.get(name)) {
                self.read_value(card, Some(kind), depth);
                continue;
            }
            let before = self.mark();
            self.read_media(&file, Some(kind), true, depth);
            if self.mark() != before {
                continue;
            }
            if file.has_any(&["fileId", "fileName"]) {
                let title = first_label(&file, &["fileName", "title", "name"], depth);
                self.push_media(kind, None, title.as_deref(), true);
            } else {
                self.read_item(raw, false, depth);
            }
        }
    }
}
