//! What the documents tell a reader to type, to follow or to look at is there.
//!
//! Nobody reads a document as closely as the first person who needs it. So every command line is
//! given to the definitions of the command line, every link is followed, every configuration is
//! loaded, and every metric is looked for in a scrape.

#![allow(clippy::unwrap_used, reason = "the exception for tests does not cover their helpers")]

#[path = "support/etcd.rs"]
#[allow(dead_code, reason = "tests/discovery.rs uses the rest")]
mod etcd;
#[path = "support/tls.rs"]
#[allow(dead_code, reason = "tests/behaviour uses the rest")]
mod tls;

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use clap::error::ErrorKind;
use pillion::{
    cli,
    config::{self, SourceKind},
    formats::{EncodeError, FORMATS, Layout},
    lint::RULES,
    model::{GrpcStatus, Reason, Record},
};
use pulldown_cmark::{CodeBlockKind, Event, Parser, Tag, TagEnd};

use tls::Authority;

/// A document, taken apart.
#[derive(Debug, Default)]
struct Document {
    path: PathBuf,
    /// Language and text of code blocks; inline code has no language.
    code: Vec<(String, String)>,
    /// Targets of links.
    links: Vec<String>,
    /// Anchors of headings, as GitHub makes them.
    anchors: BTreeSet<String>,
}

impl Document {
    fn read(path: PathBuf) -> Self {
        let text = fs::read_to_string(&path).unwrap();
        let mut document = Self { path, ..Self::default() };
        let (mut heading, mut block) = (None, None);
        for event in Parser::new(&text) {
            match event {
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    document.anchors.extend(heading.take().map(|heading| anchor(&heading)));
                }
                Event::Start(Tag::CodeBlock(kind)) => {
                    let language = match kind {
                        CodeBlockKind::Fenced(language) => language.to_string(),
                        CodeBlockKind::Indented => String::new(),
                    };
                    block = Some((language, String::new()));
                }
                Event::End(TagEnd::CodeBlock) => document.code.extend(block.take()),
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    document.links.push(dest_url.to_string());
                }
                Event::Code(code) => {
                    heading.iter_mut().for_each(|heading| heading.push_str(&code));
                    document.code.push((String::new(), code.to_string()));
                }
                Event::Text(text) => {
                    heading.iter_mut().for_each(|heading| heading.push_str(&text));
                    block.iter_mut().for_each(|(_, block)| block.push_str(&text));
                }
                _ => {}
            }
        }
        document
    }

    /// Lines that a reader would type, and code in the text.
    fn lines(&self) -> impl Iterator<Item = &str> {
        let typed = |language: &str| ["", "sh", "bash", "console"].contains(&language);
        let code = self.code.iter().filter(move |(language, _)| typed(language));
        code.flat_map(|(_, text)| text.lines())
    }
}

fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn documents() -> Vec<Document> {
    let folder = |name: &str| fs::read_dir(root().join(name)).unwrap();
    let files = [".", "docs", "benches"].into_iter().flat_map(folder);
    let files = files.map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension() == Some("md".as_ref())).collect();
    files.sort();
    files.into_iter().map(Document::read).collect()
}

/// The words after `pillion`, for each time that it is called in a line.
fn calls(line: &str) -> Vec<Vec<String>> {
    let line = line.strip_prefix("$ ").unwrap_or(line);
    let Some(words) = shlex::split(line) else { return Vec::new() };
    let of_shell = |word: &String| ["|", "||", "&&", "&", ";", ">"].contains(&&**word);
    let commands = words.split(of_shell);
    let arguments = |words: &[String]| {
        let is_variable = |word: &String| word.starts_with("PILLION_") && word.contains('=');
        let from = words.iter().position(|word| !is_variable(word))?;
        let words = &words[from..];
        let rest = match words.first()?.as_str() {
            "cargo" if words.get(1).is_some_and(|word| word == "run") => {
                words.split(|word| word == "--").nth(1)?
            }
            program if program == "pillion" || program.ends_with("/pillion") => &words[1..],
            _ => return None,
        };
        (!rest.is_empty()).then(|| rest.to_vec())
    };
    commands.filter_map(arguments).collect()
}

