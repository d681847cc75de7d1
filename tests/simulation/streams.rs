//! The chunks of a streamed reply for live readers (api.md 3, `chunk`).

use super::bench::{Bench, ms};
use super::support::piece;

fn heard(bench: &mut Bench) -> Vec<(u32, String, bool)> {
    let chunks = std::mem::take(&mut bench.chunks);
    chunks.iter().map(|chunk| (chunk.index, chunk.text.to_string(), chunk.last)).collect()
}

#[test]
fn stream_sends_each_chunk_and_one_reply() {
    let mut bench = Bench::connected();
    bench.post();
    bench.respond(piece("ms-1", "It ", false));
    assert_eq!(heard(&mut bench), [(0, "It ".to_owned(), false)]);
    bench.respond(piece("ms-1", "has ", false));
    bench.respond(piece("ms-2", "Other", true));
    bench.respond(piece("ms-1", "left.", true));
    assert_eq!(
        heard(&mut bench),
        [(1, "has ".to_owned(), false), (0, "Other".to_owned(), true), (2, "left.".to_owned(), true)]
    );
    // A repeat is not published.
    bench.respond(piece("ms-1", "left.", true));
    assert!(bench.chunks.is_empty());
    bench.pass(ms(1000));
    assert_eq!(bench.end(), (2, "quiet"));
    assert_eq!(bench.replies.iter().filter(|reply| reply.message_id.as_deref() == Some("ms-1")).count(), 1);
}

#[test]
fn reply_in_one_piece_sends_no_chunk() {
    let mut bench = Bench::connected();
    bench.post();
    bench.say("ms-1");
    assert!(bench.chunks.is_empty());
}
