//! Something a person should know: what, where, and what to do.

use crate::field::FieldPath;
use serde::Serialize;
use std::fmt;

/// How much a [`Diagnostic`] matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Works, and will surprise somebody.
    Warning,
    /// Does not do what it says.
    Error,
}

/// A finding about one field of one policy. It knows a field path and no line: a
/// [`Document`](crate::document::Document) turns the path into a place when a person reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Stable name, such as `weights-all-zero`; it keeps one meaning for good.
    pub id: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// Where it is.
    pub field: FieldPath,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl Diagnostic {
    /// A diagnostic of severity [`Severity::Error`].
    pub fn error(id: &'static str, field: FieldPath, message: impl Into<String>) -> Self {
        Self { id, severity: Severity::Error, field, message: message.into(), help: None }
    }

    /// A diagnostic of severity [`Severity::Warning`].
    pub fn warning(id: &'static str, field: FieldPath, message: impl Into<String>) -> Self {
        Self { id, severity: Severity::Warning, field, message: message.into(), help: None }
    }

    /// The same, with a remedy.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for Diagnostic {
    /// One line: `error[weights-all-zero] spec.to[0].rules[0].default.backendRefs: every weight is 0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(f, "{severity}[{}] {}: {}", self.id, self.field, self.message)?;
        match &self.help {
            Some(help) => write!(f, "; {help}"),
            None => Ok(()),
        }
    }
}
