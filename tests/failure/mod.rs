//! The promises to callers during faults: parts die, pause, hang, are emptied, or lose each other. The tests run real
//! processes and look from outside.

mod config_reload;
mod fleet_rate;
mod flooding_bot;
mod keep_open;
mod replicas;
mod store_failover;
mod store_full;
mod store_hung;
mod store_load;
mod store_lost;
mod store_start;
