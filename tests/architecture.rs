//! The layers of docs/architecture.md, kept by a test: who may use whom, where I/O crates, tasks and clocks may
//! appear, how long a file may grow and what it may not be called.
//!
//! The first test judges the real tree. The others judge the judge: each shows it a snippet that breaks one rule
//! and expects exactly that verdict, so that a rule cannot fall silent unnoticed.

mod language;
mod reading;
mod rules;

use std::fs;
use std::path::Path;

use rules::{Rule, Violation};

#[test]
fn the_tree_keeps_its_layers() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for directory in ["src", "crates"] {
        collect(root, &root.join(directory), &mut files);
    }
    for expected in ["src/lib.rs", "crates/bench/src/main.rs", "crates/sandbox/src/lib.rs"] {
        assert!(files.iter().any(|(path, _)| path == expected), "no {expected} under {}", root.display());
    }

    let violations: Vec<_> = files.iter().flat_map(|(path, text)| rules::check(path, text)).collect();
    let report: Vec<_> = violations.iter().map(Violation::to_string).collect();
    assert!(report.is_empty(), "{} violation(s):\n{}\n", report.len(), report.join("\n"));
}

#[test]
fn every_place_of_a_rule_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    collect(root, &root.join("src"), &mut files);
    let exists = |place: &&str| {
        files.iter().any(|(path, _)| rules::is_in(path.strip_prefix("src/").unwrap_or(path), place))
    };
    let missing: Vec<_> = rules::places().filter(|place| !exists(place)).collect();
    assert!(
        missing.is_empty(),
        "name the files by their present paths in tests/architecture/rules.rs: {missing:?}"
    );
}

/// Every Rust file below `directory`, as its path under `root` and its text.
fn collect(root: &Path, directory: &Path, files: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            files.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
}

/// The rules that `text` breaks when it stands in `src/{path}`.
fn broken(path: &str, text: &str) -> Vec<Rule> {
    rules::check(&format!("src/{path}"), text).into_iter().map(|violation| violation.rule).collect()
}

#[test]
fn an_import_against_the_arrows_is_found() {
    assert_eq!(broken("domain/reply.rs", "use crate::store::Store;"), [Rule::Arrow]);
    assert_eq!(broken("store/memory.rs", "use crate::{domain::Reply, hub::Hub};"), [Rule::Arrow]);
    assert_eq!(broken("http/auth.rs", "use crate::link::Machine;"), [Rule::Arrow]);
    assert_eq!(broken("config/mod.rs", "use crate::metrics::Metrics;"), [Rule::Arrow]);
    assert_eq!(broken("main.rs", "fn main() { rtm_bridge::app::run() }"), [Rule::Arrow]);
}

#[test]
fn arrows_that_are_drawn_are_fine() {
    let none: [Rule; 0] = [];
    assert_eq!(broken("http/messages.rs", "use crate::hub::Hub; use crate::domain::Reply;"), none);
    assert_eq!(broken("link/driver.rs", "use crate::{metrics::Metrics, rtm::Socket, store::Store};"), none);
    assert_eq!(broken("config/mod.rs", "use crate::domain::BotName;"), none);
    assert_eq!(
        broken("hub/shard.rs", "use super::Hub; use self::lane::Lane; use crate::hub::watch::Watch;"),
        none
    );
    assert_eq!(broken("main.rs", "fn main() { rtm_bridge::cli::main() }"), none);
}

#[test]
fn a_path_written_inline_is_found_wherever_it_hides() {
    for body in [
        "fn f() { crate::hub::wake(); }",
        "fn f(x: &crate::hub::Hub) {}",
        "fn f() { tokio::select! { _ = crate::hub::wake() => {} } }",
        "fn f() { vec![vec![crate::hub::wake()]]; }",
        "fn f() { super::super::hub::wake(); }",
        "mod inner { fn f() { super::super::super::hub::wake(); } }",
        "impl crate::hub::Wake for X {}",
        "#[derive(crate::hub::Wake)] struct X;",
        "pub(in crate::hub) struct X;",
    ] {
        assert_eq!(broken("rtm/grant.rs", body), [Rule::Arrow], "{body}");
    }
}

#[test]
fn a_layer_nobody_drew_is_found() {
    assert_eq!(broken("cache.rs", ""), [Rule::Layout]);
    assert_eq!(broken("cache/mod.rs", ""), [Rule::Layout]);
    assert_eq!(broken("lib.rs", "fn f() {}"), [Rule::Layout]);
    assert_eq!(broken("domain/reply.rs", "use crate::cache::Cache;"), [Rule::Arrow]);
}

#[test]
fn outside_crates_stay_behind_their_fences() {
    assert_eq!(broken("link/driver.rs", "use awc::ws::Frame;"), [Rule::Fence]);
    assert_eq!(broken("rtm/decode.rs", "use awc::ws::Frame;"), [Rule::Fence]);
    assert_eq!(
        broken("store/memory.rs", "use deadpool_redis::redis::aio::MultiplexedConnection;"),
        [Rule::Fence]
    );
    assert_eq!(broken("store/mod.rs", "type Pool = deadpool_redis::Pool;"), [Rule::Fence]);
    assert_eq!(broken("hub/mod.rs", "fn f() -> ::actix_web::HttpResponse { g() }"), [Rule::Fence]);
    assert_eq!(broken("rtm/socket.rs", "use actix_web::web;"), [Rule::Fence]);
    assert_eq!(broken("rtm/socket.rs", "use rtm_sandbox::message_elements;"), [Rule::Fence]);

    let none: [Rule; 0] = [];
    assert_eq!(broken("rtm/socket/frames.rs", "use awc::ws::Frame; use actix_http::ws::Codec;"), none);
    assert_eq!(broken("store/redis/mod.rs", "use deadpool_redis::redis::aio::MultiplexedConnection;"), none);
    assert_eq!(broken("cli/dev.rs", "use rtm_sandbox::Sandbox;"), none);
}

