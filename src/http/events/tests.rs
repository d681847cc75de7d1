//! Tests of streams that need a clock or a hub of their own. All others are in `tests/api`.

use std::sync::Arc;
use std::time::Duration;

use actix_web::body::MessageBody as _;
use futures_util::future::poll_fn;
use tokio::time::Instant;

use super::*;
use crate::config::Config;
use crate::hub::Hub;
use crate::metrics::{LabelSets, Metrics};
use crate::store::{Clock, MemoryLimits, Store};

/// Creates a context with a running hub on the memory store.
async fn context(keep_alive: Duration) -> (Data<ApiContext>, crate::hub::HubThreads) {
    let mut config = Config::dev("http://127.0.0.1:9".parse().unwrap());
    config.server.threads = 1;
    let words = LabelSets { frames_in: &[], frames_out: &[], routes: crate::http::ROUTES };
    let metrics = Arc::new(Metrics::new(words).unwrap());
    let store = Store::memory(MemoryLimits::new(1 << 20, Duration::from_mins(1)));
    let shards = Hub::start(&config, store, &metrics, crate::store::outbox_events().0).await.unwrap();
    let mut context = ApiContext::new(shards.hub().clone(), Arc::new(config), metrics, Clock::wall());
    context.keep_alive = keep_alive;
    (Data::new(context), shards)
}

#[test]
fn silent_stream_sends_comments_and_ends_at_the_drain() {
    actix_web::rt::System::new().block_on(async {
        let (context, shards) = context(Duration::from_millis(20)).await;
        let name = crate::domain::BotName::new("sandbox").unwrap();
        let conversation = ConversationId::new(name, crate::domain::UserId::new("alice").unwrap());
        let request = actix_web::test::TestRequest::get().to_http_request();
        let caller = CallerIdentity::Anonymous;
        let stream =
            open_stream(&context, &caller, &request, conversation, ReadStart::Latest, EventFilter::default())
                .await
                .unwrap();
        let mut body = stream.into_body();
        let mut pieces = Vec::new();
        while pieces.len() < 5 {
            let piece = poll_fn(|cx| body.as_pin_mut().poll_next(cx)).await.unwrap().unwrap();
            pieces.push(String::from_utf8(piece.to_vec()).unwrap());
        }
        assert!(pieces[0].starts_with("retry: "), "{pieces:?}");
        assert_eq!(pieces[1], format!("id: {}\n\n", Cursor::default()));
        assert_eq!(pieces[2..], [":\n\n"; 3]);
        assert_eq!(context.metrics.event_streams.open.get(), 1);

        shards.refuse();
        shards.stop(Instant::now() + Duration::from_secs(5)).await;
        while let Some(piece) = poll_fn(|cx| body.as_pin_mut().poll_next(cx)).await {
            assert_eq!(piece.unwrap(), ":\n\n");
        }
        drop(body);
        assert_eq!(context.metrics.event_streams.open.get(), 0);
        let text = context.metrics.text().unwrap();
        assert!(text.contains("rtm_bridge_event_streams_ended_total{reason=\"drained\"} 1"), "{text}");
    });
}

#[test]
fn limit_must_be_a_whole_number_in_range() {
    for (text, limit) in [("1", 1), ("1000", 1000), ("007", 7)] {
        assert_eq!(parse_limit(text), Ok(limit));
    }
    for bad in ["", "0", "1001", "+5", "-1", "1.0", " 1", "99999999999999999999", "ten"] {
        assert!(parse_limit(bad).is_err(), "{bad}");
    }
}
