//! Who answers, and how much of it.

use super::ServiceKey;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cmp::Ordering;
use std::fmt;
use std::slice;
use std::sync::Arc;

/// The share of each service that serves a rule, in percent, in the order of the services. Services without weight are
/// left out; where all weights are 0 nobody answers.
///
/// Rules, records and sights hand the same few shares on, hence they are shared.
#[derive(Clone, Default)]
pub struct Shares(Arc<[(ServiceKey, f64)]>);

impl Shares {
    /// The share of a service; none where it does not answer.
    pub fn get(&self, service: &ServiceKey) -> Option<f64> {
        let at = self.0.binary_search_by(|(known, _)| known.cmp(service)).ok()?;
        Some(self.0[at].1)
    }

    /// The share of a service; 0 where it does not answer.
    pub fn of(&self, service: &ServiceKey) -> f64 {
        self.get(service).unwrap_or(0.0)
    }

    /// Does it answer?
    pub fn contains(&self, service: &ServiceKey) -> bool {
        self.get(service).is_some()
    }

    /// Does nobody answer?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many services answer.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The services and their shares.
    pub fn iter(&self) -> Iter<'_> {
        Iter(self.0.iter())
    }

    /// The services.
    pub fn services(&self) -> impl Iterator<Item = &ServiceKey> {
        self.iter().map(|(service, _)| service)
    }

    /// The services that answer in either of the two, each with both shares.
    pub fn beside<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = (&'a ServiceKey, f64, f64)> {
        let (mut ours, mut theirs) = (self.iter().peekable(), other.iter().peekable());
        std::iter::from_fn(move || {
            let order = match (ours.peek(), theirs.peek()) {
                (Some((our, _)), Some((their, _))) => our.cmp(their),
                (Some(_), None) => Ordering::Less,
                (None, _) => Ordering::Greater,
            };
            let our = if order.is_le() { ours.next() } else { None };
            let their = if order.is_ge() { theirs.next() } else { None };
            let share = |side: Option<(_, f64)>| side.map_or(0.0, |(_, share)| share);
            Some((our.or(their)?.0, share(our), share(their)))
        })
    }

    /// The same, with what `renamed` says of each service; shares of services that become one add up.
    #[must_use]
    pub fn renamed(&self, renamed: impl Fn(&ServiceKey) -> ServiceKey) -> Self {
        self.iter().map(|(service, share)| (renamed(service), share)).collect()
    }
}

/// Goes over [`Shares`].
#[derive(Debug, Clone)]
pub struct Iter<'a>(slice::Iter<'a, (ServiceKey, f64)>);

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a ServiceKey, f64);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(service, share)| (service, *share))
    }
}

impl<'a> IntoIterator for &'a Shares {
    type Item = (&'a ServiceKey, f64);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// What is said of a service more than once adds up.
impl FromIterator<(ServiceKey, f64)> for Shares {
    fn from_iter<I: IntoIterator<Item = (ServiceKey, f64)>>(shares: I) -> Self {
        let mut all: Vec<_> = shares.into_iter().collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all.dedup_by(|next, kept| {
            let is_same = next.0 == kept.0;
            kept.1 += if is_same { next.1 } else { 0.0 };
            is_same
        });
        Self(all.into())
    }
}

impl<const N: usize> From<[(ServiceKey, f64); N]> for Shares {
    fn from(shares: [(ServiceKey, f64); N]) -> Self {
        shares.into_iter().collect()
    }
}

impl PartialEq for Shares {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl fmt::Debug for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

impl Serialize for Shares {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self)
    }
}

impl<'de> Deserialize<'de> for Shares {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Read)
    }
}

struct Read;

impl<'de> Visitor<'de> for Read {
    type Value = Shares;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("services and their shares in percent")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Shares, A::Error> {
        let mut shares = Vec::new();
        while let Some(entry) = map.next_entry::<ServiceKey, f64>()? {
            shares.push(entry);
        }
        Ok(shares.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn are_in_order_and_add_up() {
        let shares = Shares::from([("b".into(), 60.0), ("a".into(), 30.0), ("b".into(), 10.0)]);
        let text = serde_json::to_string(&shares).unwrap();
        assert_eq!(text, r#"{"a":30.0,"b":70.0}"#);
        assert_eq!(serde_json::from_str::<Shares>(&text).unwrap(), shares);
        assert_eq!(
            (shares.get(&"b".into()), shares.of(&"c".into()), shares.contains(&"a".into())),
            (Some(70.0), 0.0, true)
        );
        assert_eq!(shares.renamed(|_| "c".into()), Shares::from([("c".into(), 100.0)]));
        let other = Shares::from([("b".into(), 1.0), ("c".into(), 99.0)]);
        let (a, b, c) = ("a".into(), "b".into(), "c".into());
        assert!(shares.beside(&other).eq([(&a, 30.0, 0.0), (&b, 70.0, 1.0), (&c, 0.0, 99.0)]));
        assert!(Shares::default().is_empty() && Shares::default().beside(&Shares::default()).next().is_none());
    }
}
