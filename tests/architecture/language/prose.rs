//! Takes the sentences out of comments and Markdown, each with the line where it starts.

use super::sources::SourceFile;

/// The most words of a sentence.
pub(super) const LONGEST: usize = 25;

/// A table cell is prose from this many words on, or if it ends like a sentence.
const CELL: usize = 4;

/// Words after which a full stop ends no sentence.
const ABBREVIATIONS: &[&str] = &["e.g.", "i.e.", "etc.", "vs.", "cf.", "approx."];

/// One sentence of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sentence {
    /// Its first line, from one.
    pub line: usize,
    /// Its words; a span of code is one word.
    pub words: Vec<String>,
}

impl Sentence {
    /// Counts the words. A mark that stands alone is none.
    pub(super) fn length(&self) -> usize {
        self.words.iter().filter(|word| is_word(word)).count()
    }

    /// Returns whether the sentence has too many words.
    pub(super) fn is_long(&self) -> bool {
        self.length() > LONGEST
    }
}

fn is_word(word: &str) -> bool {
    word.contains(char::is_alphanumeric)
}

/// Returns the sentences of a file in order.
pub(super) fn sentences(file: &SourceFile) -> Vec<Sentence> {
    let marker = match file.extension() {
        "rs" => Some("//"),
        "lua" => Some("--"),
        _ => None,
    };
    let mut paragraphs = Paragraphs::default();
    let mut before = String::new();
    for (number, line) in (1..).zip(file.text.lines()) {
        let (kind, content) =
            marker.map_or((String::new(), line), |marker| comment(line, marker).unwrap_or_default());
        // Documentation and the comment behind it are two texts.
        if kind != before {
            paragraphs.end();
        }
        paragraphs.line(number, content);
        before = kind;
    }
    paragraphs.end();
    paragraphs.found
}

/// Returns the kind of a line's comment, such as `///`, and its content.
fn comment<'a>(line: &'a str, marker: &str) -> Option<(String, &'a str)> {
    let at = if line.trim_start().starts_with(marker) {
        line.find(marker)?
    } else {
        let at = line.find(&format!(" {marker} "))? + 1;
        // Behind an odd number of quotes it stands in a string.
        line[..at].matches('"').count().is_multiple_of(2).then_some(at)?
    };
    let rest = &line[at + marker.len()..];
    let content = rest.strip_prefix(['/', '!']).filter(|_| marker == "//").unwrap_or(rest);
    let kind = &line[at..line.len() - content.len()];
    // A comment behind code belongs to that line alone.
    let trailing = if line[..at].trim().is_empty() { "" } else { &line[..at] };
    Some((format!("{trailing}{kind}"), content))
}

/// Gathers lines to paragraphs and cuts those into sentences.
#[derive(Default)]
struct Paragraphs {
    fenced: bool,
    words: Words,
    found: Vec<Sentence>,
}

impl Paragraphs {
    fn line(&mut self, number: usize, line: &str) {
        let line = line.trim().trim_start_matches("> ");
        if line.starts_with("```") || line.starts_with("~~~") {
            self.fenced = !self.fenced;
            return self.end();
        }
        if self.fenced || line.is_empty() || line.starts_with(['#', '<']) {
            return self.end();
        }
        if let Some(row) = line.strip_prefix('|') {
            self.end();
            return self.row(number, row);
        }
        let item = list_item(line);
        if item.is_some() {
            self.end();
        }
        self.words.read(number, item.unwrap_or(line));
    }

    /// Reads a row of a table. Each cell is a text of its own.
    fn row(&mut self, number: usize, row: &str) {
        for cell in row.replace("\\|", "/").split('|') {
            self.words.read(number, cell);
            let ends = cell.trim_end().ends_with(['.', '!', '?']);
            let words = self.words.done.iter().filter(|(_, word)| is_word(word)).count();
            if ends || words >= CELL { self.end() } else { self.words = Words::default() }
        }
    }

    fn end(&mut self) {
        let words = std::mem::take(&mut self.words).finish();
        let mut sentence: Option<Sentence> = None;
        for (index, (line, word)) in words.iter().enumerate() {
            let current = sentence.get_or_insert(Sentence { line: *line, words: Vec::new() });
            current.words.push(word.clone());
            if words.get(index + 1).is_none_or(|(_, next)| is_end(word, next)) {
                self.found.extend(sentence.take().filter(|sentence| sentence.length() > 0));
            }
        }
    }
}

/// Returns the text of a list's item without its bullet or number.
fn list_item(line: &str) -> Option<&str> {
    let number = line.trim_start_matches(|c: char| c.is_ascii_digit());
    if number.len() < line.len() {
        return number.strip_prefix(". ");
    }
    ["- ", "* ", "+ "].iter().find_map(|bullet| line.strip_prefix(bullet))
}

/// Returns whether a sentence ends between two words.
fn is_end(word: &str, next: &str) -> bool {
    let word = word.trim_end_matches([')', '"', '\'', '*', '_', '”', '’']);
    let capital = next
        .trim_start_matches(['(', '"', '\'', '*', '_', '“', '‘'])
        .starts_with(|c: char| c.is_uppercase() || c.is_ascii_digit() || c == '`');
    match word.chars().next_back() {
        Some('!' | '?') => capital,
        // A name in small letters may open a sentence.
        Some('.') => !ABBREVIATIONS.contains(&word.trim_start_matches('(')) && (capital || is_word(next)),
        _ => false,
    }
}

/// Cuts lines into words. A span of code is one word, and a link keeps only its text.
#[derive(Default)]
struct Words {
    done: Vec<(usize, String)>,
    open: String,
    start: usize,
    code: bool,
    /// The bracket that ends a link's target.
    target: Option<char>,
}

impl Words {
    fn read(&mut self, line: usize, text: &str) {
        let mut chars = text.chars().chain([' ']).peekable();
        while let Some(c) = chars.next() {
            if let Some(end) = self.target {
                if c == end {
                    self.target = None;
                }
                continue;
            }
            if c.is_whitespace() && !self.code {
                self.close();
                continue;
            }
            if self.open.is_empty() {
                self.start = line;
            }
            match (c, chars.peek()) {
                ('`', _) => {
                    self.code = !self.code;
                    self.open.push(c);
                }
                (']', Some('(')) if !self.code => self.target = Some(')'),
                (']', Some('[')) if !self.code => self.target = Some(']'),
                ('[' | ']', _) if !self.code => {}
                _ => self.open.push(c),
            }
        }
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            self.done.push((self.start, std::mem::take(&mut self.open)));
        }
    }

    fn finish(mut self) -> Vec<(usize, String)> {
        self.close();
        self.done
    }
}
