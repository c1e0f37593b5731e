//! A file that cannot be read or written: which one, where in it, what is wrong, what to do.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// What is wrong with a file; a person changes something, so time alone does not heal it.
#[derive(Debug)]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// The line, counted from 1, where there is one.
    pub line: Option<u64>,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
    source: Option<io::Error>,
}

impl FileError {
    /// An error in a whole file.
    pub fn new(path: &Path, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line: None, what: what.into(), remedy: remedy.into(), source: None }
    }

    /// The same, in this line.
    #[must_use]
    pub fn at(mut self, line: u64) -> Self {
        self.line = Some(line);
        self
    }

    pub(super) fn reading(path: &Path, source: io::Error) -> Self {
        let (what, remedy) = match source.kind() {
            io::ErrorKind::NotFound => ("there is no such file", "check the path"),
            io::ErrorKind::PermissionDenied => ("may not be read", "give this user the right to read it"),
            io::ErrorKind::UnexpectedEof => {
                ("is cut short: its compressed data ends too early", "copy or record it again")
            }
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
                ("is damaged: its compressed data does not add up", "copy or record it again")
            }
            _ => ("cannot be read", "see the cause"),
        };
        Self { source: Some(source), ..Self::new(path, what, remedy) }
    }

    pub(super) fn writing(path: &Path, source: io::Error) -> Self {
        let (what, remedy) = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => (
                "cannot be written: the disk is full",
                "free some space or choose another folder; nothing was left behind",
            ),
            io::ErrorKind::NotFound => ("cannot be written: its folder does not exist", "create the folder first"),
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                ("may not be written", "give this user the right to write to its folder")
            }
            _ => ("cannot be written", "see the cause"),
        };
        Self { source: Some(source), ..Self::new(path, what, remedy) }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.path.display())?;
        if let Some(line) = self.line {
            write!(out, ":{line}")?;
        }
        write!(out, ": {}; {}", self.what, self.remedy)
    }
}

impl std::error::Error for FileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

/// What is wrong in a piece of text, before anyone knows which file it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) what: String,
    pub(super) remedy: &'static str,
}

impl Wrong {
    pub(super) fn new(what: impl Into<String>, remedy: &'static str) -> Self {
        Self { what: what.into(), remedy }
    }

    pub(super) fn at(self, path: &Path, line: u64) -> FileError {
        FileError::new(path, self.what, self.remedy).at(line)
    }
}

/// Text from a file, short and harmless enough for a message.
pub(super) fn excerpt(text: &str) -> String {
    const LONGEST: usize = 60;
    let mut short: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if text.chars().nth(LONGEST).is_some() {
        short.push('…');
    }
    short
}