#[test]
fn every_command_in_the_documents_is_one() {
    let mut seen = 0;
    for document in documents() {
        for (line, call) in
            document.lines().flat_map(|line| calls(line).into_iter().map(move |call| (line, call)))
        {
            seen += 1;
            // The text may name a command without saying what it needs.
            let named = is_name(&call);
            let words = std::iter::once("pillion".to_owned()).chain(call);
            if let Err(error) = cli::command().try_get_matches_from(words) {
                let fine = match error.kind() {
                    ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => true,
                    ErrorKind::MissingRequiredArgument
                    | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => named,
                    _ => false,
                };
                assert!(fine, "{}: {line}\n{error}", document.path.display());
            }
        }
    }
    assert!(seen > 20, "only {seen} commands found");
}

/// Whether the words are those of a command, and no more.
fn is_name(call: &[String]) -> bool {
    let mut command = &cli::command();
    call.iter().all(|word| match command.find_subcommand(word) {
        Some(found) => {
            command = found;
            true
        }
        None => false,
    })
}

#[test]
fn calls_are_found_between_what_else_is_in_a_line() {
    let words = |line| calls(line).concat().join(" ");
    assert_eq!(words("$ pillion check -c pillion.toml   # what is wrong"), "check -c pillion.toml");
    assert_eq!(words("PILLION_FORMAT=go-zero pillion run"), "run");
    assert_eq!(words("cargo run --release -- demo    # see it"), "demo");
    assert_eq!(words("pillion man run > /tmp/run.1"), "man run");
    assert_eq!(
        words("pillion services orders -o json | jq '.endpoints'"),
        "services orders -o json"
    );
    assert_eq!(words("echo pillion run"), "");
}

#[test]
fn every_flag_in_the_text_is_a_flag_of_some_command() {
    fn gather<'a>(command: &'a clap::Command, flags: &mut BTreeSet<&'a str>) {
        flags.extend(command.get_arguments().filter_map(clap::Arg::get_long));
        command.get_subcommands().for_each(|command| gather(command, flags));
    }
    let command = cli::command();
    let mut flags = BTreeSet::new();
    gather(&command, &mut flags);
    for document in documents() {
        // The benchmark has flags of its own.
        if document.path.ends_with("benches/README.md") {
            continue;
        }
        for (_, code) in document.code.iter().filter(|(_, code)| code.starts_with("--")) {
            let word = code.split([' ', '=']).next().unwrap();
            let path = document.path.display();
            assert!(flags.contains(&word[2..]), "{path}: {code}: no command has {word}");
        }
    }
}

#[test]
fn every_make_target_in_the_documents_is_in_the_makefile() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    for document in documents() {
        for line in document.lines() {
            let Some(rest) = line.strip_prefix("make ") else { continue };
            let target = rest.split_whitespace().next().unwrap();
            let found = makefile.lines().any(|line| line.starts_with(&format!("{target}:")));
            assert!(found, "{}: {line}", document.path.display());
        }
    }
}

#[test]
fn every_link_between_the_documents_leads_somewhere() {
    let documents = documents();
    for document in &documents {
        for link in document.links.iter().filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let from = document.path.parent().unwrap();
            let target = match file {
                "" => document.path.clone(),
                file => from.join(file),
            };
            let path = document.path.display();
            assert!(target.exists(), "{path}: {link}: there is no such file");
            if !anchor.is_empty() {
                let anchors = Document::read(target).anchors;
                assert!(anchors.contains(anchor), "{path}: {link}: there are {anchors:?}");
            }
        }
    }
}

