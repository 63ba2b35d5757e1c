//! The `pillion` program as a user meets it: what it prints, where, and how it ends.

#![allow(clippy::unwrap_used, reason = "the exception for tests does not cover their helpers")]

mod canned_admin;
mod copy;
mod doctor;
mod endpoints;
#[path = "../support/etcd.rs"]
#[allow(dead_code, reason = "tests/discovery.rs uses the rest")]
mod etcd;
mod lint;
mod policy;
mod records;
mod registry;
mod running;
#[path = "../support/tls.rs"]
#[allow(dead_code, reason = "tests/behaviour uses the rest")]
mod tls;
mod tls_files;
#[path = "../support/tls_peer.rs"]
#[allow(dead_code, reason = "tests/behaviour uses the rest")]
mod tls_peer;

use std::{fs, path::Path, process::Command};

use canned_admin::CannedAdmin;

/// What a run of the program came to.
struct Outcome {
    status: i32,
    stdout: String,
    stderr: String,
}

/// Runs `pillion` with `args` and only `variables` of its own.
fn pillion_with(variables: &[(&str, &str)], args: &[&str]) -> Outcome {
    let mut command = bare_command();
    let output = command.envs(variables.iter().copied()).args(args).output().unwrap();
    Outcome {
        status: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The program, with no variable of its own.
fn bare_command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pillion"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PILLION_")) {
        command.env_remove(name);
    }
    command
}

fn pillion(args: &[&str]) -> Outcome {
    pillion_with(&[], args)
}

/// A configuration file, and the folder that holds it while the test runs.
fn file(text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pillion.toml");
    fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (folder, path)
}

#[test]
fn a_good_file_is_counted_and_ends_with_0() {
    let (_folder, path) = file("[service.a]\n[[route]]\nauthority = \"*\"\nservice = \"a\"\n");
    let outcome = pillion(&["check", "-c", &path]);
    assert_eq!((outcome.status, &*outcome.stderr), (0, ""));
    let counts = "1 listener, 1 source, 0 registrations, 1 service, 1 route";
    assert_eq!(outcome.stdout, format!("{path}: ok ({counts})\n"));
}

#[test]
fn a_bad_file_ends_with_2_and_each_mistake_on_a_line_of_its_own() {
    let (_folder, path) = file("worker = 1\n[defaults]\nattempts = 0\n");
    for command in ["check", "config", "run"] {
        let outcome = pillion(&[command, "-c", &path]);
        assert_eq!((outcome.status, &*outcome.stdout), (2, ""));
        let lines: Vec<&str> = outcome.stderr.lines().collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].starts_with(&format!("{path}:1:1: unknown key \"worker\" at the top")));
        assert!(lines[1].starts_with(&format!("{path}:3:12: defaults.attempts: found")));
    }
}

#[test]
fn a_file_that_is_not_there_ends_with_2_and_the_cause() {
    let outcome = pillion(&["check", "-c", "/nowhere/pillion.toml"]);
    assert_eq!(outcome.status, 2);
    assert_eq!(
        outcome.stderr,
        "/nowhere/pillion.toml: cannot be read\n  caused by: No such file or directory (os error 2)\n"
    );
}

