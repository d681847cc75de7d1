use std::convert::Infallible;

use actix_web::http::header::{HeaderName, HeaderValue};
use futures_util::StreamExt as _;
use tokio::time::sleep;

use super::*;

fn headers(headers: &[(&'static str, &str)]) -> HeaderMap {
    let header = |&(name, value): &(&'static str, &str)| {
        (HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap())
    };
    headers.iter().map(header).collect()
}

fn check(given: &[(&'static str, &str)], max: usize) -> Result<UploadHead, (ProblemKind, String)> {
    let mut errors = FieldErrors::default();
    let refused = |error: &ApiError| (error.problem().kind, error.problem().detail.to_string());
    match UploadHead::check(&headers(given), max, &mut errors) {
        Err(error) => Err(refused(&error)),
        Ok(Some(head)) => {
            assert!(errors.is_empty());
            Ok(head)
        }
        Ok(None) => Err(refused(&ApiError::from(errors))),
    }
}

/// Reads a form of these pieces with this limit. Returns the file's name and type, and its bytes.
async fn form(
    pieces: impl Stream<Item = Bytes>,
    max: usize,
) -> Result<(String, String, Vec<u8>), (ProblemKind, String)> {
    let head = check(&[("content-type", "multipart/form-data; boundary=x")], max).unwrap();
    let payload = Box::pin(pieces.map(Ok::<_, Infallible>));
    let refused = |error: ApiError| (error.problem().kind, error.problem().detail.to_string());
    let (file, body) = UploadBody::open(head, payload, max).await.map_err(refused)?;
    let mut pieces = Box::pin(body.into_pieces());
    let mut whole = Vec::new();
    while let Some(piece) = pieces.next().await {
        whole.extend_from_slice(&piece.map_err(refused)?);
    }
    Ok((file.name.to_string(), file.media_type.into(), whole))
}

async fn form_of(body: &str, max: usize) -> Result<(String, String, Vec<u8>), (ProblemKind, String)> {
    form(stream::iter([Bytes::from(body.to_owned())]), max).await
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(test)
}

const FILE: &str = "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"größe.pdf\"\r\n";

#[test]
fn head_names_file_and_type() {
    let name = ("content-disposition", "attachment; filename*=UTF-8''gr%C3%B6%C3%9Fe.pdf");
    let head = check(&[("content-type", "Application/PDF; x=y"), name], 10).unwrap();
    let UploadHead::Raw(file) = head else { panic!("{head:?}") };
    assert_eq!((file.name.as_str(), &*file.media_type), ("größe.pdf", "application/pdf"));
    let form = check(&[("content-type", "multipart/form-data; boundary=x")], 10);
    assert!(matches!(form, Ok(UploadHead::Form(_))));
}

#[test]
fn unusable_head_is_refused() {
    use ProblemKind as K;
    let text = ("content-type", "text/plain");
    let name = ("content-disposition", "attachment; filename=a.txt");
    for (given, kind, word) in [
        (&[name][..], K::UnsupportedMediaType, "Content-Type"),
        (&[("content-type", "plain"), name], K::UnsupportedMediaType, "Content-Type"),
        (&[text, name, ("content-encoding", "gzip")], K::UnsupportedMediaType, "compressed"),
        (&[text], K::InvalidRequest, "must name the file"),
        (&[text, ("content-disposition", "attachment")], K::InvalidRequest, "must name the file"),
        (&[text, ("content-disposition", "attachment; filename*=UTF-8''a%01")], K::InvalidRequest, "control"),
        (&[text, name, name], K::InvalidRequest, "only once"),
        (&[text, name, ("content-length", "11")], K::PayloadTooLarge, "10 bytes"),
        (&[("content-type", "multipart/form-data")], K::InvalidRequest, "boundary"),
        (
            &[("content-type", "multipart/form-data; boundary=x"), ("content-length", "70000")],
            K::PayloadTooLarge,
            "10 bytes",
        ),
    ] {
        let (found, detail) = check(given, 10).unwrap_err();
        assert_eq!((found, detail.contains(word)), (kind, true), "{given:?}: {detail}");
    }
}

#[test]
fn form_with_one_file_is_read() {
    run(async {
        let body = format!("preamble\r\n{FILE}Content-Type: application/pdf\r\n\r\n%PDF\r\n\r\n--x--\r\n");
        let read = form_of(&body, 100).await;
        assert_eq!(read, Ok(("größe.pdf".to_owned(), "application/pdf".to_owned(), b"%PDF\r\n".to_vec())));
        // A strange type is none, and the last delimiter may lack its line end.
        let body = format!("{FILE}content-transfer-encoding: BINARY\r\ncontent-type: pdf\r\n\r\n1\r\n--x--");
        let read = form_of(&body, 100).await;
        assert_eq!(read, Ok(("größe.pdf".to_owned(), String::new(), b"1".to_vec())));
        let bytes = body.into_bytes();
        let pieces = stream::iter(bytes.into_iter().map(|byte| Bytes::from(vec![byte])));
        assert_eq!(form(pieces, 1).await.unwrap().2, b"1");
    });
}

#[test]
fn form_without_exactly_one_file_is_refused() {
    run(async {
        let file = format!("{FILE}\r\n1\r\n");
        for (body, word) in [
            ("--x--\r\n".to_owned(), "one part"),
            (String::new(), "one part"),
            ("no form".to_owned(), "one part"),
            (format!("{file}{file}--x--"), "one part"),
            (format!("{file}--x\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--x--"), "one part"),
            (
                format!("--x\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n{file}--x--"),
                "\"a\" has none",
            ),
            ("--x\r\n\r\n1\r\n--x--".to_owned(), "malformed"),
            (FILE.replace("größe.pdf", "..") + "\r\n1\r\n--x--", "name a file"),
            (format!("{FILE}\r\n\r\n--x--"), "one byte at least"),
            (format!("{FILE}\r\nno end"), "no end"),
            (format!("{FILE}no colon\r\n\r\n1\r\n--x--"), "colon"),
        ] {
            let (kind, detail) = form_of(&body, 100).await.unwrap_err();
            assert_eq!(kind, ProblemKind::InvalidRequest, "{body}");
            assert!(detail.contains(word), "{body}: {detail}");
        }
        let (kind, _) =
            form_of(&format!("{FILE}Content-Transfer-Encoding: base64\r\n\r\nMQ==\r\n--x--"), 100)
                .await
                .unwrap_err();
        assert_eq!(kind, ProblemKind::UnsupportedMediaType);
    });
}

#[test]
fn file_over_the_limit_is_cut_there() {
    run(async {
        assert!(form_of(&format!("{FILE}\r\n12345\r\n--x--"), 5).await.is_ok());
        let (kind, detail) = form_of(&format!("{FILE}\r\n123456\r\n--x--"), 5).await.unwrap_err();
        assert_eq!((kind, detail.contains("5 bytes")), (ProblemKind::PayloadTooLarge, true));
        // The form around the file has a limit too.
        let endless = stream::iter(std::iter::repeat(Bytes::from_static(&[b'x'; 1024])));
        assert_eq!(form(endless, 5).await.unwrap_err().0, ProblemKind::PayloadTooLarge);
    });
}

#[test]
fn body_that_pauses_or_trickles_is_refused_within_seconds() {
    run(async {
        let begun = Instant::now();
        let first = stream::iter([Bytes::from(format!("{FILE}\r\n{}", "1".repeat(1 << 20)))]);
        let (kind, detail) = form(first.chain(stream::pending()), 2 << 20).await.unwrap_err();
        assert_eq!((kind, detail.contains("10 s")), (ProblemKind::InvalidRequest, true), "{detail}");
        assert_eq!(begun.elapsed().as_secs(), 10, "what came fast earns no longer pause");

        let begun = Instant::now();
        let first = stream::iter([Bytes::from(format!("{FILE}\r\n"))]);
        let slowly = stream::unfold((), |()| async {
            sleep(Duration::from_secs(1)).await;
            Some((Bytes::from_static(&[b'1'; 8 << 10]), ()))
        });
        form(first.chain(slowly), 2 << 20).await.unwrap_err();
        assert_eq!(begun.elapsed().as_secs(), 19, "half the rate uses up 10 s in twice the time");
    });
}

#[test]
fn body_at_the_least_rate_is_read_to_its_end() {
    run(async {
        let begin = stream::iter([Bytes::from(format!("{FILE}\r\n"))]);
        let steadily = stream::unfold(0, |count| async move {
            sleep(Duration::from_secs(9)).await;
            let piece = Bytes::from(vec![b'1'; 9 * (16 << 10)]);
            if count < 50 { Some((piece, count + 1)) } else { None }
        });
        let end = stream::iter([Bytes::from_static(b"\r\n--x--")]);
        let pieces = begin.chain(steadily).chain(end);
        assert_eq!(form(pieces, 20 << 20).await.unwrap().2.len(), 50 * 9 * (16 << 10));
    });
}