#[tokio::test]
async fn every_configuration_in_the_documents_can_be_loaded() {
    let folder = tempfile::tempdir().unwrap();
    // Named by some of them, and looked into.
    fs::write(folder.path().join("admin-token"), "0123456789abcdef").unwrap();
    for document in documents() {
        for (_, text) in document.code.iter().filter(|(language, _)| language == "toml") {
            let problem = match text.contains("[[endpoint]]") {
                true => read_endpoints(folder.path(), text).await,
                false => load(folder.path(), text).err(),
            };
            let problem = problem.unwrap_or_default();
            assert!(problem.is_empty(), "{}: {problem}\n{text}", document.path.display());
        }
    }
}

/// That each is what its format can say is known once it is loaded.
#[test]
fn every_format_that_is_written_has_its_example_and_its_row() {
    let folder = tempfile::tempdir().unwrap();
    let page = Document::read(root().join("docs/registry.md"));
    let mut shown = BTreeSet::new();
    for (_, text) in page.code.iter().filter(|(language, _)| language == "toml") {
        let settings = load(folder.path(), text).unwrap();
        for register in &settings.registers {
            let SourceKind::Etcd(etcd) = &settings.source(&register.source).unwrap().kind else {
                panic!("{text}");
            };
            shown.insert(register.format.unwrap_or(&etcd.format).to_owned());
        }
    }
    let (service, address) = ("a".parse().unwrap(), "10.0.0.1:80".parse().unwrap());
    let record = Record::new(address, "");
    let is_written = |format: &&str| {
        let written = Layout::new(format, "").unwrap().encode(&service, &record, 1);
        !matches!(written, Err(EncodeError::ReadOnly(_)))
    };
    let written: BTreeSet<_> =
        FORMATS.iter().filter(|f| is_written(f)).map(ToString::to_string).collect();
    assert_eq!(shown, written);
    let table = fs::read_to_string(page.path).unwrap();
    for format in written {
        let is_row = |line: &str| line.starts_with("| `") && line.contains(&format!("`{format}`"));
        assert!(table.lines().any(is_row), "docs/registry.md has no row of {format}");
    }
}

/// Where the examples have certificates, which are read when they are loaded.
const CERTIFICATES: &str = "/etc/pillion/tls";

fn load(folder: &Path, text: &str) -> Result<config::Settings, String> {
    let path = folder.join("pillion.toml");
    let here = folder.join("tls");
    if text.contains(CERTIFICATES) && !here.exists() {
        let authority = Authority::new(folder, "tls");
        authority.sign_for("cart", "URI:spiffe://prod/ns/shop/sa/cart");
        authority.sign_for("orders", "URI:spiffe://prod/ns/shop/sa/orders");
    }
    fs::write(&path, text.replace(CERTIFICATES, here.to_str().unwrap())).unwrap();
    let loaded = config::load(Some(&path), &config::Overrides::default());
    loaded.map(|loaded| loaded.settings).map_err(|errors| errors.to_string())
}

/// What is wrong with a list of endpoints, as the source that would read it says.
async fn read_endpoints(folder: &Path, text: &str) -> Option<String> {
    fs::write(folder.join("services.toml"), text).unwrap();
    let settings = load(folder, "[[source]]\nkind = \"file\"\npath = \"services.toml\"").unwrap();
    let (directory, _discovery) = pillion::discovery::start(settings.sources);
    let list: toml::Table = text.parse().unwrap();
    for endpoint in list["endpoint"].as_array().unwrap() {
        let name = endpoint["service"].as_str().unwrap().parse().unwrap();
        // Only a test that fails takes as long.
        let found = directory.resolve(&name, Duration::from_secs(30)).await;
        if let Err(error) = found {
            return Some(error.to_string());
        }
    }
    let status = directory.sources().remove(0);
    (status.rejected > 0).then(|| format!("{} endpoints are rejected", status.rejected))
}

#[test]
fn every_reason_has_its_row_in_operations() {
    let operations = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    for reason in Reason::ALL {
        let (name, grpc) = (reason.as_str(), GrpcStatus::new(reason.grpc_status()).name());
        let row = format!("| `{name}` | {grpc} | {} |", reason.http_status());
        assert!(operations.contains(&row), "docs/operations.md has no row {row}");
    }
}

