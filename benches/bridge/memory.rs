//! Resident memory of idle conversations: each had one turn and holds its socket.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::child::Child;
use crate::failure::Failure;
use crate::report::Step;
use crate::setup::{self, Sizes};
use crate::{load, turns};

/// Memory is still when it moved by less than a part in this many between two looks.
const STILL: u64 = 500;
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);
/// After that it is taken as it is.
const PATIENCE: Duration = Duration::from_secs(20);

/// Opens more and more conversations, and looks after each step.
pub(crate) async fn measure(binary: &Path, sizes: Sizes) -> Result<Vec<Step>, Failure> {
    let sandbox = setup::sandbox(binary).await?;
    let bridge = setup::bridge(binary, sandbox.address).await?;
    let most = sizes.idle.iter().copied().max().unwrap_or_default();
    let mut callers = turns::Http::connect(bridge.address, sizes.callers, most).await?;
    let mut steps = vec![Step { conversations: 0, resident: settled(&bridge).await? }];
    let mut open = 0;
    for conversations in sizes.idle {
        eprintln!("opening conversations up to {conversations}");
        load::each(&mut callers, open..conversations).await?;
        open = conversations;
        steps.push(Step { conversations, resident: settled(&bridge).await? });
    }
    Ok(steps)
}

/// Resident KiB, once they have stopped moving: buffers are given back a little after the last turn.
async fn settled(bridge: &Child) -> Result<u64, Failure> {
    let began = Instant::now();
    let mut last = bridge.resident()?;
    let mut still = 0;
    while still < 3 && began.elapsed() < PATIENCE {
        tokio::time::sleep(BETWEEN_LOOKS).await;
        let now = bridge.resident()?;
        still = if now.abs_diff(last) * STILL <= last { still + 1 } else { 0 };
        last = now;
    }
    Ok(last)
}
