//! The API server: the one way to the cluster's objects.
//!
//! A request goes `serve` → `handle` (`authn`, `authz`, `flow`) → `verbs` or `sub` → `decode` → `write` (`managed`,
//! `admission`, `alloc`) → `storage` → the store → `feed` → `cache` → lists and watches. Invariants: objects are bytes with
//! a header, never typed structs; nothing but this crate touches the store; every error on the wire is a `meta::Status`.

pub mod accept;
mod admission;
mod aggregate;
mod alloc;
pub mod audit;
mod authn;
pub mod authz;
mod backend;
mod bell;
mod beyond;
pub mod body;
mod bootstrap;
mod cache;
pub mod call;
mod compaction;
pub mod config;
mod connect;
mod convert;
mod custom;
mod decode;
mod deprecated;
mod drain;
mod event;
mod feed;
mod filter;
mod flow;
mod handle;
mod health;
mod issuer;
mod leases;
mod listing;
mod managed;
mod masters;
mod metadata;
mod metrics;
mod object;
mod options;
mod paths;
mod protobuf;
mod registry;
mod reply;
mod request;
mod reviews;
mod row;
mod serve;
mod server;
mod shared;
mod skim;
mod storage;
mod stream;
mod sub;
mod table;
#[cfg(test)]
mod tests;
pub mod trace;
mod turns;
mod unenforced;
mod user;
mod verbs;
mod view;
pub mod webhook;
mod write;
mod yaml;

pub use admission::Settings as AdmissionSettings;
pub use config::{Cidr, Config, Features, FrontProxy, KubeletClient, Limits, Tokens};
pub use server::{Error, Local, Server};
pub use user::User;