#[test]
fn every_rule_of_lint_has_its_row_in_commands() {
    let commands = fs::read_to_string(root().join("docs/commands.md")).unwrap();
    for rule in RULES {
        let row = format!("| `{}` | {} | {} |", rule.name, rule.severity().as_str(), rule.about);
        assert!(commands.contains(&row), "docs/commands.md has no row {row}");
    }
}

/// `pillion run` on Unix sockets.
struct Running {
    /// Ended with it.
    _etcd: Option<etcd::Etcd>,
    _certificates: Option<tempfile::TempDir>,
    folder: tempfile::TempDir,
    child: Child,
}

impl Running {
    /// With a service of two endpoints that refuse connections, and a live policy that it refuses.
    async fn start() -> Self {
        let etcd = etcd::Etcd::start().await;
        etcd.put("/pillion/policy/route/a", "nonsense").await;
        let entry =
            |port: u8| format!("[[endpoint]]\nservice=\"x\"\naddress=\"127.0.0.1:{port}\"\n");
        let source = "[[source]]\nkind = \"file\"\npath = \"services.toml\"\n";
        let route = "[[route]]\nauthority = \"x\"\nservice = \"x\"\nfilter = \"gpu;\"\nfault.delay = \"1ms\"\n";
        let url = etcd.url();
        let limits = "[defaults.limits]\nrate = 1\nadaptive = true\n\
                      [defaults.health]\nkind = \"tcp\"\n\
                      [service.failing.retry]\non = [\"unavailable\"]\n";
        let policy = format!("[policy]\n[[source]]\nname = \"main\"\nendpoints = [{url:?}]\n");
        let register =
            "[[register]]\nservice = \"y\"\naddress = \"127.0.0.1:1\"\nformat = \"go-zero\"\n";
        let certificates = tempfile::tempdir().unwrap();
        let ca = Authority::new(certificates.path(), "ca").cert();
        let tls = format!("[service.x.tls]\nmode = \"on\"\nca = {ca:?}\n");
        let config = [source, route, limits, &policy, register, &tls].concat();
        let failing = failing().await;
        let failing = format!("[[endpoint]]\nservice=\"failing\"\naddress=\"{failing}\"\n");
        let mut running = Self::start_with(&config, &(entry(1) + &entry(2) + &failing));
        running._etcd = Some(etcd);
        running._certificates = Some(certificates);
        running
    }

    /// With a configuration whose source is the file `services.toml`.
    fn start_with(config: &str, services: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("services.toml"), services).unwrap();
        fs::write(at("pillion.toml"), config).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_pillion"))
            .args(["run", "--workers", "1", "--config"])
            .arg(at("pillion.toml"))
            .arg(format!("--listen=unix:{}", at("listener").display()))
            .arg(format!("--admin=unix:{}", at("admin").display()))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut said, mut byte) = (Vec::new(), [0]);
        while !said.ends_with(b"serving") {
            child.stderr.as_mut().unwrap().read_exact(&mut byte).unwrap();
            said.push(byte[0]);
        }
        Self { _etcd: None, _certificates: None, folder, child }
    }

    /// What a command prints that asks it.
    fn ask(&self, command: &[String]) -> String {
        let admin = format!("unix:{}", self.folder.path().join("admin").display());
        let mut pillion = Command::new(env!("CARGO_BIN_EXE_pillion"));
        let output = pillion.args(command).env("PILLION_ADMIN", admin).output().unwrap();
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr)
    }

    /// A request that leaves the proxy with an error: both endpoints are tried, or a limit is met.
    async fn call(&self, error: &str) {
        let headers = self.send(http::Request::get("http://x/").body(()).unwrap()).await;
        assert_eq!(headers["pillion-error"], error);
    }

    /// A gRPC call that the only endpoint of its service fails.
    async fn call_failing(&self) {
        let call = http::Request::post("http://failing/a.B/C");
        let headers = self.send(call.header("content-type", "application/grpc").body(()).unwrap());
        assert_eq!(headers.await["grpc-status"], "14");
    }

    async fn send(&self, request: http::Request<()>) -> http::HeaderMap {
        let io =
            tokio::net::UnixStream::connect(self.folder.path().join("listener")).await.unwrap();
        let (mut client, connection) = h2::client::handshake(io).await.unwrap();
        tokio::spawn(connection);
        let (response, _) = client.send_request(request, true).unwrap();
        response.await.unwrap().into_parts().0.headers
    }

    fn scrape(&self) -> String {
        let mut admin = UnixStream::connect(self.folder.path().join("admin")).unwrap();
        admin.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        admin.read_to_string(&mut answer).unwrap();
        answer
    }
}

