//! Loads a configuration: flags and environment over the file over the defaults.

use std::path::{Path, PathBuf};

use super::{
    etcd_url::EtcdUrl,
    problem::{ConfigErrors, OpenAdmin},
    read::read_file,
    settings::{EtcdSource, Listener, Settings, SocketPath, Source, SourceKind},
    token::read_token,
};
use crate::{account::Account, watch_file::Said};

/// What flags and environment say; it wins over the file. What is empty or none says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Replaces all listeners.
    pub listen: Vec<SocketPath>,
    /// Replaces the admin address.
    pub admin: Option<SocketPath>,
    /// Replaces the file of its token.
    pub admin_token_file: Option<PathBuf>,
    /// Replaces the members of the first etcd source; adds one, where there is only a file.
    pub etcd: Vec<EtcdUrl>,
    /// Replaces the key prefix of the first etcd source.
    pub prefix: Option<String>,
    /// Replaces the record format of the first etcd source; one of [`super::FORMATS`].
    pub format: Option<String>,
    /// Replaces the number of data-plane threads.
    pub workers: Option<usize>,
    /// Replaces the user to become.
    pub user: Option<String>,
    /// Replaces the group to become.
    pub group: Option<String>,
}

/// A configuration that was loaded.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What it says.
    pub settings: Settings,
    /// The file it was read from, if any: what to watch, and what to load again.
    pub path: Option<PathBuf>,
    /// By the file.
    pub said: Said,
}

/// Loads `path`, or the defaults where there is none, and lets `overrides` win.
///
/// # Errors
/// [`ConfigErrors`], with every mistake of the file.
pub fn load(path: Option<&Path>, overrides: &Overrides) -> Result<Loaded, ConfigErrors> {
    load_again(path, overrides, Said::default())
}

/// The same, where the file has been loaded before.
///
/// # Errors
/// As [`load`], and [`ConfigErrors::Emptied`].
pub fn load_again(
    path: Option<&Path>,
    overrides: &Overrides,
    before: Said,
) -> Result<Loaded, ConfigErrors> {
    let mut applied = Ok(());
    let mut finish = |settings: &mut Settings| {
        applied = apply(overrides, settings);
        if settings.node.id.is_empty() {
            settings.node.id = host_name();
        }
    };
    let (settings, said) = match path {
        Some(path) => read_file(path, before, finish)?,
        None => {
            let mut settings = Settings::default();
            finish(&mut settings);
            (settings, Said::default())
        }
    };
    applied?;
    if let Some(file) = &overrides.admin_token_file {
        read_token(file).map_err(ConfigErrors::Token)?;
    }
    Account::find(&settings.user, &settings.group).map_err(ConfigErrors::Account)?;
    if settings.admin.is_open() {
        return Err(ConfigErrors::OpenAdmin(OpenAdmin(settings.admin.address)));
    }
    Ok(Loaded { settings, path: path.map(Path::to_owned), said })
}

fn apply(overrides: &Overrides, settings: &mut Settings) -> Result<(), ConfigErrors> {
    let Overrides { listen, admin, admin_token_file, etcd, prefix, format, .. } = overrides;
    if !listen.is_empty() {
        // What the file says of its first listener goes for those of the flags, too.
        let first = settings.listeners.first().cloned();
        let at = |address: &SocketPath| match &first {
            Some(first) => Listener { address: address.clone(), ..first.clone() },
            None => Listener::at(address.clone()),
        };
        settings.listeners = listen.iter().map(at).collect();
    }
    if let Some(admin) = admin {
        settings.admin.address = admin.clone();
    }
    if admin_token_file.is_some() {
        settings.admin.token_file.clone_from(admin_token_file);
    }
    settings.workers = overrides.workers.unwrap_or(settings.workers);
    if let Some(user) = &overrides.user {
        // A group of the file is that of the user in the file.
        (settings.user, settings.group) = (user.clone(), String::new());
    }
    if let Some(group) = &overrides.group {
        settings.group.clone_from(group);
    }
    if !etcd.is_empty() {
        let endpoints = etcd.iter().map(|url| url.as_str().to_owned()).collect();
        match first_etcd(settings) {
            Some(source) => source.endpoints = endpoints,
            None => settings.sources.push(Source::new(
                unused_name(&settings.sources),
                SourceKind::Etcd(EtcdSource { endpoints, ..EtcdSource::default() }),
            )),
        }
    }
    if let Some(prefix) = prefix {
        let source = first_etcd(settings);
        source.ok_or(ConfigErrors::NoEtcdSource { flag: "--prefix" })?.prefix.clone_from(prefix);
    }
    if let Some(format) = format {
        let source = first_etcd(settings);
        source.ok_or(ConfigErrors::NoEtcdSource { flag: "--format" })?.format.clone_from(format);
    }
    Ok(())
}

