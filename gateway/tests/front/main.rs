//! The HTTP side, against a service on loopback: each rule of it, told by a client that says exactly what it is told to.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod backend;
mod drain;
mod edge;
mod grpc;
mod kit;
mod pages;
mod raw;
mod rest;
mod streams;