#[test]
fn a_flag_wins_over_its_variable_over_the_file_over_the_default() {
    let (_folder, path) =
        file("workers = 1\n[admin]\naddress = \"127.0.0.1:1\"\n[[source]]\nprefix = \"/file\"");
    let variables = [
        ("PILLION_CONFIG", &*path),
        ("PILLION_ADMIN", "127.0.0.1:2"),
        ("PILLION_LISTEN", "127.0.0.1:5,unix:/run/pillion.sock"),
        ("PILLION_PREFIX", "/variable"),
    ];
    let args = [
        "config",
        "--admin",
        "127.0.0.1:3",
        "--etcd",
        "http://a:1,http://b:2",
        "--format",
        "koala",
    ];
    let outcome = pillion_with(&variables, &args);
    assert_eq!((outcome.status, &*outcome.stderr), (0, ""));
    let effective: toml::Table = outcome.stdout.parse().unwrap();
    let source = &effective["source"][0];
    assert_eq!(effective["workers"].as_integer(), Some(1));
    assert_eq!(effective["admin"]["address"].as_str(), Some("127.0.0.1:3"));
    assert_eq!(effective["listener"][1]["address"].as_str(), Some("unix:/run/pillion.sock"));
    assert_eq!(source["prefix"].as_str(), Some("/variable"));
    assert_eq!(source["endpoints"].as_array().unwrap().len(), 2);
    assert_eq!(source["format"].as_str(), Some("koala"));
    assert_eq!(source["mode"].as_str(), Some("lazy"));
}

#[test]
fn what_config_prints_is_a_configuration_that_prints_the_same() {
    let first = pillion(&["config", "--listen", "127.0.0.1:0", "--workers", "3"]).stdout;
    let (_folder, path) = file(&first);
    assert_eq!(pillion(&["config", "-c", &path]).stdout, first);
}

#[test]
fn a_variable_that_is_set_to_nothing_says_nothing() {
    let variables = [("PILLION_CONFIG", ""), ("PILLION_ETCD", ""), ("PILLION_WORKERS", "")];
    let outcome = pillion_with(&variables, &["config"]);
    assert_eq!(outcome.stdout, pillion(&["config"]).stdout);
    assert_eq!(outcome.status, 0);
}

#[test]
fn a_wrong_flag_ends_with_2_and_says_what_is_allowed() {
    for (args, expected) in [
        (&["run", "--listen", "localhost:1"][..], "\"localhost:1\" is not an address to listen on"),
        (&["run", "--etcd", "etcd:2379"], "write http://host:port or https://host:port"),
        (&["run", "--format", "kola"], "a similar value exists: 'koala'"),
        (&["run", "--log", "inof"], "\"inof\" is not a log level; write off, error"),
        (&["run", "--workers", "-1"], "error: "),
        (&["check"], "--config <FILE>"),
        (&["why", "a", "-H", "nonsense"], "write 'name: value'"),
        (&["why", "a", "-H", "pillion-filtr: a"], "pillion-filtr has no part in the decision"),
        (&["services", "a/b"], "the service name holds '/'"),
        (&["man", "nothing"], "no command \"nothing\""),
        (&[], "Usage: pillion <COMMAND>"),
    ] {
        let outcome = pillion(args);
        assert_eq!((outcome.status, &*outcome.stdout), (2, ""), "{args:?}");
        assert!(outcome.stderr.contains(expected), "{args:?}: {}", outcome.stderr);
    }
}

#[test]
fn completions_and_man_pages_are_printed() {
    assert!(pillion(&["completions", "bash"]).stdout.contains("pillion__subcmd__services"));
    assert!(pillion(&["man"]).stdout.contains(".TH pillion 1"));
    assert!(pillion(&["man", "why"]).stdout.contains("AUTHORITY"));
}

const SERVICES: &str = r#"{"services":[
    {"name":"orders","endpoints":3,"ready":2,"sources":["main","static"]},
    {"name":"pay","endpoints":12,"ready":12,"sources":["main"]}]}"#;

#[test]
fn services_are_shown_in_columns_or_as_the_proxy_gave_them() {
    let admin = CannedAdmin::tcp(&[("/services", 200, SERVICES)]);
    let outcome = pillion(&["services", "--admin", admin.url()]);
    assert_eq!((outcome.status, &*outcome.stderr), (0, ""));
    assert_eq!(
        outcome.stdout,
        "NAME    ENDPOINTS  READY  SOURCES\n\
         orders          3      2  main,static\n\
         pay            12     12  main\n"
    );
    let outcome = pillion(&["services", "--admin", admin.url(), "-o", "json"]);
    assert_eq!(outcome.stdout, format!("{SERVICES}\n"));
}