fn first_etcd(settings: &mut Settings) -> Option<&mut EtcdSource> {
    settings.sources.iter_mut().find_map(|source| match &mut source.kind {
        SourceKind::Etcd(etcd) => Some(etcd),
        SourceKind::File(_) => None,
    })
}

/// The usual name of an etcd source, or one like it that no source has.
fn unused_name(sources: &[Source]) -> String {
    let usual = std::iter::once(Source::DEFAULT_NAME.to_owned());
    let others = (2..).map(|number| format!("{}-{number}", Source::DEFAULT_NAME));
    let mut names = usual.chain(others);
    names.find(|name| sources.iter().all(|source| *source.name != **name)).unwrap_or_default()
}

/// The name of this host, as far as it can be the value of a header; else empty.
pub(super) fn host_name() -> String {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_str().unwrap_or_default();
    name.chars().filter(char::is_ascii_graphic).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::read::parse;

    fn settings(text: &str) -> Settings {
        parse(text, Path::new("/etc/pillion")).unwrap()
    }

    #[test]
    fn a_file_on_disk_is_read_and_its_mistakes_carry_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.toml");
        fs::write(&path, "workers = 3").unwrap();
        let loaded = load(Some(&path), &Overrides::default()).unwrap();
        assert_eq!((loaded.settings.workers, loaded.path.as_deref()), (3, Some(&*path)));
        assert_ne!(loaded.settings.node.id, "", "the host name");
        fs::write(&path, b"# \xe2\x82\xac\n# \xff").unwrap();
        let error = load(Some(&path), &Overrides::default()).unwrap_err().to_string();
        let expected = format!("{}:2:3: this byte is not UTF-8", path.display());
        assert!(error.starts_with(&expected), "{error}");
        let error = load(Some(&folder.path().join("none")), &Overrides::default()).unwrap_err();
        assert!(error.to_string().ends_with("none: cannot be read"), "{error}");
    }

    #[test]
    fn overrides_win_over_the_file() {
        let mut settings = settings(
            "workers = 1\nuser = \"a\"\ngroup = \"b\"\n[[listener]]\naddress = \"[::1]:1\"\n[[source]]\nprefix = \"/a\"\nmode = \"eager\"",
        );
        let overrides = Overrides {
            listen: vec!["127.0.0.1:2".parse().unwrap(), "unix:/s".parse().unwrap()],
            admin: Some("127.0.0.1:3".parse().unwrap()),
            admin_token_file: Some("/token".into()),
            etcd: vec!["http://a:1".parse().unwrap(), "http://b:1".parse().unwrap()],
            prefix: Some("/b".to_owned()),
            format: Some("koala".to_owned()),
            workers: Some(4),
            user: Some("daemon".to_owned()),
            group: None,
        };
        apply(&overrides, &mut settings).unwrap();
        assert_eq!((settings.workers, settings.listeners.len()), (4, 2));
        assert_eq!(
            (&*settings.user, &*settings.group),
            ("daemon", ""),
            "the file's group is not its"
        );
        assert_eq!(settings.admin.address.to_string(), "127.0.0.1:3");
        let etcd = first_etcd(&mut settings).unwrap();
        assert_eq!((etcd.endpoints.len(), &*etcd.prefix, &*etcd.format), (2, "/b", "koala"));
        assert_eq!(etcd.mode, crate::config::Mode::Eager, "what is not overridden stays");
    }

    #[test]
    fn an_etcd_is_added_to_a_file_that_has_none_under_a_name_of_its_own() {
        let mut settings = settings("[[source]]\nname = \"main\"\nkind = \"file\"\npath = \"f\"");
        let etcd = vec!["http://a:1".parse().unwrap()];
        apply(&Overrides { etcd, ..Overrides::default() }, &mut settings).unwrap();
        let names: Vec<&str> = settings.sources.iter().map(|source| &*source.name).collect();
        assert_eq!(names, ["main", "main-2"]);
    }

    #[test]
    fn a_prefix_for_an_etcd_that_is_not_there_is_refused() {
        let mut settings = settings("[[source]]\nkind = \"file\"\npath = \"f\"");
        let prefix = Some("/a".to_owned());
        let error = apply(&Overrides { prefix, ..Overrides::default() }, &mut settings);
        assert!(error.unwrap_err().to_string().starts_with("--prefix changes the first etcd"));
    }
}
