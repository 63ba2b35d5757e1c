//! What is read from text. That nothing panics, the fuzzer sees by itself.

use std::{fs, sync::LazyLock, time::Duration};

use pillion::{
    config::{self, Document, DocumentKey, EtcdUrl, FileSource, Overrides, Source, SourceKind},
    discovery::{self, ResolveError},
    grpc_timeout,
    model::{Selectors, ServiceName, without_port},
    route::split_node,
};
use tempfile::TempDir;

/// Longer than anything takes that does not hang.
const SOON: Duration = Duration::from_secs(20);

fn text(data: &[u8]) -> Option<&str> {
    str::from_utf8(data).ok()
}

/// `grpc-timeout`: what is passed on is what was meant.
///
/// # Panics
/// When something does not hold, as in all of these.
pub fn timeout(data: &[u8]) {
    let Some(timeout) = grpc_timeout::parse(data) else { return };
    let written = grpc_timeout::format(timeout);
    let again = grpc_timeout::parse(written.as_bytes()).expect("we read what we write");
    assert!(again <= timeout, "never more than is left: {timeout:?} became {again:?}");
    assert!(timeout - again <= timeout / 10_000, "and hardly less: {again:?} of {timeout:?}");
}

/// `pillion-filter`, and every other place of a selector.
pub fn selectors(data: &[u8]) {
    let Some(Ok(read)) = text(data).map(str::parse::<Selectors>) else { return };
    assert!((1..=Selectors::MOST_RULES).contains(&read.rules().len()));
    assert_eq!(read.text().parse().as_ref(), Ok(&read), "it is shown as it is understood");
}

/// `:authority`, from which nothing but the name of a service comes.
pub fn authority(data: &[u8]) {
    let Some(authority) = text(data) else { return };
    let (service, node) = split_node(authority);
    assert!(authority.contains(service) && node.is_none_or(|node| authority.contains(node)));
    let Ok(name) = without_port(service).parse::<ServiceName>() else { return };
    assert!((1..=255).contains(&name.as_str().len()));
    assert!(!name.as_str().contains(['/', '@', ':', '\0']), "{name} could leave its prefix");
    assert_eq!(name.as_str().parse(), Ok(name.clone()));
}

/// The URL of an etcd, which must not hold a password that would be shown.
pub fn etcd_url(data: &[u8]) {
    let Some(Ok(url)) = text(data).map(str::parse::<EtcdUrl>) else { return };
    assert!(!url.as_str().contains('@'), "{url}");
    assert_eq!(url.as_str().parse(), Ok(url.clone()));
}

/// A configuration: what is accepted is the same again when it has been written and read.
pub fn config(data: &[u8]) {
    static FOLDER: LazyLock<TempDir> = LazyLock::new(folder);
    let path = FOLDER.path().join("pillion.toml");
    let load = |text: &[u8]| {
        fs::write(&path, text).expect("a file can be written");
        config::load(Some(&path), &Overrides::default())
    };
    match load(data) {
        Ok(loaded) => {
            let written = config::effective(&loaded.settings);
            let again =
                load(written.as_bytes()).unwrap_or_else(|error| panic!("{error}\n{written}"));
            assert_eq!(config::effective(&again.settings), written);
        }
        Err(errors) => assert!(!errors.to_string().is_empty()),
    }
}

/// `KEY \n VALUE` of live policy, in TOML or JSON.
pub fn policy(data: &[u8]) {
    let Some((key, value)) = text(data).and_then(|text| text.split_once('\n')) else { return };
    let Ok(key) = key.parse::<DocumentKey>() else { return };
    assert_eq!(key.to_string().parse(), Ok(key.clone()));
    match Document::read(&key, value) {
        Ok(document) => drop(document.lines()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A file of endpoints, from the disk to the sets: nothing in it takes the source down, and what it is
/// asked for then is answered at once.
pub fn services(data: &[u8]) {
    static FOLDER: LazyLock<TempDir> = LazyLock::new(folder);
    let path = FOLDER.path().join("services.toml");
    fs::write(&path, data).expect("a file can be written");
    let kind = SourceKind::File(FileSource { path });
    let source = Source { name: "main".into(), kind, networks: Default::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let (directory, _discovery) = discovery::start(vec![source]);
        let read = || {
            let status = directory.sources().remove(0);
            status.is_loaded() || status.problem.is_some_and(|problem| problem != "not read yet")
        };
        while !read() {
            tokio::task::yield_now().await;
        }
        if directory.sources()[0].is_loaded() {
            let asked = directory.resolve(&"echo".parse().expect("a name"), SOON).await;
            assert!(!matches!(asked, Err(ResolveError::Unavailable { .. })), "{asked:?}");
        }
    });
}

fn folder() -> TempDir {
    // Memory, where there is some: each input is written to a file.
    let memory = std::path::Path::new("/dev/shm");
    let folder = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
    folder.expect("a folder for files")
}
