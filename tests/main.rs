//! All tests that look from outside, in one binary: it links once.

mod cli;
