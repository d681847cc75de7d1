//! What becomes of turns when parts of the whole are away, hung, empty or dead (real processes, from the outside).

mod store_failover;
mod store_full;
mod store_hung;
mod store_load;
mod store_lost;
mod store_start;
