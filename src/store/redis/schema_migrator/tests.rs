//! Migrations on a real Redis server.

use std::collections::BTreeSet;

use super::super::tests::server::Server;
use super::*;
use crate::config::StoreUrl;

/// Marks each partition in two steps: the lease key's name in the first, the cursor in the second.
const MARKS: Migration = Migration {
    number: 2,
    name: "marks",
    text: "-- Runs on each partition.\n\
        redis.call('SADD', ARGV[1] .. 'marks', KEYS[1], ARGV[2])\n\
        if ARGV[2] == '0' then return 'more' end\n",
};
/// Fails as long as a certain key exists.
const FAILS: Migration = Migration {
    number: 2,
    name: "fails",
    text: "-- Runs on the schema key.\n\
        redis.call('HINCRBY', KEYS[1], 'runs', 1)\n\
        if redis.call('HGET', KEYS[1], 'runs') == '1' then error('on purpose') end\n",
};

fn wire(server: &Server) -> CommandRunner {
    let options = server.patient();
    let StoreUrl::Redis(servers) = &options.url else { panic!("it is on Redis") };
    CommandRunner::new(servers, &options).unwrap()
}

fn redis_of(server: &Server) -> RedisStore {
    RedisStore::new(&server.patient()).unwrap()
}

/// Starts a cluster of one node with all slots. Like every cluster it refuses scripts over several slots.
fn cluster() -> Server {
    let server = Server::start_with(&["--cluster-enabled", "yes"]);
    server.cli(&["cluster", "addslotsrange", "0", "16383"]);
    while !server.cli(&["cluster", "info"]).contains("cluster_state:ok") {}
    server
}

fn run(test: impl Future<Output = ()>) {
    crate::runtime::block_on(async { tokio::time::timeout(Duration::from_mins(1), test).await.unwrap() })
        .unwrap();
}

fn migrator<'a>(runner: &'a CommandRunner, known: &'a [Migration]) -> SchemaMigrator<'a> {
    SchemaMigrator { runner, keys: SchemaKeys::new("t"), known, lock_timeout: LOCK_TIMEOUT }
}

#[test]
fn empty_store_under_a_race_is_set_up_once() {
    run(async {
        let server = Server::start();
        // Running replicas write so after the store was emptied.
        server.cli(&["set", "t:{p3}:c:support/alice", "new already"]);
        let redis = redis_of(&server);
        let replicas = (0..8).map(|_| redis.prepare());
        for result in futures_util::future::join_all(replicas).await {
            result.unwrap();
        }
        let fields: Vec<String> = server.cli(&["hgetall", "t:schema"]).lines().map(str::to_owned).collect();
        assert_eq!(
            fields,
            [
                "partitions",
                "256",
                "partition_hash",
                "sha256(bot NUL user), first byte",
                "1",
                &MIGRATIONS[0].checksum()
            ]
        );
        assert_eq!(server.cli(&["ttl", "t:schema"]), "-1");
        // The lock is released, and no other key was left or changed.
        let keys: BTreeSet<String> = server.cli(&["keys", "*"]).lines().map(str::to_owned).collect();
        assert_eq!(keys, ["t:schema", "t:{p3}:c:support/alice"].map(str::to_owned).into());
        assert_eq!(redis.migrate(false).await.unwrap(), MigrationReport::Current);
    });
}

