//! The contract from outside: one file per resource, and real connections to a bridge in front of the simulated
//! platform. The bridge runs as the program runs it. The assertions are the promises of docs/api.md.

mod attachments;
mod broken_links;
mod callbacks;
mod callers;
mod connect_events;
mod connections;
mod connects;
mod conversation_list;
mod conversations;
mod deliveries;
mod erasure;
mod events;
mod exact;
mod idempotency;
mod kore_webhook;
mod kore_webhook_clients;
mod limits;
mod messages;
mod odd_frames;
mod operations;
mod problems;
mod program;
mod proxy;
mod replies;
mod rhythm;
mod shares;
mod signals;
mod strangers;
mod streams;
mod tls;
mod tokens;
mod turns;
mod webhook_endpoints;
mod webhooks;
