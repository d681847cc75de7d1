//! The started platform, spoken to from outside.

use std::time::Duration;

use actix_http::ws::Item;
use awc::ws::{CloseCode, CloseReason, Codec, Frame, Message};
use awc::{BoxedSocket, Client};
use futures_util::{SinkExt, StreamExt};
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::*;

/// A client that knows only what the documents say.
struct Caller {
    http: Client,
    url: String,
    user: String,
}

type Link = actix_codec::Framed<BoxedSocket, Codec>;
