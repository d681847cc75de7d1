//! What callers were promised, kept while parts of the whole die, stop, hang, are emptied, or lose each other: real
//! processes, seen from the outside.

mod kept;
mod replicas;
mod store_failover;
mod store_full;
mod store_hung;
mod store_load;
mod store_lost;
mod store_start;
