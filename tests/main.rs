//! All tests that stand outside the crate, in one binary: linking is paid once.
//!
//! `#[cfg(test)]` on each module lets clippy see that its functions are tests' functions, which may unwrap.

#[cfg(test)]
mod api;
#[cfg(test)]
mod architecture;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod contract;
#[cfg(test)]
mod doctor;
#[cfg(test)]
mod failure;
#[cfg(test)]
mod fleet;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod hub;
#[cfg(test)]
mod proxies;
#[cfg(test)]
mod receivers;
#[cfg(test)]
mod rehearsal;
#[cfg(test)]
mod rhythm_evaluation;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod store;
#[cfg(test)]
mod support;
