//! Replicas that a deployment restarts and adds.

use std::time::Duration;

use super::Replicas;
use super::load::{Load, Patience, one_socket_at_a_time};
use crate::support::run_for;

#[test]
fn rolling_restart_fails_no_caller() {
    run_for(Duration::from_mins(1), async {
        let mut replicas = Replicas::start(3).await;
        let (script, ledger) = (replicas.script.clone(), replicas.ledger.clone());
        let load = Load::new(&replicas, Patience::None);
        let restarts = async {
            load.answered(10).await;
            for _ in 0..3 {
                replicas.join().await;
                load.turn_to(&replicas);
                load.answered(10).await;
                // The load goes to a replica as long as it is ready.
                assert_eq!(replicas.members[0].served.terminate().await, 0);
                replicas.members.remove(0);
                load.turn_to(&replicas);
                load.answered(10).await;
            }
            load.end();
        };
        tokio::join!(load.run(), restarts);
        for user in Load::users() {
            one_socket_at_a_time(&script, &user);
        }
        // A caller that got `draining` once does not get it again.
        ledger.retry(replicas.members[0].served.api).await;
        replicas.finish().await;
    });
}

#[test]
fn joining_replicas_fail_no_caller() {
    run_for(Duration::from_mins(1), async {
        let mut replicas = Replicas::start(1).await;
        let script = replicas.script.clone();
        let load = Load::new(&replicas, Patience::None);
        let joins = async {
            load.answered(10).await;
            for _ in 0..2 {
                replicas.join().await;
                load.turn_to(&replicas);
                replicas.shared().await;
                load.answered(10).await;
            }
            load.end();
        };
        tokio::join!(load.run(), joins);
        let connects: usize = Load::users().map(|user| script.observed(&*user).connects.count()).sum();
        assert!(connects > Load::users().count(), "nobody moved");
        for user in Load::users() {
            one_socket_at_a_time(&script, &user);
        }
        replicas.finish().await;
    });
}
