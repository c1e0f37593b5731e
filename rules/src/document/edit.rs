//! Minimal edits: which bytes to touch, and the proof that nothing else changed.

use super::node::{Id, Kind, Shared, Tree};
use super::scalar::Style;
use super::{Document, File, Place};
use crate::field::{FieldPath, Segment};
use serde::Deserialize;
use serde_json::Value;
use std::cmp::Reverse;
use std::ops::Range;

/// A new value for one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// The field, such as `spec.to[0].rules[0].default.backendRefs[1].weight`.
    pub field: FieldPath,
    /// Its new value.
    pub value: u64,
}

/// Why an edit is refused. A person can always make the same change by hand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The file has fewer documents.
    #[error("{path}: there is no document {document}; the file has {count}")]
    NoDocument {
        /// The name of the file.
        path: String,
        /// The index that was asked for.
        document: usize,
        /// How many documents the file has.
        count: usize,
    },
    /// Neither the field nor a mapping to put it into exists.
    #[error("{path}: there is no field `{field}`, and no mapping to add it to")]
    NoField {
        /// The name of the file.
        path: String,
        /// The field that was asked for.
        field: FieldPath,
    },
    /// The field is written in a place that others use too, and they would change with it.
    #[error(
        "{path}:{line}:{column}: `{field}` {reason}, so other fields would change with it; write the value out first"
    )]
    Shared {
        /// The name of the file.
        path: String,
        /// Line of what is shared, from 1.
        line: usize,
        /// Column of what is shared, from 1.
        column: usize,
        /// The field that was asked for.
        field: FieldPath,
        /// How it is shared.
        reason: &'static str,
    },
    /// What is written there is not what this edit knows how to change.
    #[error("{path}:{line}:{column}: cannot change `{field}`: {reason}")]
    Unsupported {
        /// The name of the file.
        path: String,
        /// Line of the obstacle, from 1.
        line: usize,
        /// Column of the obstacle, from 1.
        column: usize,
        /// The field that was asked for.
        field: FieldPath,
        /// What stands in the way.
        reason: &'static str,
    },
    /// Two edits of one call name the same field.
    #[error("{path}: `{field}` is edited twice")]
    Twice {
        /// The name of the file.
        path: String,
        /// The field that was named twice.
        field: FieldPath,
    },
    /// The edited text, read again, is not what it has to be. Nothing was changed.
    #[error("{path}: the edited text does not verify: {reason}")]
    Unverified {
        /// The name of the file.
        path: String,
        /// What differs.
        reason: String,
    },
}

/// Bytes to replace, and what with.
#[derive(Debug)]
struct Splice {
    span: Range<usize>,
    text: String,
}

pub(super) fn apply(file: &File, document: usize, edits: &[Edit]) -> Result<String, EditError> {
    let Some(target) = file.documents.get(document) else {
        let count = file.documents.len();
        return Err(EditError::NoDocument { path: file.path.clone(), document, count });
    };
    for (position, edit) in edits.iter().enumerate() {
        if edits[..position].iter().any(|earlier| earlier.field == edit.field) {
            return Err(EditError::Twice { path: file.path.clone(), field: edit.field.clone() });
        }
    }
    let planner = Planner { file, tree: &target.tree };
    let plan = |edit: &Edit| Ok((planner.plan(edit)?, edit.field.segments().len()));
    let mut splices = edits.iter().map(plan).collect::<Result<Vec<_>, EditError>>()?;
    // Where two mappings end together, the line of the inner one comes first.
    splices.sort_by_key(|(splice, depth)| (splice.span.start, Reverse(*depth)));

    let mut text = String::with_capacity(file.text.len() + 32 * splices.len());
    let mut at = 0;
    for (splice, _) in &splices {
        let kept = file.text.get(at..splice.span.start);
        text.push_str(kept.ok_or_else(|| unverified(file, "two edits touch the same bytes"))?);
        text.push_str(&splice.text);
        at = splice.span.end;
    }
    text.push_str(&file.text[at..]);

    verify(file, target, edits, &text)?;
    Ok(text)
}