#[test]
fn older_store_is_left_to_the_command() {
    run(async {
        let server = cluster();
        let runner = wire(&server);
        migrator(&runner, MIGRATIONS).migrate().await.unwrap();
        let known = [MIGRATIONS[0], MARKS];
        let newer = migrator(&runner, &known);
        let refused = newer.prepare().await.unwrap_err();
        assert!(refused.to_string().contains("0002-marks"), "{refused}");
        assert!(refused.to_string().contains("rtm-bridge migrate"), "{refused}");
        let marks = MigrationReport::Missing(MigrationList(vec![MARKS]));
        assert_eq!(newer.check().await.unwrap(), marks);
        assert_eq!(server.cli(&["dbsize"]), "1", "neither changes anything");
        assert_eq!(newer.migrate().await.unwrap(), MigrationReport::Applied(MigrationList(vec![MARKS])));
        // Each partition was migrated to its end, also in a cluster.
        for partition in ["p0", "p77", "p255"] {
            let mut marks: Vec<String> = server
                .cli(&["smembers", &format!("t:{{{partition}}}:marks")])
                .lines()
                .map(str::to_owned)
                .collect();
            marks.sort();
            assert_eq!(marks, ["0".to_owned(), "more".to_owned(), format!("t:{{{partition}}}:lease")]);
        }
        assert_eq!(server.cli(&["dbsize"]), "257");
        newer.prepare().await.unwrap();
        // The previous version does not know that migration.
        let old = redis_of(&server);
        let refused = old.prepare().await.unwrap_err();
        assert!(
            matches!(refused, PrepareError::Migrate(MigrateError::Foreign(ForeignSchema::Ahead(_)))),
            "{refused}"
        );
    });
}

#[test]
fn aborted_migration_is_run_again() {
    run(async {
        let server = Server::start();
        let runner = wire(&server);
        let known = [MIGRATIONS[0], FAILS];
        let failing = migrator(&runner, &known);
        assert!(matches!(failing.migrate().await, Err(MigrateError::Store(_))));
        assert_eq!(server.cli(&["hget", "t:schema", "2"]), "", "it is not recorded");
        assert_eq!(server.cli(&["exists", "t:{t:schema}:lock"]), "0", "and nobody is kept waiting");
        assert_eq!(failing.migrate().await.unwrap(), MigrationReport::Applied(MigrationList(vec![FAILS])));
        // A repeat of the last step, as after a timeout, records nothing twice and runs nothing twice.
        assert!(failing.lock("again").await.unwrap());
        failing.record(&FAILS, "again").await.unwrap();
        assert_eq!(server.cli(&["hget", "t:schema", "runs"]), "2");
    });
}

#[test]
fn dead_migrator_loses_its_lock() {
    run(async {
        let server = Server::start();
        let runner = wire(&server);
        let one = migrator(&runner, MIGRATIONS);
        assert!(one.lock("dead").await.unwrap());
        assert!(one.lock("dead").await.unwrap(), "who asks again keeps it");
        assert!(!one.lock("living").await.unwrap());
        let left: u64 = server.cli(&["pttl", "t:{t:schema}:lock"]).parse().unwrap();
        assert!((1..=30_000).contains(&left), "{left}");
        let refused = one.record(&MIGRATIONS[0], "living").await;
        assert!(matches!(refused, Err(MigrateError::LockLost)), "nothing is carried out without the lock");
        assert_eq!(server.cli(&["exists", "t:schema"]), "0");

        server.cli(&["pexpire", "t:{t:schema}:lock", "300"]);
        let report = one.migrate().await.unwrap();
        assert_eq!(report, MigrationReport::Applied(MigrationList(MIGRATIONS.to_vec())));
    });
}

#[test]
fn live_migrator_is_awaited_up_to_a_limit() {
    run(async {
        let server = Server::start();
        server.cli(&["set", "t:{t:schema}:lock", "alive"]);
        let runner = wire(&server);
        let one = SchemaMigrator { lock_timeout: Duration::ZERO, ..migrator(&runner, MIGRATIONS) };
        assert!(matches!(one.migrate().await, Err(MigrateError::Busy)));
        assert_eq!(server.cli(&["get", "t:{t:schema}:lock"]), "alive");
    });
}

#[test]
fn foreign_key_is_reported_and_unchanged() {
    run(async {
        let server = Server::start();
        server.cli(&["set", "t:schema", "somebody's"]);
        let error = redis_of(&server).migrate(false).await.unwrap_err().to_string();
        assert!(error.contains("`t:schema` is a string") && error.contains("key_prefix"), "{error}");
        server.cli(&["del", "t:schema"]);
        server.cli(&["hset", "t:schema", "partitions", "64"]);
        let error = redis_of(&server).prepare().await.unwrap_err().to_string();
        assert!(error.contains("`64`, not `256`"), "{error}");
        assert_eq!(server.cli(&["hlen", "t:schema"]), "1");
    });
}
