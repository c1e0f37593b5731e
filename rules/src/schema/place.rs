//! Where a check stands, without a text until somebody asks.

use crate::field::FieldPath;
use std::fmt;

/// A place in a document, chained on the stack: a document that is fine costs no path text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    parent: Option<&'a Place<'a>>,
    step: Step<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    /// The document itself, or the item a check starts at.
    Root,
    /// A field, `.name`.
    Field(&'a str),
    /// An item of a list, `[0]`.
    Index(usize),
    /// A key of a map, as Kuma's own checks print it: `["kuma.io/service"]`.
    Key(&'a str),
}

impl<'a> Place<'a> {
    /// The document itself.
    pub(crate) const ROOT: Place<'static> = Place { parent: None, step: Step::Root };

    /// One field deeper.
    pub(crate) fn field(&'a self, name: &'a str) -> Place<'a> {
        Place { parent: Some(self), step: Step::Field(name) }
    }

    /// One item deeper.
    pub(crate) fn index(&'a self, index: usize) -> Place<'a> {
        Place { parent: Some(self), step: Step::Index(index) }
    }

    /// One map key deeper.
    pub(crate) fn key(&'a self, key: &'a str) -> Place<'a> {
        Place { parent: Some(self), step: Step::Key(key) }
    }

    /// The same place, as the rest of the crate passes places around.
    pub(crate) fn to_field_path(self) -> FieldPath {
        self.steps().into_iter().fold(FieldPath::root(), |path, step| match step {
            Step::Root => path,
            Step::Field(name) | Step::Key(name) => path.key(name.to_owned()),
            Step::Index(index) => path.index(index),
        })
    }

    fn steps(&self) -> Vec<Step<'a>> {
        let mut steps = vec![self.step];
        let mut parent = self.parent;
        while let Some(place) = parent {
            steps.push(place.step);
            parent = place.parent;
        }
        steps.reverse();
        steps
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for step in self.steps() {
            match step {
                Step::Root => continue,
                Step::Field(name) if first => f.write_str(name)?,
                Step::Field(name) => write!(f, ".{name}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) => write!(f, "[{}]", serde_json::Value::from(key))?,
            }
            first = false;
        }
        Ok(())
    }
}
