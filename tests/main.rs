//! All tests that look from outside, in one binary: it links once.

#[cfg(test)]
mod cli;
