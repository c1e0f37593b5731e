//! From bytes to documents: bounds, then positions, then values.

use super::node::{Id, Kind, Node, Place, Tree};
use super::scalar::{self, Style};
use super::{Document, MAX_ALIASES, MAX_DEPTH, MAX_NODES, MAX_SIZE, Problem};
use granit_parser::{ErrorKind, Event, Marker, Parser, ScalarStyle, ScanError, Span, StructureStyle, Tag, YamlVersion};
use serde_json::Value;
use std::collections::BTreeMap;

/// The most problems that are collected, and the most warnings; a hostile file has more than anyone reads.
const MAX_PROBLEMS: usize = 100;

/// The bytes as text, when they are text and not too many.
pub(super) fn text<'a>(path: &str, bytes: &'a [u8]) -> Result<&'a str, Problem> {
    let problem = |before: &[u8], message: String, help: &str| {
        let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        Problem {
            path: path.to_owned(),
            line: 1 + before.iter().filter(|byte| **byte == b'\n').count(),
            column: 1 + String::from_utf8_lossy(&before[line_start..]).chars().count(),
            message,
            help: Some(help.to_owned()),
        }
    };
    if bytes.len() > MAX_SIZE {
        let message = format!("the file has {} bytes, and {MAX_SIZE} is the most", bytes.len());
        return Err(problem(&[], message, "split it into several files"));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        problem(&bytes[..at], format!("byte {at} is not UTF-8"), "save the file as UTF-8")
    })?;
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        return Err(problem(&bytes[..at], format!("byte {at} is NUL"), "remove it"));
    }
    if let Some(at) = text.match_indices('\r').find_map(|(at, _)| (!text[at..].starts_with("\r\n")).then_some(at)) {
        let message = format!("byte {at} is a carriage return without a line feed");
        return Err(problem(&bytes[..at], message, "end lines with LF or CRLF"));
    }
    // One reader ends the line, and with it a comment, where the other reads on.
    if let Some((at, c)) = text.char_indices().find(|(_, c)| matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}')) {
        let message = format!("U+{:04X} ends a line in YAML 1.1 and does not in YAML 1.2", u32::from(c));
        return Err(problem(&bytes[..at], message, "remove it, or write it as an escape in double quotes"));
    }
    // To some readers it begins a scalar, to others it is nothing.
    if let Some((at, _)) = text.match_indices('\u{feff}').find(|(at, _)| *at > 0) {
        let message = format!("byte {at} is a byte order mark, which may only begin a file");
        return Err(problem(&bytes[..at], message, "remove it"));
    }
    Ok(text)
}

/// The documents of a text.
pub(super) fn documents(path: &str, text: &str) -> Result<Vec<Document>, Vec<Problem>> {
    let mut reader = Reader {
        path,
        text,
        documents: Vec::new(),
        problems: Vec::new(),
        warnings: Vec::new(),
        tree: Tree::default(),
        open: Vec::new(),
        anchors: BTreeMap::new(),
        aliases: 0,
        nodes: 0,
        between: 0,
    };
    reader.read();
    if reader.problems.is_empty() {
        return Ok(reader.documents);
    }
    // What is wrong with a collection is known at its end, after what is wrong inside.
    reader.problems.sort_by_key(|problem| (problem.line, problem.column));
    Err(reader.problems)
}

struct Reader<'a> {
    path: &'a str,
    text: &'a str,
    documents: Vec<Document>,
    problems: Vec<Problem>,
    /// Of the document that is being read, as are `tree`, `open` and `anchors`.
    warnings: Vec<Problem>,
    tree: Tree,
    open: Vec<Open>,
    anchors: BTreeMap<usize, Anchor>,
    /// Of the whole file, as is `nodes`.
    aliases: usize,
    nodes: usize,
    /// Where the last document ended: from here to the next, only comments and directives can stand.
    between: usize,
}

/// A collection that has begun and not ended.
struct Open {
    id: Id,
    anchor: usize,
    /// The key that waits for its value.
    key: Option<Id>,
    size: Size,
}

/// What a node weighs, aliases expanded.
#[derive(Clone, Copy, Default)]
struct Size {
    depth: usize,
    nodes: usize,
}

struct Anchor {
    id: Id,
    /// `None` until the node has ended.
    size: Option<Size>,
}

/// A problem has been noted that leaves nothing to go on with.
struct Stop;

