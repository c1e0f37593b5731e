//! What is wrong with a document, as text for a person: the line it is about, underlined.

use crate::document::File;
use crate::field::FieldPath;
use crate::health::{self, Finding};
use crate::proposal::body::escape::visible;
use crate::validate::Violation;

/// One message about one field of one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message<'a> {
    /// How much it matters: `error`, or a severity of [`health`](crate::health).
    pub level: &'a str,
    /// What it is called: a rule's id and name, or the step that refuses.
    pub id: String,
    /// What is wrong in general.
    pub title: &'a str,
    /// Where it is.
    pub field: FieldPath,
    /// What is wrong here.
    pub label: &'a str,
    /// What to do; empty when there is nothing to add.
    pub help: &'a str,
}

impl<'a> Message<'a> {
    /// A finding of a health rule.
    pub fn of_finding(finding: &'a Finding) -> Self {
        let rule = health::rule(finding.id);
        Self {
            level: finding.severity.as_str(),
            id: rule.map_or_else(|| finding.id.to_owned(), |rule| format!("{} {}", finding.id, rule.name)),
            title: rule.map_or("", |rule| rule.summary),
            field: finding.field.clone(),
            label: &finding.message,
            help: &finding.help,
        }
    }

    /// Something that Kuma refuses at `stage`.
    pub fn of_violation(stage: &str, violation: &'a Violation) -> Self {
        Self {
            level: "error",
            id: stage.to_owned(),
            title: "Kuma refuses this",
            // A field that we cannot read back stays in the text, and the document is the place.
            field: violation.field.parse().unwrap_or_default(),
            label: &violation.message,
            help: "",
        }
    }
}

/// For whom the text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// A file, a pull request, a program.
    Plain,
    /// A terminal with colours.
    Terminal,
}

/// Longer lines are cut: a document in JSON may be one line.
const WIDEST: usize = 140;
/// What is left of the line before the place it is about.
const BEFORE: usize = 40;

/// Renders a message about the document number `index` (from 0) of a file. Where the field is not written, its parent
/// is shown and the message says which field is meant.
///
/// Text of the document is hostile: characters that a terminal would obey become visible.
pub fn render(file: &File, index: usize, message: &Message<'_>, style: Style) -> String {
    let (bold, level, blue, end) = match style {
        Style::Plain => ("", "", "", ""),
        Style::Terminal => ("\u{1b}[1m", colour(message.level), "\u{1b}[34m", "\u{1b}[0m"),
    };
    let head = format!("{level}{}[{}]{end}{bold}: {}{end}\n", message.level, message.id, message.title);
    let label = visible(message.label);
    let mut field = message.field.clone();
    let document = file.documents().get(index);
    let place = loop {
        match (document.and_then(|document| document.locate(&field)), field.parent()) {
            (Some(place), _) => break Some(place),
            (None, Some(parent)) => field = parent,
            (None, None) => break None,
        }
    };
    let label =
        if field == message.field { label } else { format!("{}: {label}", visible(&message.field.to_string())) };
    let Some(place) = place else {
        let help = help(message, " ", blue, end);
        return format!("{head} {blue}-->{end} {}\n  {blue}={end} {label}\n{help}", visible(file.path()));
    };
    let start = file.text()[..place.span.start].rfind('\n').map_or(0, |at| at + 1);
    let line = file.text()[start..].lines().next().unwrap_or_default();
    let column = place.span.start - start;
    let length = line.len().min(place.span.end - start).saturating_sub(column);
    let (shown, before, marked) = cut(line, column, length);
    let number = place.line.to_string();
    let gutter = " ".repeat(number.len());
    let marks = "^".repeat(marked.max(1));
    format!(
        "{head}{gutter}{blue}-->{end} {}:{}:{}\n{blue}{number} |{end} {shown}\n{blue}{gutter} |{end} {}{level}{marks}{end} {label}\n{}",
        visible(file.path()),
        place.line,
        place.column,
        " ".repeat(before),
        help(message, &gutter, blue, end),
    )
}

fn help(message: &Message<'_>, gutter: &str, blue: &str, end: &str) -> String {
    if message.help.is_empty() {
        return String::new();
    }
    format!("{gutter} {blue}={end} help: {}\n", visible(message.help))
}

fn colour(level: &str) -> &'static str {
    match level {
        "error" | "critical" | "high" => "\u{1b}[1;31m",
        "medium" => "\u{1b}[1;33m",
        _ => "\u{1b}[1;36m",
    }
}

/// The part of a line around the place, made visible; how many characters stand before the place, and how many it has.
fn cut(line: &str, column: usize, length: usize) -> (String, usize, usize) {
    let whole = line.chars().count() <= WIDEST;
    let (before, rest) = line.split_at_checked(column).unwrap_or((line, ""));
    let (value, after) = rest.split_at_checked(length).unwrap_or((rest, ""));
    if whole {
        let (before, value) = (visible(before), visible(value));
        let counts = (before.chars().count(), value.chars().count());
        return (before + &value + &visible(after), counts.0, counts.1);
    }
    let skipped = before.chars().count().saturating_sub(BEFORE);
    let before: String = before.chars().skip(skipped).collect();
    let before = if skipped > 0 { format!("…{}", visible(&before)) } else { visible(&before) };
    let room = WIDEST - BEFORE;
    let value: String = value.chars().take(room).collect();
    let value = visible(&value);
    let after: String = after.chars().take(room.saturating_sub(value.chars().count())).collect();
    let counts = (before.chars().count(), value.chars().count());
    (before + &value + &visible(&after) + "…", counts.0, counts.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(field: &str) -> Message<'static> {
        let field = field.parse().unwrap();
        Message { level: "high", id: "KMH-X".to_owned(), title: "title", field, label: "label", help: "help" }
    }

    #[test]
    fn underlines_the_value() {
        let file = File::parse("a.yaml", b"spec:\n  to:\n  - weight: 100 # all\n").unwrap();
        let text = render(&file, 0, &message("spec.to[0].weight"), Style::Plain);
        insta::assert_snapshot!(text, @r"
        high[KMH-X]: title
         --> a.yaml:3:13
        3 |   - weight: 100 # all
          |             ^^^ label
          = help: help
        ");
    }

    #[test]
    fn shows_the_parent_of_a_field_that_is_not_there() {
        let file = File::parse("a.yaml", b"spec:\n  to: [1]\n").unwrap();
        let text = render(&file, 0, &message("spec.to[4].x"), Style::Plain);
        assert!(text.contains("2 |   to: [1]\n  |       ^^^ spec.to[4].x: label\n"), "{text}");
    }

    #[test]
    fn cuts_long_lines_and_hides_nothing() {
        let long = format!("a: [{}\"x\u{202e}y\", {}]\n", "1, ".repeat(200), "2, ".repeat(200));
        let file = File::parse("a.yaml", long.as_bytes()).unwrap();
        let text = render(&file, 0, &message("a[200]"), Style::Plain);
        let line = text.lines().nth(2).unwrap();
        assert!(line.chars().count() < 200 && line.contains("x⟨U+202E⟩y"), "{text}");
        let under = text.lines().nth(3).unwrap();
        assert_eq!(line.chars().position(|c| c == '"'), under.chars().position(|c| c == '^'), "{text}");
    }

    #[test]
    fn speaks_of_a_document_that_is_not_there() {
        let file = File::parse("a.yaml", b"a: 1\n").unwrap();
        assert!(render(&file, 7, &message("spec"), Style::Plain).contains("--> a.yaml\n"));
    }
}
