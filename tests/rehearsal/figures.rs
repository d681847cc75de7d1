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
    /// The connections that broke with a killed pod, or `None` in a chapter without one.
    broken: Option<usize>,
    /// The requests on kept connections that were being closed.
    late: usize,
    /// Milliseconds from the first byte of a message to the last of its answer, without the bot's thinking time.
    turns: Histogram<u64>,
    streams: usize,
    handed_over: u64,
}

impl Figures {
    pub(super) fn begin(&self, name: &'static str) {
        self.begin_chapter(name, None);
    }

    /// Begins a chapter in which a pod is killed, with the connections to it.
    pub(super) fn begin_kill(&self, name: &'static str) {
        self.begin_chapter(name, Some(0));
    }

    fn begin_chapter(&self, name: &'static str, broken: Option<usize>) {
        println!("== {name}");
        self.0.borrow_mut().push(Chapter {
            name,
            began: Instant::now(),
            took: None,
            requests: 0,
            failures: Vec::new(),
            broken,
            late: 0,
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

    /// Counts a broken connection. Returns `false` in a chapter in which none may break.
    pub(super) fn broke(&self) -> bool {
        let mut allowed = false;
        self.with(|chapter| {
            if let Some(broken) = &mut chapter.broken {
                *broken += 1;
                allowed = true;
            }
        });
        allowed
    }

    /// Counts a request on a kept connection that the peer was closing.
    pub(super) fn late(&self) {
        self.with(|chapter| chapter.late += 1);
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
            "| chapter | seconds | requests | failed | met a close | broken with the pod | added to the bot's time: p50 ms | p99 ms | max ms | streams opened | partitions handed over |"
        )?;
        writeln!(f, "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")?;
        for chapter in &*self.0.borrow() {
            let turn = |quantile| chapter.turns.value_at_quantile(quantile);
            writeln!(
                f,
                "| {} | {:.1} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                chapter.name,
                chapter.took.unwrap_or_default().as_secs_f64(),
                chapter.requests,
                chapter.failures.len(),
                chapter.late,
                chapter.broken.unwrap_or_default(),
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
