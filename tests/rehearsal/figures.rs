//! The experience of callers, chapter by chapter.

use std::cell::RefCell;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::Instant;

/// The figures of all chapters. An event counts for the newest chapter.
#[derive(Default)]
pub(super) struct Figures(RefCell<Vec<Chapter>>);

struct Chapter {
    name: &'static str,
    began: Instant,
    took: Option<Duration>,
    requests: usize,
    failures: Vec<String>,
    /// Milliseconds from the first byte of a message to the last of its answer, without the bot's thinking time.
    turns: Histogram<u64>,
    streams: usize,
    handed_over: u64,
}

impl Figures {
    pub(super) fn begin(&self, name: &'static str) {
        println!("== {name}");
        self.0.borrow_mut().push(Chapter {
            name,
            began: Instant::now(),
            took: None,
            requests: 0,
            failures: Vec::new(),
            turns: Histogram::new(3).unwrap(),
            streams: 0,
            handed_over: 0,
        });
    }

    /// Ends the last chapter, with the number of partitions that changed their owner.
    pub(super) fn end(&self, handed_over: u64) {
        self.with(|chapter| {
            chapter.took = Some(chapter.began.elapsed());
            chapter.handed_over = handed_over;
        });
    }

    /// Counts a request, with the fault of its answer if there is one.
    pub(super) fn request(&self, failure: Option<String>) {
        self.with(|chapter| {
            chapter.requests += 1;
            if let Some(failure) = failure {
                let at = chapter.began.elapsed().as_millis();
                println!("FAILED in {}, after {at} ms: {failure}", chapter.name);
                // So many failures mean that the rehearsal itself is wrong.
                assert!(chapter.failures.len() < 50, "too many failures");
                chapter.failures.push(format!("{} after {at} ms: {failure}", chapter.name));
            }
        });
    }

    pub(super) fn turn(&self, took: Duration) {
        let millis = u64::try_from(took.as_millis()).unwrap();
        self.with(|chapter| chapter.turns.record(millis).unwrap());
    }

    /// Counts an opened stream.
    pub(super) fn stream(&self) {
        self.with(|chapter| chapter.streams += 1);
    }

    fn with(&self, note: impl FnOnce(&mut Chapter)) {
        note(self.0.borrow_mut().last_mut().expect("a chapter has begun"));
    }

    /// Returns all failures.
    pub(super) fn failures(&self) -> Vec<String> {
        self.0.borrow().iter().flat_map(|chapter| chapter.failures.clone()).collect()
    }

    /// Returns the number of partitions that changed their owner in ended chapters.
    pub(super) fn handed_over(&self) -> u64 {
        self.0.borrow().iter().map(|chapter| chapter.handed_over).sum()
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| chapter | seconds | requests | failed | added to the bot's time: p50 ms | p99 ms | max ms | streams opened | partitions handed over |"
        )?;
        writeln!(f, "| --- | --- | --- | --- | --- | --- | --- | --- | --- |")?;
        for chapter in &*self.0.borrow() {
            let turn = |quantile| chapter.turns.value_at_quantile(quantile);
            writeln!(
                f,
                "| {} | {:.1} | {} | {} | {} | {} | {} | {} | {} |",
                chapter.name,
                chapter.took.unwrap_or_default().as_secs_f64(),
                chapter.requests,
                chapter.failures.len(),
                turn(0.5),
                turn(0.99),
                chapter.turns.max(),
                chapter.streams,
                chapter.handed_over,
            )?;
        }
        Ok(())
    }
}