/// An endpoint that answers UNAVAILABLE: where it listens.
async fn failing() -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let mut connection = h2::server::handshake(tcp).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let answer = http::Response::builder().header("grpc-status", "14");
                respond.send_response(answer.body(()).unwrap(), true).unwrap();
            }
        }
    });
    address
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_example_of_the_policy_page_prints_what_the_page_says() {
    let page = Document::read(root().join("docs/policy.md"));
    let block = |language: &str, of: &str| {
        let is_it = |(code, text): &&(String, String)| code == language && text.contains(of);
        page.code.iter().find(is_it).map(|(_, text)| &**text).unwrap()
    };
    let running =
        Running::start_with(block("toml", "kind = \"file\""), block("toml", "endpoint = ["));
    let printed = block("console", "pillion why");
    let mut seen = 0;
    for example in printed.split("$ ").skip(1) {
        let (command, expected) = example.split_once('\n').unwrap();
        let answer = running.ask(&calls(command)[0]);
        assert_eq!(answer.trim_end(), expected.trim_end(), "{command}\n{answer}");
        seen += 1;
    }
    assert_eq!(seen, 2, "two examples");
}

#[tokio::test]
async fn every_metric_in_the_documents_and_alerts_is_in_a_scrape() {
    let running = Running::start().await;
    running.call("connect_failed").await;
    running.call("overloaded").await;
    running.call_failing().await;
    let mut scrape = running.scrape();
    while !scrape.contains("refused\"} 1") || !scrape.contains("pillion_health_checks_total{") {
        scrape = running.scrape();
    }
    let families: BTreeSet<&str> =
        scrape.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let alerts = fs::read_to_string(root().join("docker/alerts.yml")).unwrap();
    let texts = documents().into_iter().flat_map(|document| document.code).map(|(_, text)| text);
    let mut seen = 0;
    for text in texts.chain([alerts]) {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        for name in text.split(|c| !word(c)).filter(|name| name.starts_with("pillion_")) {
            let family = ["_bucket", "_sum", "_count"];
            let family = family.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            assert!(families.contains(family), "{name} is none of {families:?}");
            seen += 1;
        }
    }
    assert!(seen > 10, "only {seen} metrics found");
}

#[test]
fn every_test_that_the_pages_on_security_and_reliability_name_is_there() {
    let sources = ["tests", "src"].map(|folder| sources(&root().join(folder))).concat();
    for (page, least) in [("security", 15), ("reliability", 45)] {
        let text = fs::read_to_string(root().join(format!("docs/{page}.md"))).unwrap();
        let mut seen = 0;
        for row in text.lines().filter(|line| line.starts_with("| ")) {
            let tests = row.trim_end_matches('|').rsplit('|').next().unwrap();
            for test in tests.split('`').filter(|name| name.matches('_').count() > 2) {
                seen += 1;
                assert!(
                    sources.contains(&format!("fn {test}(")),
                    "{page}: there is no test {test}"
                );
            }
        }
        assert!(seen > least, "{page}: {seen} tests found");
    }
}

/// All Rust in a folder, less what others have built in it.
fn sources(folder: &Path) -> String {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let text = |path: PathBuf| match path.extension() {
        _ if path.is_dir() && !path.ends_with("target") => sources(&path),
        Some(extension) if extension == "rs" => fs::read_to_string(path).unwrap(),
        _ => String::new(),
    };
    entries.map(text).collect()
}
