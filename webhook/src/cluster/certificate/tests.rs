use super::*;

const DAY: SignedDuration = SignedDuration::from_hours(24);

fn policy() -> Policy {
    Policy {
        names: vec!["sluice.mesh.svc".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()],
        ca: DAY * 365,
        leaf: DAY * 90,
        spread: SignedDuration::from_mins(1),
        overlap: SignedDuration::from_hours(1),
    }
}

fn start() -> Timestamp {
    "2026-11-25T00:00:00Z".parse().unwrap()
}

const CALM: Progress = Progress { trusted_for: Some(SignedDuration::from_hours(9)), served: true };

fn signer(material: &Material) -> Option<usize> {
    let leaf = Facts::read(&material.leaf).unwrap();
    material.trusted.iter().position(|ca| Facts::read(ca).unwrap().own_id == leaf.signer)
}

#[test]
fn says_whom_it_is_for_since_an_hour_ago() {
    let material = Material::new(&policy(), start()).unwrap();
    let leaf = Facts::read(&material.leaf).unwrap();
    assert_eq!(leaf.names, policy().names);
    assert_eq!((leaf.not_before, leaf.not_after), (start() - BACKDATED, start() + DAY * 90));
    let ca = Facts::read(&material.trusted[0]).unwrap();
    assert_eq!((ca.not_before, ca.not_after, signer(&material)), (start() - BACKDATED, start() + DAY * 365, Some(0)));
    assert!(material.leaf_key.contains("PRIVATE KEY") && !material.bundle().contains("PRIVATE KEY"));
    assert_eq!(material.fingerprint().len(), 64);
    assert_eq!(material.due(&policy(), CALM, start()), None);
}

#[test]
fn a_leaf_is_replaced_at_two_thirds_of_its_life() {
    let material = Material::new(&policy(), start()).unwrap();
    let at = start() + DAY * 60;
    assert_eq!(material.due(&policy(), CALM, at - SignedDuration::from_secs(1)), None);
    assert_eq!(material.due(&policy(), CALM, at), Some(Step::NewLeaf));
    let next = material.take(Step::NewLeaf, &policy(), at).unwrap();
    assert_eq!((&next.trusted, &next.ca_key, signer(&next)), (&material.trusted, &material.ca_key, Some(0)));
    assert_ne!(next.fingerprint(), material.fingerprint());
    assert_eq!(next.due(&policy(), CALM, at), None);
}

#[test]
fn other_names_need_another_leaf_at_once() {
    let material = Material::new(&policy(), start()).unwrap();
    let mut renamed = policy();
    renamed.names.push("other.mesh.svc".to_owned());
    assert_eq!(material.due(&renamed, CALM, start()), Some(Step::NewLeaf));
    renamed.names = vec!["127.0.0.1".to_owned()];
    assert_eq!(material.due(&renamed, CALM, start()), None, "fewer names harm nobody");
}

#[test]
fn a_ca_is_replaced_step_by_step() {
    let policy = policy();
    let old = Material::new(&policy, start()).unwrap();
    let mut at = start() + policy.ca * 2 / 3;
    // The leaf would be older than that by now.
    let old = old.take(Step::NewLeaf, &policy, at).unwrap();
    assert_eq!(old.due(&policy, CALM, at), Some(Step::AddCa));
    let staged = old.take(Step::AddCa, &policy, at).unwrap();
    assert_eq!((staged.trusted.len(), signer(&staged), &staged.leaf), (2, Some(0), &old.leaf));

    let waits = |trusted_for| Progress { trusted_for, served: true };
    assert_eq!(staged.due(&policy, waits(None), at), None, "it is not in the configuration");
    assert_eq!(staged.due(&policy, waits(Some(SignedDuration::from_secs(59))), at), None, "not for long enough");
    assert_eq!(staged.due(&policy, waits(Some(SignedDuration::from_secs(60))), at), Some(Step::NewLeaf));
    let switched = staged.take(Step::NewLeaf, &policy, at).unwrap();
    assert_eq!((switched.trusted.len(), signer(&switched)), (2, Some(1)));

    assert_eq!(switched.due(&policy, CALM, at), None, "the old CA stays a while");
    at += policy.overlap;
    let unserved = Progress { served: false, ..CALM };
    assert_eq!(switched.due(&policy, unserved, at), None, "a replica serves the old leaf");
    assert_eq!(switched.due(&policy, CALM, at), Some(Step::DropCas));
    let done = switched.take(Step::DropCas, &policy, at).unwrap();
    assert_eq!((done.trusted.len(), signer(&done)), (1, Some(0)));
    assert_eq!(done.due(&policy, CALM, at), None);
}

