//! `rtm-bridge migrate` against a Redis process of each test.

use std::net::TcpListener;

use super::redis::RedisServer;
use super::{CONFIG, config, run};

/// Returns a configuration with its store on this port.
fn config_on(port: u16) -> (tempfile::TempDir, String) {
    config(&CONFIG.replace("memory://", &format!("redis://127.0.0.1:{port}")))
}

#[test]
fn memory_store_needs_no_migrations() {
    let (_dir, file) = config(CONFIG);
    for arguments in [&["migrate", "--config", &file][..], &["migrate", "--check", "--config", &file]] {
        let (code, out, err) = run(arguments);
        assert_eq!((code, err.as_str()), (Some(0), ""), "{arguments:?}");
        assert!(out.contains("no migrations"), "{out}");
    }
}

#[test]
fn empty_store_is_checked_then_migrated() {
    let server = RedisServer::start(&[]);
    let (_dir, file) = config_on(server.port);
    let (code, out, err) = run(&["migrate", "--check", "--config", &file]);
    assert_eq!(code, Some(1), "{err}");
    assert!(out.contains("Missing: 0001-partitions"), "{out}");
    assert!(err.contains("without --check"), "{err}");
    assert_eq!(server.ask(&["dbsize"]), "0", "a check changes nothing");

    let (code, out, err) = run(&["migrate", "--config", &file]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("Applied: 0001-partitions"), "{out}");
    assert_eq!(server.ask(&["keys", "*"]), "rtm:schema");

    for arguments in [&["migrate", "--config", &file][..], &["migrate", "--check", "--config", &file]] {
        let (code, out, err) = run(arguments);
        assert_eq!(code, Some(0), "{err}");
        assert!(out.contains("nothing to migrate"), "{out}");
    }
}

#[test]
fn incompatible_store_exits_1_with_the_next_step() {
    for (field, value, words) in [
        ("2", "x", ["newer version", "not known here: 2"]),
        ("1", "x", ["0001-partitions has another checksum", "store.key_prefix"]),
        ("partitions", "64", ["`partitions` is `64`, not `256`", "store.key_prefix"]),
    ] {
        let server = RedisServer::start(&[]);
        let (_dir, file) = config_on(server.port);
        assert_eq!(run(&["migrate", "--config", &file]).0, Some(0));
        server.ask(&["hset", "rtm:schema", field, value]);
        for arguments in [&["migrate", "--config", &file][..], &["migrate", "--check", "--config", &file]] {
            let (code, out, err) = run(arguments);
            assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
            for word in words {
                assert!(err.contains(word), "{word}: {err}");
            }
        }
        assert_eq!(server.ask(&["hget", "rtm:schema", field]), value, "the store is unchanged");
    }
}

#[test]
fn unreachable_store_exits_1_and_names_the_key() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (_dir, file) = config_on(port);
    let (code, out, err) = run(&["migrate", "--config", &file]);
    assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
    assert!(err.contains("store.url") && err.contains("try again"), "{err}");
}
