//! How often a bot may be connected to.
//!
//! The platform limits calls per bot (protocol.md 8), so the limit belongs to the bot and not to a replica: the
//! store counts. Places are not handed out in advance: a wait that is given up would keep its place from those
//! who still want to connect.

use std::time::Duration;

use tokio::time::{sleep, sleep_until};
use tracing::debug;

use crate::config::Bot;
use crate::link::{Backoff, StoreClock};
use crate::store::{Permit, Store};

/// Those who were told the same time come back spread over this span: most would be refused again.
const SPREAD: Duration = Duration::from_millis(500);

/// Comes back when the bot may be connected to. It is bounded by who waits: a connect is given up at the
/// deadline of the message that wants it.
pub(crate) async fn permit(store: &Store, clock: &StoreClock, bot: &Bot) {
    if bot.connects_per_minute == 0 {
        return;
    }
    let token = fastrand::u64(..);
    let mut backoff = Backoff::default();
    loop {
        match store.permit(&bot.name, bot.connects_per_minute, token).await {
            Ok(Permit::Granted) => return,
            Ok(Permit::At(at)) => {
                backoff = Backoff::default();
                sleep_until(clock.instant(at) + SPREAD.mul_f64(fastrand::f64())).await;
            }
            Err(error) => {
                debug!(bot = %bot.name, %error, "a connect could not be counted; trying again");
                sleep(backoff.next(fastrand::f64(), Duration::ZERO)).await;
            }
        }
    }
}
