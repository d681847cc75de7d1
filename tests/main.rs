//! The one integration binary: a second one would link everything a second time.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails; clippy.toml frees only the functions marked as tests"
)]

mod contract;
