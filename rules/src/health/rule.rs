//! A rule, what it looks at and what it answers.

use super::object::Object;
use super::reference::{self, Backend};
use super::{Finding, Known, Severity, State};
use crate::field::FieldPath;
use crate::split::Change;
use crate::validate::{Kuma, Version};
use std::borrow::Cow;
use std::fmt;

/// One rule.
pub struct Rule {
    /// Its stable id, such as `KMH-T05`.
    pub id: &'static str,
    /// What it sees, in words that can stand behind "allow": `backends-serve-nobody`.
    pub name: &'static str,
    /// How much its gravest finding matters.
    pub severity: Severity,
    /// The kinds it looks at.
    pub kinds: &'static [&'static str],
    /// What is wrong when it fires, in one sentence.
    pub summary: &'static str,
    /// The page about it: what it sees, why it matters, what to do, when it stays quiet.
    pub explanation: &'static str,
    pub(in crate::health) check: Check,
}

/// How a rule looks.
#[derive(Clone, Copy)]
pub(in crate::health) enum Check {
    /// At the object and at what is known of others. What the positive weights of a route are must not matter to it, as
    /// long as they fit 32 bits together: see [`Shape`](crate::split::Shape).
    Object(fn(&Look<'_>, &mut Answer)),
    /// At what a write changes. Where that is not known, it does not apply.
    Change(fn(&Change, &mut Answer)),
}

impl Rule {
    /// A finding of this rule.
    pub(super) fn at(&self, field: FieldPath, message: impl Into<String>) -> Finding {
        Finding { id: self.id, severity: self.severity, field, message: message.into(), help: String::new() }
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.id, self.name)
    }
}

/// What a rule looks at.
pub(super) struct Look<'a> {
    pub(super) object: Object<'a>,
    pub(super) known: &'a Known,
    pub(super) kuma: &'a Kuma,
    /// Of a route, where its backends lead.
    pub(super) backends: Vec<Backend<'a>>,
}

impl<'a> Look<'a> {
    pub(super) fn new(object: Object<'a>, known: &'a Known, kuma: &'a Kuma) -> Self {
        let mut look = Self { object, known, kuma, backends: Vec::new() };
        look.backends = reference::backends(&look);
        look
    }

    /// The field of the spec that is written like `to[0].rules[1]`; only for findings, it is parsed.
    pub(super) fn field(&self, path: fmt::Arguments<'_>) -> FieldPath {
        let path = path.to_string();
        let prefix = match (self.object.flat, path.is_empty()) {
            (true, _) => "",
            (false, true) => "spec",
            (false, false) => "spec.",
        };
        format!("{prefix}{path}").parse().unwrap_or_default()
    }

    pub(super) fn is_3_0(&self) -> bool {
        self.kuma.version == Version::V3_0
    }
}

/// What the rules answer.
#[derive(Default)]
pub(super) struct Answer {
    pub(super) findings: Vec<Finding>,
    /// Where this rule's findings begin.
    from: usize,
    unknown: bool,
    not_applicable: bool,
}

/// A rule says the same thing about one document no more often than this: an endless list helps nobody, and admission
/// keeps it in memory.
const MOST_FINDINGS: usize = 50;

impl Answer {
    /// An answer that has these findings already.
    pub(super) fn after(findings: Vec<Finding>) -> Self {
        Self { findings, ..Self::default() }
    }

    /// What one rule says.
    pub(super) fn ask(&mut self, check: impl FnOnce(&mut Self)) -> State {
        (self.from, self.unknown, self.not_applicable) = (self.findings.len(), false, false);
        check(self);
        let worst = self.findings[self.from..].iter().map(|finding| finding.severity).max();
        match worst {
            Some(severity) => State::Fail(severity),
            None if self.not_applicable => State::NotApplicable,
            None if self.unknown => State::Unknown,
            None => State::Pass,
        }
    }

    /// The rule found something.
    pub(super) fn found(&mut self, finding: Finding) {
        if self.findings.len() - self.from < MOST_FINDINGS {
            self.findings.push(finding);
        }
    }

    /// Is there no room for more findings of this rule?
    pub(super) fn is_full(&self) -> bool {
        self.findings.len() - self.from >= MOST_FINDINGS
    }

    /// What the rule needs is not known.
    pub(super) fn cannot_tell(&mut self) {
        self.unknown = true;
    }

    /// There is nothing here for the rule to judge.
    pub(super) fn not_applicable(&mut self) {
        self.not_applicable = true;
    }
}

/// A text of the document for a message, in backticks and cut after 100 characters.
pub(super) fn quoted(text: &str) -> String {
    let shown: Cow<'_, str> = match text.char_indices().nth(100) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    };
    format!("`{shown}`")
}