struct Planner<'a> {
    file: &'a File,
    tree: &'a Tree,
}

impl Planner<'_> {
    fn plan(&self, edit: &Edit) -> Result<Splice, EditError> {
        if let Some(found) = self.tree.find(&edit.field) {
            self.refuse_shared(&edit.field, found.shared)?;
            return self.replace(edit, found.node);
        }
        let no_field = || EditError::NoField { path: self.file.path.clone(), field: edit.field.clone() };
        let parent = edit.field.parent().and_then(|parent| self.tree.find(&parent)).ok_or_else(no_field)?;
        let (Kind::Mapping { entries, indent }, Some(Segment::Key(key))) =
            (&self.tree.nodes[parent.node].kind, edit.field.last())
        else {
            return Err(no_field());
        };
        self.refuse_shared(&edit.field, parent.shared)?;
        let key = self.spelled(key, entries);
        let entry = format!("{key}: {}", edit.value);
        match indent {
            Some(indent) => Ok(self.insert_line(&entry, entries, *indent)),
            None => self.insert_flow(edit, &entry, parent.node, entries),
        }
    }

    fn replace(&self, edit: &Edit, node: Id) -> Result<Splice, EditError> {
        let span = self.tree.nodes[node].place.span.clone();
        let Kind::Scalar { text, style, typed } = &self.tree.nodes[node].kind else {
            return Err(self.unsupported(edit, node, "it is a mapping or a sequence, not an integer"));
        };
        let written = &self.file.text[span.clone()];
        match (style, typed) {
            (Style::Plain, Some(Value::Null)) if written.is_empty() => self.fill(edit, node),
            (Style::Plain, Some(Value::Null)) => Ok(Splice { span, text: edit.value.to_string() }),
            (Style::Plain, Some(Value::Number(number))) if number.is_u64() || number.is_i64() => {
                Ok(Splice { span, text: edit.value.to_string() })
            }
            // The quotes stay: with them the value keeps its type, and the change is one of digits alone.
            (Style::Quoted, _) if text.parse::<u64>().is_ok() && written.len() == text.len() + 2 => {
                Ok(Splice { span: span.start + 1..span.end - 1, text: edit.value.to_string() })
            }
            _ => Err(self.unsupported(edit, node, "its value is not an integer")),
        }
    }

    /// `weight:` has a place for a value and none in it.
    fn fill(&self, edit: &Edit, node: Id) -> Result<Splice, EditError> {
        let is_entry = |entries: &[(Id, Id)]| entries.iter().copied().find(|(_, value)| *value == node);
        let entry = self.tree.nodes.iter().find_map(|parent| match &parent.kind {
            Kind::Mapping { entries, .. } => is_entry(entries),
            _ => None,
        });
        let refused = || self.unsupported(edit, node, "its value is empty");
        let (key, _) = entry.filter(|_| self.tree.nodes[node].users.is_none()).ok_or_else(refused)?;
        let colon = self.after_colon(key).ok_or_else(refused)?;
        Ok(Splice { span: colon..colon, text: format!(" {}", edit.value) })
    }

    /// The end of the `:` behind a key on its line.
    fn after_colon(&self, key: Id) -> Option<usize> {
        let end = self.tree.nodes[key].place.span.end;
        let rest = &self.file.text[end..];
        let blanks = rest.len() - rest.trim_start_matches([' ', '\t']).len();
        rest[blanks..].starts_with(':').then_some(end + blanks + 1)
    }

    /// A key as its siblings are spelled: a JSON document has to stay one.
    fn spelled(&self, key: &str, siblings: &[(Id, Id)]) -> String {
        let double = |id: Id| self.file.text[self.tree.nodes[id].place.span.clone()].starts_with('"');
        let like_siblings = !siblings.is_empty() && siblings.iter().all(|(key, _)| double(*key));
        let plain = key.starts_with(|c: char| c.is_ascii_alphabetic())
            && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/'))
            && super::scalar::ambiguity(key).is_none()
            && super::scalar::resolve(key) == Ok(None);
        if like_siblings || !plain { Value::from(key).to_string() } else { key.to_owned() }
    }

    /// A line of its own behind the last entry of a block mapping.
    fn insert_line(&self, entry: &str, entries: &[(Id, Id)], indent: usize) -> Splice {
        let text = &self.file.text;
        let end = entries.last().map_or(0, |last| self.end_of_entry(*last));
        let line_end = text[end..].find('\n').map(|at| end + at);
        let newline = if text[line_end.unwrap_or(text.len())..].starts_with('\n') {
            if text[..line_end.unwrap_or(0)].ends_with('\r') { "\r\n" } else { "\n" }
        } else if text.contains("\r\n") {
            "\r\n"
        } else {
            "\n"
        };
        let blank = " ".repeat(indent);
        // Behind a block scalar that keeps its empty lines, a new line begins already.
        if text[..end].ends_with('\n') {
            return Splice { span: end..end, text: format!("{blank}{entry}{newline}") };
        }
        let at = line_end.map_or(text.len(), |at| at + 1 - newline.len());
        Splice { span: at..at, text: format!("{newline}{blank}{entry}") }
    }

    fn insert_flow(&self, edit: &Edit, entry: &str, id: Id, entries: &[(Id, Id)]) -> Result<Splice, EditError> {
        let span = self.tree.nodes[id].place.span.clone();
        let written = &self.file.text[span.clone()];
        if !(written.starts_with('{') && written.ends_with('}')) {
            return Err(self.unsupported(edit, id, "the mapping has no braces"));
        }
        let Some(last) = entries.last() else {
            return Ok(Splice { span: span.start + 1..span.start + 1, text: entry.to_owned() });
        };
        let end = self.end_of_entry(*last);
        // A trailing comma separates already.
        let rest = &self.file.text[end..span.end];
        let blanks = rest.len() - rest.trim_start().len();
        if rest[blanks..].starts_with(',') {
            let at = end + blanks + 1;
            return Ok(Splice { span: at..at, text: format!(" {entry}") });
        }
        // A comma right behind the colon of an empty value would belong to the key.
        if self.file.text[..end].ends_with(':') {
            let (at, blank) = if rest.starts_with(' ') { (end + 1, "") } else { (end, " ") };
            return Ok(Splice { span: at..at, text: format!("{blank}, {entry}") });
        }
        Ok(Splice { span: end..end, text: format!(", {entry}") })
    }

    /// Where the last byte of an entry is, not counting blanks that mean nothing.
    fn end_of_entry(&self, (key, value): (Id, Id)) -> usize {
        let span = &self.tree.nodes[value].place.span;
        match &self.tree.nodes[value].kind {
            Kind::Scalar { text, style: Style::Block, .. } => {
                let written = &self.file.text[span.clone()];
                // Empty lines at the end mean something when the scalar ends in some; otherwise they come after it.
                let lines = text.strip_suffix('\n').unwrap_or(text);
                if lines.is_empty() || lines.ends_with([' ', '\t', '\n']) {
                    span.end
                } else {
                    span.start + written.trim_end().len()
                }
            }
            Kind::Mapping { entries, indent: Some(_) } => {
                entries.last().map_or(span.end, |last| self.end_of_entry(*last))
            }
            Kind::Sequence(items) if !self.file.text[span.clone()].starts_with('[') => {
                items.last().map_or(span.end, |last| self.end_of_entry((*last, *last)))
            }
            Kind::Scalar { .. } if span.is_empty() => {
                let colon = self.after_colon(key).unwrap_or(self.tree.nodes[key].place.span.end);
                span.end.max(colon)
            }
            _ => span.end,
        }
    }

    fn refuse_shared(&self, field: &FieldPath, shared: Option<Shared>) -> Result<(), EditError> {
        let (node, reason) = match shared {
            None => return Ok(()),
            Some(Shared::Alias(node)) => (node, "is reached through an alias"),
            Some(Shared::Merge(node)) => (node, "is reached through a merge key"),
            Some(Shared::Anchor(node)) => (node, "is inside an anchor that aliases use"),
        };
        let Place { line, column, .. } = self.tree.place(node);
        Err(EditError::Shared { path: self.file.path.clone(), line, column, field: field.clone(), reason })
    }

    fn unsupported(&self, edit: &Edit, node: Id, reason: &'static str) -> EditError {
        let Place { line, column, .. } = self.tree.place(node);
        let (path, field) = (self.file.path.clone(), edit.field.clone());
        EditError::Unsupported { path, line, column, field, reason }
    }
}