#[test]
fn what_cannot_be_used_is_made_anew_and_what_was_trusted_stays_trusted() {
    let good = Material::new(&policy(), start()).unwrap();
    let other = Material::new(&policy(), start()).unwrap();
    let broken = [
        (Step::Renew, Material { trusted: Vec::new(), ..good.clone() }),
        (Step::Renew, Material { trusted: vec!["nonsense".to_owned()], ..good.clone() }),
        (Step::Renew, Material { trusted: other.trusted.clone(), ..good.clone() }),
        (Step::NewLeaf, Material { leaf: "-----BEGIN CERTIFICATE-----".to_owned(), ..good.clone() }),
        (Step::NewLeaf, Material { leaf_key: other.leaf_key.clone(), ..good.clone() }),
        // The leaf can be served as long as it takes for a new CA to be trusted.
        (Step::AddCa, Material { ca_key: String::new(), ..good.clone() }),
        (Step::AddCa, Material { ca_key: other.ca_key.clone(), ..good.clone() }),
    ];
    for (step, material) in broken {
        assert_eq!(material.due(&policy(), CALM, start()), Some(step), "{material:?}");
        let next = material.take(step, &policy(), start()).unwrap();
        assert_eq!(next.due(&policy(), Progress { trusted_for: None, served: false }, start()), None);
        assert!(signer(&next).is_some() && !next.trusted.contains(&"nonsense".to_owned()));
        assert_eq!(next.trusted.contains(&good.trusted[0]), material.trusted.contains(&good.trusted[0]));
    }
    // Asleep for years: nobody trusts what has expired, so nothing is waited for.
    assert_eq!(good.due(&policy(), CALM, start() + DAY * 91), Some(Step::NewLeaf));
    let late = start() + DAY * 1000;
    assert_eq!(good.due(&policy(), CALM, late), Some(Step::Renew));
    assert_eq!(good.take(Step::Renew, &policy(), late).unwrap().trusted.len(), 1);
}

#[test]
fn a_bundle_is_split_into_its_certificates() {
    let (one, two) = (Material::new(&policy(), start()).unwrap(), Material::new(&policy(), start()).unwrap());
    let bundle = format!("# a comment\n{}garbage\n{}", one.bundle(), two.bundle());
    let bundle = bundle.replace("# a comment\n", "").replace("garbage\n", "");
    assert_eq!(certificates(&bundle), [one.trusted, two.trusted].concat());
    assert_eq!(certificates("no certificate"), Vec::<String>::new());
}

/// Three years, an hour at a time: replicas take a new leaf hours late, and the bundle is followed late too. At no time
/// does a replica serve what the API server does not trust.
#[test]
fn at_no_time_is_served_what_is_not_trusted() {
    let policy = Policy { spread: SignedDuration::from_hours(3), overlap: DAY, ..policy() };
    let mut material = Material::new(&policy, start()).unwrap();
    let mut believed: Vec<String> = material.trusted.clone();
    let mut served = [material.clone(), material.clone(), material.clone()];
    let mut bundle_since = 0;
    let mut steps = std::collections::BTreeMap::<String, u32>::new();
    for hour in 0..3 * 365 * 24_i64 {
        let now = start() + SignedDuration::from_hours(hour);
        // The API servers follow within two hours, the replicas within 1, 5 and 30.
        if believed != material.trusted && hour - bundle_since >= 2 {
            believed.clone_from(&material.trusted);
        }
        for (replica, late) in [(0, 1), (1, 5), (2, 30)] {
            let made = Facts::read(&material.leaf).unwrap().made();
            if served[replica].leaf != material.leaf && now.duration_since(made) >= SignedDuration::from_hours(late) {
                served[replica] = material.clone();
            }
            let leaf = Facts::read(&served[replica].leaf).unwrap();
            assert!(leaf.not_after > now, "{now}: replica {replica} serves an expired leaf");
            let trusted = believed.iter().any(|ca| {
                let ca = Facts::read(ca).unwrap();
                ca.own_id == leaf.signer && ca.not_after > now
            });
            assert!(trusted, "{now}: replica {replica} is not trusted");
        }
        let progress = Progress {
            trusted_for: Some(SignedDuration::from_hours(hour - bundle_since)),
            served: served.iter().all(|replica| replica.leaf == material.leaf),
        };
        if let Some(step) = material.due(&policy, progress, now) {
            let next = material.take(step, &policy, now).unwrap();
            if next.trusted != material.trusted {
                bundle_since = hour;
            }
            material = next;
            *steps.entry(format!("{step:?}")).or_default() += 1;
        }
    }
    assert!(steps["NewLeaf"] >= 18 && steps["AddCa"] >= 4 && steps["AddCa"] - steps["DropCas"] <= 1, "{steps:?}");
    assert!(!steps.contains_key("Renew"), "{steps:?}");
}
