//! A live reader of a conversation while the replica that serves the stream dies.

use std::time::Duration;

use serde_json::Value;

use super::Replicas;
use super::held_messages::{sent_once, talk};
use crate::support::{Bot, Caller, Request, run_for};

/// The number of answered messages between two deaths.
const TURNS: usize = 3;

/// Reads from `last` until so many messages have ended. Returns the events and the new position.
async fn read(
    from: Caller,
    user: &str,
    last: Option<&str>,
    ends: usize,
    told: &mut Vec<(u64, String)>,
) -> String {
    let request = Request::get(format!("/conversations/{user}/events"));
    let request = if let Some(last) = last { request.header("Last-Event-ID", last) } else { request };
    let mut stream = from.events_with(request).await;
    let mut missing = ends;
    while missing > 0 {
        let event = stream.next().await.expect("the stream goes on");
        assert_ne!(event.kind, "gap", "{event:?}");
        missing -= usize::from(event.kind == "message.answered");
        told.push((event.data["seq"].as_u64().unwrap(), event.kind));
    }
    stream.last_id.unwrap()
}

#[test]
fn stream_after_a_loss_continues_elsewhere() {
    run_for(Duration::from_mins(1), async {
        let mut replicas = Replicas::start(3).await;
        Bot { replies: 2 }.speak(&replicas.script);
        // The first stream is lost with the owner, the second one with a replica that only serves it.
        let user = replicas.owners().users("reader", "replica-0", 1).await.remove(0);
        let (mut told, mut last) = (Vec::new(), None::<String>);
        for round in 0..2 {
            let mut victim = replicas.members.remove(0);
            let others = replicas.callers();
            let turns = async {
                for turn in 0..TURNS {
                    talk(&replicas.ledger, others[turn % others.len()], &user).await;
                }
            };
            let reading = read(victim.served.api, &user, last.as_deref(), TURNS, &mut told);
            let (reached, ()) = tokio::join!(reading, turns);
            last = Some(reached);
            victim.served.kill();
            // The stream is closed meanwhile, and the dead replica may be the owner.
            talk(&replicas.ledger, others[0], &user).await;
            let behind = read(others[round % others.len()], &user, last.as_deref(), 1, &mut told).await;
            last = Some(behind);
            replicas.join().await;
            replicas.shared().await;
        }
        let places: Vec<_> = told.iter().map(|(seq, _)| *seq).collect();
        let all =
            replicas.callers()[0].get(&format!("/conversations/{user}/events?limit=1000")).await.message(200);
        let kept: Vec<_> =
            all["events"].as_array().unwrap().iter().map(|event| event["seq"].as_u64()).collect();
        assert_eq!(
            places.iter().copied().map(Some).collect::<Vec<_>>(),
            kept,
            "each once and in order: {told:?}"
        );
        assert_eq!((&all["gap"], &all["hasMore"]), (&Value::Bool(false), &Value::Bool(false)));
        sent_once(&replicas.script, &user, 2 * (TURNS + 1));
        replicas.finish().await;
    });
}
