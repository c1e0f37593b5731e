//! One YAML document with the place of each value, as plain as a configuration needs it.
//!
//! Deliberately absent: anchors, aliases, tags and merge keys. A configuration that says one thing in one place needs
//! none of them, and without them text cannot grow while it is read.

use granit_parser::{Event, Parser, ScalarStyle, Span};

use super::Mistake;

const DEPTH_LIMIT: usize = 32;

/// Line and column, from 1.
pub(super) type Place = (usize, usize);

/// A value and where it starts.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) at: Place,
    pub(super) value: Value,
}

#[derive(Debug)]
pub(super) enum Value {
    Scalar { text: String, plain: bool },
    List(Vec<Node>),
    Table(Vec<(Key, Node)>),
}

/// A key and where it starts.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) at: Place,
    pub(super) text: String,
}

/// Reads the one document of a text.
pub(super) fn parse(text: &str) -> Result<Node, Mistake> {
    let mut open: Vec<Open> = Vec::new();
    let mut root = None;
    let mut documents = 0;
    for next in Parser::new_from_str(text) {
        let (event, span) = next.map_err(|error| {
            let marker = error.marker();
            mistake((marker.line(), marker.col() + 1), format!("this is not YAML: {}", error.info()))
        })?;
        let at = place(&span);
        refuse(&event, at)?;
        let done = match event {
            Event::DocumentStart(..) => {
                documents += 1;
                if documents > 1 {
                    return Err(mistake(at, "a second document starts here: keep one"));
                }
                continue;
            }
            Event::Scalar(text, style, ..) => {
                Node { at, value: Value::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain } }
            }
            Event::SequenceStart(..) => {
                open.push(Open::List(at, Vec::new()));
                if open.len() > DEPTH_LIMIT {
                    return Err(mistake(at, format!("this is nested deeper than {DEPTH_LIMIT} levels")));
                }
                continue;
            }
            Event::MappingStart(..) => {
                open.push(Open::Table(at, Vec::new(), None));
                if open.len() > DEPTH_LIMIT {
                    return Err(mistake(at, format!("this is nested deeper than {DEPTH_LIMIT} levels")));
                }
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::List(at, items)) => Node { at, value: Value::List(items) },
                Some(Open::Table(at, entries, _)) => Node { at, value: Value::Table(entries) },
                None => continue,
            },
            _ => continue,
        };
        match open.last_mut() {
            None => root = Some(done),
            Some(Open::List(_, items)) => items.push(done),
            Some(Open::Table(_, entries, key)) => match (key.take(), done) {
                (Some(key), node) => entries.push((key, node)),
                (None, Node { at, value: Value::Scalar { text, .. } }) => *key = Some(Key { at, text }),
                (None, node) => return Err(mistake(node.at, "a key has to be plain text")),
            },
        }
    }
    root.ok_or_else(|| mistake((1, 1), "the file is empty"))
}

/// A list or table whose end has not come yet; a table with the key that waits for its value.
enum Open {
    List(Place, Vec<Node>),
    Table(Place, Vec<(Key, Node)>, Option<Key>),
}

fn refuse(event: &Event<'_>, at: Place) -> Result<(), Mistake> {
    if event.is_alias() || event.anchor_id().is_some() {
        return Err(mistake(at, "anchors and aliases are not read here: write the value out"));
    }
    if event.tag().is_some() {
        return Err(mistake(at, "tags are not read here: write the value without"));
    }
    Ok(())
}

fn place(span: &Span) -> Place {
    (span.start.line(), span.start.col() + 1)
}

fn mistake(at: Place, message: impl Into<String>) -> Mistake {
    Mistake { place: Some(at), message: message.into() }
}
