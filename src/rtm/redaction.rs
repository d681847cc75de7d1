//! Redacts texts of the platform before callers and logs see them: masks secrets and limits the length.

/// Longest redacted text, in characters.
const TEXT_MAX: usize = 300;

/// Shorter runs of token characters are words, numbers or codes.
const TOKEN_MIN: usize = 20;

/// Returns the text on one line, cut to 300 characters, with `…` in place of everything that looks like a token.
pub(super) fn redact(text: &str) -> Box<str> {
    let mut shown = String::new();
    let mut secret_follows = false;
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        if !shown.is_empty() {
            shown.push(' ');
        }
        if secret_follows {
            shown.push('…');
        } else {
            push_masked(word, &mut shown);
        }
        secret_follows = word.trim_end_matches(':').eq_ignore_ascii_case("bearer");
    }
    match shown.char_indices().nth(TEXT_MAX - 1) {
        Some((cut, last)) if shown.len() > cut + last.len_utf8() => {
            shown.truncate(cut);
            shown.push('…');
        }
        _ => {}
    }
    shown.into()
}

/// Appends `word` with each token replaced by `…`.
fn push_masked(word: &str, shown: &mut String) {
    let mut rest = word;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !is_token_char(c)).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        shown.push_str(if looks_secret(run) { "…" } else { run });
        let next = after.find(is_token_char).unwrap_or(after.len());
        let (between, further) = after.split_at(next);
        shown.push_str(between);
        rest = further;
    }
}

const fn is_token_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+' | '/' | '=' | '~' | '%')
}

/// Returns whether a run of token characters may be a JWT, an access token or a key. Ids of bots, apps and users
/// (`st-<uuid>`) stay, because they help an operator.
fn looks_secret(run: &str) -> bool {
    let jwt = run.starts_with("eyJ");
    jwt || run.len() >= TOKEN_MIN && run.bytes().any(|b| b.is_ascii_digit()) && !is_prefixed_uuid(run)
}

fn is_prefixed_uuid(run: &str) -> bool {
    let mut groups = run.trim_end_matches('.').rsplit('-');
    let uuid = [12, 4, 4, 4, 8].into_iter().all(|digits| {
        groups.next().is_some_and(|group| {
            group.len() == digits && group.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        })
    });
    let prefix = groups.next().unwrap_or_default();
    uuid && groups.next().is_none() && prefix.len() <= 2
}