#[test]
fn tasks_and_threads_start_only_where_they_have_an_owner() {
    for body in [
        "fn f() { tokio::spawn(g()); }",
        "use tokio::task::spawn_local;",
        "use tokio::task; fn f() { task::spawn_blocking(g); }",
        "fn f() { std::thread::spawn(g); }",
        "use std::thread; fn f() { thread::Builder::new(); }",
        "fn f(set: &mut JoinSet<()>) { set.spawn(g()); }",
        "fn f(set: &LocalSet) { select! { _ = set.spawn_local(g()) => {} } }",
    ] {
        assert_eq!(broken("hub/watch.rs", body), [Rule::Spawn], "{body}");
        assert_eq!(broken("hub/shard.rs", body), [], "{body}");
        assert_eq!(broken("runtime.rs", body), [], "{body}");
    }
}

#[test]
fn pure_code_reads_no_clock_and_waits_for_nothing() {
    for path in [
        "domain/message_progress.rs",
        "link/machine.rs",
        "link/machine/drain.rs",
        "link/backfill_schedule.rs",
        "domain/backoff.rs",
    ] {
        for body in [
            "use std::time::Instant;",
            "fn f() { std::time::SystemTime::now(); }",
            "fn f() { jiff::Timestamp::now(); }",
            "fn f() { assert!(Instant::now() > x); }",
            "async fn f() {}",
            "fn f() { g(async {}); }",
            "fn f() { fastrand::u64(..); }",
            "use fastrand::Rng; fn f() { Rng::new(); }",
            "use tokio::sync::mpsc;",
            "use std::net::TcpStream;",
        ] {
            assert_eq!(broken(path, body), [Rule::Pure], "{path}: {body}");
        }
    }
    assert_eq!(broken("store/mod.rs", "use tokio::time::Instant;"), [Rule::Pure]);
    assert_eq!(broken("store/mod.rs", "pub async fn f() {}"), []);
    assert_eq!(broken("link/driver.rs", "use tokio::time::Instant;"), []);
    assert_eq!(
        broken("link/machine.rs", "fn f(seed: u64) -> fastrand::Rng { fastrand::Rng::with_seed(seed) }"),
        []
    );
    assert_eq!(broken("domain/timestamp.rs", "use std::time::Duration; fn f(now: Timestamp) {}"), []);
}

#[test]
fn tests_inside_a_file_are_free_in_means_but_not_in_arrows() {
    let means = "#[cfg(test)] mod tests { use awc::ws::Frame; fn f() { tokio::spawn(g()); } }";
    assert_eq!(broken("link/driver.rs", means), []);
    assert_eq!(broken("link/driver.rs", "#[cfg(all(test, unix))] mod tests { use awc::ws::Frame; }"), []);
    assert_eq!(broken("link/tests/flow.rs", "use awc::ws::Frame; use rtm_sandbox::Sandbox;"), []);
    assert_eq!(broken("link/driver.rs", "#[cfg(test)] mod tests { use rtm_sandbox::Sandbox; }"), []);
    assert_eq!(broken("link/driver.rs", "#[cfg(test)] mod tests { use crate::http::Api; }"), [Rule::Arrow]);
    // What is compiled without tests is no test.
    assert_eq!(broken("link/driver.rs", "#[cfg(not(test))] mod live { use awc::ws::Frame; }"), [Rule::Fence]);
}

#[test]
fn names_that_say_nothing_are_found() {
    for path in ["http/utils.rs", "hub/manager.rs", "http/auth_helper.rs", "store/common/mod.rs"] {
        assert_eq!(broken(path, ""), [Rule::Name], "{path}");
    }
    let elsewhere = rules::check("crates/sandbox/src/util.rs", "use crate::anything::At;");
    assert_eq!(elsewhere.iter().map(|violation| violation.rule).collect::<Vec<_>>(), [Rule::Name]);
    // Only whole words count.
    assert_eq!(broken("http/commonplace.rs", ""), []);
}

#[test]
fn a_file_that_outgrew_its_noun_is_found() {
    let line = "const X: u8 = 0;\n";
    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", line.repeat(500));
    assert_eq!(broken("http/auth.rs", &line.repeat(rules::LINES)), []);
    assert_eq!(broken("http/auth.rs", &line.repeat(rules::LINES + 1)), [Rule::Length]);
    assert_eq!(broken("http/auth.rs", &(line.repeat(rules::LINES) + &tests)), []);
    assert_eq!(broken("http/tests.rs", &line.repeat(rules::LINES + 1)), []);
    // Code behind the tests would hide from the count.
    assert_eq!(broken("http/auth.rs", &(tests + &line.repeat(rules::LINES))), [Rule::Length]);
}

#[test]
fn a_file_that_is_no_rust_is_found() {
    assert_eq!(broken("http/auth.rs", "fn {"), [Rule::Unreadable]);
}

#[test]
fn a_verdict_names_file_fault_and_remedy() {
    let verdict = rules::check("src/http/auth.rs", "use crate::link::Machine;").remove(0).to_string();
    assert!(verdict.starts_with("src/http/auth.rs: "), "{verdict}");
    assert!(verdict.contains("crate::link::Machine"), "{verdict}");
    assert!(verdict.contains("http may use hub"), "{verdict}");
}
