//! `rtm-bridge migrate`, on a Redis of the test's own.

use std::net::TcpListener;

use super::redis::RedisServer;
use super::{CONFIG, config, run};

/// A configuration with its store on this port.
fn on(port: u16) -> (tempfile::TempDir, String) {
    config(&CONFIG.replace("memory://", &format!("redis://127.0.0.1:{port}")))
}

#[test]
fn the_memory_store_needs_none() {
    let (_dir, file) = config(CONFIG);
    for arguments in [&["migrate", "--config", &file][..], &["migrate", "--check", "--config", &file]] {
        let (code, out, err) = run(arguments);
        assert_eq!((code, err.as_str()), (Some(0), ""), "{arguments:?}");
        assert!(out.contains("no migrations"), "{out}");
    }
}

#[test]
fn a_store_is_checked_migrated_and_current() {
    let server = RedisServer::start(&[]);
    let (_dir, file) = on(server.port);
    let (code, out, err) = run(&["migrate", "--check", "--config", &file]);
    assert_eq!(code, Some(1), "{err}");
    assert!(out.contains("Not carried out yet: 0001-partitions"), "{out}");
    assert!(err.contains("without --check"), "{err}");
    assert_eq!(server.ask(&["dbsize"]), "0", "a check changes nothing");

    let (code, out, err) = run(&["migrate", "--config", &file]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("Carried out: 0001-partitions"), "{out}");
    assert_eq!(server.ask(&["keys", "*"]), "rtm:schema");

    for arguments in [&["migrate", "--config", &file][..], &["migrate", "--check", "--config", &file]] {
        let (code, out, err) = run(arguments);
        assert_eq!(code, Some(0), "{err}");
        assert!(out.contains("nothing is to be done"), "{out}");
    }
}

#[test]
fn a_store_that_is_not_for_this_version_is_1_with_the_way_out() {
    for (field, value, words) in [
        ("2", "x", ["newer version", "not known here: 2"]),
        ("1", "x", ["0001-partitions has another checksum", "store.key_prefix"]),
        ("partitions", "64", ["`partitions` is `64`, not `256`", "store.key_prefix"]),
    ] {
        let server = RedisServer::start(&[]);
        let (_dir, file) = on(server.port);
        assert_eq!(run(&["migrate", "--config", &file]).0, Some(0));
        server.ask(&["hset", "rtm:schema", field, value]);
        for arguments in [&["migrate", "--config", &file][..], &["migrate", "--check", "--config", &file]] {
            let (code, out, err) = run(arguments);
            assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
            for word in words {
                assert!(err.contains(word), "{word}: {err}");
            }
        }
        assert_eq!(server.ask(&["hget", "rtm:schema", field]), value, "it is left as it was");
    }
}

#[test]
fn nobody_there_is_1_and_names_the_key() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (_dir, file) = on(port);
    let (code, out, err) = run(&["migrate", "--config", &file]);
    assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
    assert!(err.contains("store.url") && err.contains("try again"), "{err}");
}
