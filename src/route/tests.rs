use std::collections::HashMap;

use super::*;
use crate::config::{Overrides, load};
use crate::model::stable_hash;

fn routes(text: &str) -> Routes {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    Routes::new(&load(Some(file.path()), &Overrides::default()).unwrap().settings)
}

/// The headers of a call, one a line.
fn headers(lines: &str) -> HeaderMap {
    let pair = |line: &str| {
        let (name, value) = line.split_once(": ").unwrap();
        (name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap())
    };
    lines.lines().map(pair).collect()
}

/// `service filter` of where a call goes, or what went wrong.
fn goes(routes: &Routes, authority: &str, path: &str, lines: &str) -> String {
    let headers = headers(lines);
    let source = Some("10.0.0.7".parse().unwrap());
    let hash_key = headers.get("pillion-hash-key").map(|key| stable_hash(key.as_bytes()));
    let asked = Asked { authority, path, service: None, headers: &headers, hash_key, source };
    match routes.decide(asked) {
        Ok(Decision::Forward(Routed { service, rule, .. })) => {
            let filter = rule.map_or("", |(_, way)| way.policy.filter.text());
            format!("{service} {filter}").trim_end().to_owned()
        }
        Ok(Decision::Respond(rule, respond)) => format!("{} {}", rule.name(), respond.message),
        Err(error) => error.to_string(),
    }
}

#[test]
fn without_a_route_the_authority_less_node_and_port_is_the_service() {
    let routes = Routes::default();
    for (authority, expected) in [
        ("Orders.v1", "Orders.v1"),
        ("orders:443", "orders"),
        ("orders@10.0.0.1:80", "orders"),
        ("orders:443@node-1", "orders"),
        ("team~orders", "team~orders"),
    ] {
        assert_eq!(goes(&routes, authority, "/", ""), expected, "{authority}");
    }
    for bad in ["orders:v1", "[::1]:80", "", ":80"] {
        assert!(goes(&routes, bad, "/", "").starts_with("the service name"), "{bad}");
    }
    let headers = HeaderMap::new();
    let authority = "orders@10.0.0.1:80";
    let asked = Asked {
        authority,
        path: "/",
        service: None,
        headers: &headers,
        hash_key: None,
        source: None,
    };
    let Ok(Decision::Forward(routed)) = routes.decide(asked) else { panic!("it is a name") };
    assert_eq!(routed.node, Some("10.0.0.1:80"));
}

#[test]
fn the_first_matching_route_wins_and_the_header_wins_over_routes() {
    let routes = routes(
        r#"
        [[route]]
        authority = "orders.internal:8443"
        path_prefix = "/orders.v1."
        service = "orders"
        [[route]]
        authority = "orders.internal:8443"
        service = "legacy"
        [[route]]
        authority = "*.internal"
        service = "rest"
        "#,
    );
    let goes = |authority, path| goes(&routes, authority, path, "");
    assert_eq!(goes("Orders.Internal:8443", "/orders.v1.Orders/Get"), "orders");
    assert_eq!(goes("orders.internal:8443", "/other"), "legacy");
    assert_eq!(goes("a.b.internal", "/x"), "rest");
    assert_eq!(goes(".internal", "/x"), ".internal");
    let headers = HeaderMap::new();
    let asked = Asked {
        authority: "a.internal",
        path: "/",
        service: Some("pay"),
        headers: &headers,
        hash_key: None,
        source: None,
    };
    let Ok(Decision::Forward(routed)) = routes.decide(asked) else { panic!("it is a name") };
    assert_eq!((routed.service, routed.rule.is_none()), ("pay", true));
}

#[test]
fn a_method_and_headers_choose_among_calls_of_one_authority() {
    let routes = routes(
        r#"
        [[route]]
        authority = "orders"
        headers = { "X-User" = "test", x-canary = "*" }
        service = "canary"
        [[route]]
        method = "/orders.v1.Orders/List"
        service = "lists"
        [[route]]
        authority = "gone"
        respond = { http_status = 503, message = "closed" }
        "#,
    );
    let goes = |authority, path, headers| goes(&routes, authority, path, headers);
    assert_eq!(goes("orders", "/x", "x-user: test\nx-canary: 1"), "canary");
    assert_eq!(goes("orders", "/x", "x-user: test"), "orders");
    assert_eq!(goes("orders", "/orders.v1.Orders/List", "x-user: other\nx-canary: 1"), "lists");
    assert_eq!(goes("gone", "/x", ""), "#3 closed");
}

