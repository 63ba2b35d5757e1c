//! What is copied, what is left alone, and what is left out.

use super::*;
use crate::model::ServiceName;
use crate::registry::{book::Scope, etcd::Kv};

/// A lease of this mirror, of another one, and of a framework.
const OWN: i64 = 0x7069_6c6c_0000_0001;
const OTHER: i64 = 0x7069_6c6c_0000_0002;
const FRAMEWORK: i64 = 7_587_870_229_348_472_322;

fn entries(layout: &Layout, keys: &[(&str, &str, i64)]) -> Vec<Arc<Entry>> {
    let scope = Scope::whole(layout.clone());
    let entry = |(at, (key, value, lease)): (usize, &(&str, &str, i64))| {
        let (key, value) = (key.as_bytes().to_vec(), value.as_bytes().to_vec());
        let modified = at as i64 + 1;
        scope.entry(Kv { key, value, created: modified, modified, lease: *lease }).unwrap().into()
    };
    keys.iter().enumerate().map(entry).collect()
}

/// A plan from `orders` of a registry with all formats to etcd-naming below /copy.
fn plan_of(here: &[(&str, &str, i64)], there: &[(&str, &str, i64)]) -> Plan {
    let to = Layout::new("etcd-naming", "/copy").unwrap();
    let here = entries(&Layout::new("auto", "").unwrap(), here);
    let service: ServiceName = "orders".parse().unwrap();
    plan(&service, &here, &entries(&to, there), &to, LeaseId::of(OWN))
}

/// What the steps do: `+key` a new copy, `=key` one that is written again, `-key` a deletion.
fn steps(plan: &Plan) -> Vec<String> {
    let text = |step: &Step| match step {
        Step::Put { copy, new: true } => format!("+{}", copy.key),
        Step::Put { copy, new: false } => format!("={}", copy.key),
        Step::Delete { key, .. } => format!("-{key}"),
    };
    plan.steps.iter().map(text).collect()
}

fn why(plan: &Plan) -> Vec<(&str, String)> {
    plan.left_out.iter().map(|left| (&*left.key, left.why.to_string())).collect()
}

