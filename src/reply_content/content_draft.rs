//! The content of a message while its elements are read, within the limits of api.md 1.
//!
//! The text of an element has two parts. Its own words stand as the bot wrote them. The lines behind them are composed from
//! lists, tables, choices and media. Only the lines are limited.

use super::ReplyContent;
use crate::domain::{MediaKind, ReplyChoice, ReplyMedia};

/// Most bytes of composed lines.
pub(super) const MAX_LINES_BYTES: usize = 64 * 1024;
/// Most choices, and most media.
pub(super) const MAX_COUNT: usize = 100;
/// Most bytes of all choices, and of all media.
pub(super) const MAX_BYTES: usize = 64 * 1024;
/// Most bytes of a title. A longer one is cut.
pub(super) const MAX_TITLE_BYTES: usize = 1024;
/// Most bytes of an address. Media with a longer one are left out: their content is in the address.
const MAX_URL_BYTES: usize = 8 * 1024;
/// Most parts of lines that are sought in the body that the platform sent along.
const MAX_PARTS: usize = 256;

const ELLIPSIS: &str = "…";

/// The content that was read so far.
#[derive(Debug, Default)]
pub(super) struct ContentDraft {
    text: String,
    choices: Vec<ReplyChoice>,
    media: Vec<ReplyMedia>,
    /// The start of the element's text.
    start: usize,
    /// The start of the element's lines, if it has any.
    lines_at: Option<usize>,
    /// The words of the element's lines.
    parts: Vec<Box<str>>,
    /// Whether the element is a template.
    is_template: bool,
    /// The element's media that its text is to name.
    named_media: Vec<usize>,
    lines_bytes: usize,
    choices_bytes: usize,
    media_bytes: usize,
}

/// A position in a draft.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct DraftMark {
    pub(super) text: usize,
    pub(super) choices: usize,
    pub(super) media: usize,
}

impl ContentDraft {
    pub(super) fn into_content(self) -> ReplyContent {
        ReplyContent { text: self.text, choices: self.choices, media: self.media }
    }

    pub(super) const fn mark(&self) -> DraftMark {
        DraftMark { text: self.text.len(), choices: self.choices.len(), media: self.media.len() }
    }

    /// Returns whether no further line fits.
    pub(super) const fn is_full(&self) -> bool {
        self.lines_bytes >= MAX_LINES_BYTES
    }

    pub(super) const fn on_template(&mut self) {
        self.is_template = true;
    }

    /// Returns whether a template was found in the element.
    pub(super) const fn is_in_template(&self) -> bool {
        self.is_template
    }

    /// Returns the element's own words.
    pub(super) fn words(&self) -> &str {
        self.text.get(self.start..self.lines_at.unwrap_or(self.text.len())).unwrap_or_default()
    }

    /// Returns the text that was read since then.
    pub(super) fn told_since(&self, mark: DraftMark) -> &str {
        self.text.get(mark.text..).unwrap_or_default()
    }

    /// Appends words of the bot, whole.
    pub(super) fn push_text(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(text);
    }

    /// Appends a line of these parts. A line without words is left out.
    pub(super) fn push_line<T: AsRef<str>>(&mut self, parts: &[T], separator: &str) {
        let has_words = parts.iter().any(|part| !part.as_ref().trim().is_empty());
        if !has_words || self.is_full() {
            return;
        }
        if self.lines_at.is_none() {
            let words = self.words().trim_end().len();
            self.text.truncate(self.start + words);
            self.lines_at = Some(self.text.len());
        }
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        for (at, part) in parts.iter().enumerate() {
            self.push_part(if at == 0 { "" } else { separator });
            let part = part.as_ref().trim();
            self.push_part(part);
            if !part.is_empty() && self.parts.len() <= MAX_PARTS {
                self.parts.push(part.into());
            }
        }
        self.lines_bytes += 1;
    }

    /// Appends to the last line, as far as it fits.
    pub(super) fn push_part(&mut self, part: &str) {
        let room = MAX_LINES_BYTES.saturating_sub(self.lines_bytes);
        if part.len() <= room {
            self.text.push_str(part);
        } else if room > 0 {
            self.text.push_str(cut(part, room));
            self.text.push_str(ELLIPSIS);
        }
        self.lines_bytes += part.len().min(room);
    }

    /// Adds a choice if it fits. A choice that is there already is none.
    pub(super) fn push_choice(&mut self, title: &str, payload: &str) {
        let choice = ReplyChoice { title: title_of(title), payload: payload.into() };
        let bytes = choice.title.len() + payload.len();
        let fits = self.choices.len() < MAX_COUNT && self.choices_bytes + bytes <= MAX_BYTES;
        if fits && !self.choices.contains(&choice) {
            self.choices_bytes += bytes;
            self.choices.push(choice);
        }
    }

