//! Reads a file: text to tables to settings, with the place of every mistake.

use std::{fs, path::Path, str::Utf8Error};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    check,
    problem::{ConfigErrors, Problem, Problems},
    raw::RawFile,
    settings::Settings,
    value::{Scope, Value},
};
use crate::watch_file::Said;

/// Settings of the file at `path`, which has said something `before` or not, after `finish` has changed them as
/// flags and variables ask for.
///
/// # Errors
/// [`ConfigErrors::Unreadable`], [`ConfigErrors::Emptied`], or [`ConfigErrors::Wrong`] with every mistake.
pub(super) fn read_file(
    path: &Path,
    before: Said,
    finish: impl FnOnce(&mut Settings),
) -> Result<(Settings, Said), ConfigErrors> {
    let unreadable = |source| ConfigErrors::Unreadable { path: path.to_owned(), source };
    let bytes = fs::read(path).map_err(unreadable)?;
    let said = Said::by(&bytes);
    if before.is_lost(said) {
        return Err(ConfigErrors::Emptied(path.to_owned()));
    }
    let absolute = std::path::absolute(path).map_err(unreadable)?;
    let folder = absolute.parent().unwrap_or(&absolute);
    let wrong = |problems| ConfigErrors::Wrong { path: path.to_owned(), problems };
    let text = str::from_utf8(&bytes).map_err(|error| wrong(vec![not_text(&bytes, error)]))?;
    let files = |raw: &RawFile, problems: &mut Problems| check::files(raw, folder, problems);
    let settings = parse_and(text, folder, finish, files).map_err(wrong)?;
    Ok((settings, said))
}

/// Settings of a file's `text`, with [`super::Node::id`] as it is written. Relative paths start at
/// `folder`.
///
/// # Errors
/// Every mistake, in the order of the text.
#[cfg(test)]
pub(super) fn parse(text: &str, folder: &Path) -> Result<Settings, Vec<Problem>> {
    parse_and(text, folder, |_| (), |_, _| ())
}

fn parse_and(
    text: &str,
    folder: &Path,
    finish: impl FnOnce(&mut Settings),
    files: impl FnOnce(&RawFile, &mut Problems),
) -> Result<Settings, Vec<Problem>> {
    let mut problems = Problems::default();
    let settings = read(text, &mut problems).map(|mut raw| {
        raw.start_paths_at(folder);
        let mut settings = check::settings(&raw, folder, &mut problems);
        finish(&mut settings);
        check::against_sources(&raw, &settings, &mut problems);
        check::admin_access(&raw, &settings, &mut problems);
        files(&raw, &mut problems);
        settings
    });
    settings.filter(|_| problems.is_empty()).ok_or_else(|| problems.locate(text))
}

/// The file as it is written, noting single values that are wrong. None where it is not TOML.
pub(super) fn read(text: &str, problems: &mut Problems) -> Option<RawFile> {
    RawFile::read(&table(text, problems)?, &Scope::default(), problems)
}

/// A text as TOML. None where it is not.
pub(super) fn table<'a>(text: &'a str, problems: &mut Problems) -> Option<Spanned<DeValue<'a>>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        problems.note(error.span().unwrap_or_default(), error.message());
    }
    // What was recovered may lack the lines that did not parse: reading it would mislead.
    errors.is_empty().then(|| Spanned::new(table.span(), DeValue::Table(table.into_inner())))
}