fn unverified(file: &File, reason: impl Into<String>) -> EditError {
    EditError::Unverified { path: file.path.clone(), reason: reason.into() }
}

/// Reads the edited text again, with this reader and with one of another lineage. Invariant: what an edit returns is the
/// old file with the new values and nothing else.
fn verify(file: &File, target: &Document, edits: &[Edit], text: &str) -> Result<(), EditError> {
    let after = File::parse(&file.path, text.as_bytes()).map_err(|problems| {
        let first = problems.first().map(ToString::to_string).unwrap_or_default();
        unverified(file, first)
    })?;
    if after.documents.len() != file.documents.len() {
        return Err(unverified(file, "the number of documents differs"));
    }
    for (before, after) in file.documents.iter().zip(&after.documents) {
        let mut expected = before.value.clone();
        if before.index == target.index {
            for edit in edits {
                set(&mut expected, edit).ok_or_else(|| unverified(file, format!("`{}` is lost", edit.field)))?;
            }
        }
        if expected != after.value {
            return Err(unverified(file, format!("document {} has other changes", before.index)));
        }
    }
    let (mut expected, found) = (witness(file, &file.text)?, witness(file, text)?);
    if let Some(document) = expected.get_mut(target.index) {
        for edit in edits {
            set(document, edit).ok_or_else(|| unverified(file, format!("`{}` is lost", edit.field)))?;
        }
    }
    if expected != found || expected.len() != file.documents.len() {
        return Err(unverified(file, "a second YAML reader reads it differently"));
    }
    Ok(())
}