    /// Adds media if they fit. `is_named` says that the text names them if no other words do.
    pub(super) fn push_media(
        &mut self,
        kind: MediaKind,
        url: Option<&str>,
        title: Option<&str>,
        is_named: bool,
    ) {
        let title = title.map(title_of);
        let media = ReplyMedia { kind, url: url.map(Into::into), title };
        let url_bytes = url.map_or(0, str::len);
        let bytes = url_bytes + media.title.as_ref().map_or(0, |title| title.len());
        if let Some(known) = self.media.iter().position(|known| *known == media) {
            self.named_media.extend(is_named.then_some(known));
            return;
        }
        let fits = self.media.len() < MAX_COUNT && self.media_bytes + bytes <= MAX_BYTES;
        if fits && url_bytes <= MAX_URL_BYTES {
            self.media_bytes += bytes;
            self.named_media.extend(is_named.then_some(self.media.len()));
            self.media.push(media);
        } else if is_named && self.words().trim().is_empty() {
            self.push_line(&[media.title.as_deref().unwrap_or(placeholder(kind))], "");
        }
    }

    /// Takes the text that the platform sent along for readers without templates. It replaces the element's text if it
    /// tells all of that. Otherwise it replaces missing words. `replaces_words` says that users see it in place of the
    /// element's own words.
    pub(super) fn take_body(&mut self, body: &str, replaces_words: bool) {
        if body.trim().is_empty() {
            return;
        }
        let words = self.words().trim();
        let goes_on = body.trim_start().starts_with(words);
        let is_whole = match self.lines_at {
            None => replaces_words || words.is_empty() || self.is_template && goes_on,
            Some(_) => (replaces_words || goes_on) && self.is_told_by(body),
        };
        if is_whole {
            self.text.truncate(self.start);
            self.push_text(body);
            self.lines_at = None;
        } else if words.is_empty() || replaces_words {
            self.set_words(body);
        }
    }

    /// Replaces the element's own words, in front of its lines.
    pub(super) fn set_words(&mut self, words: &str) {
        let words = words.trim();
        if words.is_empty() {
            return;
        }
        let lines = self.lines_at.map(|at| self.text.split_off(at));
        self.text.truncate(self.start);
        self.push_text(words);
        if let Some(lines) = lines {
            self.lines_at = Some(self.text.len());
            self.push_text(lines.trim_start_matches('\n'));
        }
    }

    /// Returns whether the body has all words of the lines.
    fn is_told_by(&self, body: &str) -> bool {
        let is_comparable = self.parts.len() <= MAX_PARTS && body.len() <= MAX_LINES_BYTES;
        is_comparable && self.parts.iter().all(|part| body.contains(&**part))
    }

    /// Ends an element: its text names its media, and the next element begins on a line of its own.
    pub(super) fn end_element(&mut self) {
        for at in std::mem::take(&mut self.named_media) {
            self.name_media(at);
        }
        self.start = self.text.len();
        self.lines_at = None;
        self.parts.clear();
        self.is_template = false;
    }

    /// Appends the title of media, or else their address. The address of a link is always told.
    fn name_media(&mut self, at: usize) {
        let Some(ReplyMedia { kind, url, title }) = self.media.get(at).cloned() else { return };
        let told = self.text.get(self.start..).unwrap_or_default();
        let is_silent = told.trim().is_empty();
        let is_new = |words: &&str| !told.contains(words.trim_end_matches(ELLIPSIS));
        let title = title.as_deref().filter(is_new);
        let is_shown = kind == MediaKind::Link || is_silent && title.is_none();
        let url = url.as_deref().filter(|url| is_shown && !url.starts_with("data:")).filter(is_new);
        match (title, url) {
            (Some(title), Some(url)) => self.push_line(&[title, url], ": "),
            (Some(words), None) | (None, Some(words)) => self.push_line(&[words], ""),
            (None, None) if is_silent => self.push_line(&[placeholder(kind)], ""),
            (None, None) => {}
        }
    }
}

/// Returns the words for media without a title and an address.
const fn placeholder(kind: MediaKind) -> &'static str {
    match kind {
        MediaKind::Image => "[image]",
        MediaKind::Audio => "[audio]",
        MediaKind::Video => "[video]",
        MediaKind::File => "[file]",
        MediaKind::Link => "[link]",
    }
}

fn title_of(title: &str) -> Box<str> {
    let title = title.trim();
    if title.len() <= MAX_TITLE_BYTES {
        return title.into();
    }
    [cut(title, MAX_TITLE_BYTES - ELLIPSIS.len()), ELLIPSIS].concat().into()
}

/// Returns the start of a text, with so many bytes at most.
fn cut(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or_default()
}
