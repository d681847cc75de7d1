//! What callers were promised, kept while parts of the whole die, stop, hang, or lose each other.

mod replicas;
