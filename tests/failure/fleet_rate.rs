//! A rate of a caller that all replicas share (`rate_scope = "fleet"`).

use std::time::Duration;

use rtm_bridge::config::fixtures::caller;
use rtm_bridge::config::{CallerConfig, CallerScopes, Config, RateScope};

use crate::support::{Fleet, RedisOptions, RedisServer, Request, run_for, within};

const ALL: CallerScopes = CallerScopes { send: true, read: true, admin: true };

fn limited(config: &mut Config, rate_per_minute: u32) {
    config.callers =
        vec![CallerConfig { rate_per_minute, rate_scope: RateScope::Fleet, ..caller("crm", ALL) }];
}

fn request() -> Request {
    Request::get("/conversations/ann").header("Authorization", "Bearer crm")
}

#[test]
fn replicas_share_a_rate_with_few_calls() {
    run_for(Duration::from_mins(2), async {
        let redis = RedisServer::start(RedisOptions::default()).await;
        let fleet = Fleet::start(redis.config(), 2, |config| limited(config, 100)).await;
        let called = async || {
            let mut calls = 0;
            for replica in &fleet.replicas {
                let page = replica.admin.get("/metrics").await;
                let series = "rtm_bridge_fleet_rate_calls_total{caller=\"crm\",result=\"ok\"} ";
                let line = page.text().lines().find_map(|line| line.strip_prefix(series));
                calls += line.map_or(0, |count| count.parse::<u64>().unwrap());
            }
            calls
        };
        let bucket = async || redis.command(&["HGET", "rtm:{fleet}:rate:crm", "t"]).await;
        let (mut served, mut refused) = (0, 0);
        for number in 0..300 {
            let answer = fleet.replicas[number % 2].api.send(request()).await;
            match answer.status {
                200 | 404 => served += 1,
                429 => {
                    assert!((1..=60).contains(&answer.retry_after()), "{answer}");
                    refused += 1;
                }
                _ => panic!("{answer}"),
            }
            let policy = answer.header("ratelimit-policy").unwrap();
            assert_eq!(policy, "\"default\";q=100;w=60;pk=:Y3Jt:", "{answer}");
        }
        println!("{served} served, {refused} refused, {} in the bucket", bucket().await.text());
        assert!((80..130).contains(&served), "{served}");
        assert!(refused > 0);
        let calls = called().await;
        assert!((8..30).contains(&calls), "less than one call for ten requests: {calls}");
        fleet.finish().await;
    });
}

#[test]
fn replica_gives_back_what_it_does_not_use() {
    run_for(Duration::from_mins(2), async {
        let redis = RedisServer::start(RedisOptions::default()).await;
        let fleet = Fleet::start(redis.config(), 2, |config| limited(config, 20)).await;
        fleet.replicas[0].api.send(request()).await;
        let left = async || {
            let stored = redis.command(&["HGET", "rtm:{fleet}:rate:crm", "t"]).await;
            stored.text().parse::<f64>().unwrap_or_default()
        };
        within(Duration::from_secs(10), "all but one came back", async || left().await >= 18.9).await;
        fleet.finish().await;
    });
}

#[test]
fn replica_counts_alone_while_the_store_is_away() {
    run_for(Duration::from_mins(2), async {
        let redis = RedisServer::start(RedisOptions::default()).await;
        let fleet = Fleet::start(redis.config(), 1, |config| limited(config, 20)).await;
        fleet.replicas[0].way_to_redis().cut().await;
        let statuses = async || fleet.replicas[0].api.send(request()).await.status;
        let mut seen = Vec::new();
        for _ in 0..25 {
            seen.push(statuses().await);
        }
        assert!(seen.first().is_none_or(|first| *first != 429), "the limit of the replica holds: {seen:?}");
        assert_eq!(seen.last(), Some(&429), "{seen:?}");
        fleet.replicas[0].way_to_redis().heal().await;
        fleet.finish().await;
    });
}
