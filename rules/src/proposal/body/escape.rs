//! Text from telemetry and YAML, made harmless on GitHub.
//!
//! Backslashes and entities do not hold there: mentions, `#1`, `GH-1`, commit ids and bare URLs are found *after*
//! Markdown was rendered, in whatever text came out. What holds is code: every such filter skips `<code>`. So foreign
//! text appears in code spans only ([`code`], [`prose`]), and where there is no code, in titles and commit messages, it
//! is reduced to letters that mean nothing ([`plain`]). Trackers that a repository links by a prefix of its own
//! (`TICKET-1`) are stopped by code spans too, in titles they cannot be known.

/// Most characters of one name; what is longer ends in an ellipsis.
const NAME: usize = 120;
/// Most characters of one sentence.
const SENTENCE: usize = 600;

/// Foreign text as one Markdown code span, in a paragraph, a list or a table cell alike.
///
/// Invariant: between its two backticks there is no backtick, pipe, angle bracket, line break, control or invisible
/// character. So nothing ends the span, the cell, the line or a comment.
pub fn code(text: &str) -> String {
    span(text, NAME)
}

/// A sentence that may hold foreign words: plain words stay as they are, all else goes into code spans.
pub fn prose(text: &str) -> String {
    let spaced: String = text.chars().map(|c| if c.is_whitespace() { ' ' } else { c }).collect();
    let text = visible(&spaced);
    let mut out = String::new();
    let mut held: Vec<&str> = Vec::new();
    let mut left = SENTENCE;
    let mut tokens = text.split_whitespace().peekable();
    let mut first = true;
    let flush = |held: &mut Vec<&str>, out: &mut String| {
        if !held.is_empty() {
            let joined = held.join(" ");
            let (inside, after) = unquoted(&joined);
            push_word(out, &(span(inside, SENTENCE) + after));
            held.clear();
        }
    };
    while let Some(token) = tokens.next() {
        let length = token.chars().count();
        if length > left {
            flush(&mut held, &mut out);
            if first {
                let cut: String = token.chars().take(left).collect();
                push_word(&mut out, &span(&cut, SENTENCE));
            }
            push_word(&mut out, "…");
            break;
        }
        left = left.saturating_sub(length + 1);
        if is_word(token, first) {
            flush(&mut held, &mut out);
            push_word(&mut out, token);
        } else if token.starts_with('`') {
            // A writer's own code span: it stays one of its own.
            flush(&mut held, &mut out);
            held.push(token);
            while held.last().is_some_and(|last| !closes(last, held.len() == 1)) {
                let Some(next) = tokens.next() else { break };
                left = left.saturating_sub(next.chars().count() + 1);
                held.push(next);
            }
            flush(&mut held, &mut out);
        } else {
            held.push(token);
        }
        first = false;
    }
    flush(&mut held, &mut out);
    if out.is_empty() { "(empty)".to_owned() } else { out }
}

/// Foreign text for titles and commit messages, where code spans are no shelter: letters, digits and `-_./' ` stay,
/// everything else becomes `_`, and what could still be taken for a link, a reference or a commit id is broken.
pub fn plain(text: &str) -> String {
    let mut out = String::new();
    for c in text.trim().chars().take(NAME) {
        let kept = c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '\'' | ' ');
        out.push(if kept { c } else { '_' });
    }
    if text.trim().chars().count() > NAME {
        out.push('…');
    }
    let out = out.replace("//", "/_");
    // GH-1 is an issue, www.x a link, and seven or more hexadecimal digits a commit.
    let mut broken = String::new();
    let mut hex = 0;
    for c in out.chars() {
        let tail = broken.as_bytes();
        let ends = |word: &[u8]| {
            tail.len() >= word.len()
                && tail[tail.len() - word.len()..].iter().zip(word).all(|(a, b)| a.eq_ignore_ascii_case(b))
        };
        if (c == '-' && ends(b"gh")) || (c == '.' && ends(b"www")) {
            broken.push('_');
            hex = 0;
            continue;
        }
        hex = if c.is_ascii_hexdigit() { hex + 1 } else { 0 };
        if hex == 7 {
            broken.push('_');
            hex = 1;
        }
        broken.push(c);
    }
    if broken.is_empty() { "_".to_owned() } else { broken }
}