fn not_text(bytes: &[u8], error: Utf8Error) -> Problem {
    let mut problems = Problems::default();
    let valid = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
    problems.note(valid.len()..valid.len(), "this byte is not UTF-8, which TOML is written in");
    problems.locate(&valid).remove(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Balance, Connection, FileSource, SourceKind, default_file};

    /// The mistakes of a file, as `LINE:COLUMN: message`.
    fn mistakes(text: &str) -> Vec<String> {
        let problems = parse(text, Path::new("/etc/pillion")).unwrap_err();
        problems.iter().map(|p| format!("{}:{}: {}", p.line, p.column, p.message)).collect()
    }

    fn settings(text: &str) -> Settings {
        parse(text, Path::new("/etc/pillion")).unwrap()
    }

    #[test]
    fn every_mistake_is_reported_with_its_place() {
        let text = r#"
            worker = 2
            [node]
            zone = 7
            [defaults]
            attempts = 0
            connect_timeout = "0s"
            balance = "p2cc"
        "#;
        assert_eq!(
            mistakes(text),
            [
                "2:13: unknown key \"worker\" at the top, did you mean \"workers\"? allowed: \
                 workers, drain_timeout, drain_propagation, max_in_flight, max_memory, access_log, \
                 state_dir, user, group, node, listener, admin, source, register, defaults, service, route, policy",
                "4:20: node.zone: found the number 7; allowed: printable ASCII characters, \
                 without spaces around them",
                "6:24: defaults.attempts: found the number 0; allowed: a whole number from 1 to \
                 1000",
                "7:31: defaults.connect_timeout: \"0s\" is zero; allowed: a duration such as \
                 \"250ms\" or \"30s\", more than \"0s\"",
                "8:23: defaults.balance: \"p2cc\" is unknown (did you mean \"p2c\"?); allowed: \
                 \"weighted_random\", \"round_robin\", \"p2c\", \"peak_ewma\", \"ring_hash\", \"maglev\"",
            ]
        );
    }

    #[test]
    fn an_unknown_key_says_where_it_belongs() {
        let hint = |text| mistakes(text)[0].split("; allowed").next().unwrap().to_owned();
        assert_eq!(
            hint("attempts = 1"),
            "1:1: unknown key \"attempts\" at the top, it belongs in [defaults] or in \
             [service.NAME]"
        );
        assert_eq!(
            hint("[service.orders.v1]\nattempts = 1"),
            "1:17: unknown key \"v1\" in [service.\"orders\"], a name with dots needs quotes: \
             [service.\"orders.v1\"]"
        );
        assert!(hint("[admin]\natempts = 1").contains("did you mean \"attempts\" in [defaults]"));
    }

    #[test]
    fn a_key_of_a_later_version_is_unknown() {
        assert!(mistakes("max_threads = \"1\"")[0].contains("unknown key"));
    }

    #[test]
    fn text_that_is_not_toml_has_all_its_faults_reported_and_nothing_else() {
        let found = mistakes("workers = \nadmin 3\nworkers = 2000\n");
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("1:11: ") && found[1].starts_with("2:7: "), "{found:?}");
    }

    #[test]
    fn what_is_wrong_with_each_value_is_found() {
        for (text, expected) in [
            ("workers = -1", "1:11: workers: found the number -1"),
            ("workers = \"2\"", "1:11: workers: found the string \"2\""),
            ("workers = 1.5", "1:11: workers: found the number 1.5"),
            ("drain_timeout = 30", "1:17: drain_timeout: found the number 30"),
            ("drain_timeout = \"30\"", "1:17: drain_timeout: \"30\" is not a duration"),
            ("drain_timeout = \"9years\"", "1:17: drain_timeout: \"9years\" is more than a year"),
            ("access_log = true", "1:14: access_log: found true"),
            ("node.env = \"pr\\nod\"", "1:12: node.env: \"pr\\nod\" cannot be used"),
            ("[[listener]]", "1:1: listener: `address` is missing"),
            (
                "[[listener]]\naddress = \"[::]:1\"\nlimits.max_header_size = \"1GiB\"",
                "3:26: listener.limits.max_header_size: \"1GiB\" is out of range; allowed: a size",
            ),
            (
                "[[listener]]\naddress = \"[::]:1\"\nlimits.max_streams = 0",
                "3:22: listener.limits.max_streams: found the number 0",
            ),
            ("listener = []", "1:12: listener: at least one is needed"),
            ("[listener]\naddress = \"[::]:1\"", "1:1: listener: found a table"),
            ("admin.address = \"localhost:1\"", "1:17: admin.address: \"localhost:1\" is not an"),
            ("admin.address = \"unix:rel\"", "1:17: admin.address: \"unix:rel\" is not an address"),
            ("admin.address = \"127.0.0.1:4140\"", "1:17: admin.address: 127.0.0.1:4140 is the"),
            ("source = []", "1:10: source: at least one is needed"),
            ("[[source]]\nname = \"a b\"", "2:8: source.name: \"a b\" cannot be used"),
            ("[defaults]\nlimits.burst = 2", "2:16: limits.burst: needs `rate` beside it"),
            ("[defaults]\nlimits.rate_by = \"method\"", "2:18: limits.rate_by: needs `rate`"),
            (
                "[service.a.limits]\nrate_by = \"caller\"",
                "2:11: service.\"a\".limits.rate_by: \"caller\"",
            ),
            (
                "[defaults.limits]\nrate_by = \"header:a b\"",
                "2:11: defaults.limits.rate_by: \"header:a b\" names no",
            ),
            (
                "[defaults.limits]\nadaptive = 1",
                "2:12: defaults.limits.adaptive: found the number 1; allowed: true",
            ),
            (
                "[defaults.retry]\non = [\"ok\"]",
                "2:7: defaults.retry.on: \"ok\" is no error; allowed",
            ),
            (
                "[defaults.retry]\non = [\"unavailble\"]",
                "2:7: defaults.retry.on: \"unavailble\" is unknown (did you mean \"unavailable\"?)",
            ),
            (
                "[defaults]\nattempts = 1\nretry.on = [\"aborted\"]",
                "3:12: retry.on: needs `attempts` of at least 2",
            ),
            ("[defaults.retry]\nbudget = 20", "2:10: defaults.retry.budget: found the number 20"),
            ("[defaults.retry]\nbackoff = \"1s\"", "2:11: retry.backoff: is longer than"),
            ("[defaults.retry]\nhedge_after = \"1s\"", "2:15: retry.hedge_after: needs `hedge_m"),
            (
                "[defaults.retry]\nhedge_methods = [\"/a/B\"]",
                "2:17: retry.hedge_methods: needs `hedge_after`",
            ),
            ("[[source]]\n[[source]]", "2:1: source.name: \"main\" is taken"),
            ("[[source]]\nendpoints = []", "2:13: source.endpoints: at least one is needed"),
            ("[[source]]\nendpoints = [\"a:1\"]", "2:14: source.endpoints: \"a:1\" is not the URL"),
            ("[[source]]\nformat = \"koalla\"", "2:10: source.format: \"koalla\" is unknown (did"),
            (
                "[[source]]\npath = \"f\"",
                "2:8: source.path: only a source with kind = \"file\" has it",
            ),
            ("[[source]]\nkind = \"file\"", "1:1: source: `path` is missing"),
            ("[[source]]\nkind = \"dns\"", "2:8: source.kind: \"dns\" is unknown"),
            ("[[source]]\nusername = \"u\"", "2:12: source.username: needs `password_file`"),
            ("[[source]]\nkey_file = \"k\"", "2:12: source.key_file: needs `cert_file` beside it"),
            ("[policy]\nprefix = \"/\"", "2:10: policy.prefix: allowed: a start of keys"),
            (
                "[policy]\nsource = \"other\"",
                "2:10: policy.source: \"other\" is no etcd source; allowed: \"main\"",
            ),
            (
                "[policy]\n[[source]]\nkind = \"file\"\npath = \"f\"",
                "1:1: policy: there is no source of kind \"etcd\"",
            ),
            ("[defaults]\nfilter = \"a=1,,\"", "2:10: defaults.filter: selector \"a=1,,\""),
            ("[service.\"a/b\"]", "1:10: service: the service name holds '/'"),
            ("[service.a]\nattempts = 1001", "2:12: service.\"a\".attempts: found the number"),
            ("[[route]]\nauthority = \"a\"", "1:1: route: `service` is missing"),
            ("[[route]]\nservice = \"a\"", "1:1: route: would take every call"),
            ("[[route]]\nheaders = {}\nservice = \"a\"", "1:1: route: would take every call"),
            ("[[route]]\nauthority = \"a*\"\nservice = \"a\"", "2:13: route.authority: \"a*\""),
            ("[[route]]\npath_prefix = \"a\"\nservice = \"a\"", "2:15: route.path_prefix: \"a\""),
        ] {
            let found = mistakes(text);
            assert!(found[0].starts_with(expected), "{text}: {found:?}");
        }
    }

    #[test]
    fn a_source_of_kind_file_has_none_of_the_keys_of_etcd() {
        let found =
            mistakes("[[source]]\nkind = \"file\"\npath = \"f\"\nprefix = \"/\"\nmode = \"lazy\"");
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn listeners_collide_unless_the_system_chooses_the_port() {
        let two = |address| {
            format!("listener = [{{ address = {address:?} }}, {{ address = {address:?} }}]")
        };
        assert!(mistakes(&two("127.0.0.1:1"))[0].contains("is given twice"));
        assert_eq!(settings(&two("127.0.0.1:0")).listeners.len(), 2);
    }

    #[test]
    fn a_service_inherits_what_it_does_not_say() {
        let settings = settings(
            r#"
            [defaults]
            balance = "round_robin"
            timeout = "2s"
            filter = "zone=a"
            [service.orders]
            connection = "pooled"
            timeout = "0s"
            "#,
        );
        let policy = settings.policy(&"orders".parse().unwrap());
        assert_eq!((policy.balance, policy.connection), (Balance::RoundRobin, Connection::Pooled));
        assert_eq!((policy.timeout, &**policy.filter.text()), (None, "zone=a"));
        let other = settings.policy(&"other".parse().unwrap());
        assert_eq!((other.connection, other.timeout.unwrap().as_secs()), (Connection::Fresh, 2));
    }

    #[test]
    fn relative_paths_start_at_the_folder_of_the_file() {
        let settings = settings("[[source]]\nkind = \"file\"\npath = \"services.toml\"");
        let path = "/etc/pillion/services.toml".into();
        assert_eq!(settings.sources[0].kind, SourceKind::File(FileSource { path }));
        assert_eq!(&*settings.sources[0].name, "file");
    }

    proptest::proptest! {
        #[test]
        fn no_damage_to_a_file_ends_in_a_panic_or_a_place_outside_of_it(
            at in 0..6000_usize,
            length in 0..40_usize,
            put in "[\\[\\]\\{\\}=\"'.,#a-z0-9\n\u{e9}]{0,6}",
        ) {
            let text = default_file();
            let (at, end) = (at.min(text.len()), (at + length).min(text.len()));
            let damaged = format!("{}{put}{}", &text[..at], &text[end..]);
            for Problem { line, message, .. } in parse(&damaged, Path::new("/")).err().unwrap_or_default() {
                assert!(line <= damaged.lines().count() + 1);
                assert!(!message.is_empty() && !message.contains('\n'));
            }
        }
    }
}
