//! A spec without its weights. Steps of a canary differ in nothing else, so that what does not depend on weights need
//! not be worked out again at each of them.

use super::{Backend, Split};
use memchr::memmem;
use std::fmt::Write as _;
use std::sync::LazyLock;

/// A spec in which every positive weight is replaced by its number: the first one written is 1, the second 2.
///
/// A weight of 0 stays: whether a backend gets traffic at all does matter. As long as they are positive and add up to no
/// more than [`MOST`], neither Kuma's answer nor the health of a route depends on what its weights are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    spec: String,
    weights: Vec<u32>,
}

/// The most that the weights of a shape add up to: what every schema and Envoy take.
const MOST: u32 = i32::MAX as u32;
const KEY: &str = "\"weight\"";
static FINDER: LazyLock<memmem::Finder> = LazyLock::new(|| memmem::Finder::new(KEY));
/// The most weights, so that their numbers add up to no more than [`MOST`] either.
const MOST_WEIGHTS: usize = 65_000;

impl Shape {
    /// The shape of a spec, as compact JSON: as the API server writes it. None where no positive weight is written in it,
    /// or where a weight may be written that is not replaced: it would pass for a number.
    pub fn of(spec: &str) -> Option<Self> {
        let (mut text, mut weights, mut from, mut sum) = (String::new(), Vec::new(), 0, 0_u32);
        for at in FINDER.find_iter(spec.as_bytes()) {
            let start = at + KEY.len() + 1;
            // Anything else before it is part of a longer text.
            let is_key = at > 0 && matches!(spec.as_bytes()[at - 1], b'{' | b',');
            let value = spec[at + KEY.len()..].strip_prefix(':').filter(|_| is_key)?;
            let weight = whole(value)?;
            if weight == "0" {
                continue;
            }
            sum = sum.checked_add(weight.parse().ok()?).filter(|sum| *sum <= MOST)?;
            weights.push(weight.parse().ok()?);
            if text.is_empty() {
                text.reserve(spec.len() + 16);
            }
            text += &spec[from..start];
            let _ = write!(text, "{}", weights.len());
            from = start + weight.len();
        }
        // A key may be spelt with escapes.
        let mut escapes = memchr::memchr_iter(b'\\', spec.as_bytes());
        let is_escaped = |at: usize| spec.as_bytes().get(at + 1) == Some(&b'u');
        if weights.is_empty() || weights.len() > MOST_WEIGHTS || escapes.any(is_escaped) {
            return None;
        }
        text += &spec[from..];
        Some(Self { spec: text, weights })
    }

    /// The spec with numbers for weights.
    pub fn spec(&self) -> &str {
        &self.spec
    }

    /// The weights, in the order of their numbers.
    pub fn weights(&self) -> &[u32] {
        &self.weights
    }

    /// The splits of the spec, from those of [`Shape::spec`]. None where a weight belongs to no split, or to several: then
    /// it may mean something else.
    pub fn fill(&self, numbered: &[Split]) -> Option<Vec<Split>> {
        let mut splits = numbered.to_vec();
        self.refill(numbered, &mut splits).then_some(splits)
    }

    /// Makes the splits of the spec from those of another spec of this shape. False where [`Shape::fill`] gives none.
    pub fn refill(&self, numbered: &[Split], splits: &mut [Split]) -> bool {
        let mut used = vec![false; self.weights.len()];
        let mut count = 0;
        let mut weight = |number: u64, explicit: bool| {
            if !explicit || number == 0 {
                return Some(number);
            }
            count += 1;
            let at = usize::try_from(number).ok()?.checked_sub(1)?;
            *used.get_mut(at)? = true;
            Some(u64::from(self.weights[at]))
        };
        let mut fill = |from: &Backend, to: &mut Backend| {
            to.first = weight(from.first, from.explicit)?;
            to.weight = to.first;
            for (from, to) in from.also.iter().zip(&mut to.also) {
                to.weight = weight(from.weight, from.explicit)?;
            }
            to.weight += to.also.iter().map(|entry| entry.weight).sum::<u64>();
            Some(())
        };
        let backends = numbered.iter().flat_map(|split| &split.backends);
        let filled = backends.zip(splits.iter_mut().flat_map(|split| &mut split.backends));
        let all = filled.map(|(from, to)| fill(from, to)).all(|filled| filled.is_some());
        all && count == self.weights.len() && used.iter().all(|used| *used)
    }
}

