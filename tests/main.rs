//! All tests that stand outside the crate, in one binary: linking is paid once.
//!
//! `#[cfg(test)]` on each module lets clippy see that its functions are tests' functions, which may unwrap.

#[cfg(test)]
mod architecture;
