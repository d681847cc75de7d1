//! Reads a whole configuration from a file and the environment.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::config_value::{self, ConfigTable};
use super::defaults::{FILE_HEADROOM, max_connections_beside, max_sockets};
use super::diagnostics::{ConfigErrors, ConfigWarning, Diagnostics};
use super::environment as variables;
use super::file_text::{self, FileText};
use super::parse::{self, InvalidValue, duration, number, one_of, show_duration, size};
use super::section::{FileReader, Section};
use super::{ClusterConfig, Config, LogConfig, LogFormat, ReplyConfig, ServerConfig};
use super::{address, bots, callers, defaults, proxy, secret, server_tls, store, webhooks};
use crate::domain::BotName;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

/// The least `server.memory_limit`: several of the largest bodies and answers at once.
const MEMORY_MIN: usize = 32 << 20;

/// Returns the environment of this process.
pub fn environment() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os()
}

/// Reads the configuration from a file and the environment, which overrides the file.
///
/// The file is `path`, or the one that `RTM_BRIDGE_CONFIG` names. Without either the environment holds every key.
/// Returns the configuration with its warnings.
///
/// # Errors
/// All errors together. An unreadable file is one error.
pub fn load<K, V>(
    path: Option<&Path>,
    env: impl IntoIterator<Item = (K, V)>,
) -> Result<(Config, Vec<ConfigWarning>), ConfigErrors>
where
    K: Into<OsString>,
    V: Into<OsString>,
{
    load_with(path, env, &file_text::read_file).0
}

/// Reads the configuration like [`load`], with this reader of files. Returns its values too, which are missing if the file
/// is no TOML.
pub(super) fn load_with<K, V>(
    path: Option<&Path>,
    env: impl IntoIterator<Item = (K, V)>,
    files: FileReader<'_>,
) -> (LoadResult, Option<ConfigTable>)
where
    K: Into<OsString>,
    V: Into<OsString>,
{
    let env = variables::own_variables(env);
    let path =
        path.map(Path::as_os_str).or(variables::file(&env).map(OsString::as_os_str)).map(OsStr::to_owned);
    let Some(path) = path else { return assemble(None, &env, files) };
    let name = path.to_string_lossy();
    match files(Path::new(&path)) {
        Ok(file) => assemble(Some((&file, &name)), &env, files),
        Err(error) => {
            let error = ConfigErrors::one(format!(
                "cannot read the configuration file {name}: {error}; name it with --config or RTM_BRIDGE_CONFIG"
            ));
            (Err(error), None)
        }
    }
}

/// A configuration with its warnings, or all errors.
type LoadResult = Result<(Config, Vec<ConfigWarning>), ConfigErrors>;

/// Reads the configuration from text and the environment, which overrides the text.
///
/// `files` reads the files of secrets. The function has no other I/O, so that tests and fuzzing can drive it. Messages
/// call the text `name`.
///
/// # Errors
/// All errors together.
pub fn read<K, V>(
    text: &str,
    name: &str,
    env: impl IntoIterator<Item = (K, V)>,
    files: &dyn Fn(&Path) -> io::Result<FileText>,
) -> Result<(Config, Vec<ConfigWarning>), ConfigErrors>
where
    K: Into<OsString>,
    V: Into<OsString>,
{
    assemble(Some((&text.to_owned().into(), name)), &variables::own_variables(env), files).0
}

