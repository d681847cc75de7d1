//! The contract from outside: one file per resource, every request over a real connection to a bridge that runs
//! as the program runs it, in front of the simulated platform. What is asserted is what docs/api.md promises.

mod broken_links;
mod callbacks;
mod callers;
mod connects;
mod conversations;
mod deliveries;
mod events;
mod exact;
mod idempotency;
mod limits;
mod messages;
mod operations;
mod problems;
mod program;
mod replies;
mod streams;
mod turns;
mod webhooks;
