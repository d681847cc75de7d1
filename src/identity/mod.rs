//! The tokens of callers: who issued them, whether they hold, and what they allow (api.md 6, ADR 42).
//!
//! A [`TokenVerifier`] judges the tokens of one caller without I/O. [`RemoteKeys`] fetches the keys of an issuer and keeps
//! them while the issuer is away. A [`ReadToken`] is our own: it lets a browser read the events of one user.

mod claims;
mod key_set;
mod key_set_fetch;
mod read_token;
mod remote_keys;
#[cfg(test)]
mod tests;
mod token_verifier;

pub use claims::TokenRights;
pub use key_set::{InvalidKeySet, KeySet};
pub use key_set_fetch::KeySetFetchError;
pub use read_token::{ReadToken, ReadTokenKey};
pub use remote_keys::RemoteKeys;
pub use token_verifier::{NamedParties, TokenRefusal, TokenVerifier, parties_of};