/// Returns the path of every key. Tables of a list are called `NAME`, as in `bots.NAME.deadline`.
pub fn keys() -> BTreeSet<String> {
    /// A document with every table. Their missing keys do not matter.
    const TABLES: &str = "bots = [{ name = \"NAME\", webhooks = [{ name = \"NAME\" }], kore_webhook = { clients = [{ name = \"NAME\" }] } }]
server = { tls = {} }
callers = [{ name = \"NAME\", jwt = {} }]";
    let mut diagnostics = Diagnostics::default();
    if let Some(table) = config_value::document(TABLES, &Arc::from("keys"), &mut diagnostics) {
        let no_files = |_: &Path| Err(io::Error::from(io::ErrorKind::NotFound));
        let variables = variables::VariableMap::new();
        Section::root(table, &mut diagnostics, &no_files, |root| config(root, true, &variables));
    }
    diagnostics.into_keys()
}

fn assemble(
    document: Option<(&FileText, &str)>,
    env: &variables::VariableMap,
    files: FileReader<'_>,
) -> (LoadResult, Option<ConfigTable>) {
    let mut diagnostics = Diagnostics::default();
    let table = match document {
        Some((file, name)) => {
            if file.writable_by_others {
                diagnostics.warn("", open_file_warning(name));
            }
            config_value::document(&file.text, &Arc::from(name), &mut diagnostics)
        }
        None => Some(ConfigTable::new()),
    };
    let Some(mut table) = table else {
        // Further errors would refer to half a file.
        return (Err(diagnostics.into_errors()), None);
    };
    variables::overlay(&mut table, env, &mut diagnostics);
    let values = table.clone();
    let config = Section::root(table, &mut diagnostics, files, |root| config(root, document.is_some(), env));
    (diagnostics.finish().map(|warnings| (config, warnings)), Some(values))
}

/// Returns the warning about a file that others can change.
pub(super) fn open_file_warning(name: &str) -> String {
    format!(
        "every user of this machine can change {name}: take their right to write from the file and its folder (chmod o-w)"
    )
}

fn config(root: &mut Section<'_>, has_file: bool, env: &variables::VariableMap) -> Config {
    let proxies = root.section("proxy", |section| proxy::proxies(section, env));
    let mut config = Config {
        default_bot: root.optional("default_bot", bots::bot_name),
        server: root.section("server", server),
        store: root.section("store", store::store),
        cluster: root.section("cluster", cluster),
        reply: root.section("reply", reply),
        bots: root.tables("bots", |section| bots::bot(section, &proxies)),
        callers: root.tables("callers", |section| callers::caller(section, &proxies)),
        webhooks: root.section("webhooks", |section| webhooks::webhooks(section, &proxies)),
        log: root.section("log", log),
    };
    check_relations(root.diagnostics, &config, has_file);
    bots::check(root.diagnostics, &config.bots, &config.callers);
    webhooks::check(root.diagnostics, &config);
    config.add_kore_clients();
    config
}

fn check_relations(diagnostics: &mut Diagnostics, config: &Config, has_file: bool) {
    if !diagnostics.was_given("bots") {
        let hint =
            if has_file { "" } else { " (no file was given either: --config FILE or RTM_BRIDGE_CONFIG)" };
        diagnostics.error("bots", format!("at least one [[bots]] is needed{hint}"));
    } else if config.bots.is_empty() {
        diagnostics.table_error("bots", "at least one [[bots]] is needed");
    }
    // A bot with errors has a known name all the same.
    let known = |diagnostics: &Diagnostics, bot: &BotName| diagnostics.was_given(&format!("bots.{bot}"));
    if let Some(bot) = &config.default_bot
        && !known(diagnostics, bot)
    {
        diagnostics.error("default_bot", format!("there is no bot `{bot}`"));
    }
    for caller in &config.callers {
        for bot in caller.bots.iter().flatten() {
            if !known(diagnostics, bot) {
                diagnostics
                    .error(&format!("callers.{}.bots", caller.name), format!("there is no bot `{bot}`"));
            }
        }
    }
    if !diagnostics.was_given("callers") && !config.server.listen.ip().is_loopback() {
        let what = format!(
            "{} is reachable from other hosts, but there are no [[callers]]: add one (`rtm-bridge key new`), or listen on 127.0.0.1",
            config.server.listen
        );
        diagnostics.relation_error(&["server.listen".to_owned()], what);
    }
    // A replica renews a lease after a third of its lifetime and gives it up after two thirds. The answer must come in
    // between.
    if config.cluster.lease_ttl / 3 <= config.store.command_timeout {
        let (timeout, ttl) =
            (show_duration(config.store.command_timeout), show_duration(config.cluster.lease_ttl));
        let why = "one slow renewal would lose the lease";
        diagnostics.sided_relation_error(&[
            (
                "store.command_timeout".to_owned(),
                format!("{timeout} should be less than a third of cluster.lease_ttl, {ttl}: {why}"),
            ),
            (
                "cluster.lease_ttl".to_owned(),
                format!("{ttl} should be more than three times store.command_timeout, {timeout}: {why}"),
            ),
        ]);
    }
}

fn server(section: &mut Section<'_>) -> ServerConfig {
    let d = ServerConfig::default();
    let files = defaults::open_files();
    let sockets = section.optional("max_sockets", number(1..=10_000_000));
    let connections = section.optional("max_connections", number(1..=10_000_000));
    let max_connections = connections.unwrap_or_else(|| {
        sockets.map_or(d.max_connections, |sockets| max_connections_beside(sockets, files))
    });
    let server = ServerConfig {
        listen: section.or("listen", d.listen, address::address),
        admin_listen: section.or("admin_listen", d.admin_listen, address::address),
        grace: section.or("grace", d.grace, duration(Duration::ZERO..=5 * MINUTE)),
        drain_timeout: section.or("drain_timeout", d.drain_timeout, duration(SECOND..=HOUR)),
        ready_without_store: section.or(
            "ready_without_store",
            d.ready_without_store,
            duration(Duration::ZERO..=HOUR),
        ),
        metrics_token: section.secret(
            "metrics_token",
            "metrics_token_file",
            secret::bearer_token,
            secret::bearer_token_text,
        ),
        tls: section.optional_section("tls", server_tls::server_tls),
        max_sockets: sockets.unwrap_or_else(|| max_sockets(files, max_connections)),
        max_connections,
        memory_limit: section.or("memory_limit", d.memory_limit, size(MEMORY_MIN..=usize::MAX)),
        max_requests: section.or("max_requests", d.max_requests, number(1..=10_000_000)),
        max_streams: section.or("max_streams", d.max_streams, number(0..=10_000_000)),
        threads: section.or("threads", d.threads, number(1..=1024)),
    };
    if server.grace >= server.drain_timeout {
        let (grace, drain) = (show_duration(server.grace), show_duration(server.drain_timeout));
        section.diagnostics.sided_relation_error(&[
            (
                section.key("grace"),
                format!("{grace} should be less than drain_timeout, {drain}, which includes it"),
            ),
            (
                section.key("drain_timeout"),
                format!("{drain} should be more than grace, {grace}, which is a part of it"),
            ),
        ]);
    }
    if server.listen == server.admin_listen && server.listen.port() != 0 {
        let words = |other| format!("{} is `{other}` too; take another port", server.listen);
        section.diagnostics.sided_relation_error(&[
            (section.key("admin_listen"), words("listen")),
            (section.key("listen"), words("admin_listen")),
        ]);
    }
    let needed = server.max_sockets.saturating_add(server.max_connections) as u64;
    if needed.saturating_add(FILE_HEADROOM) > files && (sockets.is_some() || connections.is_some()) {
        let key = section.key(if sockets.is_some() { "max_sockets" } else { "max_connections" });
        let what = format!(
            "{} sockets and {} connections need more open files than the {files} this process may have (ulimit -n)",
            server.max_sockets, server.max_connections
        );
        section.diagnostics.warn(&key, what);
    }
    server
}

fn cluster(section: &mut Section<'_>) -> ClusterConfig {
    let d = ClusterConfig::default();
    ClusterConfig {
        replica_id: section.or("replica_id", d.replica_id, |value| {
            let id = parse::text(value)?;
            let plain = id.bytes().all(|b| b.is_ascii_graphic());
            if plain && id.len() <= 128 {
                Ok(id)
            } else {
                Err(InvalidValue("should be 1 to 128 visible ASCII characters".to_owned()))
            }
        }),
        // A replica renews its leases after a third of this time. Below 3 s one slow renewal would lose them.
        lease_ttl: section.or("lease_ttl", d.lease_ttl, duration(3 * SECOND..=5 * MINUTE)),
    }
}

fn reply(section: &mut Section<'_>) -> ReplyConfig {
    let d = ReplyConfig::default();
    // Load balancers end silent requests after 60 s.
    ReplyConfig {
        default_wait: section.or("default_wait", d.default_wait, duration(Duration::ZERO..=55 * SECOND)),
    }
}

fn log(section: &mut Section<'_>) -> LogConfig {
    const FORMATS: [(&str, LogFormat); 2] = [("json", LogFormat::Json), ("text", LogFormat::Text)];
    let d = LogConfig::default();
    LogConfig {
        format: section.or("format", d.format, one_of(&FORMATS)),
        filter: section.or("filter", d.filter, parse::log_filter),
    }
}
