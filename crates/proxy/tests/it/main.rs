//! Calls to real backends on free ports: what works, and everything that can break.

mod breaking;
mod grpc;
mod opening;
mod scripted;
mod sharing;
mod tls;
mod working;
