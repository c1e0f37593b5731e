//! A field path, as Kuma and Kubernetes write it: `spec.to[0].rules[0].default`.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

/// Where in a document something is.
///
/// Keys that are not plain words print in brackets, as Kuma prints map keys: `spec.conf["kuma.io/service"]`.
///
/// A path shares the steps of the one that it goes on from: the rules of a wide route have thousands of places, and
/// nearly all of them are never told.
#[derive(Clone, Default)]
pub struct FieldPath(Option<Arc<Step>>);

struct Step {
    parent: FieldPath,
    segment: Segment,
}

/// One step of a [`FieldPath`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Segment {
    /// A key of a mapping.
    Key(Cow<'static, str>),
    /// An item of a sequence, from 0.
    Index(usize),
}

impl FieldPath {
    /// The document itself.
    pub fn root() -> Self {
        Self::default()
    }

    /// The same path, one key deeper.
    #[must_use]
    pub fn key(&self, key: impl Into<Cow<'static, str>>) -> Self {
        self.then(Segment::Key(key.into()))
    }

    /// The same path, one item deeper.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.then(Segment::Index(index))
    }

    fn then(&self, segment: Segment) -> Self {
        Self(Some(Arc::new(Step { parent: self.clone(), segment })))
    }

    /// The path without its last step; `None` at the root.
    pub fn parent(&self) -> Option<Self> {
        self.0.as_ref().map(|step| step.parent.clone())
    }

    /// The steps from the root.
    pub fn segments(&self) -> Vec<&Segment> {
        let mut segments: Vec<_> = self.upwards().collect();
        segments.reverse();
        segments
    }

    /// The last step; `None` at the root.
    pub fn last(&self) -> Option<&Segment> {
        self.upwards().next()
    }

    /// The steps from the last one.
    fn upwards(&self) -> impl Iterator<Item = &Segment> {
        let steps = std::iter::successors(self.0.as_deref(), |step| step.parent.0.as_deref());
        steps.map(|step| &step.segment)
    }
}

impl Drop for FieldPath {
    /// One step after the other: a path that was read from a text may be long.
    fn drop(&mut self) {
        let mut last = self.0.take();
        while let Some(mut step) = last.and_then(Arc::into_inner) {
            last = step.parent.0.take();
        }
    }
}

impl PartialEq for FieldPath {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(ours), Some(theirs)) if Arc::ptr_eq(ours, theirs) => true,
            _ => self.upwards().eq(other.upwards()),
        }
    }
}

impl Eq for FieldPath {}

impl PartialOrd for FieldPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for FieldPath {
    fn cmp(&self, other: &Self) -> Ordering {
        self.segments().cmp(&other.segments())
    }
}

impl Hash for FieldPath {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.segments().hash(state);
    }
}

impl fmt::Debug for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FieldPath").field(&self.segments()).finish()
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, segment) in self.segments().into_iter().enumerate() {
            match segment {
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::Key(key) if is_plain(key) && position == 0 => f.write_str(key)?,
                Segment::Key(key) if is_plain(key) => write!(f, ".{key}")?,
                Segment::Key(key) => write!(f, "[{}]", serde_json::Value::from(&**key))?,
            }
        }
        Ok(())
    }
}

fn is_plain(key: &str) -> bool {
    !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

/// Why a text is no field path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no field path: {problem} at byte {at}; write it like `spec.to[0].default`")]
pub struct FieldPathError {
    text: String,
    at: usize,
    problem: &'static str,
}

impl FromStr for FieldPath {
    type Err = FieldPathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut path = Self::root();
        let mut at = 0;
        while at < text.len() {
            let fail = |problem| FieldPathError { text: text.to_owned(), at, problem };
            let rest = &text[at..];
            if let Some(inner) = rest.strip_prefix('[') {
                if inner.starts_with('"') {
                    let mut keys = serde_json::Deserializer::from_str(inner).into_iter::<String>();
                    let key = keys.next().and_then(Result::ok).ok_or_else(|| fail("a quoted key does not end"))?;
                    let used = keys.byte_offset();
                    if !inner[used..].starts_with(']') {
                        return Err(fail("`]` is missing"));
                    }
                    path = path.key(key);
                    at += 1 + used + 1;
                } else {
                    let end = inner.find(']').ok_or_else(|| fail("`]` is missing"))?;
                    let index = inner[..end].parse().map_err(|_| fail("an index is not a number"))?;
                    path = path.index(index);
                    at += end + 2;
                }
                continue;
            }
            let key = match rest.strip_prefix('.') {
                Some(key) if at > 0 => key,
                None if at == 0 => rest,
                _ => return Err(fail("`.` or `[` is expected")),
            };
            let length = key.find(['.', '[']).unwrap_or(key.len());
            if length == 0 {
                return Err(fail("a key is empty"));
            }
            path = path.key(key[..length].to_owned());
            at += rest.len() - key.len() + length;
        }
        Ok(path)
    }
}

impl serde::Serialize for FieldPath {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for FieldPath {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_and_reads_back() {
        let path = FieldPath::root().key("spec").key("to").index(0).key("kuma.io/service").key("weight");
        assert_eq!(path.to_string(), r#"spec.to[0]["kuma.io/service"].weight"#);
        assert_eq!(path.to_string().parse(), Ok(path));
        assert_eq!("".parse(), Ok(FieldPath::root()));
    }

    #[test]
    fn names_the_place_of_a_mistake() {
        for (text, at) in [("spec..to", 4), ("spec.to[x]", 7), ("spec.to[0", 7), (".spec", 0), ("a[\"b", 1)] {
            let error = text.parse::<FieldPath>().unwrap_err();
            assert_eq!(error.at, at, "{error}");
        }
    }
}
