//! A YAML file as written: its text, its values, where each field sits, and minimal edits.
//!
//! [`File::parse`] takes bytes of unknown origin. It reads them as events first, so that what a text would expand to is
//! bounded before anything is built from it, and the values and the places come from that one reading: they cannot
//! disagree. [`File::edit`] replaces or inserts single weights and leaves every other byte alone.
//!
//! A file may hold several documents. An empty one (nothing between two `---`, only comments, `null`) is none: indexes
//! count the documents that say something.

mod edit;
mod node;
mod problem;
mod read;
mod scalar;

pub use edit::{Edit, EditError};
pub use node::Place;
pub use problem::Problem;

use crate::field::FieldPath;
use node::Tree;
use serde_json::Value;

/// The largest file that is read, in bytes.
pub const MAX_SIZE: usize = 1024 * 1024;
/// The deepest nesting of mappings and sequences, aliases followed.
pub const MAX_DEPTH: usize = 64;
/// The most aliases in one file.
pub const MAX_ALIASES: usize = 100;
/// The most nodes in one file, aliases expanded. A scalar counts as one node for each 32 bytes begun, which bounds what
/// the text of scalars may expand to as well.
pub const MAX_NODES: usize = 250_000;

/// A YAML file as written: its text and the documents in it.
#[derive(Debug, Clone)]
pub struct File {
    path: String,
    text: String,
    documents: Vec<Document>,
}

impl File {
    /// Reads a file; `path` is only its name in messages.
    ///
    /// # Errors
    ///
    /// Every mistake that was found, in the order of the text. A broken bound or an encoding error ends the reading; a
    /// syntax error ends the reading of its document.
    pub fn parse(path: &str, bytes: &[u8]) -> Result<Self, Vec<Problem>> {
        let text = read::text(path, bytes).map_err(|problem| vec![problem])?;
        let documents = read::documents(path, text)?;
        Ok(Self { path: path.to_owned(), text: text.to_owned(), documents })
    }

    /// The name of the file in messages.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The text, byte for byte.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The documents that say something, in the order of the text.
    pub fn documents(&self) -> &[Document] {
        &self.documents
    }

    /// The text with new values at some fields of one document, every other byte as it was.
    ///
    /// A plain integer is replaced by a plain integer, a quoted one keeps its quotes: what type a value has is not this
    /// edit's business. Where the field is absent and its mapping is there, or where its value is null, the value is
    /// added.
    ///
    /// # Errors
    ///
    /// An edit is refused when other places would change with it (aliases, merge keys), when there is no integer to
    /// replace, and when the result, read again by two independent readers, is not the old document with exactly the
    /// new values.
    pub fn edit(&self, document: usize, edits: &[Edit]) -> Result<String, EditError> {
        edit::apply(self, document, edits)
    }
}

/// One document of a [`File`].
#[derive(Debug, Clone)]
pub struct Document {
    index: usize,
    tree: Tree,
    value: Value,
    warnings: Vec<Problem>,
}

impl Document {
    /// Which of the file's documents this is, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// What the document says, with aliases and merge keys followed: a typed parse starts here.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// Where the value of a field is written; behind an alias or a merge key, that is where the anchor is.
    pub fn locate(&self, field: &FieldPath) -> Option<Place> {
        self.tree.find(field).map(|found| self.tree.place(found.node))
    }

    /// Scalars that YAML 1.1 and YAML 1.2 read differently, each with its place and remedy.
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }
}

#[cfg(test)]
mod tests;