impl Reader<'_> {
    fn read(&mut self) {
        let mut options = granit_parser::options! {
            // Both as the readers of the libyaml family do, Kubernetes' among them.
            block_scalar_eof_without_line_feed: true,
            emit_unresolved_aliases: true,
        };
        options.set_emit_comments(false);
        let mut parser = Parser::new_from_str_with_options(self.text, options);
        while let Some(event) = parser.next() {
            match event {
                Ok((event, span)) => {
                    if self.event(event, span).is_err() {
                        return;
                    }
                }
                Err(error) => {
                    let bound = matches!(error.kind(), ErrorKind::RecursionLimitExceeded);
                    self.syntax(&error);
                    self.begin();
                    if bound || self.problems.len() >= MAX_PROBLEMS || !parser.proceed_next_document().unwrap_or(false)
                    {
                        return;
                    }
                }
            }
        }
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Stop> {
        match event {
            Event::DocumentStart(_, version) => {
                self.begin();
                self.directives(span, version)
            }
            Event::DocumentEnd => {
                self.end(span);
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => self.scalar(&text, style, anchor, tag.as_deref(), span),
            Event::SequenceStart(_, anchor, tag) => {
                self.tag(tag.as_deref(), "seq", span)?;
                self.start(Kind::Sequence(Vec::new()), anchor, span)
            }
            Event::MappingStart(style, anchor, tag) => {
                self.tag(tag.as_deref(), "map", span)?;
                let indent = (style == StructureStyle::Block).then_some(span.start.col());
                self.start(Kind::Mapping { entries: Vec::new(), indent }, anchor, span)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(span),
            Event::Alias(anchor) => self.alias(anchor, span),
            Event::UnresolvedAlias(name) => {
                let message = format!("`*{name}` stands for nothing: there is no anchor `&{name}` before it");
                self.problem(span.start, message, None)?;
                self.scalar("", ScalarStyle::Plain, 0, None, span)
            }
            _ => Ok(()),
        }
    }

    fn begin(&mut self) {
        self.tree = Tree::default();
        self.open.clear();
        self.anchors.clear();
        self.warnings.clear();
    }

    fn end(&mut self, span: Span) {
        self.between = bytes(span).end;
        let tree = std::mem::take(&mut self.tree);
        let warnings = std::mem::take(&mut self.warnings);
        // Values of a file with problems are never seen, and its merge keys may not be sound.
        if tree.nodes.is_empty() || !self.problems.is_empty() {
            return;
        }
        let value = tree.value(Tree::ROOT);
        if value.is_null() {
            return;
        }
        self.documents.push(Document { index: self.documents.len(), tree, value, warnings });
    }

    fn directives(&mut self, span: Span, version: Option<YamlVersion>) -> Result<(), Stop> {
        let between = self.text.get(self.between..bytes(span).start).unwrap_or_default();
        let allowed = YamlVersion::new(1, 2);
        let mut seen = 0;
        for (line, text) in between.trim_start_matches('\u{feff}').split_inclusive('\n').enumerate() {
            if !text.starts_with('%') {
                continue;
            }
            let name = text.split_whitespace().next().unwrap_or_default();
            seen += 1;
            if name == "%YAML" && version == Some(allowed) && seen == 1 {
                continue;
            }
            let first = self.text[..self.between].matches('\n').count() + 1;
            let message = format!("the directive `{}` is not supported", text.trim());
            let help = "remove it; only `%YAML 1.2` may stand here";
            self.problem(Marker::new(0, first + line, 0), message, Some(help))?;
        }
        Ok(())
    }

    fn scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<&Tag>,
        span: Span,
    ) -> Result<(), Stop> {
        let style = match style {
            ScalarStyle::Plain => Style::Plain,
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => Style::Quoted,
            ScalarStyle::Literal | ScalarStyle::Folded => Style::Block,
        };
        // A value that is not there is reported as `~`.
        let text = if style == Style::Plain && bytes(span).is_empty() { "" } else { text };
        let typed = match tag.map(|tag| (tag.handle(), tag.suffix())) {
            None if style == Style::Plain => {
                self.ambiguity(text, span);
                scalar::resolve(text)
            }
            None | Some((CORE, "str")) => Ok(None),
            Some((CORE, "null" | "bool" | "int" | "float")) => {
                let mistake = "the value does not fit its tag";
                scalar::resolve(text).and_then(|value| value.map(Some).ok_or(mistake))
            }
            Some(_) => {
                self.tag(tag, "", span)?;
                Ok(None)
            }
        };
        let typed = match typed {
            Ok(typed) => typed,
            Err(message) => {
                self.problem(span.start, format!("`{}`: {message}", excerpt(text)), Some("quote it if it is text"))?;
                None
            }
        };
        let nodes = 1 + text.len() / 32;
        self.count(nodes, span)?;
        let kind = Kind::Scalar { text: text.to_owned(), style, typed };
        let id = self.node(kind, anchor, span);
        if style == Style::Block {
            // The parser has looked at the blanks of the next line already.
            let written = &mut self.tree.nodes[id].place.span;
            let ended = self.text[written.clone()].trim_end_matches(' ');
            if ended.ends_with('\n') {
                written.end = written.start + ended.len();
            }
        }
        self.attach(id, anchor, Size { depth: 0, nodes }, span)
    }

    fn ambiguity(&mut self, text: &str, span: Span) {
        if self.warnings.len() >= MAX_PROBLEMS {
            return;
        }
        if let Some(found) = scalar::ambiguity(text) {
            let message = format!("YAML 1.1 reads `{text}` as {}, YAML 1.2 as {}", found.older, found.newer);
            let warning = self.describe(span.start, message, Some(found.remedy));
            self.warnings.push(warning);
        }
    }

    /// Refuses every tag but the one YAML itself gives to such a collection.
    fn tag(&mut self, tag: Option<&Tag>, own: &str, span: Span) -> Result<(), Stop> {
        let Some(tag) = tag else { return Ok(()) };
        if (tag.handle(), tag.suffix()) == (CORE, own) {
            return Ok(());
        }
        let at = span.tag_start().unwrap_or(span.start);
        let written = span.tag_span().and_then(|span| span.slice(self.text)).unwrap_or("!");
        let message = format!("the tag `{}` is not supported", excerpt(written));
        self.problem(at, message, Some("remove it; a policy needs no tags"))
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<(), Stop> {
        self.aliases += 1;
        if self.aliases > MAX_ALIASES {
            let message = format!("more than {MAX_ALIASES} aliases in one file");
            return self.stop(span.start, message, "write the values out");
        }
        let known = self.anchors.get(&anchor).and_then(|known| Some((known.id, known.size?)));
        let Some((target, size)) = known else {
            return self.stop(span.start, "an alias stands inside its own anchor".to_owned(), "write the value out");
        };
        if self.open.len() + size.depth > MAX_DEPTH {
            return self.too_deep(span.start);
        }
        self.count(size.nodes, span)?;
        if let Some(users) = &mut self.tree.nodes[target].users {
            *users += 1;
        }
        let id = self.node(Kind::Alias(target), 0, span);
        self.attach(id, 0, size, span)
    }

    fn start(&mut self, kind: Kind, anchor: usize, span: Span) -> Result<(), Stop> {
        if self.open.len() >= MAX_DEPTH {
            return self.too_deep(span.start);
        }
        self.count(1, span)?;
        let id = self.node(kind, anchor, span);
        self.open.push(Open { id, anchor, key: None, size: Size { depth: 1, nodes: 1 } });
        Ok(())
    }

    fn close(&mut self, span: Span) -> Result<(), Stop> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        let end = match self.tree.nodes[open.id].kind {
            // The parser ends a block collection where the next thing begins.
            Kind::Mapping { indent: Some(_), .. } => self.content_end(open.id),
            Kind::Sequence(_) if bytes(span).is_empty() => self.content_end(open.id),
            _ => bytes(span).end,
        };
        let place = &mut self.tree.nodes[open.id].place;
        place.span.end = end.max(place.span.start);
        self.duplicates(open.id)?;
        self.attach(open.id, open.anchor, open.size, span)
    }

    /// Where the last child of a block collection ends.
    fn content_end(&self, id: Id) -> usize {
        let last = match &self.tree.nodes[id].kind {
            Kind::Sequence(items) => items.last().map(|item| (*item, *item)),
            Kind::Mapping { entries, .. } => entries.last().copied(),
            _ => None,
        };
        let end = |id: Id| self.tree.nodes[id].place.span.end;
        last.map_or(0, |(key, value)| end(key).max(end(value)))
    }

    fn duplicates(&mut self, id: Id) -> Result<(), Stop> {
        let Kind::Mapping { entries, .. } = &self.tree.nodes[id].kind else { return Ok(()) };
        let mut seen: BTreeMap<&str, &Place> = BTreeMap::new();
        let mut found = Vec::new();
        for (key, value) in entries {
            let node = &self.tree.nodes[*key];
            if matches!(node.kind, Kind::Scalar { typed: Some(Value::Null), .. }) {
                found.push((node.place.clone(), "a key is null".to_owned(), "name it, or quote it if it is text"));
            }
            if !matches!(node.kind, Kind::Scalar { .. }) {
                let help = "write the key out; if this is a template, render it first";
                found.push((node.place.clone(), "a key is a collection or an alias".to_owned(), help));
                continue;
            }
            let text = self.tree.text(*key);
            if self.tree.is_merge(*key) && !self.tree.can_merge(*value) {
                let help = "give it an alias of a mapping";
                found.push((node.place.clone(), "`<<` merges something that is no mapping".to_owned(), help));
            }
            match seen.get(text) {
                Some(first) => {
                    let text = excerpt(text);
                    let message = format!("duplicate key `{text}`, first at {}:{}", first.line, first.column);
                    found.push((node.place.clone(), message, "remove one of the two"));
                }
                None => {
                    seen.insert(text, &node.place);
                }
            }
        }
        for (place, message, help) in found {
            self.problem(Marker::new(0, place.line, place.column - 1), message, Some(help))?;
        }
        Ok(())
    }

    fn node(&mut self, kind: Kind, anchor: usize, span: Span) -> Id {
        let id = self.tree.nodes.len();
        let place = Place { line: span.start.line(), column: span.start.col() + 1, span: bytes(span) };
        let is_anchored = anchor != 0;
        self.tree.nodes.push(Node { place, users: is_anchored.then_some(0), kind });
        if is_anchored {
            self.anchors.insert(anchor, Anchor { id, size: None });
        }
        id
    }

    /// Hands a finished node to the collection it is in.
    fn attach(&mut self, id: Id, anchor: usize, size: Size, span: Span) -> Result<(), Stop> {
        if let Some(known) = self.anchors.get_mut(&anchor) {
            known.size = Some(size);
        }
        let Some(open) = self.open.last_mut() else { return Ok(()) };
        open.size.depth = open.size.depth.max(size.depth + 1);
        open.size.nodes = open.size.nodes.saturating_add(size.nodes);
        match (&mut self.tree.nodes[open.id].kind, open.key.take()) {
            (Kind::Sequence(items), _) => items.push(id),
            (Kind::Mapping { entries, .. }, Some(key)) => entries.push((key, id)),
            (Kind::Mapping { indent, .. }, None) => {
                // With an anchor before the key, the key alone does not stand where its siblings do.
                if let (Some(indent), Some(column)) = (indent, span.indent) {
                    *indent = column;
                }
                open.key = Some(id);
            }
            _ => {}
        }
        Ok(())
    }

    fn count(&mut self, nodes: usize, span: Span) -> Result<(), Stop> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes <= MAX_NODES {
            return Ok(());
        }
        let message = format!("more than {MAX_NODES} nodes in one file, aliases expanded");
        self.stop(span.start, message, "write less, or split the file")
    }

    fn too_deep(&mut self, at: Marker) -> Result<(), Stop> {
        let message = format!("mappings and sequences are nested more than {MAX_DEPTH} deep");
        self.stop(at, message, "nest less")
    }

    fn syntax(&mut self, error: &ScanError) {
        let at = *error.marker();
        if matches!(error.kind(), ErrorKind::RecursionLimitExceeded) {
            let _ = self.too_deep(at);
            return;
        }
        let template = self.text.contains("{{");
        let help = template.then_some("this looks like a template: render it first");
        let _ = self.problem(at, format!("not YAML: {}", error.info()), help);
    }

    /// Notes a problem that ends the reading.
    fn stop(&mut self, at: Marker, message: String, help: &str) -> Result<(), Stop> {
        self.problem(at, message, Some(help))?;
        Err(Stop)
    }

    /// Notes a problem that others may follow.
    fn problem(&mut self, at: Marker, message: String, help: Option<&str>) -> Result<(), Stop> {
        let problem = self.describe(at, message, help);
        self.problems.push(problem);
        if self.problems.len() < MAX_PROBLEMS { Ok(()) } else { Err(Stop) }
    }

    fn describe(&self, at: Marker, message: String, help: Option<&str>) -> Problem {
        Problem {
            path: self.path.to_owned(),
            line: at.line(),
            column: at.col() + 1,
            message,
            help: help.map(str::to_owned),
        }
    }
}

const CORE: &str = "tag:yaml.org,2002:";

fn bytes(span: Span) -> std::ops::Range<usize> {
    // A parser over a `&str` knows byte offsets for every event.
    span.byte_range().unwrap_or_default()
}

/// The beginning of a text that may be long.
fn excerpt(text: &str) -> String {
    let mut short: String = text.chars().take(60).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