/// Makes visible what is not: control, bidirectional and zero-width characters appear as `⟨U+202E⟩`, as do combining
/// marks that pile up. For pages that escape HTML themselves.
pub fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut marks = 0;
    for c in text.chars() {
        marks = if is_mark(c) { marks + 1 } else { 0 };
        if is_hidden(c) || marks > 2 {
            out.push_str(&format!("⟨U+{:04X}⟩", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out
}

fn span(text: &str, most: usize) -> String {
    let text = text.trim_matches(' ');
    let mut inside = String::new();
    for (position, c) in visible(text).chars().enumerate() {
        if position == most {
            inside.push('…');
            break;
        }
        inside.push(match c {
            '`' => 'ˋ',
            '|' => '¦',
            '<' => '‹',
            '>' => '›',
            c => c,
        });
    }
    if inside.is_empty() {
        return "(empty)".to_owned();
    }
    // Letters that run from right to left pull the digits after them along; the mark ends that.
    let after = if inside.chars().any(is_right_to_left) { "\u{200e}" } else { "" };
    format!("`{inside}`{after}")
}

fn push_word(out: &mut String, word: &str) {
    if !out.is_empty() {
        out.push(' ');
    }
    out.push_str(word);
}

/// The text without a writer's own backticks, and the punctuation after it.
fn unquoted(text: &str) -> (&str, &str) {
    let cut = text.trim_end_matches([',', '.', ':', ';', ')']);
    let after = &text[cut.len()..];
    match cut.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')) {
        Some(inner) if !inner.is_empty() => (inner, after),
        _ if cut.is_empty() => (text, ""),
        _ => (cut, after),
    }
}

fn closes(token: &str, only: bool) -> bool {
    let token = token.trim_end_matches([',', '.', ':', ';', ')']);
    token.ends_with('`') && (!only || token.len() > 1)
}

/// A word of plain language, or a number with its unit: nothing in it means anything to Markdown or GitHub. `first`
/// words are no numbers, since `1.` begins a list.
fn is_word(token: &str, first: bool) -> bool {
    let bare = token.strip_prefix('(').unwrap_or(token);
    let bare = bare.trim_end_matches([',', '.', ':', ';', ')', '?', '!']);
    if token.len() > 40 {
        return false;
    }
    if bare.is_empty() {
        return false;
    }
    let letters = bare.split(['-', '\'']).all(|part| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphabetic()));
    if letters {
        let commit = bare.len() >= 7 && bare.chars().all(|c| c.is_ascii_hexdigit());
        return !commit;
    }
    if matches!(bare, "%" | "→" | "×" | "–" | "…" | "≤" | "≥") {
        return !first;
    }
    let digits = bare.trim_end_matches(['%', 's', 'm', 'h', 'd']);
    !first
        && digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.len() < 20
        && bare.len() - digits.len() <= 1
        && digits.ends_with(|c: char| c.is_ascii_digit())
        && digits.split([',', '.']).all(|part| part.len() < 7 && part.chars().all(|c| c.is_ascii_digit()))
}

fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{61c}' | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{3164}' | '\u{feff}'
        )
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{fe00}'..='\u{fe0f}' | '\u{fff0}'..='\u{fffd}' | '\u{e0000}'..='\u{e0fff}')
}

fn is_mark(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}' | '\u{483}'..='\u{489}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}'
        | '\u{20d0}'..='\u{20ff}' | '\u{fe20}'..='\u{fe2f}')
}

fn is_right_to_left(c: char) -> bool {
    matches!(c, '\u{590}'..='\u{8ff}' | '\u{fb1d}'..='\u{fdff}' | '\u{fe70}'..='\u{fefc}' | '\u{10800}'..='\u{10fff}'
        | '\u{1e800}'..='\u{1efff}')
}