#[test]
fn a_route_lays_its_keys_over_its_service_and_a_branch_its_filter_over_both() {
    let routes = routes(
        r#"
        [defaults]
        attempts = 7
        [service.orders]
        filter = "zone=a"
        timeout = "3s"
        [[route]]
        authority = "orders"
        service = "orders"
        timeout = "1s"
        split = [{ filter = "version=v2", weight = 1 }, { weight = 0 }, { service = "other", weight = 0 }]
        "#,
    );
    let ways = routes.0[0].ways();
    let filter = |at: usize| &**ways[at].policy.filter.text();
    let timeout = |at: usize| ways[at].policy.timeout.unwrap().as_secs();
    assert_eq!((filter(0), timeout(0), ways[0].policy.attempts), ("version=v2", 1, 7));
    assert_eq!((filter(1), timeout(1), ways[1].service.as_str()), ("zone=a", 1, "orders"));
    assert_eq!((filter(2), timeout(2), ways[2].service.as_str()), ("", 1, "other"));
}

const SPLIT: &str = r#"
    [[route]]
    authority = "orders"
    service = "orders"
    split_on = "header:x-user"
    split = [{ filter = "version=v2", weight = 10 }, { service = "next", weight = 5 }, { weight = 85 }]
"#;

#[test]
fn chance_divides_calls_by_weight() {
    fastrand::seed(42);
    let routes = routes(SPLIT);
    let mut counts = HashMap::<_, i64>::new();
    for _ in 0..10_000 {
        *counts.entry(goes(&routes, "orders", "/", "")).or_default() += 1;
    }
    // Three standard deviations of a binomial distribution.
    for (way, share) in [("orders version=v2", 0.1), ("next", 0.05), ("orders", 0.85_f64)] {
        let off = (counts[way] - (10_000.0 * share) as i64).abs();
        assert!((off as f64) < 3.0 * (10_000.0 * share * (1.0 - share)).sqrt(), "{counts:?}");
    }
}

#[test]
fn equal_values_go_the_same_way_and_stay_there_when_its_weight_grows() {
    let now = routes(SPLIT);
    let grown = routes(&SPLIT.replace("weight = 10", "weight = 30").replace("85", "65"));
    let goes = |routes, user| goes(routes, "orders", "/", &format!("x-user: {user}"));
    let mut canaries = 0;
    for user in 0..2_000 {
        let way = goes(&now, user);
        assert_eq!(goes(&now, user), way);
        if way == "orders version=v2" {
            canaries += 1;
            assert_eq!(goes(&grown, user), way);
        }
    }
    // 200 are expected; three standard deviations are 40.
    assert!((160..240).contains(&canaries), "{canaries}");
}

#[test]
fn a_call_is_divided_on_a_header_a_cookie_its_path_or_where_it_comes_from() {
    let divided = |on: &str, path: &str, lines: &str| {
        let routes = routes(&SPLIT.replace("header:x-user", on));
        let ways = (0..64).map(|_| goes(&routes, "orders", path, lines));
        ways.collect::<std::collections::HashSet<_>>().len()
    };
    assert_eq!(divided("path", "/a", ""), 1);
    assert_eq!(divided("cookie:session", "/", "cookie: a=1; session=77"), 1);
    assert_eq!(divided("header:x-user", "/", "x-user: 7"), 1);
    assert_eq!(divided("header:pillion-hash-key", "/", "pillion-hash-key: 7"), 1);
    assert_eq!(divided("source", "/", ""), 1);
    // Without a value chance decides: that 64 calls go one way has a probability below 0.0001.
    assert!(divided("cookie:session", "/", "cookie: sessions=77") > 1);
    assert!(divided("header:x-user", "/", "x-other: 7") > 1);
}

#[test]
fn which_way_a_key_goes_says_nothing_of_the_key_itself() {
    let routes = routes(SPLIT);
    let is_canary = |user: &str| {
        goes(&routes, "orders", "/", &format!("x-user: {user}")) == "orders version=v2"
    };
    let users = (0..20_000).map(|user| user.to_string());
    let canaries: Vec<_> = users.filter(|user| is_canary(user)).collect();
    // Half of them, too, have a key in the lower half: 3 standard deviations of 2000 are 67.
    let is_low = |user: &&String| stable_hash(user.as_bytes()) <= u64::MAX / 2;
    let low = canaries.iter().filter(is_low).count();
    assert!((low * 2).abs_diff(canaries.len()) < 134, "{low} of {}", canaries.len());
}

#[test]
fn headers_are_removed_then_set_then_added() {
    let routes = routes(
        r#"
        [[route]]
        authority = "orders"
        service = "orders"
        [route.request_headers]
        remove = ["x-debug", "x-both"]
        set = { x-env = "canary", x-both = "set" }
        add = { x-tag = "two", x-both = "added" }
        "#,
    );
    let mut headers = headers("x-debug: 1\nx-env: prod\nx-env: test\nx-tag: one\nx-both: old");
    routes.0[0].change(&mut headers);
    let values =
        |name| headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>();
    assert_eq!((values("x-debug"), values("x-env")), (vec![], vec!["canary"]));
    assert_eq!((values("x-tag"), values("x-both")), (vec!["one", "two"], vec!["set", "added"]));
}
