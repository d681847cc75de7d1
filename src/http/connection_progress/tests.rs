use super::*;

const HEAD: &[u8] = b"POST / HTTP/1.1\r\nHost: h\r\n\r\n";

fn begun(bytes: &[u8], body: BodyLength) -> (ConnectionProgress, Instant) {
    let now = Instant::now();
    let mut progress = ConnectionProgress::new(ConnectionTimeouts::default(), now);
    progress.received(bytes, || now);
    progress.request_begun(body);
    (progress, now)
}

/// Returns how long the connection may stay open after the answer to a request that came with these bytes.
fn kept_after_answer(bytes: &[u8], body: BodyLength) -> Duration {
    let (mut progress, now) = begun(bytes, body);
    assert_eq!(progress.verdict(now + Duration::from_hours(1), true), ConnectionVerdict::Open);
    progress.answer_begun();
    progress.answer_taken(now);
    match progress.verdict(now, false) {
        ConnectionVerdict::Until(at) => at - now,
        verdict => panic!("{verdict:?}"),
    }
}

#[test]
fn rest_behind_a_request_shortens_its_wait() {
    let ConnectionTimeouts { keep_alive, head, linger, .. } = ConnectionTimeouts::default();
    let with = |rest: &[u8]| [HEAD, rest].concat();
    for (rest, body, kept) in [
        (&b""[..], BodyLength::Exact(0), keep_alive),
        (b"G", BodyLength::Exact(0), head),
        (b"\r\n", BodyLength::Exact(0), head),
        (b"hello", BodyLength::Exact(5), keep_alive),
        (b"helloG", BodyLength::Exact(5), head),
        (b"hell", BodyLength::Exact(5), linger),
        (b"", BodyLength::Exact(u64::MAX), linger),
        (b"", BodyLength::Chunked, linger),
        (b"5\r\nhello\r\n", BodyLength::Chunked, linger),
        (b"5\r\nhello\r\n0\r\n\r\n", BodyLength::Chunked, keep_alive),
        (b"5\r\nhello\r\n0\r\nEnd: 1\r\n\r\n", BodyLength::Chunked, keep_alive),
    ] {
        let rest = with(rest);
        assert_eq!(kept_after_answer(&rest, body), kept, "{:?}", String::from_utf8_lossy(&rest));
    }
}

#[test]
fn head_in_any_pieces_ends_at_its_empty_line() {
    for head in [HEAD, b"GET / HTTP/1.1\nHost: h\n\n", b"\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n"] {
        let whole = [head, b"rest\r\n\r\nrest"].concat();
        for cut in 0..=whole.len() {
            let mut scanner = HeadScanner::default();
            let (one, two) = whole.split_at(cut);
            scanner.scan(one, 0);
            scanner.scan(two, cut as u64);
            assert_eq!(scanner.end, Some(head.len() as u64), "{cut}");
        }
    }
}

#[test]
fn second_head_has_its_own_deadline() {
    let (mut progress, start) = begun(HEAD, BodyLength::Exact(0));
    assert!(!progress.answer_begun());
    progress.answer_taken(start);
    let later = start + Duration::from_secs(40);
    progress.received(b"GET / H", || later);
    progress.received(b"TTP/1.1\r\n", || later + Duration::from_secs(9));
    let at = later + ConnectionTimeouts::default().head;
    assert_eq!(progress.verdict(later, false), ConnectionVerdict::Until(at));
    assert_eq!(progress.verdict(at, false), ConnectionVerdict::Close(CutReason::SlowHead));
    assert!(progress.is_evictable());
    // A head that is complete in time begins a request like the first.
    progress.received(b"\r\n", || at);
    progress.request_begun(BodyLength::Exact(0));
    assert_eq!(progress.verdict(at, false), ConnectionVerdict::Open);
    assert!(!progress.is_evictable());
    progress.answer_begun();
    progress.answer_taken(at);
    let idle = at + ConnectionTimeouts::default().keep_alive;
    assert_eq!(progress.verdict(at, false), ConnectionVerdict::Until(idle));
}

#[test]
fn unread_body_is_limited_in_bytes() {
    let (mut progress, now) = begun(HEAD, BodyLength::Chunked);
    assert!(progress.answer_begun());
    let piece = vec![b'x'; UNREAD_BYTES / 4];
    for _ in 0..4 {
        assert!(progress.may_read());
        progress.received(&piece, || now);
    }
    assert!(!progress.may_read());
    // The peer gets its answer first.
    assert_eq!(progress.verdict(now, false), ConnectionVerdict::Open);
    progress.answer_taken(now);
    assert_eq!(progress.verdict(now, false), ConnectionVerdict::Close(CutReason::Unread));
}

#[test]
fn body_of_a_request_in_work_is_limited_in_bytes() {
    let (mut progress, now) = begun(HEAD, BodyLength::Chunked);
    progress.received(&vec![b'x'; REQUEST_BYTES], || now);
    assert!(!progress.may_read());
    assert_eq!(progress.verdict(now, false), ConnectionVerdict::Open, "its handler answers");
}

#[test]
fn stalled_peer_is_closed_sooner_if_something_is_scarce() {
    let timeouts = ConnectionTimeouts::default();
    let (mut progress, start) = begun(HEAD, BodyLength::Exact(0));
    progress.answer_begun();
    progress.written(false, || start);
    let scarce = start + timeouts.stall_scarce;
    assert_eq!(progress.verdict(scarce, true), ConnectionVerdict::Close(CutReason::Stalled));
    let ConnectionVerdict::Until(at) = progress.verdict(scarce, false) else { panic!("it is given up") };
    assert!(at > scarce && at < start + timeouts.stall, "it looks for scarcity meanwhile");
    // Any byte that is taken begins the span anew.
    let last = start + timeouts.stall - Duration::from_secs(1);
    progress.written(true, || last);
    progress.written(false, || last);
    assert!(matches!(progress.verdict(start + timeouts.stall, false), ConnectionVerdict::Until(_)));
    let end = last + timeouts.stall;
    assert_eq!(progress.verdict(end, false), ConnectionVerdict::Close(CutReason::Stalled));
}

#[test]
fn pipelined_request_leaves_the_begin_of_the_next_unknown() {
    let ConnectionTimeouts { head, .. } = ConnectionTimeouts::default();
    let (mut progress, now) = begun(&[HEAD, HEAD].concat(), BodyLength::Exact(0));
    for _ in 0..2 {
        assert!(!progress.answer_begun(), "it may be whole");
        progress.answer_taken(now);
        assert_eq!(progress.verdict(now, false), ConnectionVerdict::Until(now + head));
        progress.request_begun(BodyLength::Exact(7));
    }
}

#[test]
fn upload_may_have_a_longer_body() {
    let (mut progress, now) = begun(HEAD, BodyLength::Chunked);
    progress.allow_body(20 << 20);
    let chunk = vec![0; 1 << 20];
    let read = (0..100).take_while(|_| {
        progress.received(&chunk, || now);
        progress.may_read()
    });
    assert_eq!(read.count() + 1, 48, "twice the body, and the bytes of any request");
    progress.answer_begun();
    assert!(!progress.may_read());
}