/// The documents as `serde_yaml` reads them; merge keys stay keys.
fn witness(file: &File, text: &str) -> Result<Vec<Value>, EditError> {
    let mut documents = Vec::new();
    // It counts a byte order mark as a column.
    for document in serde_yaml::Deserializer::from_str(text.trim_start_matches('\u{feff}')) {
        let value = Value::deserialize(document).map_err(|error| unverified(file, error.to_string()))?;
        if !value.is_null() {
            documents.push(value);
        }
    }
    Ok(documents)
}

/// Sets a field to a value of the type it has; a field that is not there is added to its mapping.
fn set(document: &mut Value, edit: &Edit) -> Option<()> {
    let segments = edit.field.segments();
    let (last, parents) = segments.split_last()?;
    let mut parent = document;
    for segment in parents {
        parent = match segment {
            Segment::Key(key) => parent.get_mut(&**key)?,
            Segment::Index(index) => parent.get_mut(index)?,
        };
    }
    let slot = match last {
        Segment::Key(key) => parent.as_object_mut()?.entry(&**key).or_insert(Value::Null),
        Segment::Index(index) => parent.get_mut(index)?,
    };
    *slot = match slot {
        Value::String(_) => Value::String(edit.value.to_string()),
        _ => Value::from(edit.value),
    };
    Some(())
}