fn naming(address: &str) -> String {
    format!(r#"{{"Op":0,"Addr":"{address}","Metadata":null}}"#)
}

#[test]
fn what_is_new_is_put_what_differs_is_put_again_what_vanished_goes_last() {
    let same = naming("10.0.0.1:80");
    let plan = plan_of(
        &[
            ("orders/1", &same, FRAMEWORK),
            ("orders/2", r#"{"Addr":"10.0.0.2:80","Metadata":{"version":"v2"}}"#, FRAMEWORK),
            ("orders/3", "10.0.0.3:80", FRAMEWORK),
        ],
        &[
            ("/copy/orders/1", &same, OWN),
            ("/copy/orders/2", &naming("10.0.0.2:80"), OWN),
            ("/copy/orders/9", &naming("10.0.0.9:80"), OWN),
        ],
    );
    assert_eq!(steps(&plan), ["=/copy/orders/2", "+/copy/orders/10.0.0.3:80", "-/copy/orders/9"]);
    assert_eq!(plan.kept.len(), 1);
    assert_eq!(plan.left_out, []);
}

#[test]
fn a_copy_is_never_copied_again_whoever_made_it() {
    let plan =
        plan_of(&[("orders/1", "10.0.0.1:80", OTHER), ("orders/2", "10.0.0.2:80", OWN)], &[]);
    assert_eq!(steps(&plan), [""; 0]);
    assert!(plan.left_out.iter().all(|left| left.why == Why::IsCopy));
}

#[test]
fn keys_that_are_not_ours_are_neither_written_over_nor_deleted() {
    // An address that is registered there needs no copy; a key that is taken cannot have one.
    let plan = plan_of(
        &[
            ("orders/1", &naming("10.0.0.1:80"), FRAMEWORK),
            ("orders/2", &naming("10.0.0.2:80"), FRAMEWORK),
        ],
        &[
            ("/copy/orders/x", &naming("10.0.0.1:80"), FRAMEWORK),
            ("/copy/orders/2", "nonsense", 0),
            ("/copy/orders/3", &naming("10.0.0.3:80"), OTHER),
        ],
    );
    assert_eq!(steps(&plan), [""; 0]);
    assert_eq!(
        why(&plan),
        [
            ("orders/1", "it is registered there already, at /copy/orders/x".to_owned()),
            ("orders/2", "its key there is taken: /copy/orders/2".to_owned()),
        ]
    );
}

#[test]
fn our_copy_goes_once_its_address_is_registered_there_but_stays_beside_that_of_another_mirror() {
    let here = [("orders/1", "10.0.0.1:80", FRAMEWORK)];
    let (key, value) = ("/copy/orders/10.0.0.1:80", naming("10.0.0.1:80"));
    let with = |lease| plan_of(&here, &[(key, &value, OWN), ("/copy/orders/x", &value, lease)]);
    assert_eq!(steps(&with(FRAMEWORK)), [format!("-{key}")]);
    assert_eq!((steps(&with(OTHER)).len(), with(OTHER).kept.len()), (0, 1));
    // Without one of ours, that of the other mirror is enough.
    let plan = plan_of(&here, &[("/copy/orders/x", &value, OTHER)]);
    assert!(matches!(plan.left_out[0].why, Why::Mirrored(_)) && plan.steps.is_empty());
}

#[test]
fn an_address_under_two_keys_has_one_copy_of_the_newer_record() {
    let plan = plan_of(
        &[
            ("orders/old", &naming("10.0.0.1:80"), FRAMEWORK),
            ("orders/new", &naming("10.0.0.1:80"), FRAMEWORK),
        ],
        &[],
    );
    assert_eq!(steps(&plan), ["+/copy/orders/new"]);
}

#[test]
fn a_bad_record_is_left_out_with_its_reason_and_harms_no_other() {
    let plan = plan_of(
        &[("orders/1", "nonsense", 0), ("orders/2", &naming("10.0.0.2:80"), FRAMEWORK)],
        &[],
    );
    assert_eq!(steps(&plan), ["+/copy/orders/2"]);
    let expected = "it cannot be read: the value is of no known format".to_owned();
    assert_eq!(why(&plan), [("orders/1", expected)]);
}

#[test]
fn what_the_other_format_cannot_say_is_refused_where_calls_would_go_wrong_and_told_where_not() {
    let to = Layout::new("go-zero", "/copy").unwrap();
    let metadata = |text| format!(r#"{{"Addr":"10.0.0.1:80","Metadata":{{{text}}}}}"#);
    let plan_of = |text: &str| {
        let here = entries(&Layout::new("auto", "").unwrap(), &[("orders/1", text, FRAMEWORK)]);
        plan(&"orders".parse().unwrap(), &here, &[], &to, LeaseId::of(OWN))
    };
    let plan = plan_of(&metadata(r#""weight":"7","version":"v1","gpu":"yes""#));
    let Some(Step::Put { copy, new: true }) = plan.steps.first() else { panic!("{plan:?}") };
    assert_eq!(copy.lost, ["weight 7", "version v1", "metadata gpu"]);
    for refused in [metadata(r#""weight":"0""#), metadata(r#""state":"forbidden""#)] {
        let plan = plan_of(&refused);
        assert!(plan.steps.is_empty(), "{plan:?}");
        assert!(matches!(plan.left_out[0].why, Why::Cannot(_)), "{plan:?}");
    }
}

#[test]
fn copies_in_a_format_whose_keys_are_leases_have_keys_of_their_own_that_stay_the_same() {
    let to = Layout::new("go-zero", "/copy").unwrap();
    let here = [
        ("orders/1", naming("10.0.0.1:80"), FRAMEWORK),
        ("orders/2", naming("10.0.0.2:80"), FRAMEWORK),
    ];
    let here: Vec<_> = here.iter().map(|(k, v, l)| (*k, &**v, *l)).collect();
    let here = entries(&Layout::new("auto", "").unwrap(), &here);
    let keys = |lease| {
        let plan = plan(&"orders".parse().unwrap(), &here, &[], &to, LeaseId::of(lease));
        steps(&plan)
    };
    assert_eq!(keys(OWN), keys(OTHER));
    assert_ne!(keys(OWN)[0], keys(OWN)[1]);
    assert!(keys(OWN)[0].trim_start_matches("+/copy/orders/").parse::<i64>().unwrap() > 0);
}