/// The whole number that a value is, as it is written.
fn whole(text: &str) -> Option<&str> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let is_whole = digits > 0 && matches!(text.as_bytes().get(digits), Some(b',' | b'}'));
    is_whole.then(|| &text[..digits])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{self, Known};
    use crate::policy::{Identity, Policy};
    use crate::split::splits;
    use crate::validate::{self, Kuma};
    use proptest::prelude::*;
    use proptest::sample::select;
    use serde_json::{Value, json};
    use std::collections::BTreeMap;

    #[test]
    fn numbers_what_is_a_weight_for_sure() {
        for (spec, shape) in [
            (r#"{"a":[{"weight":90},{"weight":10,"port":1}]}"#, r#"{"a":[{"weight":1},{"weight":2,"port":1}]}"#),
            (r#"[{"weight":0},{"weight":7}]"#, r#"[{"weight":0},{"weight":1}]"#),
            (r#"[{"x":"\"weight\":5,"},{"a":1,"weight":7}]"#, r#"[{"x":"\"weight\":5,"},{"a":1,"weight":1}]"#),
            (r#"[{"xweight":5,"weights":3,"weight":7}]"#, r#"[{"xweight":5,"weights":3,"weight":1}]"#),
        ] {
            assert_eq!(Shape::of(spec).map(|shape| shape.spec), Some(shape.to_owned()), "{spec}");
        }
        for spec in ["", "{}", r#"{"weight":0}"#, r#"{"weight": 5}"#, r#"{"weight":"5"}"#, r#"{"weight":2147483648}"#] {
            assert_eq!(Shape::of(spec), None, "{spec}");
        }
        // Beside one that is replaced, none may stand that is not, however it is spelt.
        for odd in [
            r#""weight":1.5"#,
            r#""weight": 1"#,
            r#""weight":1 "#,
            r#""weight" :1"#,
            r#" "weight":1"#,
            r#""weight":1e0"#,
            r#""w\u0065ight":1"#,
            r#""x\"weight":1"#,
            r#""name":"weight""#,
        ] {
            let spec = format!(r#"[{{"weight":7}},{{{odd}}}]"#);
            assert_eq!(Shape::of(&spec), None, "{spec}");
        }
    }

    /// A value that may stand where a weight is expected, and weights most of the time.
    fn weight() -> impl Strategy<Value = Value> {
        let odd = select(vec![json!(-1), json!(1.5), json!("5"), json!(null), json!(4_294_967_295_u32), json!({})]);
        prop_oneof![6 => (0_u32..4).prop_map(Value::from), 6 => any::<u16>().prop_map(Value::from), 1 => odd]
    }

    fn backend() -> impl Strategy<Value = Value> {
        let name = select(vec!["chat-v1", "chat-v2", "chat-v3", ""]);
        let extra = select(vec!["", "weight", "tags", "mesh", "port", "filters"]);
        (name, proptest::option::of(weight()), extra, weight()).prop_map(|(name, weight, extra, odd)| {
            let mut backend = json!({"kind": "MeshService", "name": name, "port": 80});
            if let Some(weight) = weight {
                backend["weight"] = weight;
            }
            match extra {
                "tags" => backend["tags"] = json!({"weight": odd}),
                "" | "weight" => {}
                extra => backend[extra] = odd,
            }
            backend
        })
    }

    fn rule() -> impl Strategy<Value = Value> {
        let filter = select(vec!["", "RequestRedirect", "RequestMirror"]);
        (proptest::collection::vec(backend(), 0..4), filter, 0..3_u8, weight()).prop_map(|(refs, filter, path, odd)| {
            let mut rule = json!({"default": {"backendRefs": refs}});
            if path > 0 {
                rule["matches"] = json!([{"path": {"type": "PathPrefix", "value": format!("/{path}")}}]);
            }
            let backend = json!({"kind": "MeshService", "name": "chat-v1", "port": 80, "weight": odd});
            match filter {
                "RequestRedirect" => {
                    rule["default"]["filters"] = json!([{"type": filter, "requestRedirect": {"hostname": "a.b"}}]);
                }
                "RequestMirror" => {
                    rule["default"]["filters"] = json!([{"type": filter, "requestMirror": {"backendRef": backend}}]);
                }
                _ => {}
            }
            rule
        })
    }

    /// Specs of the kinds with weights.
    fn route() -> impl Strategy<Value = (&'static str, Value)> {
        let target = || json!({"kind": "MeshService", "name": "chat", "port": 80});
        let mesh = proptest::collection::vec(rule(), 0..4).prop_map(
            move |rules| json!({"targetRef": {"kind": "Mesh"}, "to": [{"targetRef": target(), "rules": rules}]}),
        );
        let tagged = || {
            (weight(), select(vec!["v1", "v2"]))
                .prop_map(|(weight, tag)| json!({"weight": weight, "destination": {"kuma.io/service": tag}}))
        };
        let list = || proptest::collection::vec(tagged(), 0..4);
        let to = proptest::collection::vec(select(vec!["chat", "rank"]), 1..3);
        let legacy = (list(), list(), to).prop_map(|(split, http, to)| {
            let matches = |service: &&str| json!({"match": {"kuma.io/service": service}});
            json!({
                "sources": [{"match": {"kuma.io/service": "*"}}],
                "destinations": to.iter().map(matches).collect::<Vec<_>>(),
                "conf": {"http": [{"match": {"path": {"prefix": "/a"}}, "split": http}], "split": split},
            })
        });
        prop_oneof![
            (select(vec!["MeshHTTPRoute", "MeshTCPRoute"]), mesh),
            (proptest::strategy::Just("TrafficRoute"), legacy)
        ]
    }

    fn splits_of(kind: &str, spec: &str) -> Option<Vec<Split>> {
        let identity = Identity {
            kind: kind.to_owned(),
            mesh: "default".to_owned(),
            namespace: Some("demo".to_owned()),
            name: "a".to_owned(),
        };
        Policy::of_spec(identity, BTreeMap::new(), spec).ok().map(|policy| splits(&policy).0)
    }

    proptest! {
        /// What is said of a shape is what is said of every spec that has it.
        #[test]
        fn a_shape_stands_for_its_specs((kind, spec) in route(), has_proxies in any::<bool>()) {
            let text = spec.to_string();
            let Some(shape) = Shape::of(&text) else { return Ok(()) };
            let numbered: Value = serde_json::from_str(shape.spec()).unwrap();
            prop_assert_eq!(&Shape::of(shape.spec()).unwrap().spec, shape.spec(), "a shape is its own");
            let Some(filled) = splits_of(kind, shape.spec()).and_then(|splits| shape.fill(&splits)) else {
                return Ok(());
            };
            let numbered_splits = splits_of(kind, shape.spec()).unwrap();
            let mut again = numbered_splits.clone();
            prop_assert!(Shape::of(shape.spec()).unwrap().refill(&numbered_splits, &mut again));
            prop_assert!(shape.refill(&numbered_splits, &mut again));
            prop_assert_eq!(&again, &filled);
            prop_assert_eq!(Some(filled), splits_of(kind, &text));
            let document = |spec: &Value| json!({"apiVersion": "kuma.io/v1alpha1", "kind": kind, "mesh": "default",
                "metadata": {"name": "a", "namespace": "demo"}, "spec": spec});
            let (known, kuma) = (known(has_proxies), Kuma::default());
            let says = |document: &Value| {
                let examined = health::examine(document, &known, &kuma).health(None);
                (validate::verdict(document, &kuma), examined)
            };
            prop_assert_eq!(says(&document(&numbered)), says(&document(&spec)));
        }
    }

    /// A mesh with the services of the specs.
    fn known(has_proxies: bool) -> Known {
        let mut known = Known::default();
        known.complete = true;
        for name in ["chat", "chat-v1", "chat-v2"] {
            let total = u32::from(has_proxies || name == "chat-v1");
            known.insert(&json!({"apiVersion": "kuma.io/v1alpha1", "kind": "MeshService",
                "metadata": {"name": name, "namespace": "demo", "labels": {"kuma.io/mesh": "default"}},
                "spec": {"ports": [{"port": 80, "targetPort": 80, "appProtocol": "http"}]},
                "status": {"dataplaneProxies": {"total": total, "connected": total, "healthy": total}}}));
        }
        known
    }

    #[test]
    fn a_weight_that_belongs_to_no_split_is_none() {
        let refs = json!([{"kind": "MeshService", "name": "b", "port": 80, "weight": 9}]);
        let spec = |backend: &Value, extra: Value| {
            json!({"to": [{"targetRef": {"kind": "MeshService", "name": "a"}, "rules": [
                {"default": {"backendRefs": backend, "filters": extra}}]}]})
            .to_string()
        };
        let fill = |spec: &str| {
            let shape = Shape::of(spec).unwrap();
            shape.fill(&splits_of("MeshHTTPRoute", shape.spec()).unwrap())
        };
        assert!(fill(&spec(&refs, json!([]))).is_some());
        let mirror = json!([{"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "c", "weight": 3}}}]);
        assert!(fill(&spec(&refs, mirror)).is_none());
    }
}