const ORDERS: &str = r#"{"name":"orders","revision":42,"endpoints":[
    {"address":"10.0.0.1:80","id":"orders-1","weight":100,"version":"v1","zone":"","metadata":{"gpu":"yes","team":"a"},
     "source":"main","format":"koala","key":"/orders/1","state":"ready","in_flight":2,"picks":117},
    {"address":"10.0.0.12:80","id":"10.0.0.12:80","weight":0,"version":"v2","zone":"","metadata":{},
     "source":"main","format":"koala","key":"/orders/2","state":"drained","in_flight":0,"picks":9}],
    "rejected":[{"key":"/orders/3","reason":"not JSON"}]}"#;

#[test]
fn the_endpoints_of_a_service_are_shown_with_the_records_that_cannot_be_used() {
    let admin = CannedAdmin::unix(&[("/services/orders", 200, ORDERS)]);
    let outcome = pillion_with(&[("PILLION_ADMIN", admin.url())], &["services", "orders"]);
    assert_eq!((outcome.status, &*outcome.stderr), (0, ""));
    assert_eq!(
        outcome.stdout,
        "ADDRESS       ID        STATE    WEIGHT  VERSION  IN-FLIGHT  PICKS  SOURCE  FORMAT  METADATA\n\
         10.0.0.1:80   orders-1  ready       100  v1               2    117  main    koala   gpu=yes,team=a\n\
         10.0.0.12:80            drained       0  v2               0      9  main    koala\n\
         \n\
         REJECTED   REASON\n\
         /orders/3  not JSON\n"
    );
}

const WHY: &str = r##"{"authority":"orders.internal:8443","service":"orders","verdict":"ok","route":{"name":"#1","authority":"*.internal","path_prefix":"/orders.v1.","method":null,"headers":{"x-user":"test"},"fault":"delay 100ms for 10 %","ways":[{"service":"orders","filter":"version=v2","weight":10,"share":0.1,"taken":true},{"service":"next","filter":"","weight":90,"share":0.9,"taken":false}]},"balance":"p2c","steps":[
    {"stage":"registry","kept":4,"dropped":[]},
    {"stage":"filter","kept":2,"dropped":[{"address":"10.0.0.3:80","reason":"version=v2"},{"address":"10.0.0.4:80","reason":"version=v2"}]}],
    "candidates":[{"address":"10.0.0.1:80","weight":100,"share":0.6667},{"address":"10.0.0.2:80","weight":50,"share":0.3333}]}"##;

#[test]
fn what_strangers_wrote_into_a_registry_moves_no_cursor() {
    let service = r#"{"name":"orders","revision":1,"endpoints":[],"rejected":[
        {"key":"orders/1\u001b[2J\u009b1A\nfake","reason":"\u202eodd"}]}"#;
    let why = r#"{"authority":"orders","service":"orders","verdict":"no_endpoints",
        "message":"\u001b]0;title\u0007","route":null,"steps":[],"candidates":[]}"#;
    let admin = CannedAdmin::tcp(&[
        ("/services/orders", 200, service),
        ("/why?authority=orders", 200, why),
        ("/services", 500, "\u{1b}[2Jno"),
    ]);
    let ask = |args: &[&str]| pillion(&[args, &["--admin", admin.url()]].concat());
    for args in [&["services", "orders"][..], &["why", "orders"], &["services"]] {
        let outcome = ask(args);
        let text = outcome.stdout + &outcome.stderr;
        assert!(text.contains("\\u{"), "{args:?}: {text}");
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{args:?}: {text:?}");
        assert!(!text.contains("\nfake"), "{text}");
    }
}

