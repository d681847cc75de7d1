//! Blow upon blow, while everybody talks: no plan, only the promises.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::sleep;

use super::load::{Load, Patience};
use super::{Member, Replicas};
use crate::support::{run_for, until};

/// How many in a run of all tests; `STORM_BLOWS` says another number for a longer look.
const BLOWS: usize = 3;

/// What happens to a replica.
#[derive(Debug, Clone, Copy)]
enum Blow {
    Kill,
    Restart,
    Pause,
    Cut,
    Hang,
    LoseAnswers,
}

const ALL: [Blow; 6] = [Blow::Kill, Blow::Restart, Blow::Pause, Blow::Cut, Blow::Hang, Blow::LoseAnswers];

impl Blow {
    /// Strikes; whether it can come back by itself. How long it is away is up to chance: shorter than a lease lives
    /// or longer.
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
fn nothing_is_lost_in_a_storm() {
    // Which blows fall; when they do is up to the machine.
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let blows = wanted().unwrap_or(BLOWS);
    run_for(Duration::from_mins(1) * u32::try_from(blows).unwrap(), async {
        let mut chance = fastrand::Rng::with_seed(seed);
        let mut replicas = Replicas::start(3).await;
        let load = Load::new(&replicas, Patience::Storms);
        let storm = async {
            for _ in 0..blows {
                load.answered(chance.usize(5..30)).await;
                let number = chance.usize(..replicas.members.len());
                let (blow, span) = (ALL[chance.usize(..ALL.len())], chance.u64(300..5000));
                println!("{blow:?} of {} for {span} ms", replicas.members[number].name);
                let mut member = replicas.members.remove(number);
                if blow.strike(&mut member, Duration::from_millis(span)).await {
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
    std::env::var("STORM_BLOWS").ok()?.parse().ok()
}
