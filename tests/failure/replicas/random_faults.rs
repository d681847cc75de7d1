//! Random faults under load: only the promises are checked.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::sleep;

use super::load::{Load, Patience};
use super::{Member, Replicas};
use crate::support::{run_for, until};

/// The number of faults in a run of all tests. `STORM_FAULTS` sets another number for a longer run.
const FAULTS: usize = 3;

/// A fault of a replica.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Kill,
    Restart,
    Pause,
    Cut,
    Hang,
    LoseAnswers,
}

const ALL: [Fault; 6] =
    [Fault::Kill, Fault::Restart, Fault::Pause, Fault::Cut, Fault::Hang, Fault::LoseAnswers];

impl Fault {
    /// Causes the fault for a random time, shorter or longer than a lease. Returns whether the replica can recover.
    async fn strike(self, member: &mut Member, span: Duration) -> bool {
        match self {
            Self::Kill => {
                member.served.kill();
                return false;
            }
            Self::Restart => {
                assert_eq!(member.served.terminate().await, 0);
                return false;
            }
            Self::Pause => member.served.pause(),
            Self::Cut => member.redis.cut().await,
            Self::Hang => member.redis.hang().await,
            Self::LoseAnswers => member.redis.lose_answers().await,
        }
        sleep(span).await;
        match self {
            Self::Pause => member.served.resume(),
            _ => member.redis.heal().await,
        }
        until("it is back", async || member.served.admin.get("/readyz").await.status == 200).await;
        true
    }
}

#[test]
fn random_faults_under_load_keep_the_promises() {
    // The seed selects the faults. Their times also depend on the machine.
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let faults = wanted().unwrap_or(FAULTS);
    run_for(Duration::from_mins(1) * u32::try_from(faults).unwrap(), async {
        let mut chance = fastrand::Rng::with_seed(seed);
        let mut replicas = Replicas::start(3).await;
        let load = Load::new(&replicas, Patience::Storms);
        let storm = async {
            for _ in 0..faults {
                load.answered(chance.usize(5..30)).await;
                let number = chance.usize(..replicas.members.len());
                let (fault, span) = (ALL[chance.usize(..ALL.len())], chance.u64(300..5000));
                println!("{fault:?} of {} for {span} ms", replicas.members[number].name);
                let mut member = replicas.members.remove(number);
                if fault.strike(&mut member, Duration::from_millis(span)).await {
                    replicas.members.push(member);
                } else {
                    replicas.join().await;
                    load.turn_to(&replicas);
                }
            }
            load.answered(20).await;
            load.end();
        };
        tokio::join!(load.run(), storm);
        replicas.shared().await;
        Rc::clone(&replicas.ledger).retry(replicas.members[0].served.api).await;
        replicas.finish().await;
    });
}

#[expect(clippy::disallowed_methods, reason = "how long a test runs is no setting of the bridge")]
fn wanted() -> Option<usize> {
    std::env::var("STORM_FAULTS").ok()?.parse().ok()
}