#[test]
fn why_asks_what_was_typed_and_shows_stages_and_candidates() {
    let asked = "/why?authority=orders.internal%3A8443&path=%2Forders.v1.Orders%2FList\
                 &filter=version%3Dv2%3B&header=x-user%3A%20test&node=orders%261";
    let admin = CannedAdmin::tcp(&[(asked, 200, WHY)]);
    let outcome = pillion(&[
        "why",
        "orders.internal:8443",
        "--path",
        "/orders.v1.Orders/List",
        "-H",
        "Pillion-Filter: version=v2;",
        "-H",
        "X-User: test",
        "-H",
        "pillion-node:orders&1",
        "--admin",
        admin.url(),
    ]);
    assert_eq!((outcome.status, &*outcome.stderr), (0, ""));
    assert_eq!(
        outcome.stdout,
        "authority  orders.internal:8443\n\
         route      #1: *.internal /orders.v1. x-user=\"test\"\n\
         fault      delay 100ms for 10 %\n\
         service    orders\n\
         balance    p2c\n\
         verdict    ok\n\
         \n\
         WAY     FILTER      WEIGHT  SHARE  TAKEN\n\
         orders  version=v2      10  10.0%  yes\n\
         next                    90  90.0%\n\
         \n\
         STAGE     KEPT  DROPPED      REASON\n\
         registry     4\n\
         filter       2  10.0.0.3:80  version=v2\n\
         \u{20}               10.0.0.4:80  version=v2\n\
         \n\
         CANDIDATE    WEIGHT  SHARE\n\
         10.0.0.1:80     100  66.7%\n\
         10.0.0.2:80      50  33.3%\n"
    );
}

#[test]
fn why_says_for_which_reason_a_call_would_fail() {
    let answer = r#"{"authority":"a/b","service":"","verdict":"bad_authority","message":"it holds '/'","steps":[],"candidates":[]}"#;
    let admin = CannedAdmin::tcp(&[("/why?authority=a%2Fb", 200, answer)]);
    let outcome = pillion(&["why", "a/b", "--admin", admin.url()]);
    assert_eq!(outcome.stdout, "authority  a/b\nverdict    bad_authority: it holds '/'\n");
}

#[test]
fn what_the_proxy_refuses_ends_with_1_and_its_words() {
    let refusal = "{\"error\":\"no source knows the service pay\"}\n";
    let admin = CannedAdmin::tcp(&[("/services/pay", 404, refusal)]);
    let outcome = pillion(&["services", "pay", "--admin", admin.url()]);
    assert_eq!(outcome.status, 1);
    assert_eq!(
        outcome.stderr,
        format!(
            "error: the proxy at {} answers 404 Not Found: no source knows the service pay\n",
            admin.url()
        )
    );
}

#[test]
fn where_no_proxy_answers_the_command_says_so_and_ends_with_1() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("unix:{}", folder.path().join("admin.sock").display());
    for args in [&["services"][..], &["why", "orders"]] {
        let outcome = pillion_with(&[("PILLION_ADMIN", &url)], args);
        assert_eq!((outcome.status, &*outcome.stdout), (1, ""));
        let expected = format!(
            "error: no proxy answers at {url}; is `pillion run` running? give --admin\n  caused by: "
        );
        assert!(outcome.stderr.starts_with(&expected), "{}", outcome.stderr);
    }
}

#[test]
fn an_answer_of_another_form_is_told_apart_from_none() {
    let admin = CannedAdmin::tcp(&[("/services", 200, "{}")]);
    let outcome = pillion(&["services", "--admin", admin.url()]);
    assert_eq!(outcome.status, 1);
    assert!(outcome.stderr.contains("is not understood; -o json prints it as it is"));
    assert!(outcome.stderr.contains("caused by: missing field `services`"));
}

#[test]
fn a_relative_path_in_a_file_starts_at_the_folder_of_the_file() {
    let (folder, path) = file("[[source]]\nkind = \"file\"\npath = \"services.toml\"");
    let effective: toml::Table = pillion(&["config", "-c", &path]).stdout.parse().unwrap();
    let source = Path::new(effective["source"][0]["path"].as_str().unwrap());
    assert_eq!(source, folder.path().join("services.toml"));
}
